"""Speed of the gradient methods and relevance, compared with the peers at their best and with plain passes.

``python -m benchmarks.attribution [resnet18 mobilenet_v2 vgg16 vit_b_16]``: 224 x 224, one image and sixteen (VGG16:
one); one process, one thread, CPU seconds, ours and peers in turns. The memory of integrated gradients is measured in a
separate process. Of ViT-B/16, for which zennit has no rules, only the gradient is compared, with four images.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import turns  # makes torchvision importable, so it comes before the peers

import captum.attr as captum  # isort: skip
import zennit.canonizers  # isort: skip
import zennit.composites  # isort: skip
import zennit.torchvision  # isort: skip
from zennit.attribution import Gradient  # isort: skip

from microtome import Network, attribution

LAYERS = {"resnet18": "layer4", "mobilenet_v2": "features", "vgg16": "features.29", "vit_b_16": "encoder.ln"}
BOTH = "forward + backward"


class EpsilonEverywhere(zennit.composites.LayerMapComposite):
    """The epsilon rule for every layer, as a composite of zennit."""

    def __init__(self, canonizers: list[zennit.canonizers.Canonizer]) -> None:
        layers = [
            (zennit.composites.Convolution, zennit.composites.Epsilon()),
            (nn.Linear, zennit.composites.Epsilon()),
        ]
        super().__init__(layer_map=zennit.composites.layer_map_base() + layers, canonizers=canonizers)


def once(model: nn.Module, x: Tensor) -> None:
    """The floor of all methods with a backward pass: one plain forward and backward pass to the pixels."""
    leaf = x.clone().requires_grad_()
    torch.autograd.grad(model(leaf)[:, 3].sum(), leaf)


def forward(model: nn.Module, x: Tensor) -> None:
    """The floor of Grad-CAM, whose backward pass is short."""
    with torch.no_grad():
        model(x)


def by_zennit(model: nn.Module, x: Tensor, composite: zennit.composites.Composite) -> None:
    """Relevance of class 3."""
    with Gradient(model=model, composite=composite) as attributor:
        attributor(x, torch.eye(1000)[[3] * len(x)])


def rectified(model: nn.Module) -> nn.Module:
    """A copy with ReLU in place of every ReLU6."""
    private = copy.deepcopy(model)
    for module in private.modules():
        for key, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, key, nn.ReLU(inplace=child.inplace))
    return private


def gradients(name: str, batch: int, repeat: int) -> list[turns.Row]:
    """Saliency, Grad-CAM, guided backpropagation and relevance on one network."""
    model = turns.build(name)
    attends = name == "vit_b_16"
    # The peers' best: no gradients of weights, but torch multiplies transposed values faster with them.
    model.requires_grad_(attends)
    net, module = Network(model, (3, 224, 224)), model.get_submodule(LAYERS[name])
    x = torch.rand(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    canonizer = zennit.torchvision.ResNetCanonizer if name == "resnet18" else zennit.canonizers.SequentialMergeBatchNorm
    box = zennit.composites.EpsilonGammaBox(low=0.0, high=1.0, canonizers=[canonizer()])
    floor = {BOTH: partial(once, model, x)}
    # On ReLU6 captum's guided backpropagation is the plain gradient, without a warning.
    guided = "captum (plain gradient)" if name == "mobilenet_v2" else "captum"
    table: list[tuple[str, Callable[[], object], dict[str, Callable[[], object]], dict[str, Callable[[], object]]]] = [
        (
            "saliency",
            lambda: attribution.saliency(net, x, 3),
            {"captum": lambda: captum.Saliency(model).attribute(x.clone().requires_grad_(), 3)},
            floor,
        ),
        (
            "grad-cam",
            lambda: attribution.grad_cam(net, x, 3, layer=LAYERS[name]),
            {"captum": lambda: captum.LayerGradCam(model, module).attribute(x.clone().requires_grad_(), 3)},
            {"forward": partial(forward, model, x)},
        ),
        (
            "guided backprop",
            lambda: attribution.guided_backprop(net, x, 3),
            {guided: lambda: captum.GuidedBackprop(model).attribute(x.clone().requires_grad_(), 3)},
            floor,
        ),
        (
            "lrp epsilon",
            lambda: attribution.lrp(net, x, 3, rules="epsilon"),
            {"zennit": partial(by_zennit, model, x, EpsilonEverywhere([canonizer()]))},
            floor,
        ),
        (
            "lrp epsilon-gamma-box",
            lambda: attribution.lrp(net, x, 3, rules="epsilon-gamma-box"),
            {"zennit": partial(by_zennit, model, x, box)},
            floor,
        ),
    ]
    if name == "mobilenet_v2":  # with ReLU captum's guided backpropagation is right
        like = rectified(model)
        bent = Network(like, (3, 224, 224))
        table.append(
            (
                "guided backprop, ReLU for ReLU6",
                lambda: attribution.guided_backprop(bent, x, 3),
                {"captum": lambda: captum.GuidedBackprop(like).attribute(x.clone().requires_grad_(), 3)},
                {BOTH: partial(once, like, x)},
            )
        )
    rows = []
    for what, ours, peers, plain in table[: 1 if attends else None]:
        times = turns.seconds({"ours": ours, **peers, **plain}, repeat)
        rows.append(turns.row(what, f"{name} x{batch}", times, next(iter(plain)), {}))
    return rows


def path(name: str, repeat: int) -> turns.Row:
    """Integrated gradients with 50 steps; captum at its best batch."""
    model = turns.build(name)
    model.requires_grad_(False)
    net, peer = Network(model, (3, 224, 224)), captum.IntegratedGradients(model)
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))

    def by_peer(batch: int) -> None:
        peer.attribute(x, torch.zeros_like(x), 3, n_steps=50, internal_batch_size=batch)

    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: attribution.integrated_gradients(net, x, 3, steps=50),
        **{f"captum, {batch} a pass": partial(by_peer, batch) for batch in (1, 2, 4, 8)},
        "50 forwards + backwards": lambda: [once(model, x) for _ in range(50)],
    }
    times = turns.seconds(runs, repeat, warm=repeat > 2)
    return turns.row("integrated gradients 50", name, times, "50 forwards + backwards", {})


def memory(name: str) -> turns.Row:
    """Peak memory of integrated gradients with 50 steps beyond the model; captum with its defaults."""
    made: turns.Row = {"what": "integrated gradients 50, memory", "network": name}
    for who in ("ours", "captum"):
        made[f"{who}, above the model [MB]"] = round(turns.peak("benchmarks.attribution", "--peak", name, who), 1)
    print("  ".join(f"{key}={value}" for key, value in made.items()), flush=True)
    return made


def peak(name: str, who: str) -> None:
    """Peak memory of integrated gradients beyond the model in MB, measured in this process.

    captum runs with its defaults: all steps in one batch.
    """
    model = turns.build(name)
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    net = Network(model, (3, 224, 224))
    forward(model, x)
    before = turns.resident("VmRSS")
    turns.forget_peak()
    if who == "ours":
        attribution.integrated_gradients(net, x, 3, steps=50)
    else:
        captum.IntegratedGradients(model).attribute(x, torch.zeros_like(x), 3, n_steps=50)
    print(turns.resident("VmHWM") - before)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    if arguments[:1] == ["--peak"]:
        peak(*arguments[1:])
        return
    for name in turns.chosen(arguments, tuple(LAYERS)):
        if name == "vit_b_16":
            turns.keep("attribution.json", [*gradients(name, 1, 5), *gradients(name, 4, 3)])
            continue
        often = 5 if name == "vgg16" else 25  # the least of a few passes of 30 ms varies by a sixth
        turns.keep("attribution.json", [*gradients(name, 1, often), memory(name)])
        turns.keep("attribution.json", [path(name, 2 if name == "vgg16" else 4)])  # whose turns take five minutes
        if name != "vgg16":
            turns.keep("attribution.json", gradients(name, 16, 2))


if __name__ == "__main__":
    main(sys.argv[1:])
