"""Which library gives the right map for every spelling of a network? Every spelling with every method.

``python -m benchmarks.conformance`` writes ``docs/conformance.md`` and ``benchmarks/results/conformance.json``.
The gold standard is ``tests/oracles/attribution_by_hand.py``: float64, backward passes by hand.
"""

from __future__ import annotations

import json
import platform
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from conformance.spellings import SPELLINGS, Spelling, weights
from oracles import attribution_by_hand as oracle
from oracles import torchvision_schemas

torchvision_schemas.define()  # before the peers, which import torchvision

from microtome import Network, attribution

SHAPE, TARGET, COUNT = (3, 12, 9), 2, 2
TOLERANCE = 1e-5  # of the largest value
LIBRARIES = ("microtome", "captum", "zennit", "grad-cam", "torchcam")

Runner = Callable[[nn.Module, Spelling, Tensor], Tensor]


def microtome(method: str) -> Runner:
    """Our own method."""

    def run(model: nn.Module, spelled: Spelling, x: Tensor) -> Tensor:
        options: dict[str, Any] = {"layer": spelled.layer} if "grad_cam" in method else {}
        return getattr(attribution, method)(Network(model, SHAPE), x, TARGET, **options).values

    return run


def captum(method: str) -> Runner:
    """captum: the layer, where one is needed, must be a module."""
    import captum.attr as peer

    def run(model: nn.Module, spelled: Spelling, x: Tensor) -> Tensor:
        if method == "grad_cam":
            layer = module_of(model, spelled)
            return peer.LayerGradCam(model, layer).attribute(x, target=TARGET, relu_attributions=True)
        made = {"gradient": peer.Saliency, "guided_backprop": peer.GuidedBackprop, "deconvnet": peer.Deconvolution}
        options = {"abs": False} if method == "gradient" else {}
        return made[method](model).attribute(x.clone().requires_grad_(), target=TARGET, **options)

    return run


def zennit(method: str) -> Runner:
    """Zennit's gradient with its composites."""
    from zennit.attribution import Gradient
    from zennit.composites import DeconvNet, GuidedBackprop

    composite = {"gradient": None, "guided_backprop": GuidedBackprop, "deconvnet": DeconvNet}[method]

    def run(model: nn.Module, spelled: Spelling, x: Tensor) -> Tensor:
        seed = torch.eye(4, dtype=x.dtype)[[TARGET] * len(x)]
        with Gradient(model=model, composite=composite() if composite else None) as attributor:
            return attributor(x, seed)[1]

    return run


def grad_cam(method: str) -> Runner:
    """pytorch-grad-cam, before its scaling to [0, 1]."""
    import pytorch_grad_cam as peer
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    def run(model: nn.Module, spelled: Spelling, x: Tensor) -> Tensor:
        if method == "guided_backprop":
            guided = peer.GuidedBackpropReLUModel(model=model, device="cpu")
            maps = [torch.as_tensor(guided(image[None], TARGET)).permute(2, 0, 1) for image in x]
            return torch.stack(maps)
        with peer.GradCAM(model, [module_of(model, spelled)]) as cam:
            targets = [ClassifierOutputTarget(TARGET)] * len(x)
            cam.outputs = cam.activations_and_grads(x)
            model.zero_grad()
            sum(t(o) for t, o in zip(targets, cam.outputs, strict=True)).backward()
            values, slopes = (part[0].detach().numpy() for part in
                              (cam.activations_and_grads.activations, cam.activations_and_grads.gradients))  # fmt: skip
            raw = cam.get_cam_image(x, cam.target_layers[0], targets, values, slopes, False)
        return torch.as_tensor(raw).clamp(min=0)[:, None]

    return run


def torchcam(method: str) -> Runner:
    """Torchcam's Grad-CAM without its normalisation."""
    from torchcam.methods import GradCAM

    def run(model: nn.Module, spelled: Spelling, x: Tensor) -> Tensor:
        with GradCAM(model, target_layer=module_of(model, spelled)) as cam:
            return cam(TARGET, model(x.clone().requires_grad_()), normalized=False)[0][:, None]

    return run


METHODS: dict[str, tuple[str, dict[str, Callable[[str], Runner]]]] = {
    "gradient": ("gradient", {"microtome": microtome, "captum": captum, "zennit": zennit}),
    "guided_backprop": ("guided-backprop", {"microtome": microtome, "captum": captum, "zennit": zennit,
                                            "grad-cam": grad_cam}),
    "deconvnet": ("deconvnet", {"microtome": microtome, "captum": captum, "zennit": zennit}),
    "grad_cam": ("grad-cam", {"microtome": microtome, "captum": captum, "grad-cam": grad_cam, "torchcam": torchcam}),
    "grad_cam at the convolution": ("grad-cam at conv", {"microtome": microtome, "captum": captum,
                                                         "grad-cam": grad_cam, "torchcam": torchcam}),
}  # fmt: skip


class NoModuleError(Exception):
    """A function computes the last maps, so a hook on modules cannot reach them."""


def module_of(model: nn.Module, spelled: Spelling) -> nn.Module:
    """The module that returns the last maps; a peer can hook only modules."""
    found = dict(model.named_modules()).get(spelled.layer.partition("#")[0])
    if found is None:
        raise NoModuleError
    return found


def at_convolution(spelled: Spelling) -> Spelling:
    """The same spelling, at the convolution before the last rectifier."""
    layers = {"InSequence": "3", "NestedSequences": "stages.1.0", "LoopOverBlocks": "blocks.1",
              "AllFunctional": "conv2d.1", "TorchvisionStyle": "layer1.0.conv2"}  # fmt: skip
    usual = "c3" if spelled.family != "plain" else "c2"
    return Spelling(spelled.name, spelled.family, spelled.pool, spelled.build, layers.get(spelled.name, usual))


def expected(method: str, spelled: Spelling, x: Tensor) -> Tensor:
    """The gold standard."""
    p, target = weights(spelled.family, SHAPE[0]), torch.full((len(x),), TARGET)
    if method == "grad-cam at conv":
        return oracle.grad_cam_at_convolution(spelled.family, spelled.pool, p, x, target)
    return oracle.attribution(method, spelled.family, spelled.pool, p, x, target)


def verdict(run: Runner, spelled: Spelling, x: Tensor, gold: Tensor) -> str:
    """``ok``, ``wrong`` (another map, without a message) or the kind of error."""
    model = spelled.build(weights(spelled.family, SHAPE[0])).eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = run(model, spelled, x.clone()).detach().to(gold)
    except NoModuleError:
        return "error: no module to hook"
    except Exception as error:
        return f"error: {type(error).__name__}"
    if not bool(gold.any()):
        raise ValueError(f"the map of {spelled.name} is zero, so that any library passes; choose another target")
    if values.shape != gold.shape:
        return "wrong"
    return "ok" if float((values - gold).abs().max()) <= TOLERANCE * float(gold.abs().max()) else "wrong"


def measure() -> dict[str, dict[str, dict[str, str]]]:
    """Method -> library -> spelling -> verdict."""
    x = torch.rand(COUNT, *SHAPE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    table: dict[str, dict[str, dict[str, str]]] = {}
    for title, (named, libraries) in METHODS.items():
        method = title.partition(" ")[0]
        for library, make in libraries.items():
            run, row = make(method), table.setdefault(title, {}).setdefault(library, {})
            for name, spelled in SPELLINGS.items():
                asked = at_convolution(spelled) if "convolution" in title else spelled
                row[name] = verdict(run, asked, x, expected(named, asked, x))
    return table


def page(table: dict[str, dict[str, dict[str, str]]]) -> str:
    """The table as Markdown: one block per method, one line per spelling."""
    lines = [
        "# The same network, written in other ways",
        "",
        (
            "Each spelling computes the same function with the same weights. `ok`: equal to an independent float64 "
            f"oracle within {TOLERANCE:g} of its largest value. **wrong**: another map came back, without a message. "
            "error: the library refused, or can name no such layer. Made by `python -m benchmarks.conformance`."
        ),
        "",
        "Versions: " + ", ".join(f"{key} {value}" for key, value in versions().items()) + ".",
    ]
    for method, rows in table.items():
        lines += ["", f"## {method}", "", "| written as | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
        for name in SPELLINGS:
            cells = [rows[library][name] for library in rows]
            lines.append(f"| {name} | " + " | ".join("**wrong**" if cell == "wrong" else cell for cell in cells) + " |")
        totals = [sum(value == "ok" for value in row.values()) for row in rows.values()]
        lines.append("| **right, of " + str(len(SPELLINGS)) + "** | " + " | ".join(map(str, totals)) + " |")
    return "\n".join(lines) + "\n"


def versions() -> dict[str, str]:
    """What was compared."""
    names = {"captum": "captum", "zennit": "zennit", "grad-cam": "grad-cam", "torchcam": "torchcam", "torch": "torch"}
    return {name: version(package) for name, package in names.items()} | {"python": platform.python_version()}


def main() -> None:
    """Measure and write both files."""
    torch.set_num_threads(1)
    table = measure()
    (ROOT / "docs" / "conformance.md").write_text(page(table))
    results = ROOT / "benchmarks" / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / "conformance.json").write_text(json.dumps({"versions": versions(), "table": table}, indent=1) + "\n")
    for method, rows in table.items():
        for library, row in rows.items():
            count = {word: sum(value.startswith(word) for value in row.values()) for word in ("ok", "wrong", "error")}
            print(f"{method:28} {library:10} {count}")


if __name__ == "__main__":
    main()
