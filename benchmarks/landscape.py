"""How long does a loss surface take? 21 x 21 points x 5,000 MNIST images, against loss-landscapes 3.0.6.

``python -m benchmarks.landscape [lenet] [resnet20]``. CPU seconds in turns, one thread; a few points are timed and the
times multiplied. The peer's plane differs: its directions are uniform in [0, 1], and its grid is shifted by one cell in
every second row. So the benchmark compares the work (passes over all images) and not the picture. The peer takes all
images as one batch, as its examples do. The floor is those passes in plain torch in batches of 64. ``tolerance .02`` is
a surface whose points use as many images, in one order, as a standard error of 2 % of the loss needs. ``bfloat16``
takes convolutions in bfloat16 and compares 9 points with float32 on at most 512 images: the time of both is counted.
ResNet-20 sees 500 images.
"""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks import turns
from microtome import Network, data, training, zoo

INSTALL = "pip install --no-deps loss-landscapes==3.0.6"
POINTS = 21 * 21
COMPARED, COMPARED_IMAGES = 9, 512  # points, and images of each, that a run in bfloat16 compares with float32
SIZES = {"lenet": (5000, 3), "resnet20": (500, 3)}  # images, points along each direction that are timed


def lenet() -> nn.Module:
    """LeNet with ReLU and max pooling, 28 x 28."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    ).eval()  # fmt: skip


def measured(name: str) -> turns.Row:
    """One network: trained for an epoch, then its surface in each program."""
    loss_landscapes = turns.peer("loss_landscapes", INSTALL)
    metrics = turns.peer("loss_landscapes.metrics", INSTALL)

    count, timed = SIZES[name]
    digits = data.mnist_5000()
    some = digits.subset(range(0, 5000, 5000 // count))
    model = lenet() if name == "lenet" else zoo.resnet20((1, 28, 28), 10)
    recipe = training.Recipe(epochs=1, batch=50, lr=0.05, channels_last=True)
    training.fit(model, digits if name == "lenet" else some, recipe=recipe)
    net = Network(model, (1, 28, 28))
    images = torch.stack([some[index][0] for index in range(count)])
    labels = torch.tensor([some[index][1] for index in range(count)])
    metric = metrics.Loss(cross_entropy, images, labels)

    def ours(**options: object) -> training.LossSurface:
        return training.landscape.surface(net, some, steps=timed, **options)

    @torch.no_grad()
    def peer() -> object:
        return loss_landscapes.random_plane(model, metric, 1, timed, "filter", deepcopy_model=True)

    @torch.no_grad()
    def floor() -> None:
        for _ in range(timed**2):
            for part, its in zip(images.split(64), labels.split(64), strict=True):
                cross_entropy(model(part), its)

    runs = {"ours": ours, "loss-landscapes 3.0.6": peer, "plain passes": floor}
    runs["tolerance .02"] = lambda: ours(tolerance=0.02)
    runs["bfloat16"] = lambda: ours(precision="bfloat16")
    times = turns.seconds(runs, 3, warm=False)
    quick, rough = times.pop("tolerance .02"), times.pop("bfloat16")
    scale = POINTS / timed**2
    bfloat16 = in_bfloat16(rough[0], times["ours"][0], timed**2, count)
    row = turns.row(
        f"loss surface, {POINTS} points x {count:,} images", name, times, "plain passes", dict.fromkeys(times, scale)
    )
    found, whole = ours(tolerance=0.02), ours()
    inside = (found.loss - whole.loss).abs() <= 1.96 * found.error
    row["tolerance .02 [s]"] = round(scale * quick[0], 2)
    row["tolerance .02, times faster than the peer"] = round(times["loss-landscapes 3.0.6"][0] / quick[0], 2)
    row["tolerance .02, images a point"] = round(float(found.images.double().mean()), 1)
    row["tolerance .02, largest difference from all images"] = round(
        float(((found.loss - whole.loss).abs() / whole.loss).max()), 4
    )
    row["tolerance .02, within 1.96 standard errors"] = round(float(inside.double().mean()), 3)
    row["bfloat16 [s]"] = round(bfloat16, 2)
    row["bfloat16, times faster than the peer"] = round(scale * times["loss-landscapes 3.0.6"][0] / bfloat16, 2)
    off = ours(precision="bfloat16")
    row["bfloat16, largest difference from float32"] = round(
        float(((off.loss - whole.loss).abs() / whole.loss).max()), 4
    )
    return row


def in_bfloat16(rough: float, exact: float, points: int, images: int) -> float:
    """Seconds of a whole surface in bfloat16, of those of a few points: in it with the comparison, and in float32.

    Each of the points is taken in bfloat16 on all images, and for the comparison in both on the first of them.
    """
    share = min(COMPARED_IMAGES / images, 1.0)
    exact_point = exact / points
    point = (rough / points - share * exact_point) / (1 + share)
    return POINTS * point + COMPARED * share * (point + exact_point)


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    for name in turns.chosen(sys.argv[1:], list(SIZES)):
        row = measured(name)
        print(row)
        turns.keep("landscape.json", [row])


if __name__ == "__main__":
    main()
