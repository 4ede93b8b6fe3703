"""Which units does a network not need?"""
