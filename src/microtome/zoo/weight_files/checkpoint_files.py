"""Reads weight files (safetensors, torch.save, sets of shards) without running their code."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from microtome.errors import ModelError

__all__ = ["Inert", "content_of"]

_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WHOLE = ("model.safetensors", "pytorch_model.bin")


class Inert:
    """Placeholder for an object that is not a tensor, such as a path among hyperparameters; it does nothing."""

    def __new__(cls, *_arguments: Any, **_options: Any) -> Inert:
        """Take any arguments."""
        return object.__new__(cls)

    def __init__(self, *_arguments: Any, **_options: Any) -> None: ...

    def __setstate__(self, _state: Any) -> None: ...


def content_of(path: Path | str) -> Any:
    """The content of a weight file: a state dict, or dicts around one.

    Parameters
    ----------
    path
        A ``.safetensors`` file, what ``torch.save`` wrote, an index of shards (``model.safetensors.index.json``), one
        of the shards beside its index, or a folder with ``model.safetensors`` or an index as the Hugging Face hub
        has it.

    Raises
    ------
    ModelError
        The file is missing, broken, a TorchScript archive, or a file that could run code.
    """
    file = _file(Path(path))
    if not file.stat().st_size:
        raise ModelError(f"the weight file {file} is empty. Fetch or save it again.")
    if file.name.endswith(".index.json"):
        return _sharded(file)
    if _scripted(file):
        raise ModelError(
            f"{file} is a TorchScript archive, which cannot be analysed. Save the weights of the model it was made "
            "from: torch.save(model.state_dict(), path)."
        )
    try:
        return load_file(file) if _has_safetensors(file) else _unpickled(file)
    except pickle.UnpicklingError as error:
        if not _begins_as_saved(file):
            raise ModelError(
                f"{file} is no weight file: safetensors are expected, or what torch.save wrote."
            ) from error
        raise ModelError(
            f"{file} holds more than tensors and is not loaded, for it could run code. Save the weights alone: "
            "torch.save(model.state_dict(), path), or as safetensors."
        ) from error
    except Exception as error:  # what the readers raise on a damaged file is not bounded
        said = " ".join(str(error).split())[:120]
        why = said if " " in said else type(error).__name__  # a bare key or number explains nothing
        raise ModelError(
            f"{file} is no weight file, or it is damaged or incomplete ({why}). Safetensors are expected, or what "
            "torch.save wrote."
        ) from error


def _begins_as_saved(file: Path) -> bool:
    """Whether a file begins as what ``torch.save`` writes: a zip archive, or a pickle of protocol 2 or later."""
    with file.open("rb") as opened:
        return opened.read(2) in (b"PK", *(bytes([0x80, protocol]) for protocol in range(2, 6)))


def _has_safetensors(file: Path) -> bool:
    """Whether a file holds safetensors, by its name or, under another name, by how it begins."""
    if file.suffix == ".safetensors":
        return True
    with file.open("rb") as opened:
        begun = opened.read(9)
    return len(begun) == 9 and begun[8:] == b"{" and int.from_bytes(begun[:8], "little") < file.stat().st_size


def _file(path: Path) -> Path:
    if path.is_dir():
        inside = next((path / name for name in (*_INDICES, *_WHOLE) if (path / name).is_file()), None)
        if inside is None:
            raise ModelError(f"{path} is a folder; a weight file was expected, .safetensors or .pt.")
        return inside
    if not path.is_file():
        raise ModelError(f"there is no weight file {path}.")
    indices = (path.with_name(name) for name in _INDICES)
    shard_of = next((index for index in indices if index.is_file() and path.name in _weight_map(index).values()), None)
    return shard_of or path


def _sharded(index: Path) -> dict[str, Any]:
    tensors: dict[str, Any] = {}
    for name in sorted(set(_weight_map(index).values())):
        if Path(name).name != name or name.endswith(".index.json"):
            raise ModelError(f"{index} names the shard {name}, which is not a weight file beside it.")
        if not index.with_name(name).is_file():
            raise ModelError(f"{index} names the shard {name}, which is not in the same folder. Download all shards.")
        part = load_file(index.with_name(name)) if name.endswith(".safetensors") else _unpickled(index.with_name(name))
        tensors |= part
    return tensors


def _weight_map(index: Path) -> Mapping[str, str]:
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(file) for name, file in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is not an index of weight files: it holds no weight_map.") from error


def _unpickled(file: Path) -> Any:
    """The content of a ``torch.save`` file, by torch's reader that loads only tensors.

    Classes that the reader does not know (paths, NumPy numbers, settings) are replaced by inert ones of the same name,
    so that nothing of the file is imported or called.
    """
    unknown = _unknown_classes(file)
    if not unknown:
        return torch.load(file, map_location="cpu", weights_only=True)
    known = [(_stand_in(name), name) for name in unknown]
    with torch.serialization.safe_globals(known):  # type: ignore[arg-type]  # pairs are admitted, see its docstring
        return torch.load(file, map_location="cpu", weights_only=True)


def _stand_in(name: str) -> type:
    """An inert class; torch's reader fills plain dicts only, so that a class of dicts becomes one."""
    return OrderedDict if name.casefold().endswith("dict") else type(name.rpartition(".")[2], (Inert,), {})


def _unknown_classes(file: Path) -> list[str]:
    find = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)  # torch 2.6
    if find is None or not zipfile.is_zipfile(file):
        return []
    return sorted(find(file))


def _scripted(file: Path) -> bool:
    """Whether ``torch.jit.save`` wrote a file: an archive with a module's constants in it."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
