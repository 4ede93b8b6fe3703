"""Checks the arguments of a call against the types that a method states: numbers, names, lists, networks, results."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from microtome.errors import InputError
from microtome.trace.tracing.caller_modes import own_modes

__all__ = ["OptionTypes", "checks_types"]

F = TypeVar("F", bound=Callable[..., Any])

_LIST = re.compile(r"(?:Collection|Sequence|Iterable|list|tuple)\[(.+?)(?:, \.\.\.)?\]")


class OptionTypes:
    """The arguments of one function with known types, and the values that each of them accepts.

    The function itself checks arguments of other types, such as data sets and functions. A batch, a sample and a seed
    are also checked for their range.

    Parameters
    ----------
    signature
        Signature of a function whose annotations are text (``from __future__ import annotations``).

    Examples
    --------
    >>> def blur(image, *, radius: float = 1.0, steps: int | None = None, layers: Sequence[str] = ()): ...
    >>> blur.__annotations__ |= {"radius": "float", "steps": "int | None", "layers": "Sequence[str]"}
    >>> known = OptionTypes(inspect.signature(blur))
    >>> known.check({"radius": 2, "steps": None, "layers": ["conv1"]})
    >>> known.check({"steps": 2.5})
    Traceback (most recent call last):
    microtome.errors.InputError: steps: expected a whole number or None, got 2.5.
    """

    def __init__(self, signature: inspect.Signature) -> None:
        self._signature = signature
        parameters = signature.parameters.values()
        kinds = {each.name: _kinds(str(each.annotation)) for each in parameters if each.kind is not each.VAR_KEYWORD}
        self._kinds = {name: found for name, found in kinds.items() if found}
        self._order = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]

    def check(self, given: Mapping[str, Any]) -> None:
        """Raise an error for the first option of a wrong type.

        Raises
        ------
        InputError
            With the option, the expected values and the given one; NaN is not a number.
        """
        for name, value in given.items():
            kinds = self._kinds.get(name)
            if kinds and not any(_passes(kind, value) for kind in kinds):
                expected = " or ".join(_WORDS.get(kind) or _CLASSES[kind] for kind in kinds)
                raise InputError(f"{name}: expected {expected}, got {_shown(value)}.{self._swap(name, given)}")
            if kinds and name in _RANGES and value is not None and not _RANGES[name][0] <= value <= _RANGES[name][1]:
                low, high = _RANGES[name]
                raise InputError(f"{name}: expected a whole number from {low}{_up_to(high)}, got {value}.")

    def bound(self, args: tuple[Any, ...], options: dict[str, Any]) -> inspect.BoundArguments | None:
        """The arguments of a call by name, checked; None if one is missing or unknown: Python's own message is better.

        Raises
        ------
        InputError
            When an argument has a wrong type.
        """
        try:
            call = self._signature.bind(*args, **options)
        except TypeError:
            return None
        self.check(call.arguments)
        return call

    def _swap(self, name: str, given: Mapping[str, Any]) -> str:
        """A question, where the value of another argument fits here and this one fits there."""
        positional = [other for other in given if other in self._order and name in self._order]
        for other in positional:
            there = self._kinds.get(other)  # without known types it takes anything
            fits = given[other] is not None and any(_passes(kind, given[other]) for kind in self._kinds[name])
            if fits and (there is None or any(_passes(kind, given[name]) for kind in there)):
                return f' Are "{other}" and "{name}" swapped? The order is {", ".join(self._order)}.'
        return ""


def checks_types(function: F) -> F:
    """Let a function check its arguments' types, and compute in the library's own modes, as registered methods do.

    Examples
    --------
    >>> def double(count): return 2 * count
    >>> double.__annotations__ |= {"count": "int"}
    >>> checks_types(double)("two")
    Traceback (most recent call last):
    microtome.errors.InputError: count: expected a whole number, got 'two'.
    """
    types = OptionTypes(inspect.signature(function))
    computed = own_modes()(function)

    @functools.wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        types.bound(args, options)
        return computed(*args, **options)

    return checked  # type: ignore[return-value]  # the same signature, by functools.wraps


def _kinds(annotation: str) -> tuple[str, ...]:
    """The types that an annotation accepts; empty if one of its parts is unknown."""
    depth, parts = 0, [""]
    for letter in annotation:
        depth += (letter == "[") - (letter == "]")
        if letter == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    found = [_kind(part.strip()) for part in parts]
    return tuple(dict.fromkeys(found)) if all(found) else ()


def _kind(part: str) -> str:
    if part in (*_CHECKS, *_CLASSES):
        return part
    if part == "Mapping[str, int]":
        return "counts"
    if part.startswith("Mapping["):
        return "dict"
    if part in _NAMES:
        return _NAMES[part]
    inner = _LIST.fullmatch(part)
    inside = frozenset(each.strip() for each in re.split(r"[|,]", inner[1])) if inner else frozenset()
    return _LISTS.get(inside, "")


def _passes(kind: str, value: Any) -> bool:
    if kind in _CLASSES:
        return any(each.__name__ == kind for each in type(value).__mro__)
    return _CHECKS[kind](value)


def _whole(value: Any) -> bool:
    if isinstance(value, bool | np.bool_ | str | bytes):
        return False
    try:
        operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        return False
    return True


def _number(value: Any) -> bool:
    if isinstance(value, bool | np.bool_ | str | bytes):
        return False
    try:
        return not math.isnan(float(value))
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return False


def _every(value: Any, check: Callable[[Any], bool]) -> bool:
    """Whether all items of a list pass; iterables that can be read only once are left to the function."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        return False
    readable = isinstance(value, list | tuple | range | np.ndarray | Tensor | set | frozenset)
    return not readable or all(check(each) for each in value)


def _like_data_set(value: Any) -> bool:
    """Whether a value may be meant as a data set; paths, dicts and streams are left to the adapter, which says more."""
    module = any(each.__name__ in ("Module", "Network") for each in type(value).__mro__)
    return not module and (hasattr(value, "__getitem__") or hasattr(value, "__iter__") or _path(value))


def _path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _like_tensor(value: Any) -> bool:
    return isinstance(value, Tensor | list | tuple) or hasattr(value, "__array__")


_LISTS = {
    frozenset({"int"}): "ints",
    frozenset({"str"}): "strs",
    frozenset({"int", "str"}): "classes",
    frozenset({"int", "Sequence[int]"}): "groups",
    frozenset({"Direction"}): "directions",
    frozenset({"float"}): "floats",
}
# Other spellings of a kind in annotations.
_NAMES = {
    "Path": "path",
    "os.PathLike[str]": "path",
    "Dataset": "data set",
    "Direction": "direction",
    "Listener": "function",
    "Loss": "function",
    "nn.Module": "Module",
    "tuple[int, int]": "pair",
    "tuple[int, int, int]": "shape",
}
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "int": _whole,
    "float": _number,
    "bool": lambda value: isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)),
    "str": lambda value: isinstance(value, str),
    "None": lambda value: value is None,
    "Tensor": _like_tensor,
    "dict": lambda value: isinstance(value, Mapping),
    "path": _path,
    "function": callable,
    "data set": _like_data_set,
    "direction": lambda value: isinstance(value, Mapping),
    "directions": lambda value: _every(value, lambda each: isinstance(each, Mapping)),
    "pair": lambda value: _every(value, _whole) and (not isinstance(value, list | tuple) or len(value) == 2),
    "shape": lambda value: _every(value, lambda each: _whole(each) and each > 0) and len(value) == 3,
    "counts": lambda value: (
        isinstance(value, Mapping) and all(isinstance(name, str) and _whole(count) for name, count in value.items())
    ),
    "floats": lambda value: _every(value, _number),
    "ints": lambda value: _every(value, _whole),
    "strs": lambda value: isinstance(value, Mapping) or _every(value, lambda each: isinstance(each, str)),
    "classes": lambda value: _every(value, lambda each: isinstance(each, str) or _whole(each)),
    "groups": lambda value: _every(value, lambda each: _whole(each) or _every(each, _whole)),
}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
    "str": "a name",
    "None": "None",
    "Tensor": "a tensor",
    "dict": "a dict",
    "path": "a path",
    "function": "a function",
    "data set": "a data set of images, such as data.folder(path, input_shape) or a list of pairs (image, label)",
    "direction": "a direction: a dict of tensors by the names of the weights",
    "directions": "a list of directions, each a dict of tensors by the names of the weights",
    "pair": "two whole numbers",
    "shape": "channels, height and width, three positive whole numbers",
    "counts": "a dict of whole numbers by name",
    "floats": "a list of numbers",
    "ints": "a list of whole numbers",
    "strs": "a list of names",
    "classes": "a list of classes",
    "groups": "a list of whole numbers or of lists of them",
}
_CLASSES = {  # by name, because the registry is imported before the methods
    "Module": "a torch.nn.Module",
    "Recipe": "a training.Recipe",
    "Patterns": "patterns with labels, as training.information.twelve_bits()",
    "Images": "a data.Images, as data.mnist() or data.folder(path, input_shape).load()",
    "Network": "a Network, made of a model by microtome.Network(model, input_shape)",
    "LayerPatches": "the patches of one layer, as units.top_patches(net, dataset, layer)[layer]",
    "Features": "the features of a layer, as representation.features(net, dataset, layer)",
    "Superstimuli": "superstimuli, as synthesis.maximize(net, layer)",
    "Prior": "a synthesis.Prior",
    "Attribution": "an attribution map of a method, as attribution.saliency(net, images)",
    "Run": "a training, as training.Run.read(folder)",
    "NetworkRuns": "trained networks, as training.information.train_networks(task)",
}
_RANGES: dict[str, tuple[int, float]] = {
    "batch": (1, math.inf),
    "sample": (1, math.inf),
    "seed": (0, 2**32 - 1),  # the range of every generator
}


def _up_to(high: float) -> str:
    return " on" if high == math.inf else f" to {high:,}"


def _shown(value: Any) -> str:
    plain = value is None or isinstance(value, int | float | str | list | tuple | dict)
    text = " ".join(repr(value).split()) if plain else f"an object of type {type(value).__name__}"
    return text if len(text) < 80 else f"{text[:76]} ..."
