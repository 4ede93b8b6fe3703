"""How many photos reach a small completeness gap? Integrated gradients by the three rules of quadrature.

``python -m benchmarks.quadrature FOLDER [efficientnet-lite0 mobilenet-v2]``: a folder of photos. For each rule and
number of points the completeness gap of each photo, as a share of the rise of the score, and how many photos are
within 5 %. Some five minutes a network on one core.
"""

from __future__ import annotations

import json
import sys

import torch

from benchmarks import composites, turns
from microtome import attribution, zoo
from microtome.attribution.gradients.integrated_gradients import RULES

POINTS, WITHIN = (50, 150), 0.05


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    folder, *names = sys.argv[1:]
    rows = []
    for name in names or composites.NETWORKS:
        net = zoo.network(name)
        images = composites.photos(folder, net)
        for points in POINTS:
            for rule in RULES:
                found = attribution.integrated_gradients(net, images, steps=points, rule=rule)
                gap = (found.completeness_gap / (found.score - found.baseline_score)).abs()
                row = {"network": name, "rule": rule, "points": points, "photos": len(gap)}
                rows.append({**row, "within 5 %": int((gap <= WITHIN).sum()), "gap": [round(float(g), 4) for g in gap]})
                print(rows[-1], flush=True)
    turns.RESULTS.mkdir(parents=True, exist_ok=True)
    (turns.RESULTS / "quadrature.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
