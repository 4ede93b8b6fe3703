"""``microtome landscape``: the loss around a network's weights, or between two networks."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from microtome.cli.options import Json, ModelOptions
from microtome.cli.output import check, save, tell, writable
from microtome.errors import InputError

__all__ = ["landscape"]


def landscape(
    *,
    model: ModelOptions,
    data: Annotated[str, Parameter(help="Labelled images: a folder with one folder per class, or mnist:train, ...")],
    output: Annotated[
        Path,
        Parameter(
            name=("--output", "-o"),
            help=".png, .svg or .pdf for a figure, .html for a rotatable surface, or .safetensors for the result.",
        ),
    ],
    test: Annotated[str | None, Parameter(help="Labelled test images, for --to.")] = None,
    to: Annotated[
        str | None, Parameter(help="Weights of a second network of the same architecture: the line to it.")
    ] = None,
    run: Annotated[Path | None, Parameter(help="Folder of a training: the plane of its trajectory.")] = None,
    line: Annotated[bool, Parameter(negative=(), help="A line in place of a plane.")] = False,
    steps: Annotated[int, Parameter(help="Points along each direction, odd.")] = 21,
    extent: Annotated[
        float | None, Parameter(help="How far to go in random directions, in units of the weights' norms; default 1.")
    ] = None,
    statistics: Annotated[
        Literal["frozen", "reestimated"], Parameter(help="Running statistics: as they are, or new at each point.")
    ] = "frozen",
    tolerance: Annotated[
        float | None, Parameter(help="Relative standard error at which sampling of a point stops, as in .02.")
    ] = None,
    precision: Annotated[
        Literal["float32", "bfloat16"], Parameter(help="The error of bfloat16 is measured and shown in the figure.")
    ] = "float32",
    images: Annotated[int | None, Parameter(help="Number of images to use; default all.")] = None,
    folder: Annotated[
        Path | None, Parameter(help="Folder for computed points; an interrupted command resumes there.")
    ] = None,
    seed: Annotated[int, Parameter(help="Random seed of the directions and of the order of images.")] = 0,
    json: Json = False,
) -> None:
    """Draw the mean loss on a plane through the weights, in filter-normalised random directions.

    With --line on a line, with --run on the plane of a training's trajectory, with --to on the line to a second
    network. A file that ends in .html is a page with a surface that can be rotated; it opens from disk without a
    server. Biases and normalisation layers stay fixed in random directions. Prints the loss at the network, the width
    of the minimum (where the loss has risen by 1) and the share of points with negative curvature.

    Example: `microtome landscape --model zoo:simple-convnet --weights w.safetensors --data mnist:test --tolerance .05
    -o surface.png`
    """
    from microtome.loading import opened
    from microtome.training import Run
    from microtome.training import landscape as landscapes

    turns = output.suffix.lower() == ".html"
    if turns and (line or to is not None):
        raise InputError(
            "an .html page shows a surface; with --line and --to, give a .png, .svg, .pdf or .safetensors file."
        )
    check(output, (".html",))
    if sum((to is not None, run is not None, line)) > 1:
        raise InputError("--to, --run and --line exclude each other; give one.")
    if test is not None and to is None:
        raise InputError("--test goes with --to.")
    if extent is not None and (to is not None or run is not None):
        raise InputError("--extent goes with random directions; with --to and --run the weights say how far to go.")
    if folder is not None:
        writable(folder)
    net = model.network()
    dataset = opened(net, data, labelled=True).images
    common: dict[str, Any] = {
        "steps": steps, "statistics": statistics, "tolerance": tolerance, "images": images,
        "precision": precision, "seed": seed, "folder": folder,
    }  # fmt: skip
    far = 1.0 if extent is None else extent
    found: landscapes.LossLine | landscapes.LossSurface
    if to is not None:
        other = dataclasses.replace(model, weights=to).network()
        held = None if test is None else opened(net, test, labelled=True).images
        found = landscapes.between(net, other, dataset, test=held, **common)
    elif line:
        found = landscapes.line(net, dataset, extent=far, **common)
    else:
        found = landscapes.surface(
            net, dataset, extent=far, run=None if run is None else Run.read(run), **common
        )  # fmt: skip
    if turns and isinstance(found, landscapes.LossSurface):
        from microtome.atlas.surface_page import surface_file
        from microtome.results import write_atomically

        write_atomically(output, surface_file(found, f"The loss around the weights of {net.name}"))
        print(f"wrote {output}", file=sys.stderr if json else sys.stdout)
    else:
        save(found, output, as_json=json)
    rows = [_row(found, between=to is not None)]
    if isinstance(found, landscapes.LossLine) and found.test is not None:
        rows = [{"on": "training images", **rows[0]}, {"on": "test images", **_row(found.test, between=True)}]
    tell(rows, _text, as_json=json)


def _row(found: Any, *, between: bool) -> dict[str, Any]:
    """The numbers that the command prints, by name."""
    lost = int((~found.loss.isfinite()).sum())
    row = {"lowest": float(found.loss[found.loss.isfinite()].min()) if lost < found.loss.numel() else float("nan")}
    if between:
        row |= {"first": float(found.loss[0]), "second": float(found.loss[-1])}
        row["barrier"] = float((found.loss - found.loss[0].lerp(found.loss[-1], found.alpha)).max())
    else:
        place = [
            int(axis.abs().argmin()) for axis in (found.alpha, getattr(found, "beta", found.alpha[:0])) if len(axis)
        ]
        row |= {"loss": float(found.loss[tuple(place)]), "width": found.width()}
        row["negative curvature"] = found.negative_curvature
    if getattr(found, "off_plane", None) is not None:
        row["path off the plane"] = found.off_plane
    if found.precision_error is not None:
        row["off float32 at most"] = found.precision_error
    return {**row, "not finite": lost, "images": int(found.images.sum())}


_WORDS = {
    "lowest": "lowest loss",
    "loss": "loss at the network",
    "first": "loss of the first network",
    "second": "loss of the second",
    "barrier": "highest rise above the straight line between the two losses",
    "width": "width of the minimum",
    "negative curvature": "share of points with negative curvature",
    "not finite": "points whose loss is not finite",
    "images": "images at all points together",
}


def _text(row: Any) -> str:
    return ", ".join(
        f"{name} {value:.4g}"
        if isinstance(value, float)
        else f"{name} {value}"
        if isinstance(value, str)
        else f"{name} {value:,}"
        for name, value in ((_WORDS.get(key, key), value) for key, value in row.items())
    )
