"""Relevance of layers and nonlinearities that a model writes by hand, in several operations."""
