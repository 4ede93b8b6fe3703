"""``microtome train``: a network of the zoo trained from scratch on a named data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from microtome.cli.output import writable

if TYPE_CHECKING:
    from microtome.progress import Progress as Step

__all__ = ["train"]


def train(
    network: Annotated[str, Parameter(help="A network of the zoo: simple-convnet, fcnn1, fcnn5, resnet18.")],
    *,
    data: Annotated[str, Parameter(help="mnist or fashion-mnist.")],
    out: Annotated[Path, Parameter(help="Folder of the run; an interrupted run resumes there.")],
    epochs: Annotated[int | None, Parameter(help="Passes over the training images; by default the recipe's.")] = None,
    seed: Annotated[int, Parameter(help="Random seed of the first weights and of the images' order.")] = 0,
) -> None:
    """Train a network of the zoo and write its weights, OUT/weights.safetensors.

    All images but the 10,000 test ones are trained on; the accuracy on the test images, which the training does not
    see, is printed. Weights are kept after each epoch: an interrupted run resumes with the same command.

    Example: `microtome train simple-convnet --data mnist --out runs/convnet`
    """
    from microtome.training import train_network

    writable(out)  # seen now, not after an epoch
    with _Bar() as bar:
        done = train_network(network, data, out=out, seed=seed, epochs=epochs, progress=bar.step)
    print(
        f"test accuracy {100 * done.test_accuracy:.2f} %, cross-entropy {done.test_loss:.4f}, on 10,000 test images; "
        f"{done.seconds:.0f} s\nweights {done.weights}"
    )


class _Bar:
    """Progress of a training: a bar on a terminal, elsewhere a line at the start of each epoch and at the end."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.1%}"),
            TimeElapsedColumn(),
            TextColumn("remaining"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._epoch = 0.0
        self._bar = self._progress.add_task("training", total=None, loss=0.0, accuracy=0.0)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._progress.stop()

    def step(self, at: Step) -> None:
        """A step has been made."""
        self._progress.update(
            self._bar,
            total=float(at.total),
            completed=at.done,
            description=at.stage,
            loss=at.numbers["loss"],
            accuracy=at.numbers["accuracy"],
        )
        if at.numbers["epoch"] > self._epoch or at.done == at.total:
            self._epoch = at.numbers["epoch"]
            if not self._console.is_terminal and at.done > 1:
                self._console.print(str(at))
