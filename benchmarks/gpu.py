"""Does a GPU give what the processor gives, and how fast is it, beside the peers in the same run?

``python -m benchmarks.gpu [--device cuda] [--reference cpu]`` runs every registered method on a small network, a
ResNet18 with batch norm and a small vision transformer on both devices and compares all tensors of the results;
then it times the methods on ResNet18, MobileNetV2 and ViT-B/16 where the device is a GPU. Both tables are printed and
written to ``benchmarks/results/gpu.json``, with the name of the card. Under five minutes on one card.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from oracles import torchvision_schemas

torchvision_schemas.define()

import torchvision.models as models

from microtome import Network, attribution, registry, units
from microtome.data import Images
from microtome.errors import MicrotomeError

RESULTS = Path(__file__).parent / "results" / "gpu.json"
TOLERANCE = 2e-3  # of the largest number of a tensor: sums in other orders, through many layers
DOUBLE = {"exit-distance", "facet-distance", "facets-between", "linear-region", "weight-vectors"}
SIDE = 16


class SmallTransformer(nn.Module):
    """A vision transformer of two blocks: 4 x 4 patches, a class token, learned positions."""

    def __init__(self, width: int = 16, classes: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width) / 4)
        self.places = nn.Parameter(torch.randn(1, (SIDE // 4) ** 2 + 1, width) / 4)
        block = nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1) + self.places
        return self.head(self.norm(self.encoder(tokens))[:, 0])


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network for the comparison, and the layers that methods are asked about.

    Attributes
    ----------
    model : nn.Module
        In evaluation mode, on the processor.
    layer, linear : str
        A layer with maps or tokens, and one with weights.
    """

    model: nn.Module
    layer: str
    linear: str


def subjects() -> dict[str, Subject]:
    """The three networks, random weights of a fixed seed."""
    torch.manual_seed(0)
    small = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    residual = models.resnet18(num_classes=4)
    for module in residual.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2.0)
    return {
        "small": Subject(small.eval(), "3", "3"),
        "ResNet18": Subject(residual.eval(), "layer2", "layer1.0.conv2"),
        "transformer": Subject(SmallTransformer().eval(), "encoder.layers.0", "encoder.layers.0.linear1"),
    }


def images(count: int = 6) -> Images:
    """Noise with a bright square whose place tells the class."""
    pixels = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 0.5
    labels = torch.arange(count) % 4
    for one, label in zip(pixels, labels.tolist(), strict=True):
        one[:, 4 * label : 4 * label + 4, 2:8] += 0.5
    return Images((pixels * 255).round().to(torch.uint8), labels, tuple("abcd"))


Case = Callable[[Network, Subject], Any]


def cases() -> dict[str, Case]:
    """Every registered method, as it is asked on one network."""
    data = images()
    x = data.images[:2]
    found: dict[str, Case] = {}
    special: dict[str, dict[str, Any]] = {
        "occlusion": {"window": 4, "stride": 4},
        "integrated-gradients": {"steps": 4},
        "smooth-grad": {"samples": 3},
    }
    for name in registry.methods("attribution"):
        found[name] = lambda net, _, name=name: registry.method(name).function(net, x, 1, **special.get(name, {}))
    wide = x.double()

    def call(name: str) -> Callable[..., Any]:
        return registry.method(name).function

    def patches(net: Network, on: Subject) -> Any:
        return units.top_patches(net, data, on.layer, 2)[on.layer]

    def saliency_map(net: Network) -> Any:
        return attribution.saliency(net, x, 1)

    return found | {
        "attention-rollout": lambda net, _: call("attention-rollout")(net, x, 1),
        "scores": lambda net, _: net.logits(x),
        "activations": lambda net, on: net.activations(x, [on.layer])[on.layer],
        "ablation": lambda net, on: call("ablation")(net, data, on.layer, [0, 1]),
        "activation-maps": lambda net, on: call("activation-maps")(net, x, on.layer),
        "class-residuals": lambda net, on: call("class-residuals")(net, data, layer=on.linear, iterations=30),
        "compress": lambda net, _: call("compress")(net, data, multiply_adds=0.8),
        "connections": lambda net, on: call("connections")(net, on.linear),
        "convert-to-cam": lambda net, on: call("convert-to-cam")(net, data, data, layer=on.layer, epochs=1, batch=6),
        "criteria": lambda net, on: call("criteria")(net, data, on.layer, columns=("variation", "class_selectivity")),
        "deletion": lambda net, _: call("deletion")(net, x, saliency_map(net), 1, steps=4),
        "dissect": lambda net, on: call("dissect")(net, x[0], on.linear, 1),
        "effective-field": lambda net, on: call("effective-field")(net, patches(net, on), 0),
        "evaluate": lambda net, _: call("evaluate")(net, x, "gradient", 1, steps=3, samples=3),
        "exit-distance": lambda net, _: call("exit-distance")(net, wide, torch.ones_like(wide)),
        "facet-distance": lambda net, _: call("facet-distance")(net, wide, probes=4),
        "facets-between": lambda net, _: call("facets-between")(net, wide[0], wide[0] * 0.98),
        "filters": lambda net, on: call("filters")(net, on.linear),
        "ideal-inputs": lambda net, _: call("ideal-inputs")(net, data, steps=3),
        "infidelity": lambda net, _: call("infidelity")(net, x, saliency_map(net), 1, samples=3),
        "insertion": lambda net, _: call("insertion")(net, x, saliency_map(net), 1, steps=4),
        "invert": lambda net, on: call("invert")(net, x[0], on.layer, starts=2, steps=3),
        "invert-outputs": lambda net, _: call("invert-outputs")(net, net.logits(x), strict=False),
        "invertibility": lambda net, _: call("invertibility")(net),
        "kept-and-lost": lambda net, on: call("kept-and-lost")(net, x, [on.linear], iterations=30),
        "linear-region": lambda net, _: call("linear-region")(net, wide, probes=4),
        "lossless": lambda net, _: call("lossless")(net, data),
        "max-sensitivity": lambda net, _: call("max-sensitivity")(net, x, "saliency", 1, samples=2),
        "maximize": lambda net, on: call("maximize")(net, on.layer, [0, 1], steps=3),
        "maximize-class": lambda net, _: call("maximize-class")(net, [0, 1], steps=3),
        "prune": lambda net, _: call("prune")(net, data, rounds=1, multiply_adds=0.8, epochs=1),
        "randomisation": lambda net, _: call("randomisation")(net, x, "saliency", 1, steps=2),
        "reconstruct": lambda net, on: call("reconstruct")(net, patches(net, on), "deconvnet", 2, [0]),
        "rejected-energy": lambda net, on: call("rejected-energy")(net, data, [on.linear], iterations=30),
        "shortcut-share": lambda net, _: call("shortcut-share")(
            net, x, torch.ones(SIDE, SIDE), 1, methods=["saliency"]
        ),
        "similar-units": lambda net, on: call("similar-units")(net, data, on.layer),
        "specialised-units": lambda net, on: call("specialised-units")(net, data, on.layer),
        "spectra": lambda net, on: call("spectra")(net, [on.linear]),
        "subspaces": lambda net, on: call("subspaces")(net, on.linear),
        "top-images": lambda net, on: call("top-images")(net, data, on.layer, 0, k=2),
        "top-patches": lambda net, on: call("top-patches")(net, data, on.layer, 2),
        "tuning": lambda net, on: call("tuning")(net, on.layer),
        "weight-vectors": lambda net, on: call("weight-vectors")(net, wide, layer=on.linear),
        "without": lambda net, on: call("without")(net, on.linear, data, epochs=1, batch=6, sample=6),
    }


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All floating tensors of a result, by the path of their fields; singular vectors and weights of fits apart."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield path, value.detach().cpu().double()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if field.name not in ("provenance", "net", "network", "model"):
                yield from tensors(getattr(value, field.name, None), f"{path}.{field.name}".strip("."))
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from tensors(one, f"{path}[{key}]")
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from tensors(one, f"{path}[{number}]")


def difference(first: Any, second: Any) -> float:
    """The largest difference of any two numbers, as a share of the largest number of their tensor; inf for shapes."""
    a, b = dict(tensors(first)), dict(tensors(second))
    if a.keys() != b.keys() or any(a[path].shape != b[path].shape for path in a):
        return math.inf
    worst = 0.0
    for path, one in a.items():
        if not torch.equal(one.isfinite(), b[path].isfinite()):
            return math.inf
        kept = one.isfinite()
        if bool(kept.any()):
            scale = float(one[kept].abs().max()) or 1.0
            worst = max(worst, float((one[kept] - b[path][kept]).abs().max()) / scale)
    return worst


def outcome(name: str, on: Subject, device: str) -> tuple[Any, str]:
    """A result, or the refusal in words; refusals of the library are outcomes that both devices must share."""
    model = copy.deepcopy(on.model)
    model = model.double() if name in DOUBLE else model
    net = Network(model, (3, SIDE, SIDE), classes=tuple("abcd"), device=device)
    try:
        return cases()[name](net, on), ""
    except MicrotomeError as error:
        return None, f"{type(error).__name__}: {error}"


def compared(reference: str, device: str, only: str = "") -> Iterator[dict[str, Any]]:
    """One row for each network and method: the difference, or why there is none."""
    for network, on in subjects().items():
        for name in cases():
            if only not in f"{network} {name}":
                continue
            began = time.perf_counter()
            try:
                expected, refusal = outcome(name, on, reference)
                found, refused = outcome(name, on, device)
            except Exception as error:
                row = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
            else:
                if refusal or refused:
                    row = {"refused": refusal} if refusal == refused else {"error": f"{refusal!r} and {refused!r}"}
                else:
                    row = {"difference": difference(expected, found)}
            yield {"network": network, "method": name, **row, "seconds": round(time.perf_counter() - began, 2)}


def wrong(row: Mapping[str, Any]) -> bool:
    """Whether the devices disagree."""
    return "error" in row or row.get("difference", 0.0) > TOLERANCE


def least(run: Callable[[], object], device: str, repeat: int = 5) -> float:
    """Milliseconds, the least of some runs after two to warm up; the card's work is waited for."""
    times = []
    for _ in range(repeat + 2):
        began = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return 1000 * min(times[2:])


def speeds(device: str, names: tuple[str, ...], side: int, count: int, repeat: int) -> list[dict[str, Any]]:
    """One row for each network and method: ours, captum where installed, and the plain passes that bound both."""
    try:
        import captum.attr as peer
    except ImportError:
        peer = None
    rows = []
    x = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    target = [3] * count
    for name in names:
        torch.manual_seed(0)
        model = getattr(models, name)(**({"image_size": side} if name.startswith("vit") else {})).to(device).eval()
        net = Network(model, (3, side, side))

        def once(model: nn.Module = model) -> None:
            leaf = x.clone().requires_grad_()
            torch.autograd.grad(model(leaf)[:, 3].sum(), leaf)

        runs: dict[str, tuple[Callable[[], object], Callable[[], object] | None]] = {
            "forward + backward": (once, None),
            "saliency": (
                lambda net=net: attribution.saliency(net, x, target),
                peer and (lambda model=model: peer.Saliency(model).attribute(x.clone().requires_grad_(), 3)),
            ),
            "lrp": (lambda net=net: attribution.lrp(net, x, target), None),
            "integrated gradients, 1 image, 50 steps": (
                lambda net=net: attribution.integrated_gradients(net, x[:1], 3, steps=50),
                peer and (lambda model=model: peer.IntegratedGradients(model).attribute(x[:1], target=3, n_steps=50)),
            ),
        }
        for what, (ours, theirs) in runs.items():
            row: dict[str, Any] = {"network": name, "what": what, "images": count}
            row["ours [ms]"] = round(least(ours, device, repeat), 2)
            if theirs:
                row["captum [ms]"] = round(least(theirs, device, repeat), 2)
            print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)
            rows.append(row)
    return rows


def card(device: str) -> str:
    """The name of the device, as the tables name it."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or "processor"


def main(arguments: list[str] | None = None) -> int:
    """Print both tables and write them; 1 where the devices disagree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--reference", default="cpu")
    parser.add_argument("--only", default="", help="part of 'network method'")
    parser.add_argument("--networks", default="resnet18,mobilenet_v2,vit_b_16", help="networks that are timed")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        print("no CUDA device is at hand; --device cpu tries the harness alone", file=sys.stderr)
        return 2
    rows = []
    for row in compared(asked.reference, asked.device, asked.only):
        rows.append(row)
        print("  ".join(f"{key}={value}" for key, value in row.items()), "<-- DIFFERS" * wrong(row), flush=True)
    names = tuple(name for name in asked.networks.split(",") if name)
    times = speeds(asked.device, names, asked.side, asked.images, asked.repeat)
    made = {"device": card(asked.device), "torch": torch.__version__, "tf32": torch.backends.cudnn.allow_tf32}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps({**made, "parity": rows, "speed": times}, indent=1) + "\n")
    return int(any(map(wrong, rows)))


if __name__ == "__main__":
    raise SystemExit(main())
