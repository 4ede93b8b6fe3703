"""``microtome usable-information``: how many bits about the class a linear reader finds in each layer."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from microtome.cli.options import Json, ModelOptions, Output, names
from microtome.cli.output import check, save, tell_table

__all__ = ["usable_information"]


def usable_information(
    *,
    model: ModelOptions,
    data: Annotated[str, Parameter(help="Labelled images: a folder with one folder a class, or mnist:test, ...")],
    output: Output,
    layers: Annotated[str | None, Parameter(help="Joined by commas; default the outputs of nonlinearities.")] = None,
    reduce: Annotated[str, Parameter(help="How a map becomes features: flat, mean or max over positions.")] = "flat",
    folds: Annotated[int, Parameter(help="Parts of the images: all but two fit, one chooses, one judges.")] = 5,
    images: Annotated[int, Parameter(help="How many of the images to use.")] = 1000,
    kept: Annotated[int, Parameter(help="On how many to measure the share of an image that reaches a layer.")] = 4,
    seed: Annotated[int, Parameter(help="Of the images and of the parts.")] = 0,
    json: Json = False,
) -> None:
    """Draw how many bits about the class a linear reader finds in each layer, on images that it was not fitted to.

    The pixels and the class scores are read beside the layers. Below stands the share of an image's energy that
    reaches each layer: what is kept of the image falls while the class becomes readable.

    Example: `microtome usable-information --model zoo:simple-convnet --weights w.safetensors --data mnist:test
    -o readable.png`
    """
    from microtome.loading import opened
    from microtome.training import information as methods

    check(output)
    net = model.network()
    found = methods.usable_information(
        net, opened(net, data).images, names(layers), reduce=reduce, folds=folds, images=images, kept=kept, seed=seed
    )
    tell_table(found.table(), as_json=json)
    save(found, output, as_json=json)
