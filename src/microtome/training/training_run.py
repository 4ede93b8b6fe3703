"""Results of a training run: curves, gradient statistics, and the weights of each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from microtome.errors import InputError, StoreError
from microtome.option_types import checks_types
from microtome.result_html import page, value_text
from microtome.tables import Table
from microtome.training import checkpoints
from microtome.zoo.weight_files.weights import fill

__all__ = ["Run"]

_SHOWN = 20  # rows of the table in a notebook


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """The record of a training run, read from its folder or held in memory.

    Parameters
    ----------
    records
        One dictionary for each epoch: ``epoch``, ``loss`` (mean over the steps), ``steps`` (loss of each step),
        ``accuracy`` (of the training images during the epoch), ``gradient``, and further values of the loop.
    settings
        Settings that the loop stored: learning rate, seed and the like.
    folder
        The run's folder, kept as an absolute path.
    """

    records: tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.folder is not None:  # weights are read later, when another folder may be the current one
            object.__setattr__(self, "folder", self.folder.absolute())

    @classmethod
    @checks_types
    def read(cls, folder: Path | str) -> Run:
        """Read a run's folder.

        Raises
        ------
        StoreError
            There is no record in it, or it is broken.
        """
        log = Path(folder) / "log.safetensors"
        if not log.is_file():
            raise StoreError(f"the folder {folder} holds no training run (log.safetensors is missing).")
        _, header = checkpoints.read(log)
        return cls(tuple(header["epochs"]), header["settings"], Path(folder))

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        where = "" if self.folder is None else f" in {_shown(self.folder)}"
        return f"Run({len(self)} epochs{where})"

    def _repr_html_(self) -> str:
        """Show the curves as a table in a notebook; for a long run only some epochs."""
        numbers = [key for key, value in (self.records[0] if self.records else {}).items() if _is_number(value)]
        stride = max(1, -(-len(self) // _SHOWN))
        shown = [record for place, record in enumerate(self.records) if (len(self) - 1 - place) % stride == 0]
        table = Table.of([{key.replace("_", " "): record[key] for key in numbers} for record in shown])
        where = "in memory only" if self.folder is None else f"in the folder {_shown(self.folder)}"
        kept = value_text(list(self.checkpoints))
        lines = [f"The record is {where}; weights are stored for the epochs: {kept}."]
        if stride > 1:
            lines.append(f"One of {stride} epochs is shown.")
        return page(
            f"Training run of {len(self)} epochs", lines, table, [f"Settings: {value_text(dict(self.settings))}."]
        )

    @property
    def epochs(self) -> Tensor:
        """The epochs' numbers, from 1."""
        return torch.tensor([record["epoch"] for record in self.records], device="cpu")

    def curve(self, name: str) -> Tensor:
        """One number for each epoch, such as ``loss``, ``accuracy``, ``validation_accuracy``.

        Raises
        ------
        InputError
            The run has no such curve.
        """
        values = [record.get(name) for record in self.records]
        if not values or not all(isinstance(value, int | float) for value in values):
            known = sorted(
                key for key, value in (self.records[0] if values else {}).items() if isinstance(value, float)
            )
            raise InputError(f'the run has no curve "{name}"; it has {", ".join(known) or "no epoch yet"}.')
        return torch.tensor(values, dtype=torch.float64, device="cpu")

    @property
    def steps(self) -> Tensor:
        """The loss of every step."""
        return torch.tensor(
            [loss for record in self.records for loss in record["steps"]], dtype=torch.float64, device="cpu"
        )

    def gradient(self, name: str) -> Tensor:
        """A parameter's gradient statistics (epochs, 3): norms of mean, deviation (both over the weight's), weight.

        Raises
        ------
        InputError
            The run has no such parameter, or kept no gradients.
        """
        rows = [record["gradient"].get(name) for record in self.records]
        if not rows or any(row is None for row in rows):
            known = ", ".join(self.records[0]["gradient"]) if self.records else ""
            raise InputError(f'the run has no gradients of "{name}"; it has {known or "none"}.')
        return torch.tensor(
            [[row["mean"], row["std"], row["weight"]] for row in rows], dtype=torch.float64, device="cpu"
        )

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """The epochs whose weights are in the folder."""
        if self.folder is None:
            return ()
        kept = (record["epoch"] for record in self.records)
        return tuple(epoch for epoch in kept if self._file(epoch).is_file())

    def weights(self, epoch: int) -> dict[str, Tensor]:
        """The weights at the end of an epoch; -1 is the last one in the folder.

        Raises
        ------
        InputError
            The weights of this epoch were not written; the message lists the epochs that were.
        """
        kept = self.checkpoints
        chosen = kept[-1] if epoch == -1 and kept else epoch
        if chosen not in kept:
            raise InputError(
                f"the weights of epoch {epoch} are not kept; those of {', '.join(map(str, kept)) or 'none'} are."
            )
        return checkpoints.read(self._file(chosen))[0]

    def load(self, model: nn.Module, epoch: int = -1) -> None:
        """Fill a model with the weights of an epoch.

        Raises
        ------
        InputError
            The weights of this epoch were not written.
        ModelError
            The weights do not fit the model.
        """
        fill(model, self.weights(epoch), f"epoch {epoch} of {self!r}")

    def _file(self, epoch: int) -> Path:
        if self.folder is None:
            raise StoreError("the run was kept in memory only; give the recorder a folder to keep weights.")
        return self.folder / f"epoch-{epoch:05d}.safetensors"


def _shown(folder: Path) -> Path:
    """The folder as a person would write it: from the current folder if it is below it."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
