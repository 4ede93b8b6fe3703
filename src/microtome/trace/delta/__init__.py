"""Sparse propagation of local changes: only what a changed window can reach is computed again."""
