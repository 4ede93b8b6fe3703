"""The command `explain`: one attribution method on picture files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from microtome import registry
from microtome.atlas.jobs import explained
from microtome.cli.options import ModelOptions, Pictures, pictures
from microtome.cli.output import check, save
from microtome.network import Network

__all__ = ["explain"]


def explain(
    photo: Pictures,
    /,
    *,
    model: ModelOptions,
    output: Annotated[Path, Parameter(name=("--output", "-o"), help=".png, .svg, .pdf, or .safetensors.")],
    method: Annotated[
        str, Parameter(help="Any of `microtome methods --kind attribution` or `--kind attention`.")
    ] = "grad-cam",
    layer: Annotated[str | None, Parameter(help="The layer that is read, for methods that read one.")] = None,
    target: Annotated[
        str | None, Parameter(help="The class asked about, by number or name; default the predicted.")
    ] = None,
    counterfactual: Annotated[bool, Parameter(help="Grad-CAM: what speaks against the class.", negative=())] = False,
    window: Annotated[int | None, Parameter(help="Occlusion: side of the window in pixels.")] = None,
    stride: Annotated[int | None, Parameter(help="Occlusion: step of the window in pixels.")] = None,
) -> None:
    """Show which parts of a picture spoke for a class, by one method.

    Computes a map over the pixels of each picture, for the predicted class or the one given, and draws it beside the
    picture. Pictures are scaled and cut to the network's input.

    Example: `microtome explain photo.jpg --model zoo:efficientnet-lite0 --method grad-cam -o out.png`
    """
    check(output)
    found = registry.method(method, registry.EXPLAINING)
    net = model.network()
    options: dict[str, Any] = {"layer": layer, "window": window, "stride": stride}
    options = {name: value for name, value in options.items() if value is not None}
    if counterfactual:
        options["counterfactual"] = True
    if found.name == "occlusion":
        options = {**_usual_window(net), **options}
    made = explained(net, found, pictures(photo, net), target, options)
    save(made, output)
    _tell(net, photo, made)


def _usual_window(net: Network) -> dict[str, int]:
    """A window of a seventh of the picture, moved by half of itself."""
    side = min(net.input_shape[1:])
    window = min(max(2, side // 7), side)
    return {"window": window, "stride": max(1, window // 2)}


def _tell(net: Network, photo: list[Path], made: Any) -> None:
    """Print the network's answer for each picture."""
    read = net.head.readout(net.logits(made.images, check=False))
    names = net.classes or [str(index) for index in range(read.shape[1])]
    score = {"probabilities": "probability", "value": "value"}.get(net.output, "logit")
    for place, path in enumerate(photo):
        said, asked = int(read[place].argmax()), int(made.target[place])
        number = float(read[place, said])
        sure = f"{number:.4g}" if net.output == "value" else f"{100 * number:.1f} %"
        print(f"{path}: says {names[said]} ({sure}); map for {names[asked]}, {score} {float(made.score[place]):.3g}")
