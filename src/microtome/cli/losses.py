"""Where is a picture thrown away, and what happens between two? Rejected energy, residuals and paths, from a shell."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from microtome import spaces
from microtome.cli.options import ModelOptions, Picture, names, pictures
from microtome.cli.output import check, save
from microtome.cli.units import Output
from microtome.data import open_data
from microtome.errors import InputError

__all__ = ["class_residuals", "facets_between", "rejected"]

_Data = Annotated[str, Parameter(help="A named data set, or a folder with one folder a class.")]


def rejected(
    *,
    model: ModelOptions,
    output: Output,
    data: _Data,
    layers: Annotated[str | None, Parameter(help="Layers joined by commas; default all linear ones.")] = None,
    most: Annotated[int, Parameter(help="At most so many images, spread over the data.")] = 64,
) -> None:
    """The share of the energy that each linear layer reads and rejects, over a data set.

    Example: `microtome rejected --model zoo:simple-convnet --weights w.safetensors --data mnist -o rejected.png`
    """
    check(output)
    if most < 1:
        raise InputError(f"at least one image was expected, got --most {most}.")
    net = model.network()
    images = open_data(data, net.input_shape)
    total = len(images)
    some = images.subset([place * total // min(total, most) for place in range(min(total, most))])
    found = spaces.rejected_energy(net, some, names(layers))
    print(found.table())
    save(found, output)


def class_residuals(
    *,
    model: ModelOptions,
    output: Output,
    data: _Data,
    layer: Annotated[str | None, Parameter(help="A Linear layer or convolution; default the first.")] = None,
) -> None:
    """Weights and signal vectors of a layer, and what it leaves out of the average picture of each class.

    Example: `microtome class-residuals --model zoo:fcnn1 --weights w.safetensors --data mnist -o figure1.png`
    """
    check(output)
    net = model.network()
    found = spaces.class_residuals(net, open_data(data, net.input_shape), layer=layer)
    print(f"{found.layer}: condition number {found.condition_number:.4g}")
    against = "its own unit" if found.against == "unit" else "the layer"
    for name, removed in zip(found.classes, found.removed.tolist(), strict=True):
        print(f"{name}: {removed:.2%} of the average's energy is not along {against}")
    save(found, output)


def facets_between(
    first: Picture,
    second: Picture,
    /,
    *,
    model: ModelOptions,
    output: Output,
    most: Annotated[int, Parameter(help="Stop after so many facets.")] = 100_000,
) -> None:
    """Where the scores of a piecewise linear network bend on the straight way from one picture to another.

    Example: `microtome facets-between 3.png 8.png --model zoo:simple-convnet --weights w.safetensors -o path.png`
    """
    check(output)
    net = model.network()
    start, end = pictures([first, second], net)
    found = spaces.facets_between(net, start, end, most=most)
    part = "" if found.reached == 1 else f" on the first {found.reached:.1%} of the way"
    print(f"{found.crossed} facets{part}; between them the scores are straight to {found.error:.1e}")
    save(found, output)
