"""Layers as linear operators on whole feature maps: forward and adjoint products, never a matrix."""
