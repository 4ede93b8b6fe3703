"""Which channels go in rounds, with training after each?"""
