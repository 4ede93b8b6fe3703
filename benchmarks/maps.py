"""How long does a map of 10,000 images take, and how good is it? t-SNE of 10,000 x 128 features beside openTSNE itself.

``python -m benchmarks.maps [TURNS]``. Ten groups of Gaussian points that overlap; CPU seconds on one thread, in turns.
Ours finds exact neighbours and measures the quality of the map (kept neighbours, trustworthiness, accuracies); openTSNE
is called with its defaults, which finds approximate neighbours, and measures nothing. The accuracy is that of the ten
nearest neighbours on the map.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from benchmarks import turns
from microtome.representation import Features, tsne
from microtome.representation.map_quality import accuracy
from microtome.representation.neighbours import nearest

COUNT, WIDTH = 10_000, 128
SPREAD = 0.3  # of the groups' centres; points deviate by 1, so that nearest neighbours are not always right


def features() -> Features:
    """Ten groups that overlap."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(COUNT) % 10
    values = SPREAD * torch.randn(10, WIDTH, generator=generator)[labels] + torch.randn(
        COUNT, WIDTH, generator=generator
    )
    return Features(layer="features", reduce="mean", values=values, labels=labels)


def main() -> None:
    """Measure, print, write."""
    import openTSNE

    torch.set_num_threads(1)
    found = features()
    maps: dict[str, object] = {}

    def ours() -> None:
        maps["ours"] = tsne(found)

    def peer() -> None:
        maps["peer"] = openTSNE.TSNE(n_jobs=1, random_state=0).fit(found.values.numpy())

    name = f"openTSNE {openTSNE.__version__}"
    times = turns.seconds({"ours": ours, name: peer}, int(sys.argv[1]) if len(sys.argv) > 1 else 2, warm=False)
    on_map = accuracy(nearest(np.array(maps["peer"]), 10)[0], found.labels)
    row: turns.Row = {
        "what": f"t-SNE of {COUNT:,} x {WIDTH}",
        "network": "features",
        "ours [s]": round(times["ours"][0], 2),
        f"{name} [s]": round(times[name][0], 2),
        "ours / peer": round(times["ours"][0] / times[name][0], 3),
        "accuracy on the map, ours": round(float(maps["ours"].map_accuracy), 4),
        "accuracy on the map, openTSNE": round(float(on_map), 4),
        "accuracy in the layer": round(float(maps["ours"].layer_accuracy), 4),
    }
    print(row)
    turns.keep("maps.json", [row])


if __name__ == "__main__":
    main()
