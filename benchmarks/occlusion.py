"""How fast is exact occlusion, compared with captum at its best and with as many plain passes?

``python -m benchmarks.occlusion [vgg16 resnet18 mobilenet_v2 densenet121 efficientnet-lite0 squeezenet1_1
efficientnet_b0]``: one image of 224 x 224, windows of 16 and 32 pixels, stride 8; one process, one thread, CPU seconds.
Microtome computes the whole map twice, with the peer in between. The peer and the plain passes run only every n-th row
of windows, and their time is scaled: their cost is the same for every window.
"""

from __future__ import annotations

import sys
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import turns  # makes torchvision importable, so it comes before the peer

import captum.attr as captum  # isort: skip

from microtome import Network, attribution
from microtome.attribution.occlusion import Occlusion, windows

# The peer runs one row of windows in this many.
SHARE = {
    "vgg16": 13,
    "resnet18": 5,
    "mobilenet_v2": 5,
    "densenet121": 9,
    "efficientnet-lite0": 5,
    "squeezenet1_1": 5,  # poolings that are rounded up
    "efficientnet_b0": 9,  # squeeze-excite gates: every window changes whole maps
}


class Banded(nn.Module):
    """The model on an image of which only the upper band varies, so that the peer runs fewer windows."""

    def __init__(self, model: nn.Module, image: Tensor, rows: int) -> None:
        super().__init__()
        self.model, self.rest = model, image[..., rows:, :]

    def forward(self, band: Tensor) -> Tensor:
        """Class scores."""
        return self.model(torch.cat([band, self.rest.expand(len(band), -1, -1, -1)], 2))


def covered(name: str, window: int) -> turns.Row:
    """One line of the table."""
    model = turns.build(name)
    net = Network(model, (3, 224, 224))
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    gray = torch.full_like(x, 0.5)
    boxes = windows((224, 224), (window, window), (8, 8))
    rows, columns = boxes.shape[:2]
    tried = max(1, rows // SHARE[name])
    height = window + 8 * (tried - 1)
    with torch.no_grad():
        target = int(model(x).argmax())
    peer = captum.Occlusion(Banded(model, x, height))

    def by_peer(batch: int) -> None:
        with torch.no_grad():
            peer.attribute(
                x[..., :height, :], (3, window, window), (3, 8, 8), 0.5, target, perturbations_per_eval=batch
            )

    def plain() -> None:
        with torch.no_grad():
            for _ in range(tried * columns):
                model(x)

    made_by_us: list[Occlusion] = []

    def ours() -> None:
        made_by_us.append(attribution.occlusion(net, x, target, window=window, stride=8, fill=gray))

    runs = {"ours": ours}
    runs |= {f"captum, {batch} a pass": partial(by_peer, batch) for batch in (1, 8)}
    runs["plain passes"] = plain
    with torch.no_grad():
        model(x.expand(8, -1, -1, -1))  # the first calls choose kernels
    times = turns.seconds(runs, 2, warm=False)
    scale = dict.fromkeys([kind for kind in runs if kind != "ours"], rows / tried)
    made = turns.row(f"occlusion {window}/8, {rows * columns} windows", name, times, "plain passes", scale)
    made["largest error / score"] = error(model, x, boxes, made_by_us[0].logit[0], target)
    print(f"    largest error / score: {made['largest error / score']:.1e}", flush=True)
    return made


def error(model: nn.Module, x: Tensor, boxes: Tensor, found: Tensor, target: int) -> float:
    """The largest difference from plain passes over every 29th window, as a share of the image's score."""
    worst, flat = 0.0, found.flatten()
    with torch.no_grad():
        score = float(model(x)[0, target].abs())
        for index in range(0, len(flat), 29):
            top, left, bottom, right = boxes.reshape(-1, 4)[index].tolist()
            one = x.clone()
            one[..., top:bottom, left:right] = 0.5
            worst = max(worst, float((model(one)[0, target] - flat[index]).abs()) / score)
    return worst


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    for name in turns.chosen(sys.argv[1:], list(SHARE)):
        for window in (16, 32):
            turns.keep("occlusion.json", [covered(name, window)])


if __name__ == "__main__":
    main()
