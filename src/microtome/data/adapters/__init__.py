"""Data sets of other libraries and of the user, read as images with labels."""
