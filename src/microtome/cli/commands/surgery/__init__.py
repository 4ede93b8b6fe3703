"""Which smaller or converted network does the same?"""
