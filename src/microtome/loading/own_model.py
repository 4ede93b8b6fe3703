"""A user's model from its name: ``package.module:factory`` is imported and called."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import random
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from microtome.errors import InputError, ModelError, nearest
from microtome.loading.own_functions import search_here

__all__ = ["build", "fixed_random_state"]

_LIBRARIES = ("zoo", "timm", "torchvision", "hf")  # names before the colon that are not modules


def build(name: str) -> nn.Module:
    """Make the model that a name stands for.

    A factory without arguments is called, a module is taken as it is. Random weights are drawn from a
    fixed state, so that the same name gives the same network; the caller's random state is put back.

    Parameters
    ----------
    name : str
        ``package.module:factory``, found on the current folder and ``PYTHONPATH``.

    Raises
    ------
    InputError
        The name has not this form.
    ModelError
        The module or the factory does not exist, raises, or gives no ``torch.nn.Module``.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise InputError(f'a model is named "package.module:factory" or "zoo:name", got "{name}".')
    if module_name.endswith(".py") or "/" in module_name or os.sep in module_name:
        written = Path(module_name).with_suffix("")
        raise InputError(
            f'a model is named by its module, not by its file; got "{name}". Write "{written.name}:{attribute}" from '
            f"inside the folder {written.parent}, or with that folder on PYTHONPATH."
        )
    with fixed_random_state():
        found = _attribute(_imported(module_name, name), attribute, name)
        model = found if isinstance(found, nn.Module) else _called(found, name)
    if not isinstance(model, nn.Module):
        raise ModelError(f'"{name}" gives an object of type {type(model).__name__}; a torch.nn.Module is expected.')
    return model


def _imported(module_name: str, name: str) -> ModuleType:
    search_here()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise ModelError(
                f'there is no Python module "{missing}" for --model {name} in the current folder or on PYTHONPATH.'
                + _beside(missing)
            ) from error
        raise ModelError(f'the module "{module_name}" needs "{missing}", which is not installed.') from error
    except Exception as error:
        raise ModelError(f'the module "{module_name}" raises on import: {_where(error)}.') from error


def _beside(missing: str) -> str:
    """The modules of the current folder that are named nearly so."""
    known = [*_LIBRARIES, *(file.stem for file in Path().glob("*.py"))]
    known += [file.parent.name for file in Path().glob("*/__init__.py")]
    return f" Nearest: {nearest(missing, known)}."


def _attribute(module: ModuleType, attribute: str, name: str) -> Any:
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = _own_factories(module)
            offered = (
                f"Nearest: {nearest(attribute, known)}."
                if known
                else f"{module.__name__} itself defines no torch.nn.Module and no function without arguments. "
                "Write one: def build(): return ..."
            )
            raise ModelError(f'"{module.__name__}" has no "{attribute}" for --model {name}. {offered}')
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
    except Exception as error:
        raise ModelError(f'the factory "{name}" raises: {_where(error)}.') from error


def _where(error: Exception) -> str:
    """What was raised and in which line of the user's code."""
    frames = traceback.extract_tb(error.__traceback__)
    here = __file__
    last = next(
        (frame for frame in reversed(frames) if frame.filename != here and "importlib" not in frame.filename), None
    )
    place = f" (line {last.lineno} of {Path(last.filename).name})" if last else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}{place}"


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
