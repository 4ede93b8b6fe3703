"""Binned information of a checkpoint beside the published way: ``python -m benchmarks.information``.

The published codes (IDNNs, ibsgd) turn each digitised row into bytes, find the unique rows and count inputs by state.
The replica here does the same. One network of the 12-bit task, six layers, 4096 inputs, in turns on one thread.

``python -m benchmarks.information planes`` times 50 networks at 100 checkpoints: all estimates by bins, and the
training of 8,000 epochs from 100 of them. With ``planted`` it counts how often planted information is recovered.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

from benchmarks.turns import keep, seconds
from microtome.reproduce.planted_information import planted_information
from microtome.training.information import Binning, binned_information, entropy, plane, train_networks, twelve_bits

EDGES = 30
NETWORKS, CHECKPOINTS, EPOCHS, TIMED = 50, 100, 8000, 100


def published(states: list[np.ndarray], labels: np.ndarray) -> list[tuple[float, float]]:
    """IDNNs' way: unique rows as opaque bytes, their counts, and the conditional entropies by class and by input."""
    edges = np.linspace(-1, 1, EDGES)
    found = []
    for layer in states:
        binned = edges[np.digitize(np.squeeze(layer.reshape(1, -1)), edges) - 1].reshape(len(layer), -1)
        rows = np.ascontiguousarray(binned).view(np.dtype((np.void, binned.dtype.itemsize * binned.shape[1])))
        _, inverse, counts = np.unique(rows, return_index=False, return_inverse=True, return_counts=True)
        p_t = counts / counts.sum()
        h_t = -np.sum(p_t * np.log2(p_t))
        inverse, h_ty = inverse.ravel(), 0.0
        for label in np.unique(labels):
            mine = inverse[labels == label]
            share = np.array([np.count_nonzero(mine == state) for state in np.unique(mine)]) / len(mine)
            h_ty -= np.mean(labels == label) * np.sum(share * np.log2(share))
        h_tx = sum(_of_one_input(binned[place : place + 1], 1 / len(binned)) for place in range(len(binned)))
        found.append((h_t - h_tx, h_t - h_ty))
    return found


def _of_one_input(rows: np.ndarray, share: float) -> float:
    """An input's part of H(T|X), which the published code finds by counting its states, though there is one only."""
    states = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1])))
    counts = np.unique(states, return_counts=True)[1]
    p = counts / counts.sum()
    return share * -np.sum(p * np.log2(p))


def main() -> None:
    """Check that both ways give the same numbers, and time them."""
    torch.set_num_threads(1)
    task = twelve_bits()
    run = train_networks(task, networks=1, epochs=100, checkpoints=4)
    states = [values[0].contiguous() for values in run.states(len(run.epochs) - 1)]
    arrays, labels = [values.numpy() for values in states], task.labels.numpy()

    def ours() -> list[tuple[float, float]]:
        found = (binned_information(values, task.labels, Binning(-1, 1, EDGES)) for values in states)
        return [(float(i_xt), float(i_ty)) for i_xt, i_ty in found]

    gap = float(np.abs(np.array(ours()) - np.array(published(arrays, labels))).max())
    times = {name: cpu for name, (cpu, _) in seconds({"ours": ours, "published": lambda: published(arrays, labels)}, 3).items()}  # fmt: skip # noqa: E501
    row = {
        "what": "binned information of a checkpoint",
        "network": "12-10-7-5-4-3-2",
        "ours [ms]": round(1e3 * times["ours"], 2),
        "published way [ms]": round(1e3 * times["published"], 1),
        "times faster": round(times["published"] / times["ours"], 1),
        "largest difference [bit]": gap,
    }
    print(row)
    keep("information.json", [row])


def planes() -> None:
    """Processor time of 50 networks at 100 checkpoints, on one thread."""
    torch.set_num_threads(1)
    task = twelve_bits()
    train_networks(task, networks=NETWORKS, epochs=2, checkpoints=2)  # to warm up
    started = time.process_time()
    run = train_networks(task, networks=NETWORKS, epochs=TIMED, checkpoints=2)
    epoch = (time.process_time() - started) / TIMED
    started = time.process_time()
    found = plane(run, trials=10)
    checkpoint = (time.process_time() - started) / len(run.epochs)
    row = {
        "what": "50 networks at 100 checkpoints",
        "network": "12-10-7-5-4-3-2",
        "all estimates by bins [s]": round(checkpoint * CHECKPOINTS, 1),
        "training 8,000 epochs, from 100 of them [s]": round(epoch * EPOCHS, 1),
        "together, one core [min]": round((checkpoint * CHECKPOINTS + epoch * EPOCHS) / 60, 1),
        "entropy of the task [bit]": round(entropy(task.labels), 7),
        "largest rise of I(X;T) [bit]": float(found.rise_xt.max()),
    }
    print(row)
    keep("information.json", [row])


def planted() -> None:
    """Coverage of planted information by the admitted estimators, and the share of hopeless cases that are refused."""
    torch.set_num_threads(1)
    found = planted_information(trials=int(sys.argv[2]) if len(sys.argv) > 2 else 10)
    print(found.report())
    row = {
        "what": "planted information",
        "network": "states and normal units",
        "draws": sum(int(one["draws"]) for one in found.rows),
        "admitted": round(found.admission, 3),
        "covered of the admitted": round(found.coverage, 4),
        "cases without hope": sum(int(one["draws"]) for one in found.hopeless),
        "refused of these": round(found.refused, 4),
    }
    keep("information.json", [row])


if __name__ == "__main__":
    {"planes": planes, "planted": planted}.get(sys.argv[1] if len(sys.argv) > 1 else "", main)()
