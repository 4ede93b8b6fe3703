"""Labels of class folders, under the name by which callers of the atlas know them."""

from microtome.loading import labelled

__all__ = ["labelled"]
