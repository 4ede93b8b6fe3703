"""``microtome credentials``: superstimuli, checked against the data."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from microtome.cli.commands.maximize_command import indices
from microtome.cli.options import Data, Json, ModelOptions, Output
from microtome.cli.output import check, save, say, tell

__all__ = ["credentials"]


def credentials(
    layer: Annotated[str, Parameter(help="The layer of the units.")],
    /,
    *,
    model: ModelOptions,
    data: Data,
    output: Output,
    channels: Annotated[str | None, Parameter(help="Units, joined by commas; 0-15 is a range. Default all.")] = None,
    steps: Annotated[int, Parameter(help="Number of steps of ascent.")] = 256,
    restarts: Annotated[int, Parameter(help="Number of further images of each unit, for comparison.")] = 2,
    seed: Annotated[int, Parameter(help="Random seed of noise and augmentation.")] = 0,
    json: Json = False,
) -> None:
    """Compute superstimuli of units, and check whether they show what drives the units in the data.

    Example: `microtome credentials _blocks.7 --channels 0-7 --model zoo:efficientnet-lite0 --data images/ -o units.png`
    """
    from microtome import synthesis, units

    check(output)
    subject = model.recipe(data).open()
    patches = units.top_patches(subject.net, subject.images, [layer])[layer]
    superstimuli = synthesis.maximize(subject.net, layer, channels=indices(channels), steps=steps, seed=seed)
    found = synthesis.credentials(subject.net, superstimuli, patches, restarts=restarts)
    names = ("percentile", "agreement", "path_similarity", "margin", "trusted")
    tell(
        (
            {"name": name, "origin": (found.origin or [])[row], "reason": (found.reasons or [])[row]}
            | {key: getattr(found, key)[row].item() for key in names}
            for row, name in enumerate(found.names)
        ),
        lambda row: (
            f"{row['name']}: "
            + (
                f"trusted, margin {row['margin']:.2f}, from {row['origin']}"
                if row["trusted"]
                else f"not trusted: {row['reason']}"
            )
        ),
        as_json=json,
    )
    if not json:
        say("An image is trusted if every measurement reaches its bound; margin: the smallest ratio of the two.")
    save(found, output, as_json=json)
