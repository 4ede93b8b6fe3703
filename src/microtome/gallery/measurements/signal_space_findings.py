"""Findings for the paper on signal spaces: its three networks, its figures, and its statements on the spaces."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from microtome import data, spaces, zoo
from microtome.gallery.finding import Drawn, Finding, Workplace, verdict
from microtome.network import Network
from microtome.reproduce.statements import document
from microtome.reproduce.table import best_by_digit
from microtome.reproduce.vector_spaces import VectorSpaces, vector_spaces
from microtome.spaces import ClassResiduals, IdealInputs
from microtome.training.fit import Recipe, fit

__all__ = ["paper_networks", "signal_parts"]

Pictures = tuple[Drawn, ...]
_DOCUMENT = "vector-spaces"
_IMAGES = 200


def paper_networks(place: Workplace) -> list[Finding]:
    """Train the paper's networks as it says, and measure every number and figure."""
    found = vector_spaces(quick=place.quick, out=place.folder, say=place.say)
    accuracy, condition, mixed = _numbers(found)
    one, five, deep = found.ideal.values()
    sweep = "; ".join(f"{row['batch']}: {row['accuracy']:.2%} and {row['condition_number']:.2f}" for row in found.sweep)
    short = "ResNet18 was trained on 6,000 images for one epoch here; see --full. " if place.quick else ""
    ours = short + "The paper fine-tunes a trained network, here it starts from random weights."
    weights = place.drawn(
        [("figure-1.png", "Weights, signal vectors, and the residual of each class average without its weight vector.")]
    )
    kernels = place.drawn(
        [("figure-2.png", "The nine signal kernels of ResNet18's first stage, and their singular values.")]
    )
    images = place.drawn(
        [("figure-3.png", "The nearest of six images to the ideal output, for each digit and network.")]
    )
    return [
        _number(
            "one-layer-accuracy",
            accuracy["one"],
            0.92,
            0.01,
            "The paper states no batch size; these are batches of 64.",
            f"accuracy and condition number by batch size: {sweep}",
        ),
        _number("five-layer-accuracy", accuracy["five"], 0.97, 0.01, ""),
        _number("resnet18-accuracy", accuracy["deep"], 0.99, 0.01, ours),
        _close(
            "one-layer-condition",
            condition["one"],
            7.22,
            0.15,
            _between(found.sweep, 7.22),
            f"by batch size: {sweep}",
            weights,
        ),
        _close("resnet18-condition", condition["deep"], 1.07, 0.03, ours, "", kernels),
        _residual_of_8(found.weights),
        _residual_of_0(found.weights),
        _last_vector(found.weights),
        _directions(found.kernels.signal.T.reshape(-1, 3, 3), kernels),
        _ideal("one-layer-ideal", one, images),
        _ideal("five-layer-ideal", five, ()),
        _ideal("resnet18-ideal", deep, ()),
        _training(deep, mixed),
    ]


def _between(sweep: list[dict[str, Any]], theirs: float) -> str:
    """The two batch sizes between which the paper's condition number lies."""
    known = "The condition number depends on the batch size, which the paper does not name"
    rows = sorted((float(row["condition_number"]), int(row["batch"])) for row in sweep)
    for (low, one), (high, other) in itertools.pairwise(rows):
        if low <= theirs <= high:
            return f"{known}: the paper's value lies between those of batches of {one} and of {other}."
    return f"{known}."


def _numbers(found: VectorSpaces) -> tuple[dict[str, float], dict[str, float], str]:
    measured = {row["what"]: row["measured"] for row in found.rows}

    def share(what: str) -> float:
        return float(measured[what].rstrip(" %")) / 100

    accuracy = {
        "one": share("1-layer FCNN, test accuracy"),
        "five": share("5-layer SELU FCNN, test accuracy"),
        "deep": share("ResNet18, test accuracy"),
    }
    condition = {"one": found.weights.condition_number, "deep": found.kernels.condition_number}
    return accuracy, condition, measured["ResNet18, the same trained in training mode"]


def _number(name: str, ours: float, theirs: float, near: float, why: str, more: str = "") -> Finding:
    close = abs(ours - theirs) <= near
    found = f"{ours:.2%} of the test images are right" + (f"\n{more}" if more else "")
    return Finding(_DOCUMENT, name, f"{ours:.2%}", found, verdict(close, ours > theirs - 0.06), "" if close else why)


def _close(
    name: str, ours: float, theirs: float, share: float, why: str, more: str, pictures: Pictures = ()
) -> Finding:
    close = abs(ours / theirs - 1) <= share
    found = f"the condition number is {ours:.2f}" + (f"\n{more}" if more else "")
    return Finding(
        _DOCUMENT,
        name,
        f"{ours:.2f}",
        found,
        verdict(close, ours < 2 * theirs),
        why if abs(ours - theirs) > 0.005 else "",
        pictures,
    )


def likeness(residuals: ClassResiduals) -> Tensor:
    """(classes,) absolute cosine of each residual and its class average, both centred."""
    residual, average = (
        values.flatten(1).double() - values.flatten(1).double().mean(1, keepdim=True)
        for values in (residuals.residual, residuals.averages)
    )
    return torch.nn.functional.cosine_similarity(residual, average, dim=1).abs()


def _residual_of_8(residuals: ClassResiduals) -> Finding:
    alike = likeness(residuals)
    order = alike.argsort()
    least, rank = residuals.classes[int(order[0])], int((alike < alike[residuals.classes.index("8")]).sum()) + 1
    texts = ", ".join(f"{residuals.classes[int(at)]} {float(alike[at]):.2f}" for at in order)
    return Finding(
        _DOCUMENT,
        "residual-of-8",
        f"{least} (8 is number {rank})",
        f"likeness of residual and average, least first: {texts}",
        verdict(least == "8", rank <= 3),
        "" if least == "8" else "Which residual is least like its digit depends on the training.",
    )


def _residual_of_0(residuals: ClassResiduals) -> Finding:
    at = residuals.classes.index("0")
    average = residuals.averages[at].reshape(28, 28).double()
    residual = residuals.residual[at].reshape(28, 28).double()
    side = torch.arange(28, device="cpu")
    rows, columns = torch.meshgrid(side, side, indexing="ij")
    away = ((rows - 13.5) ** 2 + (columns - 13.5) ** 2).sqrt()
    hole, ring = away < 3, average > 0.5 * average.max()
    before = float(average[hole].mean() / average[ring].mean())
    after = float(residual[hole].mean() / residual[ring].mean())
    return Finding(
        _DOCUMENT,
        "residual-of-0",
        f"{after:.0%} of the ring (average: {before:.0%})",
        f"in the average 0 the hole has {before:.0%} of the ring's brightness, in the residual {after:.0%}",
        verdict(after > before + 0.2, after > before),
        "" if after > before + 0.2 else "The hole is only partly filled.",
    )


def roughness(vectors: Tensor) -> Tensor:
    """(n,) energy of the differences of neighbouring pixels over the energy: 4 for white noise, near 0 if smooth."""
    flat = vectors.double()
    across = (flat[:, :, 1:] - flat[:, :, :-1]).square().sum((1, 2))
    down = (flat[:, 1:] - flat[:, :-1]).square().sum((1, 2))
    return (across + down) / flat.square().sum((1, 2)).clamp(min=1e-30)


def _last_vector(residuals: ClassResiduals) -> Finding:
    rough = roughness(residuals.signal.reshape(-1, 28, 28))
    weaker = float(residuals.singular_values[0] / residuals.singular_values[-1])
    first, last = float(rough[0]), float(rough[-1])
    noisy = last > 2 * first
    return Finding(
        _DOCUMENT,
        "last-signal-vector",
        f"{last / first:.1f} times as rough, {weaker:.1f} times weaker",
        f"roughness of the signal vectors, strongest first: {', '.join(f'{float(one):.2f}' for one in rough)} (white "
        f"noise: 4)\nthe last singular value is {weaker:.1f} times smaller than the first",
        verdict(noisy and weaker > 3, noisy or weaker > 3),
        "" if noisy else "Roughness does not grow with the number of the vector as the paper's picture suggests.",
    )


def directional(kernels: Tensor) -> Tensor:
    """(n,) largest share of a 3 x 3 kernel's energy in one row, column or diagonal."""
    energy = kernels.double().square()
    energy = energy / energy.sum((1, 2), keepdim=True).clamp(min=1e-30)
    diagonals = [energy.diagonal(0, 1, 2).sum(1), energy.flip(2).diagonal(0, 1, 2).sum(1)]
    return torch.stack([*energy.sum(1).T, *energy.sum(2).T, *diagonals]).amax(0)


def _directions(kernels: Tensor, pictures: Pictures) -> Finding:
    ours = directional(kernels)
    generator = torch.Generator().manual_seed(0)
    random = torch.linalg.qr(torch.randn(500, 9, 9, generator=generator, dtype=torch.float64, device="cpu"))[0]
    chance = directional(random.transpose(1, 2).reshape(-1, 3, 3)).view(500, 9).mean(1)
    mean, sigmas = float(ours.mean()), float((ours.mean() - chance.mean()) / chance.std())
    return Finding(
        _DOCUMENT,
        "signal-kernels-directions",
        f"{mean:.0%}; chance {float(chance.mean()):.0%}",
        f"on average {mean:.0%} of a signal kernel's energy lies in one row, column or diagonal; random orthonormal "
        f"bases have {float(chance.mean()):.0%} ± {float(chance.std()):.0%}: {sigmas:+.1f} deviations",
        verdict(sigmas > 2, sigmas > 1),
        ""
        if sigmas > 2
        else "With a condition number near 1 the nine singular values are nearly equal, so that any "
        "rotation of the signal kernels explains the layer as well: their shapes are not determined.",
        pictures,
    )


def _ideal(name: str, ideal: IdealInputs, pictures: Pictures) -> Finding:
    ours, theirs = best_by_digit(ideal), document(_DOCUMENT)[name].value
    trained = sum("+training" in kind for kind in ideal.best_kinds)
    expected = 0 if name == "resnet18-ideal" else len(ideal.best_kinds)
    same = ours == theirs
    why = {
        "one-layer-ideal": "For one layer the distance is convex: all starts lead to the same smallest distance, and "
        "which is best is decided by the last digits.",
        "five-layer-ideal": "Which start is best is decided by the last digits.",
        "resnet18-ideal": "In evaluation mode the gradient is exact, and a short step must lead nearer; the paper does "
        "not say how it trained its images.",
    }[name]
    return Finding(
        _DOCUMENT,
        name,
        ours,
        f"{ours}\na trained image is best for {trained} of {len(ideal.best_kinds)} digits",
        verdict(same, trained == expected),
        "" if same else why,
        pictures,
    )


def _training(ideal: IdealInputs, mixed: str) -> Finding:
    trained = sum("+training" in kind for kind in ideal.best_kinds)
    return Finding(
        _DOCUMENT,
        "resnet18-training",
        f"{trained} of 10 (training mode: {mixed})",
        f"in evaluation mode training improves {trained} of {len(ideal.best_kinds)} digits; with batch norm in "
        f"training mode, where the images influence each other, {mixed}",
        verdict(trained == 0, mixed.startswith(("0", "1 "))),
        "" if trained == 0 else "The paper does not say how it trained its images.",
    )


def signal_parts(place: Workplace) -> list[Finding]:
    """Test digits split into signal and rejected part, and outputs of a SELU network inverted."""
    train, test = data.mnist_5000().subset(range(0, 5000, 2)), data.mnist_5000().subset(range(1, 5000, 25))
    model = zoo.fcnn5()
    fit(model, train, recipe=Recipe(epochs=3, batch=64, lr=0.05, momentum=0.9))
    net = Network(model, (1, 28, 28), classes=list("0123456789"))
    images = test.images[:_IMAGES].double()
    first = next(name for name, layer in net.layers.items() if layer.leaf and layer.parameters)
    weights = spaces.subspaces(net, first).signal.double()
    x = images.flatten(1)
    kept = x @ weights @ weights.T
    lost = x - kept
    matrix = dict(net.model.named_parameters())[f"{first}.weight"].detach().double()
    effect = float((lost @ matrix.T).norm() / (x @ matrix.T).norm())
    energy = float(((kept.square().sum(1) + lost.square().sum(1)) / x.square().sum(1) - 1).abs().max())
    back = torch.linalg.pinv(matrix)
    again = float((back @ (matrix @ x.T) - kept.T).norm() / kept.norm())
    worst = max(effect, energy, again)
    share = float((lost.square().sum(1) / x.square().sum(1)).mean())
    outputs = net.logits(images.float()).double()
    inverse = spaces.invert_outputs(net, outputs, strict=False)
    beside = spaces.invert_outputs(net, outputs, beside=images, strict=False)
    closed = int((beside.valid & (beside.error < 1e-6)).sum())
    error = float(inverse.error[inverse.valid].max()) if bool(inverse.valid.any()) else float("nan")
    count = int(inverse.valid.sum())
    return [
        Finding(
            _DOCUMENT,
            "spaces-split-exactly",
            f"{worst:.0e}",
            f"{len(x)} digits, layer {first} ({tuple(matrix.shape)}, rank {weights.shape[1]}): effect of the "
            f"rejected part {effect:.0e}, energies {energy:.0e}, signal part by the pseudoinverse {again:.0e} "
            f"(relative errors)\non average {share:.0%} of a digit's energy lies in the rejected part",
            verdict(worst < 1e-6),
            "" if worst < 1e-6 else "The weights are in single precision.",
            (
                place.draw(
                    "kept-and-lost",
                    spaces.kept_and_lost(net, images[:4].float()),
                    "Digits, and their parts that the layers keep and lose.",
                ),
            ),
        ),
        Finding(
            _DOCUMENT,
            "inverse-recovers-signal",
            f"{count} of {len(outputs)} outputs" + (f", error {error:.0e}" if count else ""),
            f"{count} of {len(outputs)} outputs stay in the range of every activation on the way back by pseudoinverses"
            + (f"; the network gives them again with a relative error of {error:.0e} at most" if count else "")
            + "\nwith the rejected part of each layer's true input added, "
            f"{closed} of {len(outputs)} come back with an error below 1e-6",
            verdict(count == len(outputs) and error < 1e-6, count > 0 and error < 1e-3),
            ""
            if count == len(outputs)
            else "The widths fall from layer to layer, so that each layer rejects a part of its input. The signal part "
            "alone need not lie in SELU's range, which ends at -1.758; where it does not, the way back ends. The paper "
            "does not mention it.",
            (place.draw("inverse", inverse, "Images found from outputs, layer by layer."),),
        ),
    ]
