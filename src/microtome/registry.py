"""Registry of methods: one line per method makes it known to the command line, the atlas, the docs and the tests."""

from __future__ import annotations

import functools
import inspect
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from microtome.errors import InputError, nearest
from microtome.option_types import OptionTypes
from microtome.results import Result, described
from microtome.trace.tracing.caller_modes import own_modes

_METHODS: dict[str, Method] = {}

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Method:
    """One registered method; the attributes are those of `register`."""

    name: str
    function: Callable[..., Any]
    rows: tuple[str, ...]
    paper: str
    needs: str
    kind: str
    quantity: str = ""
    signed: bool = True
    cost: float = 3.0

    @property
    def summary(self) -> str:
        """The first line of the function's docstring, in plain text.

        Examples
        --------
        >>> def rank():
        ...     "Rank by :math:`f(x)` of ``conv1`` [1]_."
        >>> Method("rank", rank, (), "", "", "").summary
        'Rank by f(x) of conv1.'
        """
        return _plain((self.function.__doc__ or "").strip().splitlines()[0])

    @property
    def reference(self) -> str:
        """The paper as the function's docstring cites it, in plain text.

        Else as another method of the same paper does; else the paper's key.

        Examples
        --------
        >>> def rank(): ...
        >>> rank.__doc__ = '''Rank.
        ...
        ... .. [1] Ada Other, "Before", 1999.
        ... .. [2] C. Olah et al., *Feature Visualization*,
        ...    Distill, 2017.
        ... '''
        >>> Method("rank", rank, (), "olah2017feature", "", "").reference
        'C. Olah et al., Feature Visualization, Distill, 2017.'
        """
        others = (method for method in methods().values() if method.paper == self.paper)
        return next(filter(None, map(_cited, (self, *others))), self.paper)


_ENTRY = re.compile(r"^\s*\.\. \[\w+\] (.+?)(?=^\s*\.\. \[|^\s*$|\Z)", re.MULTILINE | re.DOTALL)


def _cited(method: Method) -> str:
    """The entry of a docstring's references that names the first author of the method's paper."""
    surname = re.match(r"[a-z]*", method.paper)
    entries = _ENTRY.findall(method.function.__doc__ or "")
    found = [text for text in entries if surname and surname[0] in _letters(text)]
    return _plain(" ".join(found[0].split())) if found else ""


def _plain(text: str) -> str:
    """A docstring's words without its marks."""
    return re.sub(r",? ?\[\w+\]_|:\w+:(?=`)|`+|(?<!\w)\*|\*(?!\w)", "", text)


def _letters(text: str) -> str:
    """Lower-case letters without accents, as keys have them."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z]", "", plain.lower())


# Inputs of a method, and options that change its time and memory but never its numbers.
_SUBJECTS = frozenset({"net", "image", "images", "data", "dataset"})
_COST_ONLY = frozenset({"batch", "progress", "workers", "folder"})


def register(
    name: str,
    *,
    rows: tuple[str, ...],
    paper: str,
    needs: str = "",
    kind: str = "attribution",
    quantity: str = "logit per pixel",
    signed: bool = True,
    cost: float = 3.0,
) -> Callable[[F], F]:
    """Register a function under a name; its results then record how they were made.

    The provenance of a result holds every option of the call that changes its numbers: all parameters but the network,
    the images and what only changes time and memory (``batch``, ``progress``). A method that resolves a default (the
    layer, say) states the value in ``stated(layer=layer)``; it takes precedence.

    Parameters
    ----------
    name : str
        The name on the command line and in the atlas, in words joined by hyphens.
    rows : tuple of str
        The rows of the specification that the method fulfils.
    paper : str
        Key of the paper in ``docs/references.bib``.
    needs : str
        What the method asks of a layer or network beyond the common, in words.
    kind : str
        Which question the method answers; the name of its folder.
    quantity : str
        The quantity that a map shows, with its unit; for scales on figures and pages.
    signed : bool
        Whether negative values have a meaning.
    cost : float
        Time for one image in forward passes of the network; the atlas plans with it.
    """

    def enter(function: F) -> F:
        _check_free(name, function)
        types = OptionTypes(inspect.signature(function))
        computed = own_modes()(function)

        @functools.wraps(function)
        def method(*args: Any, **options: Any) -> Any:
            call = types.bound(args, options)
            result = computed(*args, **options)
            if call is None:
                return result
            if isinstance(result, Result):
                return _stamped(result, name, call)
            if isinstance(result, dict):  # one result for each layer
                return {
                    key: _stamped(one, name, call) if isinstance(one, Result) else one for key, one in result.items()
                }
            return result

        _METHODS[name] = Method(name, method, rows, paper, needs, kind, quantity, signed, cost)
        return method  # type: ignore[return-value]  # the same signature, by functools.wraps

    return enter


def _check_free(name: str, function: Callable[..., Any]) -> None:
    """Refuse a second function under a name; a redefinition of the same function, as in a notebook, replaces it."""
    if name not in _METHODS:
        return
    known = inspect.unwrap(_METHODS[name].function)
    one, other = ((each.__module__, each.__qualname__) for each in (known, function))
    if known is not function and (one != other or "<locals>" in function.__qualname__):
        raise InputError(
            f'two methods are registered as "{name}": {".".join(one)} and {".".join(other)}. Rename one of them.'
        )


def _stamped(result: Result, name: str, call: inspect.BoundArguments) -> Result:
    """The result with the method's name and all options of the call that change its numbers."""
    call.apply_defaults()
    arguments = dict(call.arguments)
    for name_of_more in (p.name for p in call.signature.parameters.values() if p.kind is p.VAR_KEYWORD):
        arguments |= arguments.pop(name_of_more, {})
    options = {key: value for key, value in arguments.items() if key not in _SUBJECTS | _COST_ONLY}
    seed = options.pop("seed", None)
    net = call.arguments.get("net")
    fingerprint, notes = getattr(net, "fingerprint", ""), getattr(net, "notes", [])
    seed = seed if isinstance(seed, int) else None
    return described(result, name, options, fingerprint=fingerprint, seed=seed, notes=notes)


# Methods that give a map of an image: those that serve any network, and those that need attention in it.
EXPLAINING = ("attribution", "attention")


def methods(kind: str | tuple[str, ...] | None = None) -> dict[str, Method]:
    """All registered methods, or those of one kind or of several, by name."""
    kinds = (kind,) if isinstance(kind, str) else kind
    _load(kinds)
    return {name: method for name, method in sorted(_METHODS.items()) if kinds is None or method.kind in kinds}


def method(name: str, kind: str | tuple[str, ...] | None = None) -> Method:
    """Find one method; hyphens and underscores are the same.

    Raises
    ------
    InputError
        When no method has the name; the nearest names are given.
    """
    known = methods(kind)
    key = name.replace("_", "-").lower()
    if key not in known:
        raise InputError(f'there is no method "{name}". Nearest: {nearest(key, known)}. Known: {", ".join(known)}.')
    return known[key]


def quantity(name: str) -> str:
    """The quantity that a method's map shows; "value of the map" for methods that are not registered.

    Examples
    --------
    >>> quantity("saliency"), quantity("own method")
    ('logit per pixel value', 'value of the map')
    """
    known = _METHODS.get(name) or methods().get(name)  # a method that has run is registered
    return known.quantity if known else "value of the map"


_FOLDERS = ("attribution", "units", "synthesis", "spaces", "representation", "training", "surgery")
# Kinds whose folder has another name; all others have the name of their folder.
_FOLDER_OF = {"attention": "attribution", "quality": "attribution"}


def _load(kinds: tuple[str, ...] | None = None) -> None:
    """Import the folders of methods, or those of some kinds, so that their lines are read."""
    import importlib
    import importlib.util

    wanted = {_FOLDER_OF.get(kind, kind) for kind in kinds or _FOLDERS}
    for folder in _FOLDERS if not wanted <= {*_FOLDERS} else [name for name in _FOLDERS if name in wanted]:
        if importlib.util.find_spec(f"microtome.{folder}") is not None:
            importlib.import_module(f"microtome.{folder}")
