"""Command lines that recompute a result of an atlas, with the options of the run's recipe."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import PurePath

from microtome.data import NAMES
from microtome.loading import RunConfig

__all__ = ["Commands", "options_of"]

_OF_ATLAS = ("data", "run", "out", "layers", "images", "budget", "methods")  # all others describe the model


class Commands:
    """The command lines for the pages of one atlas.

    Parameters
    ----------
    options
        The options of ``microtome atlas`` by name, as text, the model's first; empty if the network was given as
        an object, which no command line can name.

    Examples
    --------
    >>> made = Commands({"model": "zoo:fcnn1", "data": "photos", "out": "FOLDER"})
    >>> made.atlas()
    'microtome atlas --model zoo:fcnn1 --data photos --out FOLDER'
    >>> made.atlas(budget="full")
    'microtome atlas --model zoo:fcnn1 --data photos --out FOLDER --budget full'
    >>> made.line("maximize", "fc", channels=3, to="unit.png")
    'microtome maximize fc --channels 3 --model zoo:fcnn1 -o unit.png'
    >>> made.line("explain", made.image("a dog.png"), method="lrp", to="map.png")
    "microtome explain 'photos/a dog.png' --method lrp --model zoo:fcnn1 -o map.png"
    >>> Commands({"model": "zoo:fcnn1", "data": "mnist:train"}).image("00012")
    'mnist:train:12'
    """

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = dict(options)
        self._model = {name: value for name, value in self._options.items() if name not in _OF_ATLAS}
        self.data, self.run = self._options.get("data", ""), self._options.get("run", "")

    @property
    def options(self) -> dict[str, str]:
        """The options by name, without the output folder."""
        return {name: value for name, value in self._options.items() if name != "out"}

    def atlas(self, **changed: str) -> str:
        """The command line of the atlas itself, with some options changed; empty if there is none."""
        if not self._model:
            return ""
        return shlex.join(["microtome", "atlas", *_tokens({**self._options, **changed})])

    def line(self, *words: str, to: str = "", **options: str | int | None) -> str:
        """A command line: the subcommand and its argument, its options, the model, the file to write."""
        if not self._model:
            return ""
        texts = {name: str(value) for name, value in options.items() if value is not None}
        return shlex.join(["microtome", *words, *_tokens(texts), *_tokens(self._model), *(["-o", to] if to else [])])

    def without(self, *names: str) -> Commands:
        """The same for a subcommand that does not take some options of the model."""
        return Commands({name: value for name, value in self._options.items() if name not in names})

    def image(self, name: str) -> str:
        """The name of an image: its path below the folder of the data, or its number in a named data set."""
        if self.data.partition(":")[0] in NAMES:
            return f"{self.data}:{int(name)}"
        return str(PurePath(self.data, name))


def options_of(recipe: RunConfig) -> dict[str, str]:
    """The options that a recipe represents; class names have none, since a command line takes them from a file.

    Examples
    --------
    >>> options_of(RunConfig("zoo:fcnn1", input_shape=(1, 28, 28), data="mnist"))
    {'model': 'zoo:fcnn1', 'input-shape': '1,28,28', 'data': 'mnist'}
    """
    values = {field.name: getattr(recipe, field.name) for field in fields(recipe) if field.name != "classes"}
    values["data"] = values.pop("data")  # behind all that describes the model
    return {
        name.replace("_", "-"): value if isinstance(value, str) else ",".join(map(str, value))
        for name, value in values.items()
        if value is not None
    }


def _tokens(options: Mapping[str, str]) -> list[str]:
    return [token for name, value in options.items() for token in (f"--{name.replace('_', '-')}", value)]
