"""Which part of a vector or image does a layer pass on, and which does it lose?"""
