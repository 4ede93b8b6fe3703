"""``microtome hand-net``: the hand-built network: described, measured, trained and drawn."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from microtome.cli.output import say, writable
from microtome.errors import InputError

__all__ = ["hand_net"]


def hand_net(
    *,
    train: Annotated[
        bool, Parameter(help="Whether to measure and train it on MNIST (about two minutes per epoch on one core).")
    ] = False,
    epochs: Annotated[int, Parameter(help="Number of epochs in each of the two trainings.")] = 5,
    images: Annotated[int | None, Parameter(help="Number of training images; default all 60,000.")] = None,
    seed: Annotated[int, Parameter(help="Random seed of the order of images.")] = 0,
    out: Annotated[Path, Parameter(help="With --train: folder for numbers, figure and page.")] = Path("hand-net"),
) -> None:
    """Print the hand-built network with every weight explained in words; or measure and train it.

    With --train: accuracy on MNIST's 10,000 test images with the hand-set weights, after training the named numbers,
    and after training all weights, compared with a SimpleConvNet trained on the same images.

    Example: `microtome hand-net --train --epochs 5 --out hand-net`
    """
    if not train:
        from microtome.zoo.hand_set import hand_net as built

        say(built().describe())
        return
    from microtome import data
    from microtome.reproduce.dissecting.hand_set_digits import hand_set

    if epochs < 1:
        raise InputError(f"--epochs is at least 1, got {epochs}.")
    writable(out)
    digits = data.mnist("train+validation")
    digits = digits if images is None else digits.sample(images, seed=seed)
    found = hand_set(digits, epochs=epochs, seed=seed, out=out, say=partial(print, flush=True))
    print(f"\n{found.report()}\nfigure, words and numbers in {out}")
