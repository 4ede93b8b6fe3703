"""Singular values and vectors of operators, with a residual for each."""
