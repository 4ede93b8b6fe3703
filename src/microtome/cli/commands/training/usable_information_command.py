"""``microtome usable-information``: bits about the class that a linear classifier extracts from each layer."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from microtome.cli.options import Json, ModelOptions, Output, names
from microtome.cli.output import check, save, tell_table

__all__ = ["usable_information"]


def usable_information(
    *,
    model: ModelOptions,
    data: Annotated[str, Parameter(help="Labelled images: a folder with one folder per class, or mnist:test, ...")],
    output: Output,
    layers: Annotated[
        str | None, Parameter(help="Layers joined by commas; default the outputs of nonlinearities.")
    ] = None,
    reduce: Annotated[
        Literal["flat", "mean", "max"], Parameter(help="How positions are pooled into features; flat keeps them all.")
    ] = "flat",
    folds: Annotated[
        int, Parameter(help="Number of folds: all but two are for fitting, one for validation, one for testing.")
    ] = 5,
    images: Annotated[int, Parameter(help="Number of images to use.")] = 1000,
    kept: Annotated[
        int, Parameter(help="Number of images on which the share of energy that reaches a layer is measured.")
    ] = 4,
    seed: Annotated[int, Parameter(help="Random seed of the images and of the folds.")] = 0,
    json: Json = False,
) -> None:
    """Draw how many bits about the class a linear classifier extracts from each layer, on held-out images.

    The pixels and the class scores are included. A second panel shows the share of an image's energy that
    reaches each layer: it falls while the class becomes linearly decodable.

    Example: `microtome usable-information --model zoo:simple-convnet --weights w.safetensors --data mnist:test
    -o readable.png`
    """
    from microtome.loading import opened
    from microtome.training import information as methods

    check(output)
    net = model.network()
    found = methods.usable_information(
        net,
        opened(net, data).images,
        names(layers, "--layers"),
        reduce=reduce,
        folds=folds,
        images=images,
        kept=kept,
        seed=seed,
    )
    tell_table(found.table(), as_json=json)
    save(found, output, as_json=json)
