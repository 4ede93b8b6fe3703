"""Compares answers of the library with plain PyTorch, on every family of timm, torchvision and transformers.

The references in this package share no code with ``src/``: they use hooks, autograd's own nodes, finite differences and
plain passes.
"""
