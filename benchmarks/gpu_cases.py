"""The networks, images and calls that ``benchmarks.gpu`` runs on two devices: every registered method once."""

from __future__ import annotations

import copy
import dataclasses
import sys
import tempfile
from collections.abc import Callable
from functools import lru_cache
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
from microtome.training import Recipe, Run, fit, information

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


@lru_cache(maxsize=1)
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
        "small": Subject(small.eval(), "3", "0"),
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
    """The call of every registered method on one network."""
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
        return units.top_patches(net, data, on.layer, k=2)[on.layer]

    def saliency_map(net: Network) -> Any:
        return attribution.saliency(net, x, 1)

    return found | {
        "attention-rollout": lambda net, _: call("attention-rollout")(net, x, 1),
        "scores": lambda net, _: net.logits(x),
        "activations": lambda net, on: net.activations(x, [on.layer])[on.layer],
        "ablation": lambda net, on: call("ablation")(net, data, on.layer, units=[0, 1]),
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
        "facet-distance": lambda net, _: call("facet-distance")(*tiny(net), probes=2),
        "facets-between": lambda net, _: call("facets-between")(net, wide[0], wide[0] * 0.98),
        "class-labels": lambda net, on: call("class-labels")(patches(net, on)),
        "filters": lambda net, on: call("filters")(net, on.linear),
        "ideal-inputs": lambda net, _: call("ideal-inputs")(net, data, steps=3),
        "infidelity": lambda net, _: call("infidelity")(net, x, saliency_map(net), 1, samples=3),
        "insertion": lambda net, _: call("insertion")(net, x, saliency_map(net), 1, steps=4),
        "invert": lambda net, on: call("invert")(net, x[0], on.layer, starts=2, steps=3),
        "invert-outputs": lambda net, _: call("invert-outputs")(net, net.logits(x), strict=False),
        "invertibility": lambda net, _: call("invertibility")(net),
        "kept-and-lost": lambda net, on: call("kept-and-lost")(net, x, [on.linear], iterations=30),
        "linear-region": lambda net, _: call("linear-region")(*tiny(net), probes=2),
        "lossless": lambda net, _: call("lossless")(net, data),
        "max-sensitivity": lambda net, _: call("max-sensitivity")(net, x, "saliency", 1, samples=2),
        "maximize": lambda net, on: call("maximize")(net, on.layer, channels=[0, 1], steps=3),
        "maximize-class": lambda net, _: call("maximize-class")(net, [0, 1], steps=3),
        "prune": lambda net, _: call("prune")(net, data, rounds=1, multiply_adds=0.8, epochs=1),
        "randomisation": lambda net, _: call("randomisation")(net, x, "saliency", 1, steps=2),
        "reconstruct": lambda net, on: call("reconstruct")(net, patches(net, on), k=2, units=[0]),
        "rejected-energy": lambda net, on: call("rejected-energy")(net, data, [on.linear], iterations=30),
        "shortcut-share": lambda net, _: call("shortcut-share")(
            net, x, torch.ones(SIDE, SIDE), 1, methods=["saliency"]
        ),
        "similar-units": lambda net, on: call("similar-units")(net, data, on.layer),
        "specialised-units": lambda net, on: call("specialised-units")(net, data, on.layer),
        "spectra": lambda net, on: call("spectra")(net, [on.linear]),
        "subspaces": lambda net, on: call("subspaces")(net, on.linear),
        "top-images": lambda net, on: call("top-images")(net, data, on.layer, 0, k=2),
        "top-patches": lambda net, on: call("top-patches")(net, data, on.layer, k=2),
        "tuning": lambda net, on: call("tuning")(net, on.layer),
        "weight-vectors": lambda net, on: call("weight-vectors")(net, wide, layer=on.linear),
        "credentials": lambda net, on: call("credentials")(
            net, call("maximize")(net, on.layer, channels=[0, 1], steps=3), patches(net, on), restarts=1, k=2
        ),
        "layer-repeats": lambda net, on: call("layer-repeats")(net, data, [on.layer, on.linear], permutations=3),
        "project-back": lambda net, on: call("project-back")(net, x, on.layer, 1),
        "what-where": lambda net, on: call("what-where")(net, on.layer),
        "explain-path": lambda net, _: call("explain-path")(net, x[0], 1, labels=False),
        "natural-filters": lambda net, _: call("natural-filters")(net, data, patches=100),
        "feature-history": lambda net, on: call("feature-history")(
            net, [net.model.state_dict(), halved(net.model).state_dict()], data, [on.layer], shown=(0,), steps=3
        ),
        # -- training and representation
        "cka": lambda net, on: call("cka")(net, None, data, [on.layer, on.linear], permutations=5),
        "features": lambda net, on: call("features")(net, data, on.layer),
        "pca": lambda net, on: call("pca")(call("features")(net, data, on.layer)),
        # The coordinates of t-SNE are chaotic: what its maps were made of is compared.
        "tsne": lambda net, on: call("tsne")(rounded(net, data, on.layer), perplexity=1.5),
        "aligned-maps": lambda net, on: call("aligned-maps")([rounded(net, data, on.layer)] * 2, perplexity=1.5),
        "hessian-eigenvalues": lambda net, _: call("hessian-eigenvalues")(net, data, products=8),
        "hessian-density": lambda net, _: call("hessian-density")(net, data, probes=2, products=8),
        "hessian-convexity": lambda net, _: call("hessian-convexity")(net, data, steps=3, products=8),
        "hessian-along-training": lambda net, _: call("hessian-along-training")(
            net, TwoCheckpoints(net.model), data, products=8
        ),
        "usable-information": lambda net, on: call("usable-information")(
            net, images(16), [on.linear], reduce="mean", folds=3
        ),
        "loss-line": lambda net, _: call("loss-line")(net, data, steps=3),
        "loss-between": lambda net, _: call("loss-between")(net, net.around(halved(net.model)), data, steps=3),
        "loss-surface": lambda net, _: call("loss-surface")(net, data, steps=3),
        "gradient-phases": lambda net, _: call("gradient-phases")(few_networks(net)),
        "information-plane": lambda net, on: information_plane(net, on, data),
        "compare-planes": lambda net, _: call("compare-planes")({"one": few_networks(net)}, trials=1),
        "without": lambda net, on: call("without")(net, on.linear, data, epochs=1, batch=6, sample=6),
    }


def tiny(net: Network) -> tuple[Network, Tensor]:
    """A network of a few dozen units on the device of another: each is followed by a pass of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 4))
    return Network(body.double().to(net.device), (3, 6, 6)), images().images[:1, :, :6, :6].double()


def rounded(net: Network, data: Images, layer: str) -> Any:
    """Features rounded to three digits, the same on both devices."""
    found = registry.method("features").function(net, data, layer)
    return dataclasses.replace(found, values=found.values.mul(1e3).round().div(1e3))


def halved(model: nn.Module) -> nn.Module:
    """A copy with weights of half the size."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    return other


class TwoCheckpoints(Run):
    """A run that kept a model's weights, and those of half their size, in memory."""

    checkpoints = (0, 1)  # type: ignore[assignment]  # a property of its base
    _kept: list[dict[str, Tensor]]

    def __init__(self, model: nn.Module) -> None:
        super().__init__((), {})
        object.__setattr__(self, "_kept", [halved(model).state_dict(), copy.deepcopy(model.state_dict())])

    def load(self, model: nn.Module, epoch: int) -> None:
        """Put the weights of an epoch into a model."""
        model.load_state_dict(self._kept[epoch])


def few_networks(net: Network) -> information.NetworkRuns:
    """Two small networks trained for a few epochs on the device of a network."""
    return information.train_networks(information.twelve_bits(), networks=2, epochs=4, checkpoints=2, device=net.device)


def information_plane(net: Network, on: Subject, data: Images) -> Any:
    """The plane of a run of one epoch of a copy of the model, on its device."""
    with tempfile.TemporaryDirectory() as folder:
        model = copy.deepcopy(net.model)
        run = fit(model, data, recipe=Recipe(epochs=1, batch=6, lr=1e-3), out=folder)
        return registry.method("information-plane").function(
            run, net, data, layers=[on.layer], tolerance=10.0, trials=1
        )
