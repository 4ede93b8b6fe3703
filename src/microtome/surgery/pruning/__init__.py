"""Which channels does pruning remove, round by round, with training after each?"""
