"""Figures and statements of "Dissecting a ConvNet", reproduced on a SimpleConvNet trained here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from microtome import data, surgery, synthesis, units
from microtome.errors import InputError
from microtome.network import Network
from microtome.reproduce.dissecting.hand_set_digits import hand_set
from microtome.reproduce.dissecting.omitted_layers import omitted_layers
from microtome.reproduce.dissecting.settling_layers import settling
from microtome.reproduce.dissecting.trained_convnet import trained_convnet
from microtome.reproduce.pages import Section, write_sections
from microtome.reproduce.statements import document
from microtome.results import Provenance, Result, versions
from microtome.training.fit import evaluate

if TYPE_CHECKING:
    from microtome.units.what_where import WhatWhere

__all__ = ["DissectingAConvNet", "dissecting_a_convnet"]

Say = Callable[[str], None]
PARTS = ("dissection", "omitted-layers", "hand-net", "settling-layers")
CHANNELS = {"conv1": 8, "conv2": 16, "conv3": 16}  # the article names the first two
_DIGIT = 0  # the digit that the article dissects
_DIRECTIONS = (0, 45, 90, 135)  # the angles that the article finds in conv1
_NEAR = 22.5  # degrees around such an angle


@dataclass(frozen=True, eq=False, kw_only=True)
class DissectingAConvNet(Result):
    """The article's statements with the findings.

    Attributes
    ----------
    findings : list of dict
        ``what`` (the name of the statement in its table), ``article``, ``found``, ``value`` (the same in few words),
        ``holds`` (``"yes"``, ``"no"``, ``"partly"``) and ``pictures`` (files beside the page, and what to see in them).
    walk : list of str
        The walk from the score of a digit down to the image, in words.
    shortened : list of str
        Sizes that are smaller than in the article.
    seconds : float
    """

    findings: list[dict[str, Any]]
    walk: list[str]
    shortened: list[str]
    seconds: float

    def report(self) -> str:
        """The findings as text."""
        lines = []
        for one in self.findings:
            lines += [f"{one['what']}: {one['holds']}", f"  article: {one['article']}"]
            lines += [f"  found:   {line}" for line in one["found"].splitlines()]
        lines += ["", *(f"shortened: {text}" for text in self.shortened), f"{self.seconds:.0f} s"]
        return "\n".join(lines)


@dataclass
class _Study:
    """The findings so far, and the folder of their pictures."""

    out: Path | None
    say: Say
    train: data.Images
    test: data.Images
    findings: list[dict[str, Any]] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)

    def add(
        self, title: str, what: str, value: str, found: str, holds: str,
        pictures: Sequence[tuple[str, Result, str]] = (), **options: dict[str, object],
    ) -> None:  # fmt: skip
        """Store a finding for a statement of the article, and draw its pictures."""
        self.say(f"{title}: {holds}; {found.splitlines()[0]}")
        article = _statement(what)
        drawn: list[tuple[str, str]] = []
        for name, result, caption in pictures:
            if self.out is not None:
                figure = result.plot(**options.get(name.replace("-", "_"), {}))
                figure.savefig(self.out / f"{name}.png", dpi=110, bbox_inches="tight")
                drawn.append((f"{name}.png", caption))
        self.findings.append(
            {"what": what, "article": article, "value": value, "found": found, "holds": holds, "pictures": drawn}
        )
        self.sections.append(Section(title, article, found, tuple(drawn)))


def dissecting_a_convnet(
    train: data.Images | None = None,
    test: data.Images | None = None,
    *,
    quick: bool = True,
    out: Path | None = None,
    parts: Sequence[str] = PARTS,
    seed: int = 0,
    say: Say | None = None,
) -> DissectingAConvNet:
    """Train SimpleConvNet, prune it as the article does, and measure each of the article's statements.

    Parameters
    ----------
    train, test : Images, optional
        Labelled digits; default MNIST's, of which ``quick`` takes 6,000 and 2,000.
    quick : bool
        About ten minutes on one core: fewer images, three rounds of pruning in place of seven, one seed in place of
        five, one epoch for the hand-set network. Otherwise the full size, which takes some hours.
    out : Path, optional
        Folder for the figures, the numbers and a page.
    parts : sequence of str
        Which of ``PARTS``: the dissection of the pruned network, or the independent measurements.
    seed : int
        Seed of first weights and orders.
    say : function, optional
        Called with each line of progress.

    Returns
    -------
    DissectingAConvNet

    References
    ----------
    .. [1] "Dissecting a ConvNet".
    """
    started = time.monotonic()
    if not parts or not set(parts) <= set(PARTS):
        raise InputError(f"parts are some of {', '.join(PARTS)}; got {', '.join(parts) or 'none'}.")
    whole = data.mnist("train+validation") if train is None else train
    held = data.mnist("test") if test is None else test
    if quick and train is None:
        whole, held = whole.sample(6000, seed=0), held.sample(2000, seed=0)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    study = _Study(out, say if say is not None else lambda _line: None, whole, held)
    net: Network | None = None
    walk: list[str] = []
    if "dissection" in parts or "hand-net" in parts:
        net = trained_convnet(whole, seed=seed)
    if net is not None and "dissection" in parts:
        walk = _dissected(study, net, quick, seed)
    if "omitted-layers" in parts:
        _omitted(study, quick, seed)
    if net is not None and "hand-net" in parts:
        _hand_net(study, net, quick, seed)
    if "settling-layers" in parts:
        _settling(study, quick, seed)
    result = DissectingAConvNet(
        provenance=Provenance(
            "dissecting-a-convnet",
            {"quick": quick, "train": len(whole), "test": len(held), "parts": list(parts)},
            seed=seed,
            versions=versions(),
        ),
        findings=study.findings,
        walk=walk,
        shortened=_shortened(len(whole)) if quick else [],
        seconds=time.monotonic() - started,
    )
    if out is not None:
        result.save(out / "dissecting-a-convnet.safetensors")
        (out / "dissecting-a-convnet.txt").write_text(result.report() + "\n", encoding="utf-8")
        command = f"microtome reproduce dissecting-a-convnet {'--quick' if quick else '--full'}, seed {seed}"
        write_sections(out / "index.html", title="Dissecting a ConvNet", sections=study.sections, made=command)
    return result


def _statement(what: str) -> str:
    lecture = "visualization-lecture" if what == "lower-layers-first" else "dissecting-a-convnet"
    return document(lecture)[what].statement


def _dissected(study: _Study, net: Network, quick: bool, seed: int) -> list[str]:
    """Prune, measure the pruned network layer by layer, and return the walk from a score down in words."""
    _accuracy(study, net)
    small = _pruned(study, net, quick, seed)
    image = _digit(study.test, small)
    _first_layer(study, small)
    _second_layer(study, small, image)
    _one_unit(study, small, image)
    _duality(study, small)
    return _path(study, small, image)


def _accuracy(study: _Study, net: Network) -> None:
    accuracy = evaluate(net.model, study.test, mean=net.mean, std=net.std)[1]
    found = f"{accuracy:.2%} of {len(study.test):,} test images after training on {len(study.train):,}"
    study.add("The network", "network", f"{accuracy:.2%}", found, "yes" if accuracy > 0.9 else "no")


def _pruned(study: _Study, net: Network, quick: bool, seed: int) -> Network:
    rounds = 3 if quick else 7
    found = surgery.prune(net, study.train, test=study.test, rounds=rounds, channels=CHANNELS, tolerance=1.0, seed=seed)
    last = found.rounds[-1]
    loss = 100 * (found.accuracy - last.retrained)
    error = 100 * (2 * last.retrained * (1 - last.retrained) / last.images) ** 0.5
    study.add(
        "Pruning",
        "pruning",
        f"{loss:+.2f} ± {error:.2f} points lost, {rounds} rounds",
        f"{rounds} rounds to {'-'.join(str(count) for count in last.channels.values())} channels: "
        f"{found.accuracy:.2%} before, {last.retrained:.2%} after, a loss of {loss:.2f} ± {error:.2f} points",
        "yes" if loss < 2 * error + 0.3 else "no",
        [("pruning", found, "Accuracy of every round, pruned and retrained, and the channels that are left.")],
    )
    return found.network


def _digit(test: data.Images, net: Network) -> Tensor:
    """The first test image of the article's digit that the network gets right."""
    labels = torch.as_tensor(test.labels, device="cpu")
    for index in (labels == _DIGIT).nonzero()[:, 0].tolist():
        image, _ = test[index]
        if int(net.logits(image[None]).argmax(1)) == _DIGIT:
            return image
    raise InputError(f"no test image of the digit {_DIGIT} is classified correctly.")


def _first_layer(study: _Study, net: Network) -> None:
    tuned = units.tuning(net, "conv1")
    seen = {angle for angle in _DIRECTIONS if any(_turned(float(one), angle) <= _NEAR for one in tuned.angle)}
    repeated = tuned.repeats(0.8)
    texts = "; ".join(f"{unit}: {label}" for unit, label in enumerate(tuned.labels))
    study.add(
        "Filters of conv1",
        "conv1-filters",
        f"{len(seen)} of 4 angles; {len(repeated)} groups repeat",
        f"{len(seen)} of 4 angles are there ({', '.join(f'{angle}°' for angle in sorted(seen))}); "
        f"{len(repeated)} groups repeat each other\n{texts}",
        "yes" if len(seen) == 4 and repeated else "partly" if len(seen) >= 3 or repeated else "no",
        [
            ("conv1-filters", units.filters(net, "conv1"), "The filters, with the Gabor function fitted to each."),
            ("conv1-tuning", tuned, "Responses to lines and edges by angle, with the label of each unit."),
            (
                "conv1-natural", units.natural_filters(net, study.train, layer="conv1"),
                "Each filter above the independent component of image patches that is most like it.",
            ),
        ],
    )  # fmt: skip


def _turned(angle: float, other: float) -> float:
    return float("inf") if angle != angle else abs((angle - other + 90) % 180 - 90)


def _second_layer(study: _Study, net: Network, image: Tensor) -> None:
    tuned = units.tuning(net, "conv2")
    superstimuli = synthesis.maximize(net, "conv2", steps=96)
    selective = sum(bool(kind) for kind in tuned.kind)
    maps = units.activation_maps(net, image, ["conv1", "conv2"])
    study.add(
        "Superstimuli of conv2",
        "conv2-superstimuli",
        f"{selective} of {len(tuned.kind)} channels have a label",
        f"{selective} of {len(tuned.kind)} channels have a label by their tuning: "
        + "; ".join(f"{unit}: {label}" for unit, label in enumerate(tuned.labels)),
        "yes" if selective > len(tuned.kind) / 2 else "partly" if selective else "no",
        [
            ("conv2-superstimuli", superstimuli, "The image that excites each channel of conv2 most."),
            ("activations", maps, "The map of each channel of conv2 for the digit."),
        ],
        activations={"layer": "conv2"},
    )


def _one_unit(study: _Study, net: Network, image: Tensor) -> None:
    """The article's conv2_3: the channel that prefers a falling line, dissected."""
    tuned = units.tuning(net, "conv2")
    away = torch.tensor([_turned(float(angle), 135) for angle in tuned.angle], dtype=torch.float32, device="cpu")
    unit = int(torch.where(away <= _NEAR, tuned.confidence.cpu(), -away).argmax())
    labels = units.tuning(net, net.layer("conv2").inputs[0])
    found = units.dissect(net, image, "conv2", unit, labels=labels)
    share = found.share
    strongest = int(share.argmax())
    channel = int(found.channels[strongest])
    turned = _turned(float(labels.angle[channel]), float(tuned.angle[unit]))
    alike = turned <= _NEAR
    study.add(
        "A unit for 135°, dissected",
        "unit-135",
        f"{100 * float(share[strongest]):.0f} % from one input",
        f"conv2:{unit} ({tuned.labels[unit]}): its strongest input is channel {channel} ({labels.labels[channel]}) "
        f"with {100 * float(share[strongest]):.0f} % of the output, the next has "
        f"{100 * float(share.sort(descending=True).values[1]):.0f} %; their angles are "
        f"{f'{turned:.0f}° apart' if turned < 180 else 'not both defined'}",
        "yes"
        if alike and float(share[strongest]) > 0.4
        else "partly"
        if alike or float(share[strongest]) > 0.4
        else "no",
        [("conv2-dissection", found, "Input, label, weights, contribution and running sum of every channel.")],
        conv2_dissection={"order": "contribution"},
    )


def _duality(study: _Study, net: Network) -> None:
    layers = ["conv1", "conv2", "conv3", "fc4"]
    found: dict[str, WhatWhere] = units.what_where(net, layers)
    texts = []
    for layer, one in found.items():
        pattern, place, mixed = (float(part.nanmedian()) for part in (one.pattern, one.place, one.interaction))
        dual = int(one.dual().sum())
        texts.append(
            f"{layer}: median shares {100 * pattern:.0f} % pattern, {100 * place:.0f} % place, {100 * mixed:.0f} % "
            f"interaction; {dual} of {len(one.pattern)} units have at least 10 % of both"
        )
    both = sum(int(one.dual().sum()) for one in found.values())
    some = sum(int(((one.place + one.interaction) >= 0.1).sum()) for one in found.values())
    count = sum(int((~one.pattern.isnan()).sum()) for one in found.values())
    study.add(
        "Duality of the blocks",
        "duality",
        f"{both} of {count} units",
        f"{both} of {count} units have 10 % of pattern and of place each; in {some} the place matters for at least "
        "10 %, alone or with the pattern\n" + "\n".join(texts),
        "yes" if both > count / 2 else "partly" if some > count / 4 else "no",
        [(f"what-where-{layer}", one, f"{layer}: shares of the variance by unit.") for layer, one in found.items()],
    )


def _path(study: _Study, net: Network, image: Tensor) -> list[str]:
    found = units.explain_path(net, image, _DIGIT)
    words = found.words()
    study.add(
        "From the score down",
        "composition",
        f"gap {found.gap:.1e} of {found.sums.score:.2f}",
        f"the amounts of units and inputs add up to the score with a gap of {found.gap:.1e}; the largest unit gives "
        f"{100 * found.sums.steps[0][2] / found.sums.score:.0f} % of it\n" + "\n".join(words[:8]),
        "yes" if found.gap < 1e-6 * max(1.0, abs(found.sums.score)) else "no",
        [("path", found, "Each followed unit with its map, label, amount, and the inputs that make it.")],
    )
    return words


def _omitted(study: _Study, quick: bool, seed: int) -> None:
    seeds = (seed,) if quick else tuple(range(seed, seed + 5))
    found = omitted_layers(study.train, study.test, seeds=seeds, say=study.say)
    table = {row["layer: adapter"]: row for row in found.table()}
    omitted = [case for case, row in table.items() if row["loss"] < 0.5]
    repeated = [case for case, row in table.items() if row["explained"] > 90]
    study.add(
        "A layer that repeats the one before",
        "layer-omitted",
        f"{len(omitted)} of {len(table)} ways cost under half a point; {len(repeated)} repeat",
        found.report(),
        "yes" if omitted and repeated else "partly" if omitted or repeated else "no",
        [("omitted-layers", found, "Test accuracy with the layer, without it, and after retraining, by seed.")],
    )


def _hand_net(study: _Study, net: Network, quick: bool, seed: int) -> None:
    found = hand_set(study.train, study.test, epochs=1 if quick else 5, beside=net, seed=seed)
    by_hand, _, free, simple = found.accuracy.values()
    study.add(
        "HandNet",
        "hand-net",
        f"{by_hand:.1%} by hand, {free:.1%} tuned, SimpleConvNet {simple:.1%}",
        found.report(),
        "yes" if by_hand < free and simple - free < 0.01 else "partly" if by_hand < free else "no",
        [("hand-net", found, "All detectors, all patterns and all votes, as set by hand and as trained.")],
    )


def _settling(study: _Study, quick: bool, seed: int) -> None:
    found = settling(study.train, study.test, seeds=(seed,) if quick else tuple(range(seed, seed + 3)))
    study.add(
        "Features during training",
        "lower-layers-first",
        "in order" if found.in_order() else "not in order",
        found.report(),
        "yes" if found.in_order() else "no",
        [("settling", found, "Distance of the units to their final features, by layer and epoch.")],
    )


def _shortened(images: int) -> list[str]:
    return [
        f"{images:,} training images in place of 60,000",
        "three rounds of pruning in place of seven",
        "one seed in place of five for omitted layers, and of three for settling",
        "one epoch in place of five for each training of the hand-set network",
    ]
