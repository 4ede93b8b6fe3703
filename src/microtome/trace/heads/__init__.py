"""Heads of networks: which output holds the class scores, and what its numbers mean."""
