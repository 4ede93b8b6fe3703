"""Labels of class folders, importable from the atlas."""

from microtome.loading import labelled

__all__ = ["labelled"]
