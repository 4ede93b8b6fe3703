"""Which channels can go without training, and how do the others take over?"""
