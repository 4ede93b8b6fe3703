"""Vectors and images split into the part that a layer passes on and the part that it loses."""
