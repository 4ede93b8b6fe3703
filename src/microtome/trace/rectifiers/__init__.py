"""Rectifiers in any spelling: recognised by the function that they compute."""
