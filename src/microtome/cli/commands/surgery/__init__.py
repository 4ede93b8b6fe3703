"""Which smaller or converted network computes the same?"""
