"""Names of the thousand ImageNet classes, from an installed package."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

from microtome.errors import InputError

__all__ = ["MEAN", "STD", "imagenet_classes"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def imagenet_classes() -> tuple[str, ...]:
    """The names of the 1,000 classes in their usual order.

    They are read from the files of torchvision or timm, neither of which is imported.

    Raises
    ------
    InputError
        Neither package is installed.
    """
    for read in (_from_torchvision, _from_timm):
        if len(names := read()) == 1000:
            return names
    raise InputError(
        "ImageNet's class names are read from torchvision or timm, and neither is installed: "
        "pip install 'microtome[hub]', or give a file with one name a line."
    )


def _folder(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


def _from_torchvision() -> tuple[str, ...]:
    """The list assigned to ``_IMAGENET_CATEGORIES``, parsed and not run."""
    folder = _folder("torchvision")
    file = folder / "models" / "_meta.py" if folder else None
    if file is None or not file.is_file():
        return ()
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "_IMAGENET_CATEGORIES":
            return tuple(str(name) for name in ast.literal_eval(statement.value))
    return ()


def _from_timm() -> tuple[str, ...]:
    """WordNet's lemmas of timm's synsets: the first synonym of each."""
    folder = _folder("timm")
    data = folder / "data" / "_info" if folder else None
    if data is None or not (data / "imagenet_synsets.txt").is_file():
        return ()
    lines = (data / "imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    lemmas = dict(line.split("\t", 1) for line in lines)
    synsets = (data / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
    return tuple(lemmas[synset].split(",")[0].strip() for synset in synsets)
