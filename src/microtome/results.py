"""Results: frozen objects with named tensors, the parameters that made them, and a figure."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor

from microtome import checksum
from microtome.errors import MicrotomeError, StoreError
from microtome.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from microtome.network import Network

R = TypeVar("R", bound="Result")

JSON = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Provenance:
    """How a result was made: enough to make it again.

    Attributes
    ----------
    method : str
        The method's registered name.
    parameters : dict
        Every option with the value used.
    fingerprint : str
        The network's fingerprint: a digest of its structure, weights and normalisation.
    seed : int or None
        The seed, where the method draws random numbers.
    versions : dict
        Versions of microtome, torch and Python.
    notes : list of str
        What to know about the network when reading the result: that images influence each other in a batch, that its
        scores are random, that it takes only one batch size.
    """

    method: str
    parameters: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    seed: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


# The provenance of a result that the registry has not described yet.
UNSTATED = Provenance("")


def provenance(net: Network, method: str = "", seed: int | None = None, **parameters: Any) -> Provenance:
    """Describe how the result of an unregistered function was made; the registry describes all others.

    Parameters
    ----------
    net : Network
        The network the method runs on.
    method : str
        The method's registered name.
    seed : int, optional
        The seed, where one is used.
    **parameters
        The options by name; tensors are noted by shape and digest, functions by their name.
    """
    return Provenance(
        method=method,
        parameters={key: _plain(value) for key, value in parameters.items()},
        fingerprint=net.fingerprint,
        seed=seed,
        versions=versions(),
        notes=net.notes,
    )


def stated(**parameters: Any) -> Provenance:
    """Values that a registered method has chosen itself, such as a default layer; the registry adds the rest."""
    return Provenance("", {key: _plain(value) for key, value in parameters.items()})


def described(
    result: R,
    method: str,
    parameters: Mapping[str, Any],
    *,
    fingerprint: str = "",
    seed: int | None = None,
    notes: Sequence[str] = (),
) -> R:
    """A copy of a result whose provenance names method and options; values that the result states take precedence."""
    stated = result.provenance
    copied = copy.copy(result)
    full = Provenance(
        method=method,
        parameters={**{key: _plain(value) for key, value in parameters.items()}, **stated.parameters},
        fingerprint=stated.fingerprint or fingerprint,
        seed=seed if stated.seed is None else stated.seed,
        versions=versions(),
        notes=stated.notes or list(notes),
    )
    object.__setattr__(copied, "provenance", full)
    return copied


def versions() -> dict[str, str]:
    """Versions of what computed the result."""
    return {"microtome": __version__, "torch": torch.__version__, "python": platform.python_version()}


def _plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, bool | str | type(None)):
        return value
    if isinstance(value, int | float):
        return value
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else f"tensor{tuple(value.shape)} {_digest(value)}"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, range):
        return list(value)
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Result):
        return f"{type(value).__name__} of {value.provenance.method or 'a user'}"
    return getattr(value, "__name__", None) or getattr(value, "fingerprint", None) or _readable(value)


def _readable(value: Any) -> str:
    """The ``repr`` of an object, or its class where that contains a memory address."""
    text = str(value)
    return type(value).__name__ if " at 0x" in text or len(text) > 200 else text


def _digest(value: Tensor) -> str:
    """Eight hexadecimal digits of a tensor's content."""
    content = value.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.blake2b(content.numpy().tobytes(), digest_size=4).hexdigest()


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """Base of all results; subclasses are frozen dataclasses whose fields are tensors and plain values."""

    provenance: Provenance = UNSTATED

    kinds: ClassVar[dict[str, type[Result]]] = {}
    # "module:function" in microtome.figures; a string, so that results import no figure. "" where nothing draws it.
    drawing: ClassVar[str] = ""

    def __init_subclass__(cls, *, drawing: str | None = None) -> None:
        """Register the class by name for loading, set its drawing (default: that of its base), keep the short repr."""
        if drawing is not None:
            cls.drawing = drawing
        known = Result.kinds.get(cls.__name__)
        if known is not None and known.__module__ != cls.__module__:
            where = f"{known.__module__} and {cls.__module__}"
            raise TypeError(f"two results are called {cls.__name__}, in {where}; files and figures know them by name.")
        Result.kinds[cls.__name__] = cls
        if "__repr__" not in cls.__dict__:  # else the dataclass decorator would print every tensor in full
            cls.__repr__ = Result.__repr__  # type: ignore[method-assign]  # before the decorator looks

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result as one safetensors file, tensors by field and the rest as JSON metadata.

        The file is written beside its final name, flushed to disk and renamed, so that a reader
        never sees half a file.

        Raises
        ------
        StoreError
            When the folder cannot be written.
        """
        write_atomically(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The file that ``save`` writes; its header holds a checksum of all of it."""
        from safetensors.torch import save

        tensors: dict[str, Tensor] = {}
        tree = {checksum.KEY: checksum.BLANK, **_flatten(self, "", tensors)}  # it sorts first
        return checksum.signed(save(tensors, metadata={"microtome": json.dumps(tree, sort_keys=True)}))

    @classmethod
    def load(cls: type[R], path: str | os.PathLike[str]) -> R:
        """Read what ``save`` wrote.

        Raises
        ------
        StoreError
            When the file is missing, broken, or holds another kind of result.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise StoreError(f"{path} is not a readable result file: {error}") from error
        return cls.from_bytes(content, os.fspath(path))

    @classmethod
    def from_bytes(cls: type[R], content: bytes, name: str = "the file") -> R:
        """Read the bytes of ``to_bytes``.

        Raises
        ------
        StoreError
            When the bytes are truncated, changed, or hold another kind of result.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        if checksum.sound(content) is False:
            raise StoreError(f"{name} is not a readable result file: its bytes have changed since it was written.")
        try:
            tensors = load(content)
            length = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + length]).get("__metadata__", {}).get("microtome")
        except (SafetensorError, ValueError) as error:
            raise StoreError(f"{name} is not a readable result file: {error}") from error
        if header is None:
            raise StoreError(f"{name} holds tensors but not a result of microtome; load it with safetensors instead.")
        result = _rebuild(json.loads(header), tensors)
        if not isinstance(result, cls):
            raise StoreError(f"{name} holds a {type(result).__name__}, not a {cls.__name__}.")
        return result

    @property
    def notes(self) -> list[str]:
        """Notes for the reader of the result: about the network, and about the limits of the method."""
        return list(self.provenance.notes)

    def plot(self, **options: Any) -> Figure:
        """Draw the result, its notes below; the options are those of its drawing function in ``microtome.figures``."""
        from microtome import figures

        return figures.draw(self, **options)

    def _repr_html_(self) -> str:
        """Show the figure in a notebook, or a table of the fields, and sentences about how it was made."""
        from microtome import figures, registry, result_html

        made = self.provenance
        method = registry.methods().get(made.method)
        notes, drawing = self.notes, ""
        if self.drawing:
            try:
                drawing = figures.html(self)
            except MicrotomeError as error:  # a result that cannot be drawn still shows its fields
                notes.append(str(error))
        text = result_html.caption(made.method, method.summary if method else "", made.parameters, made.seed, notes)
        if drawing:
            return result_html.figure(drawing, text)
        entries = ((each.name, getattr(self, each.name)) for each in dataclasses.fields(self))
        return result_html.fields(type(self).__name__, (each for each in entries if each[0] != "provenance"), text)

    def __repr__(self) -> str:
        """Show each field: tensors by shape, the rest by value."""
        shown = []
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if entry.name == "provenance":
                continue
            text = f"tensor{tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            shown.append(f"{entry.name}={text if len(text) <= 60 else text[:57] + '...'}")
        return f"{type(self).__name__}({', '.join(shown)})"


def load(path: str | os.PathLike[str]) -> Result:
    """Read any result from its file."""
    return Result.load(path)


def keep_on_processor(result: Result) -> None:
    """Move the tensors of a result to the processor, where tables and stimuli are read; called when it is made."""
    keep_on_device(result, torch.device("cpu"))


def keep_on_device(result: Result, device: torch.device) -> None:
    """Move the tensors of a result to a device, so that all lie on one; called when it is made."""
    for entry in dataclasses.fields(result):
        object.__setattr__(result, entry.name, _on_device(getattr(result, entry.name), device))


def on_processor(value: Any) -> Any:
    """A tensor, a result or a container with all its tensors on the processor; drawings read their numbers there."""
    return _on_device(value, torch.device("cpu"))


def _on_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        has_none = device.type == "mps" and value.dtype == torch.float64
        return value.to(device, torch.float32) if has_none else value.to(device)
    if isinstance(value, Result):
        moved = copy.copy(value)
        vars(moved).update({name: _on_device(held, device) for name, held in vars(value).items()})
        return moved
    if isinstance(value, dict):
        return {key: _on_device(held, device) for key, held in value.items()}
    return type(value)(_on_device(held, device) for held in value) if type(value) in (list, tuple) else value


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises
    ------
    StoreError
        When the folder cannot be made or written, or the disk is full.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror or error}. Choose a writable folder.") from error


def _flatten(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Describe a value as JSON, putting its tensors aside under their path."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"tensor": path}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = {
            entry.name: _flatten(getattr(value, entry.name), f"{path}.{entry.name}" if path else entry.name, tensors)
            for entry in dataclasses.fields(value)
        }
        return {"result": type(value).__name__, "fields": inner}
    if isinstance(value, Mapping):
        return {"map": [[key, _flatten(item, f"{path}[{key}]", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple | range):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_flatten(item, f"{path}[{index}]", tensors) for index, item in enumerate(value)]}
    if isinstance(value, JSON):
        return {"plain": value}
    raise StoreError(f'the field "{path}" is a {type(value).__name__}, which a result file cannot hold.')


def _rebuild(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo ``_flatten``."""
    ((kind, content), *_rest) = tree.items() if "result" not in tree else [("result", tree)]
    if kind == "tensor":
        return tensors[content]
    if kind == "result":
        cls: Any = Provenance if tree["result"] == "Provenance" else _kind(tree["result"])
        names = {entry.name for entry in dataclasses.fields(cls)}
        values = {key: _rebuild(item, tensors) for key, item in tree["fields"].items() if key in names}
        return cls(**values)
    if kind == "map":
        return {key: _rebuild(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_rebuild(item, tensors) for item in content]
        return items if kind == "list" else tuple(items)
    return content


def _kind(name: str) -> type[Result]:
    """The class of a result by name, importing the methods if it is not known yet."""
    import pkgutil
    from importlib import import_module

    from microtome import registry, reproduce

    if name not in Result.kinds:
        registry.methods()
    if name not in Result.kinds:
        for module in pkgutil.iter_modules(reproduce.__path__):
            import_module(f"{reproduce.__name__}.{module.name}")
    if name not in Result.kinds:
        raise StoreError(f'the file holds a "{name}", which this version does not know; it may come from a newer one.')
    return Result.kinds[name]
