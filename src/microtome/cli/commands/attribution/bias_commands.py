"""``microtome spotting-bias`` and ``shortcut-share``: planted shortcuts, and relevance inside the user's masks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from microtome.cli.options import Json, ModelOptions, Output, Pictures, masks_of, methods_named, pictures
from microtome.cli.output import check, check_place, save, tell
from microtome.errors import InputError

__all__ = ["shortcut_share", "spotting_bias"]


def spotting_bias(
    *,
    data: Annotated[str, Parameter(help="A data set with parts, mnist or fashion-mnist.")] = "mnist",
    images: Annotated[int, Parameter(help="Training pictures.")] = 10_000,
    epochs: Annotated[int, Parameter(help="Passes over them.")] = 2,
    agreement: Annotated[float, Parameter(help="How often the tag tells the class, for the biased network.")] = 0.95,
    told_by: Annotated[
        Literal["pattern", "place"], Parameter(name="--tell", help="What identifies the tag.")
    ] = "pattern",
    head: Annotated[
        Literal["dense", "average"], Parameter(help="The networks' head; average is global average pooling.")
    ] = "dense",
    explained: Annotated[int, Parameter(help="Test pictures that maps are made of.")] = 200,
    seed: Annotated[int, Parameter(help="Random seed of tags, weights and the order of images.")] = 0,
    out: Annotated[Path, Parameter(help="Folder for the page, the figure and the numbers.")] = Path("spotting-bias"),
) -> None:
    """Plant a shortcut, train a network that takes it and one that cannot, and show what the maps of both say.

    Every picture gets a small bright tag on its edge. For one network the tag tells the class, for the other nothing;
    the share of each method's map on the tag is measured for both (some minutes).

    Example: `microtome spotting-bias --data mnist --out spotting-bias`
    """
    from microtome.data import Images, open_data
    from microtome.reproduce.spotting_bias import spotting_bias as run

    if data not in ("mnist", "fashion-mnist"):
        raise InputError(
            f'a data set with a training and a test part is expected, mnist or fashion-mnist; got "{data}".'
        )
    if images < 1 or explained < 1:
        raise InputError(f"at least one picture is needed, got --images {images} and --explained {explained}.")
    check_place(out)  # checked now, not after two trainings
    train, test = (open_data(data, part=part) for part in ("train", "test"))
    if not isinstance(train, Images) or not isinstance(test, Images):
        raise InputError(f'"{data}" is a folder here; name the data set alone.')
    found = run(
        train.sample(images, seed=seed), test, agreement=agreement, tell=told_by, head=head, epochs=epochs,
        explained=explained, seed=seed, out=out, say=partial(print, flush=True),
    )  # fmt: skip
    print(f"\n{found.report()}\n\n{out / 'spotting-bias.html'}")


def shortcut_share(
    photo: Pictures,
    /,
    *,
    model: ModelOptions,
    masks: Annotated[Path, Parameter(help="Folder of masks with the pictures' names, light where the shortcut is.")],
    output: Output,
    methods: Annotated[
        str | None,
        Parameter(help="Methods joined by commas, also your own functions, file.py:function; default seven."),
    ] = None,
    target: Annotated[
        str | None, Parameter(help="The target class, by number or name; default the predicted class.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure how much of each method's map lies on masks of your own: a watermark, a ruler, a background.

    Example: `microtome shortcut-share photos/*.jpg --masks masks --model zoo:resnet18 --weights w.safetensors
    -o share.png`
    """
    from microtome import attribution

    check(output)
    net = model.network()
    drawn = masks_of(photo, masks, net)
    chosen = methods_named(methods, "--methods") or list(attribution.quality.shortcut.METHODS)
    label = int(target) if target is not None and target.isdigit() else target
    found = attribution.shortcut_share(net, pictures(photo, net), drawn, label, methods=chosen)
    save(found, output, as_json=json)
    tell(
        found.table(),
        _share,
        as_json=json,
    )


def _share(row: Mapping[str, Any]) -> str:
    """The line of one method."""
    if math.isnan(row["network"]):
        return f"{row['method']:<22} no map has a positive part"
    return f"{row['method']:<22} {100 * row['network']:5.1f} % on the masks, {100 * row['area']:.1f} % of the pictures"
