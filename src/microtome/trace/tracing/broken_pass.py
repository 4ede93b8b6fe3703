"""Attributes an error of a pass to the model or to microtome; the new error names the layer and the images."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from types import CodeType
from typing import Any

from torch import Tensor

from microtome.errors import MicrotomeError, ModelError, OpaqueError
from microtome.trace.origins import OURS, TORCH, is_within

# Functions that call the model and its operations: an error raised there is the model's.
_CALLING: set[CodeType] = set()


def calls_the_model(*functions: Callable[..., Any]) -> None:
    """Mark functions of this package that call the model, so that they pass on its errors."""
    _CALLING.update(function.__code__ for function in functions)


def is_ours(error: BaseException) -> bool:
    """Whether an error was raised by code of this package, not by the model."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    code = next((frame.f_code for frame in reversed(frames) if not is_within(frame.f_code, TORCH)), None)
    return code is not None and code not in _CALLING and is_within(code, OURS)


def place(error: BaseException, names: Mapping[int, str]) -> str:
    """The module in which an error was raised, from its traceback; empty for the model itself.

    Parameters
    ----------
    error : Exception
        The original error.
    names : mapping of int to str
        The modules' names by identity.
    """
    frames = traceback.walk_tb(error.__traceback__)
    found = (names.get(id(frame.f_locals.get("self"))) for frame, _ in frames)
    return next((name for name in reversed(list(found)) if name), "")


def blamed(
    error: Exception,
    images: Tensor,
    *,
    where: str,
    runs_plainly: Callable[[], bool],
    watched: bool,
    looking: str,
) -> MicrotomeError:
    """The error to raise for an error in a pass, attributed to the model or to microtome.

    Parameters
    ----------
    error : Exception
        The original error.
    images : Tensor
        The images of the pass.
    where : str
        The layer that ran.
    runs_plainly : function
        Whether the model runs on the images without the tracer.
    watched : bool
        Whether rules or replacements took part in the pass.
    looking : str
        The purpose of the pass, in words.
    """
    inside = f' in layer "{where}"' if where else ""
    raised = f"{type(error).__name__}{inside} on images of shape {tuple(images.shape)}: {error}"
    if not is_ours(error):
        if not runs_plainly():
            return ModelError(f"the model raised {raised}")
        if not watched:
            return ModelError(f"the model runs forwards but cannot be differentiated: it raised {raised}")
    return OpaqueError(
        f"{looking} failed with {raised}. The fault is in microtome, not in the model. Please report it "
        "with the model; methods without this step still work."
    )
