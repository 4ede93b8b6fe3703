"""Checkpoints of a training run: tensors and JSON values in one file that is written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from microtome.data.named.cache import writing
from microtome.errors import StoreError

__all__ = ["read", "unpacked", "write"]

_HEADER = "microtome.training"


def write(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and JSON values as one safetensors file, whole or not at all.

    The file is written beside its final name, flushed to disk and renamed; the same content gives the same bytes.

    Raises
    ------
    StoreError
        The folder cannot be written, or the disk is full.
    """
    whole = {name: value.detach().to("cpu").contiguous() for name, value in tensors.items()}
    text = json.dumps(header, sort_keys=True, separators=(",", ":"))
    with writing(path) as beside:
        try:
            save_file(_unshared(whole), beside, metadata={_HEADER: text})
        except SafetensorError as error:
            raise StoreError(f"{path} cannot be written: {error}. Choose a writable folder that has room.") from error


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and JSON values of a file that ``write`` made.

    Raises
    ------
    StoreError
        The file is missing, broken or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_HEADER)
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (OSError, SafetensorError) as error:
        raise StoreError(f"the checkpoint {path} cannot be read: {error}. Delete it and train again.") from error
    if header is None:
        raise StoreError(f"{path} is not a checkpoint of a training run.")
    return tensors, json.loads(header)


def unpacked(tree: Any, prefix: str, tensors: dict[str, Tensor]) -> Any:
    """Nested dictionaries and lists with each tensor moved into ``tensors`` and replaced by a reference.

    Examples
    --------
    >>> found = {}
    >>> unpacked({"step": 3, "state": [torch.ones(2)]}, "optimizer", found)
    {'dict': [['step', 3], ['state', [{'tensor': 'optimizer.state.0'}]]]}
    >>> packed({'dict': [['step', 3], ['state', [{'tensor': 'optimizer.state.0'}]]]}, found)
    {'step': 3, 'state': [tensor([1., 1.])]}
    """
    if isinstance(tree, Tensor):
        tensors[prefix] = tree
        return {"tensor": prefix}
    if isinstance(tree, Mapping):  # as pairs: JSON would turn the optimizer's integer keys into text
        return {"dict": [[key, unpacked(value, f"{prefix}.{key}", tensors)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        return [unpacked(value, f"{prefix}.{index}", tensors) for index, value in enumerate(tree)]
    return tree


def packed(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo :func:`unpacked`."""
    if isinstance(tree, Mapping):
        if "tensor" in tree:
            return tensors[tree["tensor"]]
        return {key: packed(value, tensors) for key, value in tree["dict"]}
    if isinstance(tree, list):
        return [packed(value, tensors) for value in tree]
    return tree


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors that share memory, which safetensors refuses to write."""
    seen: set[int] = set()
    found = {}
    for name, value in tensors.items():
        address = value.untyped_storage().data_ptr()
        found[name] = value.clone() if address in seen and value.numel() else value
        seen.add(address)
    return found


def state_of(model: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of a model's parameters and buffers in torch's usual memory order."""
    return {name: value.detach().to("cpu").contiguous().clone() for name, value in model.state_dict().items()}
