"""How fast are the attribution methods, beside the peers at their best and beside the floor of plain passes?

One process, one thread, CPU seconds; ours and the peers in turns, the least of each counts. 224 x 224.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracles import torchvision_schemas

torchvision_schemas.define()

import captum.attr as captum
import torchvision.models as models
import zennit.canonizers
import zennit.composites
import zennit.torchvision
from zennit.attribution import Gradient

from microtome import Network, attribution
from microtome.attribution.occlusion import windows

RESULTS = Path(__file__).parent / "results" / "attribution.json"
Row = dict[str, float | str]


def seconds(runs: dict[str, Callable[[], object]], repeat: int) -> dict[str, float]:
    """CPU seconds of each, in turns; the least of ``repeat`` after one warm-up."""
    least = dict.fromkeys(runs, float("inf"))
    for turn in range(repeat + 1):
        for name, run in runs.items():
            began = time.process_time()
            run()
            if turn:
                least[name] = min(least[name], time.process_time() - began)
    return least


def row(what: str, network: str, times: dict[str, float], floor: str) -> Row:
    """One line of the table: ours, the fastest peer, the floor, and the ratios."""
    peers = {name: value for name, value in times.items() if name not in ("ours", floor)}
    best = min(peers, key=peers.__getitem__) if peers else ""
    made: Row = {"what": what, "network": network, **{name: round(value, 4) for name, value in times.items()}}
    if best:
        made["ours / peer"] = round(times["ours"] / times[best], 3)
        made["peer"] = best
    made["ours / floor"] = round(times["ours"] / times[floor], 3)
    made["floor"] = floor
    print("  ".join(f"{key}={value}" for key, value in made.items()), flush=True)
    return made


class EpsilonEverywhere(zennit.composites.LayerMapComposite):
    """The epsilon rule for every layer, as zennit spells a composite."""

    def __init__(self, canonizers: list[zennit.canonizers.Canonizer]) -> None:
        layers = [
            (zennit.composites.Convolution, zennit.composites.Epsilon()),
            (nn.Linear, zennit.composites.Epsilon()),
        ]
        super().__init__(layer_map=zennit.composites.layer_map_base() + layers, canonizers=canonizers)


def gradients(name: str, model: nn.Module, x: Tensor, layer: str, repeat: int) -> list[Row]:
    """Saliency, Grad-CAM, guided backpropagation and LRP on one network."""
    net = Network(model, (3, 224, 224))
    n = len(x)

    def floor() -> None:
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(model(leaf)[:, 3].sum(), leaf)

    def forward() -> None:
        with torch.no_grad():
            model(x)

    def by_zennit(composite: zennit.composites.Composite) -> Callable[[], object]:
        def run() -> None:
            with Gradient(model=model, composite=composite) as attributor:
                attributor(x, torch.eye(1000)[[3] * n])

        return run

    module = model.get_submodule(layer)
    label = f"{name} x{n}"
    canonizer = zennit.torchvision.ResNetCanonizer if "resnet" in name else zennit.canonizers.SequentialMergeBatchNorm
    box = zennit.composites.EpsilonGammaBox(low=0.0, high=1.0, canonizers=[canonizer()])
    both = "forward + backward"
    rows = [
        row(
            "saliency",
            label,
            seconds(
                {
                    "ours": lambda: attribution.saliency(net, x, 3, batch=n),
                    "captum": lambda: captum.Saliency(model).attribute(x.clone(), 3),
                    both: floor,
                },
                repeat,
            ),
            both,
        ),
        row(
            "grad-cam",
            label,
            seconds(
                {
                    "ours": lambda: attribution.grad_cam(net, x, 3, layer=layer, batch=n),
                    "captum": lambda: captum.LayerGradCam(model, module).attribute(x, 3),
                    "forward": forward,
                },
                repeat,
            ),
            "forward",
        ),
    ]
    if name != "mobilenet_v2":  # on ReLU6 captum's is the plain gradient: nothing to compare
        peers = {"captum": lambda: captum.GuidedBackprop(model).attribute(x.clone(), 3)}
    else:
        peers = {"captum (plain gradient)": lambda: captum.GuidedBackprop(model).attribute(x.clone(), 3)}
    ours = {"ours": lambda: attribution.guided_backprop(net, x, 3, batch=n)}
    rows.append(row("guided backprop", label, seconds({**ours, **peers, both: floor}, repeat), both))
    for rule, composite in (("epsilon", EpsilonEverywhere([canonizer()])), ("epsilon-gamma-box", box)):
        runs = {
            "ours": lambda rule=rule: attribution.lrp(net, x, 3, rules=rule, batch=n),
            "zennit": by_zennit(composite),
            both: floor,
        }
        rows.append(row(f"lrp {rule}", label, seconds(runs, max(2, repeat - 2)), both))
    return rows


def path(name: str, model: nn.Module, x: Tensor) -> Row:
    """Integrated gradients with 50 steps; captum at its best batch."""
    net = Network(model, (3, 224, 224))
    peer = captum.IntegratedGradients(model)

    def floor() -> None:
        for _ in range(50):
            leaf = x.clone().requires_grad_()
            torch.autograd.grad(model(leaf)[:, 3].sum(), leaf)

    runs: dict[str, Callable[[], object]] = {
        "ours": lambda: attribution.integrated_gradients(net, x, 3, steps=50),
        "50 forwards + backwards": floor,
    }
    for batch in (4, 8):
        runs[f"captum batch {batch}"] = lambda batch=batch: peer.attribute(
            x, torch.zeros_like(x), 3, n_steps=50, internal_batch_size=batch
        )
    return row("integrated gradients 50", name, seconds(runs, 1), "50 forwards + backwards")


def covered(name: str, model: nn.Module, x: Tensor, window: int, share: int) -> Row:
    """Occlusion, stride 8; the peer runs every ``share``-th row of windows and is scaled (its cost is per window)."""
    net = Network(model, (3, 224, 224))
    gray = torch.full_like(x, 0.5)
    boxes = windows((224, 224), (window, window), (8, 8))
    count = boxes.shape[0] * boxes.shape[1]
    band = x[..., : window + 8 * (len(boxes) // share - 1), :]
    part = (boxes.shape[0] // share) * boxes.shape[1]

    class Banded(nn.Module):
        """The model on an image of which only the upper band is varied, so that captum tries fewer windows."""

        def forward(self, rows: Tensor) -> Tensor:
            rest = x[..., rows.shape[2] :, :].expand(len(rows), -1, -1, -1)
            return model(torch.cat([rows, rest], 2))

    peer = captum.Occlusion(Banded())
    times: dict[str, float] = {}
    began = time.process_time()
    result = attribution.occlusion(net, x, 3, window=window, stride=8, fill=gray)
    times["ours"] = time.process_time() - began
    with torch.no_grad():
        for batch in (1, 8):
            began = time.process_time()
            peer.attribute(band, (3, window, window), (3, 8, 8), 0.5, 3, perturbations_per_eval=batch)
            times[f"captum batch {batch}"] = (time.process_time() - began) * count / part
        began = time.process_time()
        for _ in range(part):
            model(x)
        times["plain forwards"] = (time.process_time() - began) * count / part
        brute = x.repeat(8, 1, 1, 1)
        chosen = boxes.reshape(-1, 4)[:: max(1, count // 8)][:8]
        for index, (top, left, bottom, right) in enumerate(chosen.tolist()):
            brute[index, :, top:bottom, left:right] = 0.5
        expected = model(brute)[:, 3]
    found = result.logit.flatten()[:: max(1, count // 8)][:8]
    made = row(f"occlusion {window}/8, {count} windows", name, times, "plain forwards")
    made["largest error / score"] = float(((found - expected).abs() / expected.abs().clamp(min=1e-3)).max())
    print(f"    largest error / score {made['largest error / score']:.1e}", flush=True)
    return made


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.rand(1, 3, 224, 224)
    rows: list[Row] = []
    for name, layer in (("resnet18", "layer4"), ("mobilenet_v2", "features")):
        model = getattr(models, name)().eval()
        for batch, repeat in ((1, 5), (16, 2)):
            rows += gradients(name, model, x.repeat(batch, 1, 1, 1), layer, repeat)
        rows.append(path(name, model, x))
    for name, share in (("mobilenet_v2", 3), ("resnet18", 3), ("densenet121", 6), ("vgg16", 12)):
        model = getattr(models, name)().eval()
        rows += [covered(name, model, x, window, share) for window in (16, 32)]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
