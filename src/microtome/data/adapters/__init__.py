"""Data sets of other libraries and of one's own, read as images with labels."""
