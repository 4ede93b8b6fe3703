"""Which image gives a given output of a network?"""
