"""What do all methods need to know about the user's model? Names of layers, pixel range, classes and head."""

from microtome.network.network import Network

__all__ = ["Network"]
