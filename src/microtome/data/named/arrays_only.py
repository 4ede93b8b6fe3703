"""A reader of pickles that hold NumPy arrays, which runs none of their code."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

from microtome.errors import InputError

__all__ = ["loads"]

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """Refuses every name but the four that make up an array."""

    def find_class(self, module: str, name: str, /) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise InputError(f"the file asks for {module}.{name}; only NumPy arrays are read from it.") from None


def loads(data: bytes) -> Any:
    """Read a pickle made of NumPy arrays, tuples, lists, numbers and text.

    Raises
    ------
    InputError
        The pickle names anything else, or is broken.

    Examples
    --------
    >>> import numpy as np, pickle
    >>> loads(pickle.dumps((np.arange(3), "three"), protocol=4))
    (array([0, 1, 2]), 'three')
    >>> loads(pickle.dumps(print))
    Traceback (most recent call last):
    microtome.errors.InputError: the file asks for builtins.print; only NumPy arrays are read from it.
    """
    try:
        return _ArraysOnly(io.BytesIO(data), encoding="latin1").load()
    except InputError:
        raise
    except Exception as error:  # what a broken pickle raises is not bounded
        raise InputError(f"the file is not a pickle of arrays: {error}.") from error
