"""``microtome map`` and ``cka``: maps of a layer's images, similarity of layers."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from microtome.cli.options import Data, Json, LayerName, ModelOptions, Output, names
from microtome.cli.output import check, save, tell_table
from microtome.errors import InputError

__all__ = ["cka", "map"]

Reduce = Annotated[
    Literal["mean", "max", "flat"], Parameter(help="How positions are pooled into one number; flat keeps them all.")
]
Limit = Annotated[int | None, Parameter(help="Maximum number of images, spread over the data; default all.")]

_MAP_NOTE = (
    "trust: mean share of an image's k nearest images in the layer that are among its k nearest on the map. "
    "trustworthiness: 1 if all images near on the map are near in the layer. layer and map accuracy: of the class by "
    "the k nearest images there."
)


def map(  # noqa: A001 - the command's name
    *,
    model: ModelOptions,
    data: Data,
    layer: LayerName,
    output: Output,
    method: Annotated[
        Literal["tsne", "pca"], Parameter(help="How images are placed; t-SNE needs openTSNE, the extra `maps`.")
    ] = "tsne",
    perplexity: Annotated[
        float | None, Parameter(help="Perplexity of t-SNE: the effective number of neighbours; default 30.")
    ] = None,
    seed: Annotated[int, Parameter(help="Random seed of the map.")] = 0,
    reduce: Reduce = "mean",
    limit: Limit = None,
    features: Annotated[
        str | None, Parameter(help="Folder for the layer's features; an interrupted command resumes there.")
    ] = None,
    thumbnails: Annotated[bool, Parameter(help="Draw small images in place of points.")] = False,
    json: Json = False,
) -> None:
    """Draw a data set as a layer sees it: images that are near have similar features; faint points are unreliable.

    A file that ends in .html is an interactive page (pan, colour, select) that opens from disk without a server.

    Example: `microtome map --model zoo:simple-convnet --weights w.safetensors --data mnist --layer conv3 -o map.png`
    """
    import torch

    from microtome import representation
    from microtome.representation.t_sne import check_perplexity
    from microtome.tables import Table

    if perplexity is not None and method == "pca":
        raise InputError("--perplexity goes with --method tsne.")
    effective = 30 if perplexity is None else perplexity
    page = output if output.suffix.lower() == ".html" else None
    check(output, (".html",))
    subject = model.recipe(data).open()
    images = _some(subject.images, limit)
    if method == "tsne":
        check_perplexity(effective, len(images))
    rows = representation.features(subject.net, images, layer, reduce=reduce, folder=features)
    found: representation.ImageMap
    found = representation.pca(rows) if method == "pca" else representation.tsne(rows, perplexity=effective, seed=seed)
    columns = ("images", "k", "trust", "trustworthiness", "layer accuracy", "map accuracy")
    numbers = (len(found.points), found.k, float(found.trust.mean()), found.trustworthiness)
    tell_table(Table(columns, ((*numbers, found.layer_accuracy, found.map_accuracy),), _MAP_NOTE), as_json=json)
    if page is not None:
        from microtome.atlas.map_file import map_file
        from microtome.results import write_atomically

        write_atomically(page, map_file(dataclasses.replace(subject, images=images), rows, found))
        print(f"wrote {page}", file=sys.stderr if json else sys.stdout)
        return
    options: dict[str, object] = {"classes": subject.images.classes or subject.net.classes}
    if thumbnails:
        options["images"] = torch.stack([images[place][0] for place in range(len(images))])
    save(found, output, as_json=json, **options)


def cka(
    *,
    model: ModelOptions,
    data: Data,
    output: Output,
    other_weights: Annotated[
        str | None, Parameter(help="Weights of a second network, such as another checkpoint; default the same.")
    ] = None,
    layers: Annotated[str | None, Parameter(help="Layers joined by commas; default all that compute.")] = None,
    reduce: Reduce = "mean",
    debiased: Annotated[
        bool, Parameter(help="Without the bias of small samples; --no-debiased gives the plain CKA.")
    ] = True,
    limit: Limit = None,
    seed: Annotated[int, Parameter(help="Random seed of the permutations.")] = 0,
    json: Json = False,
) -> None:
    """Compare layers, of one network or of two, by linear CKA with 95 % intervals and a permutation test.

    Example: `microtome cka --model zoo:simple-convnet --weights w.safetensors --data mnist --limit 2000 -o cka.png`
    """
    from microtome import representation

    check(output)
    subject = model.recipe(data).open()
    other = None if other_weights is None else dataclasses.replace(model, weights=other_weights).network()
    found = representation.cka(
        subject.net,
        other,
        _some(subject.images, limit),
        names(layers, "--layers"),
        reduce=reduce,
        debiased=debiased,
        seed=seed,
    )
    tell_table(found.table(), as_json=json)
    save(found, output, as_json=json)


def _some(images: Any, limit: int | None) -> Any:
    """At most ``limit`` images, spread evenly over the data."""
    if limit is None:
        return images
    if limit < 1:
        raise InputError(f"at least one image was expected, got --limit {limit}.")
    total, count = len(images), min(limit, len(images))
    return images.subset([place * total // count for place in range(count)])
