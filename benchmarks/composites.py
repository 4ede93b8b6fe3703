"""Which composite of relevance rules should be the default? Photos, two depthwise networks with trained weights.

``python -m benchmarks.composites FOLDER [efficientnet-lite0 mobilenet-v2]``: a folder of photos. For each composite the
share of the score at the pixels, the absolute relevance over the score, the areas under the deletion and insertion
curves (a random order of pixels and gradient x input beside), and how similar the map stays when the weights are
randomised from the output down: the absolute rank correlation after each quarter of the layers. Some five minutes a
network on one core.
"""

from __future__ import annotations

import json
import sys

import torch
from torch import Tensor

from benchmarks import turns
from microtome import Network, attribution, data, zoo

COMPOSITES = ("epsilon", "epsilon-plus", "epsilon-sparing-plus", "epsilon-gamma-box")
NETWORKS = ("efficientnet-lite0", "mobilenet-v2")
PHOTOS, STEPS = 6, 14


def photos(folder: str, net: Network) -> Tensor:
    """Photos spread evenly over the folder."""
    found = data.folder(folder, net.input_shape)
    items = [found[index] for index in range(0, len(found), max(1, len(found) // PHOTOS))][:PHOTOS]
    return torch.stack([item if isinstance(item, Tensor) else item[0] for item in items])


def curves(net: Network, images: Tensor, target: Tensor, maps: Tensor) -> dict[str, float]:
    """Areas under the deletion (less is better) and insertion curves (more is better), averaged."""
    deletion = attribution.deletion(net, images, maps, target, steps=STEPS).area
    insertion = attribution.insertion(net, images, maps, target, steps=STEPS).area
    return {"deletion": float(deletion.mean()), "insertion": float(insertion.mean())}


def measured(net: Network, images: Tensor, target: Tensor, rules: str) -> dict[str, object]:
    """One composite."""
    found = attribution.lrp(net, images, target, rules=rules)
    random = attribution.randomisation(net, images[:2], "lrp", options={"rules": rules}, steps=4)
    return {
        "pixels": float(found.pixel_share.mean()),
        "mass": float(found.mass.mean()),
        **curves(net, images, target, found.map),
        "alike": [round(float(value), 2) for value in random.absolute.mean(1)],
    }


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    folder, *names = sys.argv[1:]
    rows = []
    for name in names or NETWORKS:
        net = zoo.network(name)
        images = photos(folder, net)
        target = net.logits(images).argmax(1)
        noise = torch.rand(len(images), *images.shape[-2:], generator=torch.Generator().manual_seed(0))
        plain = attribution.gradient_x_input(net, images, target).map
        for what, maps in (("random order", noise), ("gradient x input", plain)):
            rows.append({"network": name, "rules": what, **curves(net, images, target, maps)})
            print(rows[-1], flush=True)
        for rules in COMPOSITES:
            rows.append({"network": name, "rules": rules, **measured(net, images, target, rules)})
            print(rows[-1], flush=True)
    turns.RESULTS.mkdir(parents=True, exist_ok=True)
    (turns.RESULTS / "composites.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
