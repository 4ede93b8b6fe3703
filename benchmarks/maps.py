"""How long does a map of 10,000 images take, and how good is it? t-SNE of 10,000 x 128 features beside openTSNE itself.

``python -m benchmarks.maps [TURNS]``: two sets of features, CPU seconds on one thread, in turns. The first set is that
of the test images of Fashion-MNIST in the last hidden layer of a small network; where they are not installed, it is
left out. The second set are ten groups of Gaussian points that overlap.

Ours finds exact neighbours and measures the quality of the map (kept neighbours, trustworthiness, accuracies); openTSNE
is called with its defaults, which finds approximate neighbours, and measures nothing. The accuracy is that of the ten
nearest neighbours on the map. Among the Gaussian points openTSNE's map of approximate neighbours is more accurate than
a map of exact ones, by openTSNE or by us.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import turns
from microtome import Network, data
from microtome.errors import InputError
from microtome.representation import Features, features, tsne
from microtome.representation.map_quality import accuracy
from microtome.representation.neighbours import nearest
from microtome.training.fit import Recipe, fit

COUNT, WIDTH = 10_000, 128
SPREAD = 0.3  # of the groups' centres; points deviate by 1, so that nearest neighbours are not always right


def garments() -> Features:
    """Fashion-MNIST in the last hidden layer of a small network."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(800, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)),
    )
    fit(model, data.fashion_mnist("train").sample(COUNT, seed=0), recipe=Recipe(epochs=2, batch=64, lr=0.05))
    return features(Network(model, (1, 28, 28)), data.fashion_mnist("test"), "8")


def groups() -> Features:
    """Ten groups that overlap."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(COUNT) % 10
    values = SPREAD * torch.randn(10, WIDTH, generator=generator)[labels] + torch.randn(
        COUNT, WIDTH, generator=generator
    )
    return Features(layer="features", reduce="mean", values=values, labels=labels)


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    repeat = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    rows = [measured("Gaussian groups", groups(), repeat)]
    try:
        rows.insert(0, measured("Fashion-MNIST in a hidden layer", garments(), repeat))
    except InputError as error:
        print(error)
    turns.keep("maps.json", rows)


def measured(name: str, found: Features, repeat: int) -> turns.Row:
    """Time and accuracy of both maps."""
    import openTSNE

    maps: dict[str, Any] = {}

    def ours() -> None:
        maps["ours"] = tsne(found)

    def peer() -> None:
        maps["peer"] = openTSNE.TSNE(n_jobs=1, random_state=0).fit(found.values.numpy())

    library = f"openTSNE {openTSNE.__version__}"
    times = turns.seconds({"ours": ours, library: peer}, repeat, warm=False)
    on_map = accuracy(nearest(np.array(maps["peer"]), 10)[0], found.labels)
    row: turns.Row = {
        "what": f"t-SNE of {COUNT:,} x {WIDTH}",
        "network": name,
        "ours [s]": round(times["ours"][0], 2),
        f"{library} [s]": round(times[library][0], 2),
        "ours / peer": round(times["ours"][0] / times[library][0], 3),
        "accuracy on the map, ours": round(float(maps["ours"].map_accuracy), 4),
        "accuracy on the map, openTSNE": round(float(on_map), 4),
        "accuracy in the layer": round(float(maps["ours"].layer_accuracy), 4),
    }
    print(row)
    return row


if __name__ == "__main__":
    main()
