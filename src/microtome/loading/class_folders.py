"""Match the class folders of a data set with the outputs of a network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from microtome import data
from microtome.data.adapters.naming import by_folder
from microtome.errors import ClassNameError
from microtome.network import Network

__all__ = ["labelled"]


def labelled(dataset: Any, net: Network) -> Any:
    """Label a folder of pictures by the network's classes; any other data set is returned unchanged.

    The class folders are the network's classes if the network knows their names, if the folders are named by number, or
    if there are as many folders as outputs, with or without the empty ones: then in the order of their numbers if all
    names begin with a number, otherwise in alphabetical order.

    Parameters
    ----------
    dataset : Folder or any data set
        A data set from :func:`microtome.data.open_data`.
    net : Network
        The network that classifies the images.

    Raises
    ------
    ClassNameError
        The network has no class names, and folders and outputs differ in number, or the folders' numbers have gaps:
        the match is ambiguous.
    """
    if not isinstance(dataset, data.Folder) or dataset.classes is None or net.classes is not None:
        return dataset
    outputs = (net.head.decisions or net.output_shape[0]) if net.output_shape else len(dataset.classes)
    numbered = all(name.isdecimal() for name in dataset.classes)
    if numbered and max(map(int, dataset.classes)) < outputs:
        return data.folder(dataset.root, net.input_shape, classes=[str(index) for index in range(outputs)])
    # Folders counted from 1 come in the order of the outputs; with a gap one of them has no folder.
    gaps = numbered and max(map(int, dataset.classes)) - min(map(int, dataset.classes)) >= len(dataset.classes)
    # class2 and class10: by text the second comes first, as torchvision has it, by number the first.
    if _in_two_orders(dataset.classes):
        raise ClassNameError(
            f"{dataset.root} has class folders whose order by text is not that of their numbers "
            f"({', '.join(dataset.classes[:4])}, ...), so their match with the network's classes is "
            "ambiguous. Give the names of all classes with --classes, in the order of the network's outputs."
        )
    if len(dataset.classes) == outputs and not gaps:
        return dataset
    every = [*dataset.classes, *_empty_folders(dataset.root)]
    if len(every) == outputs and not gaps:  # a class without pictures keeps its number
        return data.folder(dataset.root, net.input_shape, classes=by_folder(every, None)[1])
    some = ", ".join(dataset.classes[:4]) + (", ..." if len(dataset.classes) > 4 else "")
    raise ClassNameError(
        f"{dataset.root} has {len(dataset.classes)} class folder{'s' * (len(dataset.classes) != 1)} ({some}), the "
        f"network {outputs} classes: their match is ambiguous. Give the names of all classes with --classes, in "
        "the order of the network's outputs, or name each folder by its class's number."
    )


def _empty_folders(root: Path) -> list[str]:
    """Empty folders right below a folder."""
    return [
        place.name
        for place in root.iterdir()
        if place.is_dir() and not place.name.startswith(".") and not any(place.iterdir())
    ]


def _in_two_orders(names: Sequence[str]) -> bool:
    """Whether names are one word with different numbers, which sort otherwise as text."""
    found = [re.fullmatch(r"(\D+)(\d+)", name) for name in sorted(names)]
    numbers = [int(match[2]) for match in found if match]
    return (
        len(numbers) == len(names) and len({match[1] for match in found if match}) == 1 and numbers != sorted(numbers)
    )
