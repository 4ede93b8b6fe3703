"""``microtome atlas``: a site from a model and a folder of images."""

from __future__ import annotations

import shlex
import sys
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from microtome.cli.options import ModelOptions, names
from microtome.cli.output import say

if TYPE_CHECKING:
    from microtome.atlas.atlas_run import Report

__all__ = ["atlas"]


def atlas(
    *,
    model: ModelOptions,
    data: Annotated[str, Parameter(help="Folder of images, or mnist, fashion-mnist, digits, mnist-5000.")],
    out: Annotated[str, Parameter(help="Folder to write, new or from an earlier run of the same model.")],
    run: Annotated[
        str | None,
        Parameter(help="Folder of the network's training with stored weights: curves, loss surface, curvature."),
    ] = None,
    layers: Annotated[
        str | None,
        Parameter(help="Layers whose units get pages, joined by commas; by default chosen from first to last."),
    ] = None,
    images: Annotated[
        int | None, Parameter(help="How many images get pages; by default as many as the budget allows.")
    ] = None,
    methods: Annotated[
        str | None,
        Parameter(help="Your own attribution functions, file.py:function, shown beside all others."),
    ] = None,
    budget: Annotated[
        Literal["quick", "standard", "full"], Parameter(help="How much is made; minutes, an hour, or all of it.")
    ] = "quick",
    engine: Annotated[
        str | None,
        Parameter(
            help="Where it is computed: inline, processes, dask, or tcp://host:port of a Dask scheduler; default "
            "processes on several cores."
        ),
    ] = None,
    workers: Annotated[int | None, Parameter(help="Processes; by default one for each core.")] = None,
) -> None:
    """Build a site that shows a network layer by layer, unit by unit, image by image.

    Computes, for the network and a folder of images: accuracy and mistakes; for each unit the patches that drive it
    most with reconstructions, superstimuli, tuning, connections and the effect of ablating it; for some images what
    in them decided, by every method. It opens from disk, without a server. Stopped at any moment, the same command
    goes on from there; run again, it does only what is missing. A TOML file with the options' names may stand in
    their place: `microtome atlas run.toml`.

    Example: `microtome atlas --model mypackage.nets:build --weights w.safetensors --input-shape 3,224,224
    --data images/ --out atlas/`
    """
    from rich.console import Console

    from microtome.atlas.atlas_run import build
    from microtome.cli.progress_line import Bar

    again = command(
        model, data=data, run=run, out=out, layers=layers, images=images, methods=methods, budget=budget, engine=engine
    )
    console = Console(stderr=True, highlight=False)
    try:
        with Bar(console) as bar:
            report = build(
                replace(model.recipe(data), run=run),
                out,
                size=budget,
                layers=names(layers, "--layers"),
                images=images,
                methods=names(methods, "--methods") or (),
                engine=engine,
                workers=workers,
                progress=bar,
                options=typed(model, data=data, run=run),
            )
    except KeyboardInterrupt:
        sys.stderr.write(f"interrupted. What is done is kept; go on with:\n  {again}\n")
        raise
    tell(report)
    if report.failed:
        sys.exit(1)


def tell(report: Report) -> None:
    """Say what was made and where to open it."""
    say(
        f"{report.pages} pages in {report.seconds:.0f} s; {report.made} of {report.tasks} results were made, "
        f"the rest was there.\nOpen {report.index}"
    )
    if report.failed:
        lines = "\n  ".join(report.failed)
        sys.stderr.write(f"{len(report.failed)} results could not be made; the next run tries again:\n  {lines}\n")


def command(model: ModelOptions, **options: str | int | None) -> str:
    """The command line that makes the same atlas."""
    defaults = {"budget": "quick"}
    given = typed(model, **{key: value for key, value in options.items() if value != defaults.get(key)})
    return shlex.join(["microtome", "atlas", *(word for name, value in given.items() for word in (f"--{name}", value))])


def typed(model: ModelOptions, **options: str | int | None) -> dict[str, str]:
    """Options by name, as the user typed them, the model's first."""
    settings: dict[str, object] = {field.name: getattr(model, field.name) for field in fields(model)} | dict(options)
    return {name.replace("_", "-"): str(value) for name, value in settings.items() if value is not None}
