"""Which command line makes a result again? Words that a person can paste, for the model and data of an atlas."""

from __future__ import annotations

import shlex
from pathlib import PurePath

from microtome.data import NAMES

__all__ = ["Commands"]


class Commands:
    """The command lines of an atlas, made from the one that built it.

    Parameters
    ----------
    command
        ``microtome atlas --model ... --data ... --out ...``; empty where the atlas was built from Python: then there
        is no command line for its results either.

    Examples
    --------
    >>> made = Commands("microtome atlas --model zoo:fcnn1 --data photos --out site")
    >>> made.line("maximize", "fc", channels=3, to="unit.png")
    'microtome maximize fc --channels 3 --model zoo:fcnn1 -o unit.png'
    >>> made.line("explain", made.image("a dog.png"), method="lrp", to="map.png")
    "microtome explain 'photos/a dog.png' --method lrp --model zoo:fcnn1 -o map.png"
    >>> Commands("microtome atlas --model zoo:fcnn1 --data mnist:train --out site").image("00012")
    'mnist:train:12'
    """

    def __init__(self, command: str) -> None:
        words = shlex.split(command)
        at = words.index("--data") if "--data" in words else len(words)
        self.data = words[at + 1] if at + 1 < len(words) else ""
        self._model = words[2:at]  # the command line puts the model's options first

    def line(self, *words: str, to: str = "", **options: str | int | None) -> str:
        """A command line: the subcommand and what it works on, its options, the model, the file to write."""
        if not self._model:
            return ""
        given = [token for name, value in options.items() if value is not None for token in (f"--{name}", str(value))]
        return shlex.join(["microtome", *words, *given, *self._model, *(["-o", to] if to else [])])

    def image(self, name: str) -> str:
        """How an image is named: its path below the folder of the data, or its number in a named data set."""
        if self.data.partition(":")[0] in NAMES:
            return f"{self.data}:{int(name)}"
        return str(PurePath(self.data, name))
