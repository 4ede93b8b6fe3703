"""``microtome cam-conversion``: a head of global average pooling and a linear layer, fine-tuned and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from microtome.cli.options import Json, ModelOptions
from microtome.cli.output import check, save, tell

__all__ = ["cam_conversion"]


def cam_conversion(
    *,
    model: ModelOptions,
    data: Annotated[str, Parameter(help="Labelled images to train on: a folder, or a data set such as mnist:train.")],
    test: Annotated[str, Parameter(help="Labelled images to measure on, such as mnist:test.")],
    output: Annotated[Path, Parameter(name=("--output", "-o"), help=".safetensors for the weights, or a figure.")],
    layer: Annotated[
        str | None, Parameter(help="Whose maps are averaged; default the last that is no pooling.")
    ] = None,
    epochs: Annotated[int, Parameter(help="Passes over the training images.")] = 3,
    lr: Annotated[float, Parameter(help="Highest learning rate.")] = 0.02,
    batch: Annotated[int, Parameter(help="Images a step.")] = 128,
    freeze: Annotated[bool, Parameter(help="Train the new linear layer only.", negative=())] = False,
    seed: Annotated[int, Parameter(help="Random seed of the new head and of the images' order.")] = 0,
    json: Json = False,
) -> None:
    """Replace a copy's head by global average pooling and a linear layer, fine-tune it, and print what that costs.

    Class activation maps are exact on the result, which `microtome.load(FILE).network(net)` gives back from the file.

    Example: `microtome cam-conversion --model zoo:simple-convnet --weights w.safetensors --data mnist:train --test
    mnist:test -o cam.safetensors`
    """
    from microtome import surgery
    from microtome.loading import opened

    check(output)
    net = model.network()
    train, held = (opened(net, source, labelled=True).images for source in (data, test))
    found = surgery.convert_to_cam(
        net, train, held, layer=layer, epochs=epochs, lr=lr, batch=batch, freeze=freeze, seed=seed
    )
    save(found, output, as_json=json)
    tell(
        found.table(),
        lambda row: f"{row['state']:<9} accuracy {row['accuracy']:.2f} % (standard error {row['error']:.2f})",
        as_json=json,
    )
