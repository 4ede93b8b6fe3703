"""``microtome rejected``, ``class-residuals`` and ``facets-between``: rejected energy and facets."""

from __future__ import annotations

import math
from typing import Annotated

from cyclopts import Parameter

from microtome.cli.options import Data, Json, ModelOptions, Output, Picture, names, pictures
from microtome.cli.output import check, save, say, tell, tell_table
from microtome.errors import InputError

__all__ = ["class_residuals", "facets_between", "rejected"]


def rejected(
    *,
    model: ModelOptions,
    output: Output,
    data: Data,
    layers: Annotated[str | None, Parameter(help="Layers joined by commas; default all linear ones.")] = None,
    limit: Annotated[int, Parameter(help="Maximum number of images, spread over the data.")] = 64,
    json: Json = False,
) -> None:
    """The share of the energy that each linear layer reads and rejects, over a data set.

    Example: `microtome rejected --model zoo:simple-convnet --weights w.safetensors --data mnist -o rejected.png`
    """
    from microtome import spaces

    check(output)
    if limit < 1:
        raise InputError(f"at least one image was expected, got --limit {limit}.")
    subject = model.recipe(data).open()
    net, images = subject.net, subject.images
    total = len(images)
    some = images.subset([place * total // min(total, limit) for place in range(min(total, limit))])
    found = spaces.rejected_energy(net, some, names(layers, "--layers"))
    if not json:
        say(f"Share of the input energy whose removal changes a layer's output by less than {found.threshold:.0%}:")
    tell_table(found.table(), as_json=json)
    save(found, output, as_json=json)


def class_residuals(
    *,
    model: ModelOptions,
    output: Output,
    data: Data,
    layer: Annotated[str | None, Parameter(help="A Linear layer or convolution; default the first.")] = None,
    json: Json = False,
) -> None:
    """Weights and signal vectors of a layer, and what it leaves out of the average picture of each class.

    Example: `microtome class-residuals --model zoo:fcnn1 --weights w.safetensors --data mnist -o figure1.png`
    """
    from microtome import spaces

    check(output)
    subject = model.recipe(data).open(labelled=True)
    found = spaces.class_residuals(subject.net, subject.images, layer=layer)
    against = "the weights of its own unit" if found.against == "unit" else "all weights of the layer"
    if not json:
        say(f"{found.layer}: condition number {found.condition_number:.4g}")
    tell(
        ({"class": name, "removed": part} for name, part in zip(found.classes, found.removed.tolist(), strict=True)),
        lambda row: (
            f"{row['class']}: {_share(row['removed'])} of the energy of its average picture is orthogonal to {against}"
        ),
        as_json=json,
    )
    save(found, output, as_json=json)


def _share(value: float) -> str:
    return "a share that is not defined (it is zero)" if math.isnan(value) else f"{100 * value:.2f} %"


def facets_between(
    first: Picture,
    second: Picture,
    /,
    *,
    model: ModelOptions,
    output: Output,
    limit: Annotated[int, Parameter(help="Maximum number of facets.")] = 100_000,
) -> None:
    """Where the scores of a piecewise linear network bend on the straight way from one picture to another.

    Example: `microtome facets-between 3.png 8.png --model zoo:simple-convnet --weights w.safetensors -o path.png`
    """
    from microtome import spaces

    check(output)
    net = model.network()
    start, end = pictures([first, second], net)
    found = spaces.facets_between(net, start, end, limit=limit)
    part = "" if found.reached == 1 else f" on the first {found.reached:.1%} of the way"
    say(f"{found.crossed:,} facets{part}; between them the scores are straight to {found.error:.1e} of the largest")
    save(found, output)
