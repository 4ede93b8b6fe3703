"""``microtome maximize``: images that maximise units or class scores, by gradient ascent."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from microtome.cli.options import Json, ModelOptions, Output, names
from microtome.cli.output import check, save, tell
from microtome.errors import InputError

__all__ = ["maximize"]

_MOST = 1_000_000  # units in one range


def maximize(
    layer: Annotated[str | None, Parameter(help="The layer of the units; leave out for classes.")] = None,
    /,
    *,
    model: ModelOptions,
    output: Output,
    channels: Annotated[str | None, Parameter(help="Units, joined by commas; 0-15 is a range. Default all.")] = None,
    classes: Annotated[
        str | None, Parameter(name="--for", help="Classes by number or name, in place of a layer.")
    ] = None,
    sign: Annotated[int, Parameter(help="1 to maximise, -1 to minimise.")] = 1,
    diverse: Annotated[int, Parameter(help="Number of different images per unit.")] = 1,
    steps: Annotated[int, Parameter(help="Number of steps of ascent.")] = 256,
    seed: Annotated[int, Parameter(help="Random seed of noise and augmentation.")] = 0,
    json: Json = False,
) -> None:
    """Compute images that maximise units of a layer, or class scores.

    Example: `microtome maximize _blocks.7 --channels 0-15 --model zoo:efficientnet-lite0 -o units.png`
    """
    from microtome import synthesis

    check(output)
    if (layer is None) == (classes is None):
        raise InputError("name a layer, or classes with --for; one of the two.")
    net = model.network()
    if layer is not None:
        result = synthesis.maximize(
            net, layer, channels=indices(channels), sign=sign, diverse=diverse, steps=steps, seed=seed
        )
    else:
        wanted = names(classes, "--for")
        result = synthesis.maximize_class(net, wanted, sign=sign, diverse=diverse, steps=steps, seed=seed)
    tell(
        (
            {"name": name, "activation": activation}
            for name, activation in zip(result.names, result.activation.tolist(), strict=True)
        ),
        lambda row: f"{row['name']}: {'score' if layer is None else 'activation'} {row['activation']:.4g}",
        as_json=json,
    )
    save(result, output, as_json=json)


def indices(text: str | None) -> list[int] | None:
    """Numbers and ranges joined by commas, or None.

    Examples
    --------
    >>> indices("0-3,7")
    [0, 1, 2, 3, 7]
    """
    if text is None:
        return None
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        try:
            low, high = int(first), int(last) if dash else int(first)
        except ValueError:
            raise InputError(f'--channels takes numbers or ranges, as in 0-15,20; got "{text}".') from None
        if not 0 <= high - low < _MOST:
            raise InputError(f'--channels takes ranges from the smaller number to the larger; got "{part}".')
        numbers += range(low, high + 1)
    return numbers
