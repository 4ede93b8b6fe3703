"""Where does the score go? Relevance at the pixels, what biases took and what stabilisers took, for real networks.

``python -m benchmarks.conservation``: the composites of LRP and deep Taylor decomposition on EfficientNet-Lite0 and
MobileNetV2 with trained weights, ResNet18 with batch norm and a small vision transformer; shares of the score of the
predicted class, averaged over the images, and the largest amount that is missing.
"""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from benchmarks import turns  # makes torchvision importable

from torchvision.models import VisionTransformer  # isort: skip

from microtome import Network, attribution, zoo
from microtome.attribution.composites import COMPOSITES

RULES = (*COMPOSITES, "deep-taylor")
NETWORKS = ("efficientnet-lite0", "mobilenet-v2", "resnet18", "vision transformer")


def network(name: str) -> Network:
    """With trained weights where an installed package has them; other norms get statistics of their own."""
    if name == "vision transformer":
        torch.manual_seed(0)
        model = VisionTransformer(image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64)
        nn.init.normal_(model.heads.head.weight)
        return Network(model.eval(), (3, 64, 64), mean=0.5, std=0.25)
    net = zoo.network(name)
    if zoo.architecture(name).pretrained is None:
        generator = torch.Generator().manual_seed(0)
        for part in net.model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.1, 0.1, generator=generator)
                part.running_var.uniform_(0.8, 1.2, generator=generator)
                part.bias.data.uniform_(-0.1, 0.1, generator=generator)
    return net


def pictures(net: Network, count: int = 2) -> Tensor:
    """Soft blobs of colour: neighbouring pixels alike, as in photos."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    return nn.functional.interpolate(coarse, size=net.input_shape[1:], mode="bicubic").clamp(0, 1)


def account(net: Network, images: Tensor, rules: str) -> dict[str, float]:
    """Shares of the score: at the pixels, with biases, with stabilisers, and what is missing of their sum."""
    if rules == "deep-taylor":
        found = attribution.deep_taylor(net, images)
    else:
        found = attribution.lrp(net, images, rules=rules)
    pixels = found.values.flatten(1).sum(1)
    missing = found.score - pixels - found.bias_share - found.stabiliser_share
    parts = {"pixels": pixels, "biases": found.bias_share, "stabilisers": found.stabiliser_share}
    shares = {name: float((part / found.score).mean()) for name, part in parts.items()}
    return {**shares, "missing": float((missing / found.score).abs().max())}


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    rows = []
    print(f"{'network':<20} {'rules':<26} {'pixels':>9} {'biases':>9} {'stabilisers':>11}   missing")
    for name in NETWORKS:
        net = network(name)
        images = pictures(net)
        for rules in RULES:
            row = account(net, images, rules)
            rows.append({"network": name, "rules": rules, **row})
            print(
                f"{name:<20} {rules:<26} {row['pixels']:>9.3f} {row['biases']:>9.3f} {row['stabilisers']:>11.5f}"
                f"   {row['missing']:.1e}",
                flush=True,
            )
    turns.RESULTS.mkdir(parents=True, exist_ok=True)
    (turns.RESULTS / "conservation.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
