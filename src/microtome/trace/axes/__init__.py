"""Axes of values: which belong to the images, which to the units; measured when a network is read."""
