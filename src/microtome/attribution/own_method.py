"""The user's own methods: a plain function (network, images, target) -> map, run like a registered method."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from microtome import registry
from microtome.attribution.batching import Scored, scored
from microtome.attribution.result import Attribution, wide
from microtome.errors import InputError
from microtome.inputs import Target
from microtome.network import Network
from microtome.results import described, provenance

# (network, images (N, C, H, W), target (N,), options by keyword) -> maps (N, H, W) or (N, C, H, W), or an Attribution.
Function = Callable[..., "Tensor | Attribution"]
# A registered name, or the user's own function.
MethodLike = str | Function
# One method, several, or a mapping: from methods to their options, or from names to functions.
MethodsLike = MethodLike | Iterable[MethodLike] | Mapping[Any, "Mapping[str, Any] | Function | None"]


def resolve(method: MethodLike) -> registry.Method:
    """The method of a registered name, or one made from a plain function.

    The function is called as ``function(net, images, target, **options)``: ``images`` (N, C, H, W) are checked and
    ``target`` (N,) holds the class of each. It returns maps (N, H, W), values (N, C, H, W) with the images' channels
    or one, or an ``Attribution``. Its result is an ``Attribution`` whose provenance names the function.

    Raises
    ------
    InputError
        When no method has the name, or the object is neither a name nor a function. The method raises it when the
        function does not take these arguments or returns something else.

    Notes
    -----
    Cost: one forward pass besides the function, for scores and classes. A function that uses a model of its own instead
    of ``net.model`` is not affected by ``randomisation``.

    Examples
    --------
    >>> def brightness(net, images, target):
    ...     return images.sum(1)
    >>> net = Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)), input_shape=(1, 2, 2))
    >>> result = resolve(brightness).function(net, torch.ones(1, 1, 2, 2), 1)
    >>> result.map.shape, result.provenance.method
    (torch.Size([1, 2, 2]), 'brightness')
    """
    if isinstance(method, str):
        return registry.method(method, registry.EXPLAINING)
    if not callable(method):
        raise InputError(
            "a method must be a registered name or a function (network, images, target) that returns maps (N, H, W); "
            f"got {type(method).__name__}."
        )
    method = getattr(method, "own", method)  # a function that was already resolved
    known = registry.methods(registry.EXPLAINING).values()
    registered = next((one for one in known if one.function is method), None)
    if registered is not None:
        return registered
    return _own(method, _name(method))


def _own(function: Function, name: str) -> registry.Method:
    return registry.Method(name, _attributing(function, name), (), "", "", "attribution", quantity="value of the map")


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else type(value).__name__


@dataclass(frozen=True)
class Chosen:
    """One method among several.

    Attributes
    ----------
    method : Method
        The method.
    options : mapping
        Its options.
    usual : bool
        Whether no options were given.
    described : dict
        The options for the provenance, with the function if the method is the user's own.
    """

    method: registry.Method
    options: Mapping[str, Any] = field(default_factory=dict)
    usual: bool = False

    @property
    def described(self) -> dict[str, Any]:
        """The options, with the function's name if the method is the user's own."""
        function = getattr(self.method.function, "own", None)
        return {**self.options, **({"function": qualified(function)} if function is not None else {})}


def chosen_methods(methods: MethodsLike) -> dict[str, Chosen]:
    """Several methods with their options, by name.

    Raises
    ------
    InputError
        When no method is given, one is unknown, or two have the same name.
    """
    listed = _listed(methods)
    if not listed:
        raise InputError("at least one method was expected, by name or as a function; none was given.")
    found: dict[str, Chosen] = {}
    for one in listed:
        if one.method.name in found:
            raise InputError(
                f'each method needs its own name; "{one.method.name}" comes twice. Name functions by a mapping: '
                '{"first": function, "second": other}.'
            )
        found[one.method.name] = one
    return found


def _listed(methods: MethodsLike) -> list[Chosen]:
    if isinstance(methods, Mapping):
        return [_entry(key, value) for key, value in methods.items()]
    several = [methods] if isinstance(methods, str) or not isinstance(methods, Iterable) else list(methods)
    return [Chosen(resolve(one), usual=True) for one in several]


def _entry(key: MethodLike, value: Mapping[str, Any] | Function | None) -> Chosen:
    """One entry of a mapping: a method with its options, or a name with a function."""
    if value is None or isinstance(value, Mapping):
        return Chosen(resolve(key), dict(value or {}), usual=value is None)
    if not isinstance(key, str) or not callable(value):
        raise InputError(
            "a mapping must hold methods with their options, or names with functions; "
            f"got {_shown(key)} with {_shown(value)}."
        )
    return Chosen(_own(value, key), usual=True)


def _attributing(function: Function, name: str) -> Callable[..., Attribution]:
    """The function with checked arguments and an ``Attribution`` as its result."""

    def explain(net: Network, images: Any, target: Target = None, **options: Any) -> Attribution:
        scores = scored(net, images, target, None)
        _check_arguments(function, name, net, scores, options)
        output = function(net, scores.images, scores.target, **options)
        parameters = {"function": qualified(function), "target": target, **options}
        if isinstance(output, Attribution):
            _check_attribution(name, output, scores)
            method = output.provenance.method or name
            return described(output, method, parameters, fingerprint=net.fingerprint, notes=net.notes)
        return Attribution(
            provenance=provenance(net, name, **parameters),
            values=_values(name, output, scores.images),
            target=scores.target,
            score=scores.score,
            images=scores.images,
            classes=net.classes,
        )

    explain.__doc__ = getattr(function, "__doc__", None) or f"{name}, the user's own function."
    explain.own = function  # type: ignore[attr-defined]  # by which a method of the user's own is known
    return explain


def _check_arguments(function: Function, name: str, net: Network, scores: Scored, options: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C: an error shows at the call
        return
    try:
        signature.bind(net, scores.images, scores.target, **options)
    except TypeError as error:
        raise InputError(
            f'"{name}" is called as function(network, images, target, **options), but its signature is '
            f"{signature}: {error}."
        ) from error


def _values(name: str, output: Any, images: Tensor) -> Tensor:
    """The function's maps as values (N, C, H, W)."""
    count, channels, height, width = images.shape
    shapes = ((count, height, width), (count, 1, height, width), (count, channels, height, width))
    expected = f'"{name}" must return maps {shapes[0]}, values {shapes[2]} or an Attribution'
    if not isinstance(output, Tensor):
        raise InputError(f"{expected}; it returned {type(output).__name__}.")
    if tuple(output.shape) not in shapes:
        raise InputError(f"{expected}; it returned a tensor {tuple(output.shape)}.")
    if output.is_complex() or not bool(torch.isfinite(output).all()):
        raise InputError(f"{expected} of finite real numbers; it returned NaN, infinity or complex numbers.")
    values = output.detach().to(images.device)
    values = wide(values) if values.is_floating_point() else values.to(wide(images).dtype)
    return values[:, None] if values.dim() == 3 else values


def _check_attribution(name: str, output: Attribution, scores: Scored) -> None:
    if output.images.shape != scores.images.shape or not torch.equal(
        output.target.to(scores.target.device), scores.target
    ):
        raise InputError(
            f'"{name}" must explain the given images and target: {tuple(scores.images.shape)}, classes '
            f"{scores.target.tolist()[:8]}; its Attribution holds {tuple(output.images.shape)}, classes "
            f"{output.target.tolist()[:8]}."
        )


def _name(function: Any) -> str:
    """A function's name; of a partial that of its function, of a callable object that of its class."""
    if isinstance(function, functools.partial):
        return _name(function.func)
    name = getattr(function, "__name__", None) or type(function).__name__
    return "lambda" if name == "<lambda>" else str(name)


def qualified(function: Any) -> str:
    """The location of a function: its module and qualified name."""
    if isinstance(function, functools.partial):
        return qualified(function.func)
    owner = function if hasattr(function, "__qualname__") else type(function)
    return f"{owner.__module__}.{owner.__qualname__}"
