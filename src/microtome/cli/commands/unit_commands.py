"""``microtome top-patches``, ``reconstruct``, ``tuning``, ``dissect``, ``activations``: what units look for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from microtome.cli.commands.maximize_command import indices
from microtome.cli.options import Data, Json, LayerName, ModelOptions, Output, Picture, pictures
from microtome.cli.output import check, save, say, tell_table

__all__ = ["activations", "dissect", "reconstruct", "top_patches", "tuning"]

_SHOWN = 8  # units that are reconstructed by default


def top_patches(
    *,
    model: ModelOptions,
    data: Data,
    layer: LayerName,
    output: Output,
    k: Annotated[int, Parameter(help="Patches of each unit.")] = 9,
) -> None:
    """Find the patches of the data that drive each unit of a layer most, as exact crops of the receptive field.

    Example: `microtome top-patches --model zoo:efficientnet-lite0 --data images/ --layer _blocks.4 -o patches.png`
    """
    from microtome import units

    check(output)
    subject = model.recipe(data).open()
    save(units.top_patches(subject.net, subject.images, [layer], k=k)[layer], output)


def reconstruct(
    *,
    model: ModelOptions,
    data: Data,
    layer: LayerName,
    output: Output,
    channels: Annotated[
        str | None, Parameter(help="Units, joined by commas; 0-15 is a range. Default the first eight.")
    ] = None,
    k: Annotated[int, Parameter(help="Patches of each unit.")] = 9,
    method: Annotated[
        Literal["deconvnet", "guided", "gradient"], Parameter(help="How it is propagated back.")
    ] = "deconvnet",
    view: Annotated[Literal["rows", "blocks"], Parameter(help="Layout; blocks as in Zeiler and Fergus.")] = "blocks",
) -> None:
    """Show what drives each unit in its strongest patches: its activation propagated back to the pixels.

    Example: `microtome reconstruct --model zoo:simple-convnet --weights w.pt --data mnist --layer conv2 -o r.png`
    """
    from microtome import units

    check(output)
    subject = model.recipe(data).open()
    chosen = indices(channels)
    shown = range(min(_SHOWN, subject.net.layer(layer).units)) if chosen is None else chosen
    top = units.top_patches(subject.net, subject.images, [layer], k=k)[layer]
    found = units.reconstruct(subject.net, top, method=method, k=k, units=list(shown))
    save(found, output, view=view, limit=len(found.units))


def tuning(
    *,
    model: ModelOptions,
    layer: LayerName,
    output: Annotated[
        Path | None, Parameter(name=("--output", "-o"), help="Figure or result, besides the table.")
    ] = None,
    json: Json = False,
) -> None:
    """Say in words which lines, edges, corners, curves, gratings or blobs each unit of a layer is tuned to.

    Shows synthetic stimuli to the network and prints a table: unit, label, angle, bandwidth, confidence.

    Example: `microtome tuning --model zoo:simple-convnet --weights w.safetensors --layer conv1`
    """
    from microtome import units

    check(output)
    found = units.tuning(model.network(), layer)
    tell_table(found.table(), as_json=json)
    save(found, output, as_json=json)


def dissect(
    photo: Picture,
    /,
    *,
    model: ModelOptions,
    layer: Annotated[str, Parameter(help="A convolution or fully connected layer.")],
    channel: Annotated[int, Parameter(help="The output channel.")],
    output: Output,
    json: Json = False,
) -> None:
    """Take one unit's activation on a picture apart: inputs, weights, contributions, running sum, bias, output.

    Example: `microtome dissect digit.png --model zoo:simple-convnet --weights w.safetensors --layer conv2 --channel 3
    -o dissection.png`
    """
    from microtome import units

    check(output)
    net = model.network()
    found = units.dissect(net, pictures([photo], net)[0], layer, channel)
    tell_table(found.table(), as_json=json)
    if not json:
        say(
            f"bias {found.bias:.4g}; largest gap between sum and output {found.gap:.2g} "
            f"(rounding allows {found.bound:.2g})"
        )
    save(found, output, as_json=json)


def activations(
    photo: Picture,
    /,
    *,
    model: ModelOptions,
    layer: LayerName,
    output: Output,
) -> None:
    """Draw the activation map of every unit of a layer on a picture.

    Example: `microtome activations photo.jpg --model zoo:efficientnet-lite0 --layer _conv_stem -o maps.png`
    """
    from microtome import units

    check(output)
    net = model.network()
    save(units.activation_maps(net, pictures([photo], net), layer), output)
