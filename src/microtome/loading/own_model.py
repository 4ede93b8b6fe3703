"""A user's model from its name: ``path/to/file.py:factory`` or ``package.module:factory`` is imported and called."""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from microtome.errors import InputError, ModelError, nearest
from microtome.loading.own_functions import own_module, raised

__all__ = ["build", "fixed_random_state"]

_LIBRARIES = ("zoo", "timm", "torchvision", "hf")  # names before the colon that are not modules


def build(name: str) -> nn.Module:
    """Make the model that a name stands for.

    A factory without arguments is called, a module is taken as it is. Random weights are drawn from a
    fixed state, so that the same name gives the same network; the caller's random state is put back.

    Parameters
    ----------
    name : str
        ``path/to/file.py:factory``, or ``package.module:factory`` found on the current folder and ``PYTHONPATH``.

    Raises
    ------
    InputError
        The name has not this form.
    ModelError
        The file, the module or the factory does not exist, raises, or gives no ``torch.nn.Module``.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise InputError(
            f'a model is named "path/to/file.py:factory", "package.module:factory" or "zoo:name", got "{name}".'
        )
    with fixed_random_state():
        module = own_module(place, name, error=ModelError, others=_LIBRARIES)
    with fixed_random_state():  # again: a module draws only when it is imported for the first time
        found = _attribute(module, attribute, place)
        model = found if isinstance(found, nn.Module) else _called(found, name)
    if not isinstance(model, nn.Module):
        raise ModelError(f'"{name}" gives an object of type {type(model).__name__}; a torch.nn.Module is expected.')
    return model


def _attribute(module: ModuleType, attribute: str, place: str) -> Any:
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = _own_factories(module)
            offered = (
                f"Nearest: {nearest(attribute, known)}."
                if known
                else "It defines no torch.nn.Module and no function without arguments. "
                "Write one: def build(): return ..."
            )
            raise ModelError(f'"{place}" has no "{attribute}". {offered}')
        found = getattr(found, part)
    return found


def _own_factories(module: ModuleType) -> list[str]:
    """Names in a module that give a model: its functions and classes without required arguments, and its models.

    Imported names and functions with required arguments are left out.
    """
    found = []
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        is_module = isinstance(value, type) and issubclass(value, nn.Module)
        if name.startswith("_") or not (
            isinstance(value, nn.Module) or (own and (is_module or inspect.isfunction(value)))
        ):
            continue
        if isinstance(value, nn.Module) or not _needs_arguments(value):
            found.append(name)
    return found


def _needs_arguments(function: Any) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(each.default is inspect.Parameter.empty and each.kind not in variadic for each in parameters)


def _called(factory: Any, name: str) -> Any:
    if not callable(factory):
        raise ModelError(f'"{name}" is a {type(factory).__name__}; a function without arguments is expected.')
    try:
        return factory()
    except (Exception, SystemExit) as error:
        raise ModelError(f'the factory "{name}" raises: {raised(error)}.') from error


@contextlib.contextmanager
def fixed_random_state() -> Iterator[None]:
    """Seed what factories draw from, and put the caller's state back."""
    state, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002 - a stranger's factory may draw from it
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(legacy)  # noqa: NPY002
