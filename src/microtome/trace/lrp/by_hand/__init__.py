"""Layers and nonlinearities in several operations: relevance goes through them as through named ones."""
