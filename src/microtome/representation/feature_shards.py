"""Features on disk: shards written one by one, then joined into one memory-mapped file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from microtome.data.adapters.adapter import Adapter
from microtome.errors import StoreError
from microtome.results import write_atomically

_NAMES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}


class FeatureShards:
    """A folder of features of one request.

    Parameters
    ----------
    folder : Path
        The folder; created if missing.
    request : mapping
        The options that determine the features. Files of another request are an error.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any]) -> None:
        self._folder = folder
        self._request = json.dumps(dict(request), sort_keys=True)

    def has(self, start: int, count: int, data: Adapter) -> bool:
        """Whether the shard that begins with this image exists, has the right size, and holds the same images."""
        path = self._path(start)
        if not path.exists():
            return False
        with self._open(path) as file:
            held = int(file.get_slice("values").get_shape()[0])
            first = file.metadata()["first"]
        if held != count:
            raise StoreError(f"{path} holds {held} images, not {count}; give the same shard=.")
        self._same_image(path, start, data, first)
        return True

    def write(self, start: int, values: Tensor, labels: Tensor, data: Adapter) -> None:
        """Write one shard atomically."""
        tensors = {"values": values.contiguous(), "labels": labels.contiguous()}
        about = {"request": self._request, "first": _digest(data, start)}
        write_atomically(self._path(start), save(tensors, metadata=about))

    def join(self, starts: list[int]) -> tuple[Tensor, Tensor]:
        """Copy the shards one after the other into one file, remove them, and map the file."""
        shapes, kinds, firsts = [], set(), {}
        for start in starts:
            with self._open(self._path(start)) as file:
                values = file.get_tensor("values")
                shapes.append(values.shape)
                kinds.add(values.dtype)
                firsts[start] = file.metadata()["first"]
        if len(kinds) > 1 or len({shape[1] for shape in shapes}) > 1:
            raise StoreError(f"the shards in {self._folder} differ in width or precision; remove them and start again.")
        self._copy(starts, kinds.pop(), sum(shape[0] for shape in shapes), shapes[0][1], firsts)
        for start in starts:
            self._path(start).unlink()
        return self._mapped()

    def joined(self, data: Adapter) -> tuple[Tensor, Tensor] | None:
        """The features of an earlier completed call; None if there are none."""
        path = self._whole
        if not path.exists():
            return None
        with self._open(path) as file:
            firsts = json.loads(file.metadata()["first"])
        for start in firsts:
            self._same_image(path, int(start), data, firsts[start])
        return self._mapped()

    @property
    def _whole(self) -> Path:
        return self._folder / "features.safetensors"

    def _path(self, start: int) -> Path:
        return self._folder / f"shard-{start:09d}.safetensors"

    def _mapped(self) -> tuple[Tensor, Tensor]:
        with self._open(self._whole) as file:
            return file.get_tensor("values"), file.get_tensor("labels")

    def _open(self, path: Path) -> Any:
        try:
            file = safe_open(os.fspath(path), framework="pt")
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{path} is not a readable file of features: {error}. Remove it.") from error
        if (file.metadata() or {}).get("request") != self._request:
            raise StoreError(
                f"{path} holds features of another network, layer, reduction or number of images. Choose another "
                "folder, or remove the file."
            )
        return file

    def _same_image(self, path: Path, start: int, data: Adapter, expected: str) -> None:
        if _digest(data, start) != expected:
            raise StoreError(
                f"{path} was made from other images: image {start} of the data set differs. Choose another folder."
            )

    def _copy(self, starts: list[int], kind: torch.dtype, count: int, width: int, firsts: dict[int, str]) -> None:
        """The joined file in the format of safetensors, written shard by shard, flushed and renamed."""
        sizes: dict[str, tuple[torch.dtype, list[int]]] = {
            "values": (kind, [count, width]),
            "labels": (torch.int64, [count]),
        }
        header: dict[str, Any] = {"__metadata__": {"request": self._request, "first": json.dumps(firsts)}}
        at = 0
        for name, (dtype, shape) in sizes.items():
            length = torch.Size(shape).numel() * dtype.itemsize
            header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [at, at + length]}
            at += length
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
        beside = self._whole.with_name(f".{self._whole.name}.{os.getpid()}.part")
        try:
            with beside.open("wb") as out:
                out.write(len(text).to_bytes(8, "little") + text)
                for name in sizes:
                    for start in starts:
                        with self._open(self._path(start)) as file:
                            out.write(file.get_tensor(name).numpy().tobytes())
                out.flush()
                os.fsync(out.fileno())
            beside.replace(self._whole)
        except OSError as error:
            raise StoreError(f"{self._whole} cannot be written: {error.strerror or error}.") from error
        finally:
            beside.unlink(missing_ok=True)


def _digest(data: Adapter, index: int) -> str:
    """A digest of an image's pixels."""
    images, _ = data.fetch(torch.tensor([index], device="cpu"))
    return hashlib.blake2b(images.cpu().contiguous().numpy().tobytes(), digest_size=8).hexdigest()
