"""``microtome information``: the information plane of the 12-bit task, or of the user's own training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from microtome.cli.options import MODEL, Json, Output
from microtome.cli.output import check, save, tell_table

__all__ = ["information"]


def information(
    *,
    output: Output,
    model: Annotated[str | None, Parameter(group=MODEL, help="The network of --run, as in other commands.")] = None,
    data: Annotated[str | None, Parameter(group=MODEL, help="Labelled images for --run: a folder or a name.")] = None,
    run: Annotated[Path | None, Parameter(group=MODEL, help="Folder of a training whose weights were stored.")] = None,
    input_shape: Annotated[
        str | None, Parameter(group=MODEL, help="Channels,height,width; needed for a factory.")
    ] = None,
    mean: Annotated[str | None, Parameter(group=MODEL, help="Mean of the normalisation in training.")] = None,
    std: Annotated[
        str | None, Parameter(group=MODEL, help="Standard deviation of the normalisation in training.")
    ] = None,
    layers: Annotated[str | None, Parameter(group=MODEL, help="Layers of --model, joined by commas.")] = None,
    hidden: Annotated[
        str | None, Parameter(help="Units of the hidden layers of the 12-bit task; default 10,7,5,4,3.")
    ] = None,
    activation: Annotated[
        Literal["tanh", "relu"] | None, Parameter(help="Nonlinearity of the hidden layers; default tanh.")
    ] = None,
    networks: Annotated[
        int | None, Parameter(help="Number of networks that are trained and averaged; default 50.")
    ] = None,
    epochs: Annotated[int | None, Parameter(help="Number of passes over the training patterns; default 8000.")] = None,
    checkpoints: Annotated[
        int | None,
        Parameter(help="Number of checkpoints, evenly spaced on a logarithmic scale of epochs; default 100."),
    ] = None,
    share: Annotated[
        list[float] | None, Parameter(help="Share of the patterns used for training; several shares are compared.")
    ] = None,
    estimator: Annotated[Literal["binning", "kde"], Parameter(help="Estimator of the information.")] = "binning",
    gradients: Annotated[Path | None, Parameter(help="File of a second figure: the phases of the gradients.")] = None,
    seed: Annotated[int, Parameter(help="Random seed of the first network.")] = 0,
    json: Json = False,
) -> None:
    """Draw the information of each layer about the input and about the class during training, in bits.

    Without --run, small networks are trained on the 12-bit task of Shwartz-Ziv and Tishby. With --run, --model and
    --data, the stored weights of a training are read. A layer for which the estimator does not recover planted
    information is drawn as a hollow marker.

    Example: `microtome information --networks 10 --epochs 4000 -o plane.png`
    """
    from microtome.cli.options import ModelOptions, names, numbers
    from microtome.errors import InputError
    from microtome.training import Run
    from microtome.training import information as methods

    check(output)
    check(gradients)
    if (run is None) != (model is None) or (run is None) != (data is None):
        raise InputError("your own training needs all of --run, --model and --data.")
    twelve = {
        "hidden": None if hidden is None else [int(width) for width in numbers(hidden, "--hidden", int)],
        "activation": activation, "networks": networks, "epochs": epochs, "checkpoints": checkpoints,
    }  # fmt: skip
    given: dict[str, Any] = {name: value for name, value in twelve.items() if value is not None}
    own = {"--input-shape": input_shape, "--mean": mean, "--std": std, "--layers": layers}
    vain = [f"--{name}" for name in given] + ["--share"] * (share is not None) if run is not None else [
        option for option, value in own.items() if value is not None
    ]  # fmt: skip
    if vain:
        goes = "the 12-bit task, whose networks are trained here; leave out --run" if run is not None else "--run"
        raise InputError(f"{', '.join(vain)} {'go' if len(vain) > 1 else 'goes'} with {goes}.")
    if run is not None and model is not None and data is not None:
        record = Run.read(run)
        options = ModelOptions(model=model, weights="random", input_shape=input_shape, mean=mean, std=std)
        subject = options.recipe(data, replaced=True).open(labelled=True)
        found = methods.plane(
            record,
            subject.net,
            subject.images,
            layers=names(layers, "--layers"),
            estimator=estimator,
            seed=seed,
        )
        tell_table(found.table(), as_json=json)
        save(found, output, as_json=json)
        if gradients is not None:
            save(methods.gradient_phases(record), gradients, as_json=json)
        return
    task = methods.twelve_bits()
    runs = {
        f"{100 * part:g} % trained on": methods.train_networks(
            task, share=part, seed=seed, **given
        )
        for part in share or [0.85]
    }  # fmt: skip
    compared = methods.compare(runs, estimator=estimator, seed=seed)
    shown = compared if len(runs) > 1 else next(iter(compared.planes.values()))
    tell_table(shown.table(), as_json=json)
    save(shown, output, as_json=json)
    if gradients is not None:
        save(methods.gradient_phases(next(iter(runs.values()))), gradients, as_json=json)
