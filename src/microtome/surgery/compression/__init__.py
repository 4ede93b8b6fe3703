"""Which channels can be removed without training, and how do the others compensate?"""
