"""Fashion-MNIST: 70,000 small pictures of clothes in MNIST's format."""

from __future__ import annotations

from pathlib import Path

from microtome.data.images import Images
from microtome.data.named import parts
from microtome.errors import InputError
from microtome.option_types import checks_types

__all__ = ["CLASSES", "MEAN", "STD", "fashion_mnist"]

CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images' pixels in [0, 1]

_FOLDER = Path("/usr/share/datasets/fashion-mnist")


@checks_types
def fashion_mnist(part: str = "train", *, folder: Path | str | None = None) -> Images:
    """Fashion-MNIST's clothes, 28 x 28, gray.

    Parameters
    ----------
    part
        ``"train"`` (50,000), ``"validation"`` (the last 10,000 of the 60,000 training images), ``"test"`` (10,000), or
        several joined by ``+``.
    folder
        A folder with the four idx files; by default where Debian's package ``dataset-fashion-mnist`` puts them.

    Returns
    -------
    Images

    Raises
    ------
    InputError
        The part's name is unknown, or the files are not there.

    References
    ----------
    .. [1] H. Xiao, K. Rasul, R. Vollgraf. Fashion-MNIST: a novel image dataset for benchmarking machine learning
       algorithms. arXiv:1708.07747, 2017.
    """
    if folder is not None:
        return parts.from_idx(Path(folder), part, CLASSES, "Fashion-MNIST")
    if _FOLDER.is_dir():
        return parts.from_idx(_FOLDER, part, CLASSES, "Fashion-MNIST")
    raise InputError(
        "Fashion-MNIST is not on this machine: install Debian's package dataset-fashion-mnist, "
        "or give a folder with its four idx files."
    )
