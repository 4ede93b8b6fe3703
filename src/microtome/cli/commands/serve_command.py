"""``microtome serve``: the explorer, a live view of a network in the browser."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from microtome.cli.options import MODEL, ModelOptions
from microtome.errors import InputError

if TYPE_CHECKING:
    from microtome.loading import RunConfig

__all__ = ["serve"]


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class ServedModel(ModelOptions):
    """Options of the network; an atlas already holds them."""

    model: Annotated[
        str | None,
        Parameter(
            help="A network, zoo:NAME, timm:NAME, torchvision:NAME, hf:NAME, or your own, file.py:function or "
            "module:function; not needed "
            "with the folder of an atlas."
        ),
    ] = None  # type: ignore[assignment]  # of an atlas it is known


def serve(
    atlas: Annotated[Path | None, Parameter(help="Folder of an atlas: its network, images and results.")] = None,
    /,
    *,
    model: ServedModel = ServedModel(),
    data: Annotated[
        str | None, Parameter(help="Folder of images, or mnist, fashion-mnist, digits, mnist-5000.")
    ] = None,
    against: Annotated[
        str | None, Parameter(help="Weights of a second checkpoint of the same model, to compare side by side.")
    ] = None,
    host: Annotated[str, Parameter(help="Address to bind to; any but loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="Port; 0 for any free one.")] = 8765,
    token: Annotated[
        str, Parameter(help="Token that the address must end with; generated where other machines can connect.")
    ] = "",
    open_page: Annotated[bool, Parameter(name="--open", negative=(), help="Open it in the browser.")] = False,
) -> None:
    """Explore a network live in the browser: draw, choose or upload a picture and see every unit, map and dissection.

    Serves a page, to this machine only, with the activation maps of any layer, the scores, maps for any class by any
    attribution method, and for the chosen unit its strongest patches, its backward image and its dissection. Units can
    be ablated, doubled or clamped by a click. A view can be saved as one file. Press Ctrl+C to stop.

    Example: `microtome serve --model zoo:efficientnet-lite0 --data photos/`
    """
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
        raise InputError("the explorer needs FastAPI and uvicorn: pip install 'microtome[explorer]'.")
    from microtome.explorer.atlas_results import AtlasResults
    from microtome.explorer.live_network import LiveNetwork
    from microtome.explorer.server import serving

    options: dict[str, str] = {}
    if atlas is not None:
        model, data, options = _of_atlas(atlas, model, data)
    if model.model is None:
        raise InputError("no network is given: give the folder of an atlas, or --model and --data.")
    config = _recipe(model, data)
    subject = config.open()
    networks = [LiveNetwork(subject, _name(config), config)]
    if against is not None:
        other = replace(config, weights=str(Path(against).absolute()))
        networks.append(LiveNetwork(replace(subject, net=other.network()), Path(against).name, other))
    results = AtlasResults(atlas, subject, options) if atlas is not None else None
    serving.serve(
        networks, host=host, port=port, token=token, atlas=results, ready=lambda address: _tell(address, open_page)
    )


def _of_atlas(folder: Path, model: ServedModel, data: str | None) -> tuple[ServedModel, str | None, dict[str, str]]:
    """The options that made an atlas; options on the command line take precedence."""
    from microtome.explorer.atlas_results import atlas_options

    options: dict[str, str] = {} if model.model is not None else atlas_options(folder)
    names = {name.replace("-", "_"): value for name, value in options.items()}
    if "output" in names:  # of a recipe; the command line calls it --scores
        names["scores"] = names.pop("output")
    known = {name: names[name] for name in ServedModel.__dataclass_fields__ if name in names}
    settings: dict[str, Any] = {name: getattr(model, name) for name in ServedModel.__dataclass_fields__}
    merged = ServedModel(**{**known, **{name: value for name, value in settings.items() if value is not None}})
    return merged, data or names.get("data"), options


def _recipe(model: ServedModel, data: str | None) -> RunConfig:
    if data is None:
        raise InputError("no images are given; give --data with a folder or a data set's name.")
    return model.recipe(data)


def _name(config: RunConfig) -> str:
    weights = "" if config.weights is None else f" ({Path(config.weights).name})"
    return config.model.removeprefix("zoo:") + weights


def _tell(address: str, open_page: bool) -> None:
    print(f"Open {address}\nInterrupt (Ctrl+C) to end.", flush=True)
    if open_page:
        import webbrowser

        webbrowser.open(address)
