"""``microtome curvature``: eigenvalues of the Hessian of a network's loss, their density, and along a training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from microtome.cli.options import Json, ModelOptions, Output
from microtome.cli.output import check, save, tell_beside, tell_table
from microtome.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from microtome.results import Result
    from microtome.tables import Table

__all__ = ["curvature"]

_ACCURATE = 0.05  # largest residual, as a share of the largest eigenvalue, that needs no note


def curvature(
    *,
    model: ModelOptions,
    data: Annotated[str, Parameter(help="Labelled images: a folder with one folder per class, or mnist:train, ...")],
    output: Output,
    k: Annotated[
        int | None, Parameter(name="-k", help="Number of eigenvalues at each end of the spectrum; default 1.")
    ] = None,
    per_layer: Annotated[bool, Parameter(negative=(), help="Also the eigenvalues of each layer's own block.")] = False,
    density: Annotated[bool, Parameter(negative=(), help="The density of all eigenvalues instead.")] = False,
    layer: Annotated[str | None, Parameter(help="With --density: the layer whose block is used.")] = None,
    run: Annotated[Path | None, Parameter(help="Folder of a training: eigenvalues at every checkpoint.")] = None,
    convexity: Annotated[
        bool, Parameter(negative=(), help="The map of |smallest / largest| eigenvalue on a plane instead.")
    ] = False,
    steps: Annotated[
        int | None, Parameter(help="With --convexity: points along each direction, odd; default 11.")
    ] = None,
    extent: Annotated[
        float | None, Parameter(help="With --convexity: how far to go, in units of the weights' norms; default 1.")
    ] = None,
    images: Annotated[int, Parameter(help="Number of images to use.")] = 500,
    products: Annotated[
        int | None,
        Parameter(help="Maximum number of Hessian-vector products for each network, layer, point or random vector."),
    ] = None,
    seed: Annotated[int, Parameter(help="Random seed of the images and of the first vectors.")] = 0,
    json: Json = False,
) -> None:
    """Draw how curved the loss is at the weights: the largest and smallest eigenvalues of its Hessian.

    With --per-layer also those of each layer's weights, all others fixed; with --run those at every checkpoint of a
    training; with --density the density of all eigenvalues; with --convexity a map of where on a plane of weights the
    loss is not convex. A product of the Hessian with a vector takes two to four passes over the images.

    Example: `microtome curvature --model zoo:simple-convnet --weights w.safetensors --data mnist:test --per-layer
    -o eigenvalues.png`
    """
    from microtome.loading import opened
    from microtome.training import Run
    from microtome.training import curvature as methods

    check(output)
    if sum((density, convexity, run is not None)) > 1:
        raise InputError("--density, --convexity and --run exclude each other; give one.")
    if layer is not None and not density:
        raise InputError("--layer goes with --density; --per-layer gives the eigenvalues of all layers.")
    if (per_layer or k is not None) and (density or convexity):
        raise InputError(
            "-k and --per-layer belong to the eigenvalues at the weights, not to --density or --convexity."
        )
    grid: dict[str, Any] = {name: value for name, value in (("steps", steps), ("extent", extent)) if value is not None}
    if grid and not convexity:
        raise InputError(f"{' and '.join(f'--{name}' for name in grid)} go with --convexity.")
    count = 1 if k is None else k
    net = model.network()
    dataset = opened(net, data, labelled=True).images
    most: dict[str, Any] = {} if products is None else {"products": products}
    found: Result
    table: Table
    ends: list[Tensor] = []
    residuals: list[Tensor] = []
    if density:
        made = methods.spectral_density(net, dataset, layer=layer, images=images, seed=seed, **most)
        found, table = made, made.table()
    elif convexity:
        plane = methods.convexity_map(net, dataset, images=images, seed=seed, **grid, **most)
        found, table = plane, plane.table()
        ends, residuals = [plane.largest, plane.smallest], [plane.residual]
    elif run is not None:
        history = methods.along_training(
            net, Run.read(run), dataset, k=count, per_layer=per_layer, images=images, seed=seed, **most
        )
        found, table = history, history.table()
        ends, residuals = [history.values, history.smallest], [history.residual, history.smallest_residual]
    else:
        values = methods.eigenvalues(net, dataset, k=count, per_layer=per_layer, images=images, seed=seed, **most)
        found, table = values, values.table()
        ends, residuals = [values.values, values.smallest], [values.residual, values.smallest_residual]
    tell_table(table, as_json=json)
    if residuals:
        _tell_accuracy(ends, residuals)
    save(found, output, as_json=json)


def _tell_accuracy(ends: list[Tensor], residuals: list[Tensor]) -> None:
    """A note on stderr if the products did not suffice."""
    error, scale = (max(float(part.abs().max()) for part in parts) for parts in (residuals, ends))
    if error > _ACCURATE * scale:
        tell_beside(
            f"note: not converged: the largest residual is {error:.2g}, the largest eigenvalue found {scale:.2g}. The "
            "true largest and smallest eigenvalues may lie further out; give more --products."
        )
