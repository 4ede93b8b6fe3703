"""The library held against plain PyTorch on networks that nobody chose: every family of timm, torchvision, transformers.

The references in this package share no code with ``src/``: they use hooks, autograd's own nodes, finite differences and
plain passes.
"""
