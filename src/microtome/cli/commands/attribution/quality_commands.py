"""``microtome evaluate`` and ``randomisation``: whether maps can be trusted, by measures of the literature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from microtome.cli.options import Json, ModelOptions, Output, Pictures, masks_of, methods_named, pictures
from microtome.cli.output import check, save, tell, tell_table
from microtome.errors import InputError

__all__ = ["evaluate", "randomisation"]

Target = Annotated[str | None, Parameter(help="The target class, by number or name; default the predicted class.")]


def evaluate(
    photo: Pictures,
    /,
    *,
    model: ModelOptions,
    output: Output,
    methods: Annotated[
        str | None,
        Parameter(help="Methods joined by commas, also your own functions, file.py:function; default seven."),
    ] = None,
    target: Target = None,
    masks: Annotated[
        Path | None,
        Parameter(help="Folder of masks with the pictures' names, light where a map should point; default none."),
    ] = None,
    steps: Annotated[int, Parameter(help="Points of each curve of deletion and insertion.")] = 28,
    samples: Annotated[int, Parameter(help="Perturbations of each picture.")] = 16,
    seed: Annotated[int, Parameter(help="Random seed of the perturbations and the random map.")] = 0,
    json: Json = False,
) -> None:
    """Measure how good the maps of several methods are: deletion, insertion, infidelity, sensitivity; with masks, more.

    A map of noise stands beside them. The table holds the means over the pictures.

    Example: `microtome evaluate photos/*.jpg --methods grad-cam,lrp --model zoo:efficientnet-lite0 -o quality.png`
    """
    from microtome import attribution

    check(output)
    net = model.network()
    chosen = methods_named(methods, "--methods") or list(attribution.quality.shortcut.METHODS)
    drawn = None if masks is None else masks_of(photo, masks, net)
    found = attribution.evaluate(
        net, pictures(photo, net), chosen, _class(target), masks=drawn, steps=steps, samples=samples, seed=seed
    )
    save(found, output, as_json=json)
    tell_table(found.table(), as_json=json)


def randomisation(
    photo: Pictures,
    /,
    *,
    model: ModelOptions,
    output: Output,
    method: Annotated[str, Parameter(help="One method, or your own function, file.py:function.")] = "grad-cam",
    target: Target = None,
    steps: Annotated[int | None, Parameter(help="Number of groups of layers; default one for each layer.")] = None,
    seed: Annotated[int, Parameter(help="Random seed of the random weights.")] = 0,
    json: Json = False,
) -> None:
    """Randomise the weights of a copy layer by layer from the output down, and compare a method's maps.

    A method whose map stays alike does not explain the network. The lines hold means over the pictures.

    Example: `microtome randomisation photo.jpg --method lrp --model zoo:efficientnet-lite0 -o randomisation.png`
    """
    from microtome import attribution

    check(output)
    chosen = methods_named(method, "--method") or []
    if len(chosen) != 1:
        raise InputError(f'--method expects one method, got "{method}".')
    net = model.network()
    found = attribution.randomisation(net, pictures(photo, net), chosen[0], _class(target), steps=steps, seed=seed)
    save(found, output, as_json=json)
    measures = {
        "rank_correlation": found.correlation, "rank_correlation_of_sizes": found.absolute,
        "structural_similarity": found.similarity,
    }  # fmt: skip
    rows = [
        {"random_from_output_to": layer, **{name: float(one[place].mean()) for name, one in measures.items()}}
        for place, layer in enumerate(found.reached)
    ]
    tell(
        rows,
        lambda row: (
            f"random from the output down to {row['random_from_output_to']}: "
            f"rank correlation {row['rank_correlation']:.2f} (of sizes {row['rank_correlation_of_sizes']:.2f}), "
            f"structural similarity {row['structural_similarity']:.2f}"
        ),
        as_json=json,
    )


def _class(target: str | None) -> int | str | None:
    return int(target) if target is not None and target.isdigit() else target
