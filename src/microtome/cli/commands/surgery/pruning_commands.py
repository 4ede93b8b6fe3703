"""``microtome prune``, ``lossless``, ``compress``, ``without`` and ``criteria``: smaller networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from microtome.cli.options import Data, Json, ModelOptions, Output, names
from microtome.cli.output import check, save, say, tell, tell_table, writable
from microtome.errors import InputError

if TYPE_CHECKING:
    from microtome.data import Dataset
    from microtome.network import Network

__all__ = ["compress", "criteria", "lossless", "prune", "without"]

Labelled = Annotated[str, Parameter(help="Labelled images to train on: a folder, or a data set such as mnist:train.")]
Measured = Annotated[str | None, Parameter(help="Labelled images to measure on; default a fifth of --data.")]
Most = Annotated[int | None, Parameter(help="Number of images to use; default all.")]


def prune(
    *,
    model: ModelOptions,
    data: Labelled,
    output: Output,
    test: Measured = None,
    rounds: Annotated[int, Parameter(help="Rounds of pruning and retraining.")] = 7,
    criterion: Annotated[
        str, Parameter(help="absorption, magnitude, taylor, or a criterion of units, such as variation.")
    ] = "absorption",
    multiply_adds: Annotated[float, Parameter(help="Share of the multiply-adds that is left at the end.")] = 0.25,
    channels: Annotated[
        str | None,
        Parameter(help="Number of channels of each layer at the end, as in conv1=8,conv2=16; other layers keep all."),
    ] = None,
    tolerance: Annotated[
        float, Parameter(help="Largest loss of accuracy, as a share: .01 is one percentage point.")
    ] = 0.01,
    epochs: Annotated[int, Parameter(help="Passes over the training images after each round.")] = 1,
    lr: Annotated[float, Parameter(help="Highest learning rate.")] = 0.02,
    batch: Annotated[int, Parameter(help="Images a step.")] = 64,
    folder: Annotated[Path | None, Parameter(help="Folder in which each round is stored when it ends.")] = None,
    seed: Annotated[int, Parameter(help="Random seed of the order of images.")] = 0,
    json: Json = False,
) -> None:
    """Prune whole channels of a copy in rounds, retrain after each, and print the accuracies.

    Stops before more accuracy is lost than --tolerance allows. `microtome.load(FILE).rebuild(net)` restores the
    network.

    Example: `microtome prune --model zoo:simple-convnet --weights w.safetensors --data mnist:train --test mnist:test
    --channels conv1=8,conv2=16 -o pruned.safetensors`
    """
    from microtome import surgery

    check(output)
    if folder is not None:
        writable(folder)
    net = model.network()
    train, held = _both(net, data, test)
    found = surgery.prune(
        net, train, test=held, rounds=rounds, criterion=criterion, multiply_adds=multiply_adds,
        channels=None if channels is None else _counts(channels), tolerance=tolerance, epochs=epochs, lr=lr,
        batch=batch, folder=folder, seed=seed,
    )  # fmt: skip
    save(found, output, as_json=json)
    if not json:
        say(f"before: accuracy {100 * found.accuracy:.2f} %, channels {'-'.join(map(str, found.widths.values()))}")
    tell(
        found.table(),
        lambda row: (
            f"round {row['round']}: pruned {row['pruned']:.2f} %, retrained {row['retrained']:.2f} % "
            f"(standard error {row['error']:.2f}), channels {row['channels']}, "
            f"{100 * row['multiply-adds']:.1f} % of the multiply-adds"
            f"{'' if row['kept'] else ', rejected: it loses too much accuracy'}"
        ),
        as_json=json,
    )
    if not json:
        _, _, ratio, low, high = found.latency
        word = "faster" if found.faster else "not faster beyond the noise of the measurement"
        say(f"time of a pass: {ratio:.2f} of that before (quartiles {low:.2f} to {high:.2f}): {word}")


def lossless(
    *,
    model: ModelOptions,
    data: Data,
    output: Output,
    tolerance: Annotated[float, Parameter(help="Largest change of any logit that all cuts may cause.")] = 1e-2,
    images: Most = None,
    seed: Annotated[int, Parameter(help="Random seed of the signs that order linearly dependent units.")] = 0,
    json: Json = False,
) -> None:
    """Remove units that a network does not need, and print each cut with its reason and the change of the logits.

    Example: `microtome lossless --model zoo:simple-convnet --weights w.safetensors --data mnist:train --images 500 -o
    lossless.safetensors`
    """
    from microtome import surgery

    check(output)
    net = model.network()
    found = surgery.lossless(net, _first(net, data, images), tolerance=tolerance, seed=seed)
    save(found, output, as_json=json)
    tell(found.table(), _cut, as_json=json)
    if not json:
        say(
            f"{found.parameters[1]:,} of {found.parameters[0]:,} weights and {100 * found.share:.1f} % of the "
            f"multiply-adds left; all cuts together change no logit by more than {found.largest_change:.2g} "
            f"(the largest is {found.logits:.3g}) on {found.images:,} images."
        )


def compress(
    *,
    model: ModelOptions,
    data: Data,
    output: Output,
    multiply_adds: Annotated[float, Parameter(help="Largest share of the multiply-adds that is left.")] = 0.5,
    images: Most = None,
    seed: Annotated[int, Parameter(help="Random seed of the signs of the slopes.")] = 0,
    json: Json = False,
) -> None:
    """Remove channels until a share of the multiply-adds is left, and fit the next layers to compensate; no training.

    Example: `microtome compress --model zoo:efficientnet-lite0 --data photos --multiply-adds .7 -o small.safetensors`
    """
    from microtome import surgery

    check(output)
    net = model.network()
    found = surgery.compress(net, _first(net, data, images), multiply_adds=multiply_adds, seed=seed)
    save(found, output, as_json=json)
    rows = [{"layer": layer, "before": before, "now": now} for layer, (before, now) in found.widths.items()]
    tell(rows, lambda row: f"{row['layer']:<24} {row['before']:>5} -> {row['now']}", as_json=json)
    if not json:
        say(
            f"{100 * found.share:.1f} % of the multiply-adds are left (at most {100 * found.asked:.1f} % were asked); "
            f"largest change of a logit {found.largest_change:.3g}"
        )


def without(
    *,
    model: ModelOptions,
    layer: Annotated[str, Parameter(help="The layer to remove: a module.")],
    data: Labelled,
    output: Output,
    test: Measured = None,
    adapter: Annotated[
        Literal["identity", "copies", "linear"] | None,
        Parameter(help="What stands in its place; default identity where the shape stays, else copies."),
    ] = None,
    epochs: Annotated[int, Parameter(help="Passes over the training images.")] = 1,
    lr: Annotated[float, Parameter(help="Highest learning rate.")] = 0.02,
    batch: Annotated[int, Parameter(help="Images a step.")] = 64,
    seed: Annotated[int, Parameter(help="Random seed of the order of images.")] = 0,
    json: Json = False,
) -> None:
    """Remove a layer from a copy and print the accuracy before and after retraining.

    Example: `microtome without --model zoo:simple-convnet --weights w.safetensors --layer conv2 --data mnist:train
    --test mnist:test -o without.png`
    """
    from microtome import surgery

    check(output)
    net = model.network()
    train, held = _both(net, data, test)
    found = surgery.without(net, layer, train, test=held, adapter=adapter, epochs=epochs, lr=lr, batch=batch, seed=seed)
    save(found, output, as_json=json)
    if not json:
        say(f"{found.layer} is replaced by: {found.adapter} ({100 * found.explained:.1f} % of its variance)")
    tell(
        found.table(),
        lambda row: f"{row['state']:<9} accuracy {row['accuracy']:.2f} % (standard error {row['error']:.2f})",
        as_json=json,
    )


def criteria(
    *,
    model: ModelOptions,
    data: Data,
    layers: Annotated[str, Parameter(help="Layers joined by commas.")],
    output: Output,
    columns: Annotated[str | None, Parameter(help="Which criteria, joined by commas; default all.")] = None,
    steps: Annotated[int, Parameter(help="Steps of ascent of each superstimulus.")] = 64,
    images: Most = None,
    seed: Annotated[int, Parameter(help="Random seed of permutations and superstimuli.")] = 0,
    json: Json = False,
) -> None:
    """Measure the importance of units by several criteria, and print the table.

    Example: `microtome criteria --model zoo:simple-convnet --weights w.safetensors --data mnist:test --layers conv1
    -o criteria.png`
    """
    from microtome import synthesis, units

    check(output)
    net = model.network()
    wanted = names(columns, "--columns") or list(units.COLUMNS)
    chosen = names(layers, "--layers") or []
    superstimuli = None
    if "superstimulus" in wanted:
        superstimuli = {
            net.layer(layer).name: synthesis.maximize(net, layer, steps=steps, seed=seed) for layer in chosen
        }
    found = units.criteria(net, _first(net, data, images), chosen, columns=wanted, superstimuli=superstimuli, seed=seed)
    save(found, output, as_json=json)
    tell_table(found.table(), as_json=json)


def _both(net: Network, data: str, test: str | None) -> tuple[Dataset, Dataset | None]:
    from microtome.loading import opened

    held = None if test is None else opened(net, test, labelled=True).images
    return opened(net, data, labelled=True).images, held


def _first(net: Network, data: str, count: int | None) -> Dataset:
    """About ``count`` images of a data set, evenly spread."""
    from microtome.loading import opened
    from microtome.surgery import sampled

    dataset = opened(net, data).images
    if count is not None and count < 1:
        raise InputError(f"at least one image is expected, got --images {count}.")
    return dataset if count is None or count >= len(dataset) else sampled(dataset, count)


def _cut(row: Mapping[str, Any]) -> str:
    """A cut in a line."""
    bound = "0 on any image" if row["bound"] is not None else "no bound for other images"
    units = f"units {row['units']}" if "," in row["units"] else f"unit {row['units']}"
    return f"{row['layer']}, {units}: {row['reason']}. Largest change of a logit {row['change']:.2g}; {bound}."


def _counts(text: str) -> dict[str, int]:
    """Channels by layer.

    Examples
    --------
    >>> _counts("conv1=8, conv2=16")
    {'conv1': 8, 'conv2': 16}
    """
    found: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        layer, equals, count = part.rpartition("=")
        if not equals or not count.strip().isdigit():
            raise InputError(f'--channels takes layer=number joined by commas, as in conv1=8,conv2=16; got "{part}".')
        found[layer.strip()] = int(count)
    return found
