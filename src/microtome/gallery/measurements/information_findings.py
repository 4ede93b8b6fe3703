"""Findings on the information plane, and how often its estimators recover planted information."""

from __future__ import annotations

import math

from microtome.gallery.finding import Finding, Workplace, verdict
from microtome.reproduce.information_planes import LEARNT, information_planes
from microtome.reproduce.planted_information import planted_information

__all__ = ["planes", "planted"]

_DOCUMENT = "explaining-lecture"
_ENTROPY = 0.99916


def planes(place: Workplace) -> list[Finding]:
    """The lecture's six figures on the 12-bit task."""
    found = information_planes(quick=place.quick, out=place.folder, say=place.say)
    pictures = {
        name: place.drawn([(f"figure-{file}.png", caption)])
        for name, file, caption in (
            ("plane", "1-tanh", "Each layer's path on the information plane through training, mean of the networks."),
            ("errors", "2-errors", "Loss and errors of the networks."),
            ("shares", "3-shares", "Paths for three shares of the patterns."),
            ("gradients", "4-gradients", "Mean and standard deviation of the gradients by layer."),
            ("depths", "5-depths", "Paths with 1, 3 and 5 hidden layers."),
            ("activations", "6-activations", "tanh and ReLU, by bins and by kernels."),
        )
    }
    entropy = found.tanh.label_entropy
    rises = max(float(found.tanh.rise_xt.max()), float(found.tanh.rise_ty.max()))
    others = [one for compared in (found.shares, found.depths) for one in compared.planes.values()]
    most = max([rises, *(max(float(one.rise_xt.max()), float(one.rise_ty.max())) for one in others)])
    lost = {name: one.compression.mean(1)[-3:-1].tolist() for name, one in found.activations.planes.items()}
    tanh, relu = lost["tanh, bins"], lost["ReLU, kernels"]
    every = "; ".join(f"{name}: {a:.2f} and {b:.2f}" for name, (a, b) in lost.items())
    shares = list(found.shares.planes.items())
    knows = [float(one.i_ty[-1, -1]) for _, one in shares]
    gaps = [float(one.gap[-1]) for _, one in shares]
    crossing = found.gradients.crossing.tolist()
    never = sum(at != at for at in crossing)
    first = found.first_below(LEARNT[0])
    later = found.first_below(LEARNT[1])
    order = [math.inf if at != at else at for at in first.values()]
    late = [math.inf if at != at else at for at in later.values()]
    size = f"{found.tanh.i_xt_networks.shape[2]} networks, {int(found.tanh.epochs[-1]):,} epochs"
    return [
        Finding(
            _DOCUMENT,
            "task-entropy",
            f"{entropy:.5f} bit",
            f"H(Y) = {entropy:.7f} bit over {found.tanh.samples:,} patterns",
            verdict(abs(entropy - _ENTROPY) < 1e-5),
        ),
        Finding(
            _DOCUMENT,
            "inequality",
            f"{most:.2g} bit at most",
            f"largest rise from a layer to the next, all runs with bins: {most:.2g} bit; tanh alone {rises:.2g} bit "
            f"(tolerance {found.tanh.tolerance:g})",
            verdict(most <= found.tanh.tolerance, rises <= found.tanh.tolerance),
            ""
            if most <= found.tanh.tolerance
            else "Bins are no part of the chain of layers, so that binned estimates may rise.",
        ),
        Finding(
            _DOCUMENT,
            "compression",
            f"{tanh[0]:.2f} and {tanh[1]:.2f} bit",
            f"{size}; the last two hidden layers lose of I(X;T), in bits: {every}",
            verdict(min(tanh) > 0.1, max(tanh) > 0.1),
            "Compression appears with tanh and bins. Saxe et al. (2018) show that it comes from saturation: with "
            "ReLU and kernels there is none, though these networks generalise as well.",
            pictures["plane"] + pictures["errors"],
        ),
        Finding(
            _DOCUMENT,
            "compression-relu",
            f"{relu[0]:.2f} and {relu[1]:.2f} bit",
            f"the last two hidden layers lose, in bits: {every}",
            verdict(max(relu) < 0.1),
            "" if max(relu) < 0.1 else "Some information is lost late in training.",
            pictures["activations"],
        ),
        Finding(
            _DOCUMENT,
            "training-shares",
            " / ".join(f"{one:.2f}" for one in knows) + " bit",
            "\n".join(
                f"{name}: I(T;Y) of the output {know:.3f} bit, generalisation error {gap:.1%}"
                for (name, _), know, gap in zip(shares, knows, gaps, strict=True)
            ),
            verdict(knows == sorted(knows) and gaps == sorted(gaps, reverse=True), knows[0] < knows[-1]),
            "",
            pictures["shares"],
        ),
        Finding(
            _DOCUMENT,
            "gradient-phases",
            "epochs " + ", ".join("none" if at != at else f"{at:.0f}" for at in crossing),
            f"{size}; the deviation exceeds the mean from epoch: "
            + ", ".join(
                f"{name} {'never' if at != at else f'{at:.0f}'}"
                for name, at in zip(found.gradients.layers, crossing, strict=True)
            ),
            verdict(never == 0, never < len(crossing)),
            "The transition is there for every layer, but at another epoch for each; the lecture's figure shows one "
            "common epoch."
            if never == 0
            else "",
            pictures["gradients"],
        ),
        Finding(
            _DOCUMENT,
            "hidden-layers",
            "; ".join("never" if at == math.inf else f"{at:.0f}" for at in order) + " epochs",
            "\n".join(
                f"test error of {error:.0%} first at epoch: "
                + ", ".join(f"{name} {'never' if at != at else f'{at:.0f}'}" for name, at in by.items())
                for error, by in zip(LEARNT, (first, later), strict=True)
            ),
            verdict(order == sorted(order, reverse=True) and late == sorted(late, reverse=True), order[0] > order[-1]),
            ""
            if late == sorted(late, reverse=True)
            else "A deeper network may need more epochs to reach a small error.",
            pictures["depths"],
        ),
    ]


def planted(place: Workplace) -> list[Finding]:
    """Coverage of planted information by the admitted estimators, and refusal of hopeless cases."""
    found = planted_information(trials=4 if place.quick else 50, out=place.folder)
    return [
        Finding(
            _DOCUMENT,
            "estimators",
            f"{found.coverage:.0%} covered, {found.refused:.0%} refused",
            found.report(),
            verdict(found.coverage >= 0.9 and found.refused == 1, found.coverage >= 0.8),
        ),
    ]
