"""``microtome explain``: which parts of a picture decided, by one attribution method or several."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from microtome.cli.options import Json, ModelOptions, Pictures, methods_named, pictures
from microtome.cli.output import check, save, tell
from microtome.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from microtome.network import Network
    from microtome.registry import Method

__all__ = ["explain"]


def explain(
    photo: Pictures,
    /,
    *,
    model: ModelOptions,
    output: Annotated[
        Path | None,
        Parameter(name=("--output", "-o"), help=".png, .svg, .pdf, or .safetensors; may be left out with --json."),
    ] = None,
    method: Annotated[
        str,
        Parameter(
            help="One of `microtome methods --kind attribution` or `--kind attention`, or your own function, "
            "file.py:function, that takes (network, images, target) and returns maps; several joined by commas."
        ),
    ] = "grad-cam",
    layer: Annotated[str | None, Parameter(help="The layer that is read, for methods that read one.")] = None,
    target: Annotated[
        str | None, Parameter(help="The target class, by number or name; default the predicted class.")
    ] = None,
    counterfactual: Annotated[bool, Parameter(help="Grad-CAM: what speaks against the class.", negative=())] = False,
    window: Annotated[int | None, Parameter(help="Occlusion: side of the window in pixels.")] = None,
    stride: Annotated[int | None, Parameter(help="Occlusion: step of the window in pixels.")] = None,
    steps: Annotated[int | None, Parameter(help="Integrated gradients: number of points of the path.")] = None,
    rule: Annotated[
        Literal["gauss-legendre", "midpoint", "cosine"] | None,
        Parameter(help="Integrated gradients: where the points lie, see its documentation."),
    ] = None,
    json: Json = False,
) -> None:
    """Show which parts of a picture spoke for a class, by one method or by several side by side.

    Computes a map over the pixels of each picture, for the predicted class or the one given, and draws it beside the
    picture. Pictures are scaled and cut to the network's input. Options of a method go to those that take them.

    Example: `microtome explain photo.jpg --model zoo:efficientnet-lite0 --method grad-cam,lrp,occlusion -o out.png`
    """
    from microtome.attribution.own_method import resolve

    check(output)
    if output is None and not json:
        raise InputError("no output is given; give -o with a file, or --json for the numbers alone.")
    chosen = [resolve(one) for one in methods_named(method, "--method") or []]
    if not chosen:
        raise InputError(f'--method expects the name of a method, got "{method}".')
    net = model.network()
    shared: dict[str, Any] = {"layer": layer, "window": window, "stride": stride, "steps": steps, "rule": rule}
    shared = {name: value for name, value in shared.items() if value is not None}
    if counterfactual:
        shared["counterfactual"] = True
    options = _shared_out(chosen, shared, net)
    maps = _maps(net, chosen, pictures(photo, net), target, options)
    save(maps, output, as_json=json)
    _tell(net, photo, maps, as_json=json)


def _shared_out(chosen: list[Method], given: dict[str, Any], net: Network) -> dict[str, dict[str, Any]]:
    """The options of each method; an option that no method has is an error."""
    known = {method.name: _options_of(method) for method in chosen}
    for option in given:
        if not any(option in takes for takes in known.values()):
            what = " and ".join(f'"{name}"' for name in known)
            has = ", ".join(dict.fromkeys(name for takes in known.values() for name in takes))
            raise InputError(f'{what} has no option "{option}"; it has {has}.')
    usual = {"occlusion": _usual_window(net)}
    return {
        name: usual.get(name, {}) | {option: value for option, value in given.items() if option in takes}
        for name, takes in known.items()
    }


def _maps(
    net: Network, chosen: list[Method], images: Tensor, target: str | None, options: Mapping[str, dict[str, Any]]
) -> Any:
    """The result of one method, or the comparison of several."""
    if len(chosen) == 1:
        return chosen[0].function(net, images, target, **options[chosen[0].name])
    from microtome.attribution import compare

    methods = {getattr(method.function, "own", method.name): options[method.name] for method in chosen}
    return compare(net, images, target, methods=methods)


def _options_of(method: Method) -> list[str]:
    """Options of a registered method, or of the user's own function."""
    function = getattr(method.function, "own", method.function)
    return list(inspect.signature(function).parameters)[3:]


def _usual_window(net: Network) -> dict[str, int]:
    """A window of a seventh of the picture, moved by half of itself."""
    side = min(net.input_shape[1:])
    window = min(max(2, side // 7), side)
    return {"window": window, "stride": max(1, window // 2)}


def _tell(net: Network, photo: list[Path], made: Any, *, as_json: bool) -> None:
    """What the network says of each picture."""
    import torch

    one = next(iter(made.results.values())) if hasattr(made, "results") else made
    valued = net.output == "value"  # a regression: there is no predicted class and no probability
    scores = net.head.readout(net.logits(one.images, check=False))
    classes = net.classes or [str(index) for index in range(scores.shape[1])]
    if not valued and scores.shape[1] == 1:  # two classes, one probability
        classes = ["0", "1"] if net.classes is None else [f"not {classes[0]}", classes[0]]
        scores = torch.cat([1 - scores, scores], 1)
    rows = []
    for place, path in enumerate(photo):
        predicted = int(scores[place].argmax())
        explained = int(one.target[place]) + (scores.shape[1] - net.head.classes)
        rows.append(
            {
                "picture": str(path),
                "predicted": None if valued else predicted,
                "predicted_class": None if valued else classes[predicted],
                "probability": None if valued else float(scores[place, predicted]),
                "target": int(one.target[place]),
                "target_class": classes[explained],
                "score": float(one.score[place]),
                "quantity": {"probabilities": "probability", "value": "value"}.get(net.output, "logit"),
                "methods": list(made.results) if hasattr(made, "results") else [made.provenance.method],
            }
        )
    tell(rows, _line, as_json=as_json)


def _line(row: Mapping[str, Any]) -> str:
    if row["predicted"] is None:
        return f"{row['picture']}: map for output {row['target_class']}, value {row['score']:.3g}"
    return (
        f"{row['picture']}: says {row['predicted_class']} ({100 * row['probability']:.1f} %); "
        f"map for {row['target_class']}, {row['quantity']} {row['score']:.3g}"
    )
