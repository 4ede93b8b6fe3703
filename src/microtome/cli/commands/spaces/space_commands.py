"""``microtome spectra``, ``signal-space``, ``kept``, ``region``, ``invert`` and more: what layers keep and reject."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from microtome.cli.options import Data, Json, ModelOptions, Output, Pictures, names, pictures
from microtome.cli.output import check, save, say, tell, tell_table

__all__ = ["ideal_inputs", "invert", "invertibility", "kept", "region", "signal_space", "spectra"]


def spectra(*, model: ModelOptions, output: Output | None = None, json: Json = False) -> None:
    """Singular values, rank and condition number of every Linear layer and convolution.

    Convolutions are read by their kernels (n = kh * kw), 1 x 1 convolutions by the channels that they mix; `microtome
    signal-space --view exact` gives the true operator.

    Example: `microtome spectra --model zoo:efficientnet-lite0`
    """
    from microtome import spaces

    check(output)
    found = spaces.spectra(model.network())
    if not json:
        say(f"{'layer':<32} {'read as':<8} {'m x n':>14} {'rank':>6} {'condition':>10}")
    tell(
        (
            {
                "layer": name,
                "view": found.view[name],
                "size": f"{m} x {n}",
                "rank": found.rank[name],
                "condition_number": found.condition_number[name],
            }
            for name, (m, n) in found.shape.items()
        ),
        lambda row: (
            f"{row['layer']:<32} {row['view']:<8} {row['size']:>14} {row['rank']:>6} {row['condition_number']:>10.3g}"
        ),
        as_json=json,
    )
    save(found, output, as_json=json)


def signal_space(
    layer: Annotated[str, Parameter(help="A Linear layer or convolution.")],
    /,
    *,
    model: ModelOptions,
    output: Output,
    view: Annotated[
        Literal["matrix", "kernels", "patches", "exact"] | None,
        Parameter(help="How a layer is read as a matrix; matrix is for a Linear layer."),
    ] = None,
    triplets: Annotated[
        int | None, Parameter(help="So many singular vectors of the true operator, without its matrix.")
    ] = None,
) -> None:
    """The four fundamental spaces of a layer: signal vectors, spectrum, rank, condition number.

    Example: `microtome signal-space conv2 --model zoo:simple-convnet --weights w.safetensors -o space.png`
    """
    from microtome import spaces

    check(output)
    net = model.network()
    if triplets is not None:
        few = spaces.operator(net, layer).triplets(triplets)
        say("singular values " + ", ".join(f"{value:.6g}" for value in few.values.tolist()))
        say(f"largest residual {float(few.residual.max()):.1e}")
        save(few, output)
        return
    found = spaces.subspaces(net, layer, view=view)
    m, n = found.shape
    say(f"{layer} ({found.view}): {m} x {n}, rank {found.rank}, condition number {found.condition_number:.4g}")
    save(found, output)


def kept(
    images: Pictures,
    /,
    *,
    model: ModelOptions,
    output: Output,
    layers: Annotated[str | None, Parameter(help="Layers joined by commas; default all linear ones.")] = None,
) -> None:
    """What of a picture each layer can still tell, and what it has lost, as pictures.

    Example: `microtome kept digit.png --model zoo:simple-convnet --weights w.safetensors -o kept.png`
    """
    from microtome import spaces

    check(output)
    net = model.network()
    found = spaces.kept_and_lost(net, pictures(images, net), names(layers, "--layers"))
    say(f"Share of the energy of an image whose removal changes a layer by less than {found.threshold:.0%}:")
    tell_table(found.table(), as_json=False)
    save(found, output)


def region(
    images: Pictures,
    /,
    *,
    model: ModelOptions,
    output: Output,
    classes: Annotated[str | None, Parameter(name="--for", help="Classes joined by commas; default all.")] = None,
) -> None:
    """The exact affine map of a piecewise linear network around a picture, its nearest facet, and what it ignores.

    Example: `microtome region digit.png --model zoo:simple-convnet --weights w.safetensors -o region.png`
    """
    from microtome import spaces

    check(output)
    net = model.network()
    found = spaces.linear_region(net, pictures(images, net), classes=names(classes, "--for"))
    for place, facet in enumerate(found.facet):
        if not facet:
            say(f"{images[place].name}: no facet anywhere: the network is linear for all pictures")
            continue
        unit = ", ".join(map(str, facet["unit"]))
        away = float(found.distance[place])
        say(f"{images[place].name}: nearest facet {away:.3g} away in pixel values, of {facet['layer']} ({unit})")
        change = float(found.ignored_change[place])
        say(f"  nearest facet at which the scores bend: {float(found.changing[place]):.3g} away")
        ties, silent = int(found.ties[place]), int(found.silent_ties[place])
        if ties:
            say(f"  the picture lies on {ties:,} facets at which the scores bend: it is a corner of its region")
        extent = min(1.0, 0.99 * float(found.ignored_extent[place].max()))
        say(f"  the picture lies on {silent:,} facets at which they do not bend")
        say(f"  {extent:.2g} of its ignored part, taken away or added, moves the scores by {change:.1e}")
    save(found, output)


def invertibility(*, model: ModelOptions, json: Json = False) -> None:
    """Which layers can be undone, and why others cannot.

    Example: `microtome invertibility --model zoo:fcnn5`
    """
    from microtome import spaces

    tell_table(spaces.invertibility(model.network()).table(), as_json=json)


def invert(
    images: Annotated[list[Path], Parameter(help="Picture files; each is looked for again from its class scores.")],
    /,
    *,
    model: ModelOptions,
    output: Output,
    beside: Annotated[
        Path | None, Parameter(help="A picture that lends what the layers reject; without it that stays zero.")
    ] = None,
) -> None:
    """Go back from the class scores of pictures to pictures, layer by layer, and say how near they come.

    Example: `microtome invert seven.png --beside one.png --model zoo:fcnn5 --weights w.safetensors -o back.png`
    """
    from microtome import spaces
    from microtome.spaces.operators.linear_layer import in_double

    check(output)
    net = model.network()
    photos = pictures(images, net).double()
    lent = None if beside is None else pictures([beside], net)
    # Rounded to float32, saturated values would leave their range on the way back.
    scores = in_double(net).logits(photos)
    found = spaces.invert(net, scores, beside=lent, truth=photos, strict=False)
    tell_table(found.table(), as_json=False)
    for place, file in enumerate(images):
        away = float((found.images[place] - photos[place]).norm() / photos[place].norm().clamp(min=1e-12))
        if bool(found.valid[place]):
            say(f"{file.name}: scores met to {float(found.error[place]):.1e}, {away:.1%} away from the picture")
        else:
            say(f"{file.name}: on the way back its values leave the range of an activation; lend a picture: --beside")
    save(found, output)


def ideal_inputs(
    *,
    model: ModelOptions,
    output: Output,
    data: Data = "mnist:train",
    steps: Annotated[int, Parameter(help="Steps of training the images.")] = 200,
) -> None:
    """Six images for each class, and how near the network's answer to each is to the ideal one.

    Example: `microtome ideal-inputs --model zoo:fcnn5 --weights w.safetensors --data mnist -o ideal.png`
    """
    from microtome import spaces

    check(output)
    subject = model.recipe(data).open(labelled=True)
    found = spaces.ideal_inputs(subject.net, subject.images, steps=steps)
    for place, name in enumerate(found.classes):
        distance = float(found.distance[:, place].min())
        say(f"{name}: best image {found.best_kinds[place]}, its output {distance:.4g} away from the ideal one")
    save(found, output)
