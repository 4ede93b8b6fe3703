"""``microtome explain-path``, ``what-where``, ``natural-filters`` and ``layer-repeats``: what units are built from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from microtome.cli.options import Data, Json, LayerName, ModelOptions, Output, Picture, names, pictures
from microtome.cli.output import check, save, say, tell_table
from microtome.errors import InputError

__all__ = ["explain_path", "layer_repeats", "natural_filters", "what_where"]


def explain_path(
    photo: Picture,
    /,
    *,
    model: ModelOptions,
    output: Annotated[
        Path,
        Parameter(
            name=("--output", "-o"),
            help=".html for a page and its picture as .png; or .png, .svg, .pdf, .safetensors.",
        ),
    ],
    target: Annotated[
        str | None, Parameter(help="The target class, by number or name; default the predicted class.")
    ] = None,
    layers: Annotated[str | None, Parameter(help="Layers whose units are named; default all with weights.")] = None,
    labels: Annotated[bool, Parameter(help="Whether to measure the tuning of units, which takes longer.")] = True,
    json: Json = False,
) -> None:
    """Walk from a class score down to the picture: the units that gave it, and the inputs that made those.

    Example: `microtome explain-path digit.png --model zoo:simple-convnet --weights w.safetensors -o path.html`
    """
    from microtome import units

    page = output.suffix.lower() == ".html"
    check(output, (".html",))
    net = model.network()
    found = units.explain_path(net, pictures([photo], net)[0], target, layers=names(layers, "--layers"), labels=labels)
    if json:
        tell_table(found.table(), as_json=True)
    else:
        say("\n".join(found.words()))
    if not page:
        save(found, output, as_json=json)
        return
    from microtome.reproduce.pages import write_page

    picture = output.with_suffix(".png")
    save(found, picture, as_json=json)
    command = f"microtome explain-path, {found.provenance.parameters}, network {found.provenance.fingerprint[:12]}"
    write_page(
        output,
        title=f"How the score of {found.class_name} comes about",
        picture=picture.name,
        caption="Each unit of the path with its map, label and amount, and its inputs; indented by depth.",
        table="\n".join(found.words()),
        made=command,
    )
    if not json:
        say(f"wrote {output}")


def what_where(
    *,
    model: ModelOptions,
    layer: LayerName,
    output: Output,
    reduce: Annotated[
        Literal["max", "mean", "centre"], Parameter(help="How positions are pooled; centre: the neuron in the middle.")
    ] = "max",
    json: Json = False,
) -> None:
    """Print for each unit how much of its response depends on the pattern, and how much on its position.

    Example: `microtome what-where --model zoo:simple-convnet --weights w.safetensors --layer conv2 -o shares.png`
    """
    from microtome import units

    check(output)
    found = units.what_where(model.network(), layer, reduce=reduce)
    tell_table(found.table(), as_json=json)
    save(found, output, as_json=json)


def natural_filters(
    *,
    model: ModelOptions,
    data: Data,
    output: Output,
    layer: Annotated[str | None, Parameter(help="A convolution that reads the image; default the first.")] = None,
    patches: Annotated[int, Parameter(help="Number of image patches.")] = 10_000,
    seed: Annotated[int, Parameter(help="Random seed of the patch positions.")] = 0,
    json: Json = False,
) -> None:
    """Compare the filters of a first layer with filters learned from image patches without labels (ICA).

    Example: `microtome natural-filters --model zoo:simple-convnet --weights w.safetensors --data mnist -o ica.png`
    """
    from microtome import units

    check(output)
    subject = model.recipe(data).open()
    found = units.natural_filters(subject.net, subject.images, layer=layer, patches=patches, seed=seed)
    tell_table(found.table(), as_json=json)
    if not json:
        mean = float(found.similarity.nanmean())
        say(f"mean similarity {mean:.3f}; random filters {found.chance:.3f} ± {found.chance_spread:.3f}")
    save(found, output, as_json=json)


def layer_repeats(
    *,
    model: ModelOptions,
    data: Data,
    output: Output,
    layers: Annotated[str | None, Parameter(help="Layers joined by commas; default all that compute.")] = None,
    images: Annotated[int, Parameter(help="Number of images to use.")] = 500,
    seed: Annotated[int, Parameter(help="Random seed of the permutations for the chance level.")] = 0,
    json: Json = False,
) -> None:
    """Print how similar each layer is to the one before it: CKA with its interval, best match of units, duplicates.

    Example: `microtome layer-repeats --model zoo:simple-convnet --weights w.safetensors --data mnist -o repeats.png`
    """
    from microtome import representation

    check(output)
    if images < 1:
        raise InputError(f"at least one image was expected, got --images {images}.")
    subject = model.recipe(data).open()
    count = min(images, len(subject.images))
    chosen = subject.images.subset([place * len(subject.images) // count for place in range(count)])
    found = representation.repeats(subject.net, chosen, names(layers, "--layers"), seed=seed)
    tell_table(found.table(), as_json=json)
    save(found, output, as_json=json)
