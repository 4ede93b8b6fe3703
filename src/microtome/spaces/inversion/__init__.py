"""Inverses of networks: layer by layer, and inputs that give an ideal output."""
