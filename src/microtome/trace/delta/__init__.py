"""Sparse propagation of local changes: only values that a changed window can reach are recomputed."""
