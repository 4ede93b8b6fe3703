"""Where does the score go? Shares of the relevance at the pixels, in biases and in stabilisers, for real networks.

``python -m benchmarks.conservation``: the composites of LRP and deep Taylor decomposition on EfficientNet-Lite0 and
MobileNetV2 with trained weights, ResNet18 with batch norm, and small vision transformers, one with random weights and
one trained on handwritten digits for a minute; shares of the score of the predicted class, averaged over the images,
and the largest amount that is missing.
"""

from __future__ import annotations

import json

import torch
from torch import Tensor, nn

from benchmarks import turns  # makes torchvision importable

from torchvision.models import VisionTransformer  # isort: skip

from microtome import Network, attribution, data, training, zoo
from microtome.attribution.relevance.composites import COMPOSITES

RULES = (*COMPOSITES, "deep-taylor")
DIGITS = "vision transformer, digits"
NETWORKS = ("efficientnet-lite0", "mobilenet-v2", "resnet18", "vision transformer", DIGITS)


def trained_transformer() -> Network:
    """Three blocks on patches of 7 x 7, four passes over 10,000 digits: some 91 % of the test images."""
    torch.manual_seed(0)
    model = VisionTransformer(
        image_size=28, patch_size=7, num_layers=3, num_heads=4, hidden_dim=64, mlp_dim=128, num_classes=10
    )
    model.conv_proj = nn.Conv2d(1, 64, 7, 7)  # torchvision's takes three channels
    nn.init.trunc_normal_(model.heads.head.weight, std=0.02)  # torchvision's starts at zero
    recipe = training.Recipe(epochs=4, batch=64, optimizer="adamw", lr=2e-3, schedule="cosine", weight_decay=0.01)
    training.fit(model, data.mnist("train").subset(range(10_000)), recipe=recipe)
    _, accuracy = training.evaluate(model, data.mnist("test").subset(range(2_000)))
    print(f"{DIGITS}: {accuracy:.1%} of 2,000 test images")
    return Network(model, (1, 28, 28))


def network(name: str) -> Network:
    """A network with trained weights if an installed package has them; otherwise its norms get statistics."""
    if name == DIGITS:
        return trained_transformer()
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
    """Smooth blobs of colour, with similar neighbouring pixels as in photos; or digits."""
    if net.input_shape[0] == 1:
        digits = data.mnist("test")
        return torch.stack([digits[index][0] for index in range(count)])
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)
    return nn.functional.interpolate(coarse, size=net.input_shape[1:], mode="bicubic").clamp(0, 1)


def account(net: Network, images: Tensor, rules: str) -> dict[str, float]:
    """Shares of the score: at the pixels, in biases, in stabilisers, and the part missing from their sum."""
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
