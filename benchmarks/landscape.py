"""How long does a loss surface take? LeNet, 21 x 21 points, 1,000 MNIST images, against loss-landscapes 3.0.6.

``python -m benchmarks.landscape``; the peer comes by ``pip install --no-deps loss-landscapes==3.0.6``. CPU seconds in
turns, one thread; 7 x 7 points are timed and the times multiplied by 9. The peer's plane is not the same:
its directions are uniform in [0, 1] and its grid zig-zags by one cell in every second row. So the work is compared,
passes over 1,000 images, and not the picture. The floor is those passes in plain torch in batches of 64, and
``tolerance .02`` a surface whose points see as many images as a standard error of 2 % asks for. A few minutes.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks import turns
from microtome import Network, data, training

STEPS, TIMED, IMAGES = 21, 7, 1000


def lenet() -> nn.Module:
    """LeNet with ReLU and max pooling, 28 x 28."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    ).eval()  # fmt: skip


def main() -> None:
    """Train for an epoch, measure, print, write."""
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    torch.set_num_threads(1)
    digits = data.mnist_5000()
    model = lenet()
    training.fit(model, digits, recipe=training.Recipe(epochs=1, batch=50, lr=0.05))
    net = Network(model, (1, 28, 28))
    some = digits.subset(range(0, 5000, 5000 // IMAGES))
    images = torch.stack([some[index][0] for index in range(IMAGES)])
    labels = torch.tensor([some[index][1] for index in range(IMAGES)])
    metric = Loss(cross_entropy, images, labels)

    def ours(**options: object) -> training.LossSurface:
        return training.landscape.surface(net, some, steps=TIMED, **options)

    def peer() -> object:
        return loss_landscapes.random_plane(model, metric, 1, TIMED, "filter", deepcopy_model=True)

    @torch.no_grad()
    def floor() -> None:
        for _ in range(TIMED**2):
            for part, its in zip(images.split(64), labels.split(64), strict=True):
                cross_entropy(model(part), its)

    scale = STEPS**2 / TIMED**2
    times = turns.seconds({"ours": ours, "loss-landscapes 3.0.6": peer, "plain passes": floor}, 2, warm=False)
    row = turns.row(
        f"loss surface, {STEPS**2} points x {IMAGES:,} images",
        "lenet",
        times,
        "plain passes",
        dict.fromkeys(times, scale),
    )
    quick = turns.seconds({"ours": lambda: ours(tolerance=0.02)}, 2, warm=False)["ours"][0]
    found, whole = ours(tolerance=0.02), ours()
    inside = (found.loss - whole.loss).abs() <= 1.96 * found.error
    row["tolerance .02 [s]"] = round(scale * quick, 2)
    row["tolerance .02, images a point"] = round(float(found.images.double().mean()), 1)
    row["tolerance .02, within 1.96 standard errors"] = round(float(inside.double().mean()), 3)
    print(row)
    turns.keep("landscape.json", [row])


if __name__ == "__main__":
    main()
