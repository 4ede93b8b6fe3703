"""The errors of Microtome: each message says what was expected, what came and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class MicrotomeError(Exception):
    """Base of all errors a user can cause or mend; the command line shows the message and exits with 2."""


class InputError(MicrotomeError, ValueError):
    """Images, options, files or targets do not fit what was asked."""


class ClassNameError(InputError):
    """The name of a class, or of a folder of its pictures, is none of the network's classes, or ambiguous."""


class LayerError(MicrotomeError, LookupError):
    """A layer does not exist, or is not of the kind the method needs."""


class ModelError(MicrotomeError):
    """The user's model cannot be built, loaded or run."""


class OpaqueError(MicrotomeError):
    """The engine cannot see, or has no rule for, an operation that the method must pass through."""


class StoreError(MicrotomeError):
    """A folder or file of results cannot be read or written."""


class EngineError(MicrotomeError):
    """The processes or the cluster that run the tasks are lost."""


class OverwrittenError(ModelError):
    """The model has written on its own weights or buffers, so that a gradient of the pass would be wrong."""

    def __init__(self, *, again: bool) -> None:
        self.again = again
        super().__init__(
            "the model wrote on its own weights or buffers for the first time. They are restored, but a gradient of "
            "this pass would read other numbers than were used. Call it again: the next pass works on copies."
            if again
            else "the model wrote on its own weights or buffers by a reference that its modules do not hold, such as a "
            "variable of a function. They are restored, but a gradient would read other numbers than were used. Hold "
            "the tensor as an attribute of the module, or use a method without gradients, such as occlusion."
        )


class ModelWarning(UserWarning):
    """The user's model does something that makes results less certain than they look."""


class DataWarning(UserWarning):
    """The user's data set is read in a way that may not be meant."""


class StoreWarning(UserWarning):
    """A stored file is damaged, and is computed again."""


# torch raises a plain RuntimeError on a CPU; the error of a GPU is a subclass.
_OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory has run out, on a processor or on another device.

    Examples
    --------
    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"))
    (True, True)
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None
    )


def nearest(name: str, candidates: Iterable[str], n: int = 3) -> str:
    """Name the ``n`` candidates closest to ``name``, as text for an error message.

    Examples
    --------
    >>> nearest("conv4", ["conv1", "conv2", "fc4"], n=2)
    'conv2, conv1'
    """
    lower = {str(candidate).lower(): str(candidate) for candidate in candidates}
    found = difflib.get_close_matches(name.lower(), lower, n=n, cutoff=0.0)
    return ", ".join(lower[key] for key in found)
