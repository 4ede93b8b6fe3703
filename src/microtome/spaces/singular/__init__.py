"""Singular values and vectors of operators, rank and condition number."""
