"""How often do the 95 % bands of a loss surface hold the true loss? Planted losses, and a small real network.

``python -m benchmarks.loss_bands [planted] [network]``. A band is the 95 % interval of the mean loss of a sample
(``landscape.band``). *planted*: the loss is a function of an image's one pixel, so that its mean is known; 500 images,
or as many of 20,000 as a tolerance of 5 % needs. *network*: a small network, trained on 5,000 digits of MNIST; the true
loss at 9 points of a plane is the mean over all of them, and each sample is drawn from them with replacement. Passes
hold 64 images, so that a tolerance has many chances to stop too early. Every trial has its own sample.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks import turns  # which makes the oracles of the tests importable
from microtome import Network, data, training
from microtome.training import landscape
from oracles.planted_losses import coverage

TRIALS, NETWORK_TRIALS = 400, 300
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {  # of a number that is uniformly distributed over (0, 1)
    "uniform": lambda u: u,
    "exponential": lambda u: -u.log(),
    "lognormal, sigma 1": lambda u: torch.special.ndtri(u).exp(),
    "one in 20 lost": lambda u: 5.0 * (u < 0.05),
}


def network(trials: int, tolerance: float | None, images: int) -> tuple[float, float, float]:
    """Share of the bands at 9 points that hold the loss over all images, least share of a point, images per point."""
    torch.manual_seed(0)
    digits = data.mnist_5000()
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, stride=2), nn.ReLU(), nn.Conv2d(6, 12, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(300, 10),
    )  # fmt: skip
    training.fit(model, digits, recipe=training.Recipe(epochs=1, batch=50, lr=0.05))
    net = Network(model, (1, 28, 28))
    true = landscape.surface(net, digits, steps=3, extent=0.5).loss
    held, seen = torch.zeros(3, 3), 0.0
    for trial in range(trials):
        drawn = torch.randint(len(digits), (images,), generator=torch.Generator().manual_seed(trial))
        found = landscape.surface(
            net, digits.subset(drawn.tolist()), steps=3, extent=0.5, tolerance=tolerance, batch=64,
            directions=_directions(net),
        )  # fmt: skip
        low, high = found.band.unbind(-1)
        held += (low <= true) & (true <= high)
        seen += float(found.images.double().mean())
    return float(held.mean()) / trials, float(held.min()) / trials, seen / trials


def _directions(net: Network) -> list[dict[str, Tensor]]:
    """Those of the true plane, whatever the seed of the images."""
    return [landscape.random_direction(net, seed=seed) for seed in (0, 1)]


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    chosen = turns.chosen(sys.argv[1:], ["planted", "network"])
    rows: list[turns.Row] = []
    for tolerance, images in ((None, 500), (0.05, 20_000)):
        what = "95 % bands, " + (f"{images} images" if tolerance is None else f"tolerance {tolerance}")
        if "planted" in chosen:
            for name in LOSSES:
                share, seen = coverage(LOSSES[name], TRIALS, images, tolerance=tolerance)
                rows.append({"what": what, "network": f"planted, {name}", "trials": TRIALS, "hold the true loss": share,
                             "images a point": round(seen, 1)})  # fmt: skip
                print(rows[-1], flush=True)
                turns.keep("loss_bands.json", rows[-1:])
        if "network" in chosen:
            share, least, seen = network(NETWORK_TRIALS, tolerance, 500 if tolerance is None else 2000)
            rows.append({"what": what, "network": "two convolutions, 9 points", "trials": NETWORK_TRIALS,
                         "hold the true loss": round(share, 3), "least of a point": round(least, 3),
                         "images a point": round(seen, 1)})  # fmt: skip
            print(rows[-1], flush=True)
            turns.keep("loss_bands.json", rows[-1:])


if __name__ == "__main__":
    main()
