"""Spotting bias: maps of a network trained on images with a tag for each class, and of one trained without."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from microtome import data, zoo
from microtome.attribution import ShortcutShare, shortcut_share
from microtome.data import Images, Shortcut, with_shortcut
from microtome.errors import InputError
from microtome.network import Network
from microtome.results import Result, provenance
from microtome.surgery import CamNetwork
from microtome.training.fit import Recipe, evaluate, fit

Say = Callable[[str], None]

NETWORKS = ("biased", "unbiased")
HEADS = ("dense", "average")
_LAST_MAPS = "/relu.2"  # of SimpleConvNet
TAGS = ("right tag", "no tag", "wrong tag")

# The methods that are evaluated, with options that bound their cost; other options are the defaults.
JUDGED: dict[str, dict[str, Any]] = {
    "saliency": {},
    "gradient-x-input": {},
    "integrated-gradients": {"steps": 16},
    "guided-backprop": {},
    "deconvnet": {},
    "grad-cam": {},
    "guided-grad-cam": {},
    "lrp": {},
    "deep-taylor": {},
    "occlusion": {"window": 4, "stride": 2},
}


@dataclass(frozen=True, eq=False, kw_only=True)
class SpottingBias(Result, drawing="attribution.shortcut_figures:spotting_bias"):
    """Accuracy of a biased and an unbiased network, and the share of their maps on the tag.

    Attributes
    ----------
    dataset : str
        The source of the images.
    agreement : dict of str to float
        How often the tag matched the class in training, by network.
    accuracy : dict of str to float
        By network and tag on the test pictures, ``"biased: wrong tag"``.
    follows : dict of str to float
        How often the network answers the class of a wrong tag, by network.
    shares : ShortcutShare
        The share of each method's map on the tag, on test pictures with the right tag, for the true class.
    counts : dict of str to int
        Number of training, test and explained pictures, epochs, and the side of the tag in pixels.
    seconds : float
        Run time.
    """

    dataset: str
    agreement: dict[str, float]
    accuracy: dict[str, float]
    follows: dict[str, float]
    shares: ShortcutShare
    counts: dict[str, int]
    seconds: float

    def report(self) -> str:
        """The numbers as text."""
        counts, area = self.counts, float(self.shares.area.mean())
        trained = f"{self.dataset}: {counts['train']:,} training pictures, {counts['epochs']} epochs"
        tags = " ".join(f"{tag:>10}" for tag in TAGS)
        lines = [f"{trained}; accuracy on {counts['test']:,} test pictures\n"]
        lines.append(f"{'network':<10} {'tag agrees':>10} {tags}  answers the wrong tag")
        for name in NETWORKS:
            found = " ".join(f"{self.accuracy[f'{name}: {tag}']:>10.2%}" for tag in TAGS)
            lines.append(f"{name:<10} {self.agreement[name]:>10.0%} {found}  {self.follows[name]:.2%}")
        lines.append(f"\nshare of each map on the tag, {area:.1%} of the picture")
        lines.append(f"mean of {counts['explained']} pictures with the right tag (standard error)\n")
        lines.append(f"{'method':<22} {'biased':>16} {'unbiased':>16} {'ratio':>7}")
        for method in self.shares.methods:
            means = [self.shares.mean(name, method) for name in NETWORKS]
            errors = [self.shares.error(name, method) for name in NETWORKS]
            cells = " ".join(f"{mean:>8.1%} ({error:>4.1%})" for mean, error in zip(means, errors, strict=True))
            lines.append(f"{method:<22} {cells} {means[0] / max(means[1], 1e-12):>7.1f}")
        lines.append(f"\n{self.seconds:.0f} s")
        return "\n".join(lines)


def spotting_bias(
    train: Images | None = None,
    test: Images | None = None,
    *,
    agreement: float = 0.95,
    tell: str = "pattern",
    head: str = "dense",
    epochs: int = 2,
    explained: int = 200,
    size: int | None = None,
    seed: int = 0,
    out: Path | None = None,
    say: Say | None = None,
) -> SpottingBias:
    """Train a network on images whose tag gives the class and one on images whose tag does not; compare their maps.

    Parameters
    ----------
    train, test : Images, optional
        Labelled pictures; default 10,000 and 10,000 of MNIST.
    agreement : float
        How often the tag matches the class for the biased network; for the unbiased one it is 1 / classes.
    tell : str
        Which property of the tag gives the class, see ``data.with_shortcut``.
    head : str
        ``"dense"`` for SimpleConvNet's own head, ``"average"`` for global average pooling and one linear layer
        behind its last convolution, where Grad-CAM is CAM.
    epochs : int
        Epochs of training SimpleConvNet.
    explained : int
        Number of test images that are explained.
    size : int, optional
        Side of the tag in pixels, see ``data.with_shortcut``.
    seed : int
        Seed of tags, weights and order.
    out : Path, optional
        Folder for the result, the figure, the table and a page.
    say : function, optional
        Called with each line of progress.

    Returns
    -------
    SpottingBias

    Notes
    -----
    Both networks start from the same weights and see the same pictures in the same order; only the tags of the pictures
    differ.
    """
    started = time.monotonic()
    report: Say = say if say is not None else lambda line: None
    if head not in HEADS:
        raise InputError(f'the head is {" or ".join(HEADS)}, got "{head}".')
    train = data.mnist("train").sample(10_000, seed=seed) if train is None else train
    test = data.mnist("test") if test is None else test
    classes = _classes(train, test)
    named = {"biased": agreement, "unbiased": 1 / classes}
    right, wrong = (with_shortcut(test, agreement=often, tell=tell, size=size, seed=seed + 1) for often in (1.0, 0.0))
    nets: dict[str, Network] = {}
    accuracy, follows = dict[str, float](), dict[str, float]()
    for name, often in named.items():
        report(f"training the {name} network on {len(train):,} pictures whose tag agrees in {often:.0%}")
        planted = with_shortcut(train, agreement=often, tell=tell, size=size, seed=seed)
        nets[name] = _trained(planted, classes, head, epochs, seed)
        tested: tuple[data.Dataset, ...] = (right, test, wrong)
        for tag, pictures in zip(TAGS, tested, strict=True):
            accuracy[f"{name}: {tag}"] = evaluate(nets[name].model, pictures)[1]
        follows[name] = _follows(nets[name], wrong)
        report(", ".join(f"{tag} {accuracy[f'{name}: {tag}']:.2%}" for tag in TAGS))
    shown = right.images.sample(explained, seed=seed)
    masks = _masks_of(right, shown)
    report(f"explaining {len(shown)} pictures by {len(JUDGED)} methods for both networks")
    found = SpottingBias(
        provenance=provenance(
            nets["biased"], "spotting-bias", seed, agreement=agreement, tell=tell, head=head, epochs=epochs, size=size
        ),
        dataset=test.source or "pictures",
        agreement=named,
        accuracy=accuracy,
        follows=follows,
        shares=shortcut_share(nets, shown.images, masks, shown.labels, methods=JUDGED),
        counts={"train": len(train), "test": len(test), "explained": len(shown), "epochs": epochs,
                "tag": int(right.masks[0].any(1).sum())},
        seconds=time.monotonic() - started,
    )  # fmt: skip
    if out is not None:
        _saved(found, out)
    return found


def _classes(train: Images, test: Images) -> int:
    if train.labels is None or test.labels is None:
        raise InputError("spotting bias needs labelled pictures; these have no labels.")
    return len(train.classes) if train.classes is not None else int(train.labels.max()) + 1


def _trained(planted: Shortcut, classes: int, head: str, epochs: int, seed: int) -> Network:
    shape = planted.images.shape
    model: nn.Module = zoo.simple_conv_net(shape, classes, seed=seed)
    if head == "average":
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = CamNetwork(model, _LAST_MAPS, len(model.get_parameter("conv3.bias")), classes)
    recipe = Recipe(
        epochs=epochs, batch=64, lr=0.05, nesterov=True, weight_decay=5e-4, schedule="one-cycle", channels_last=True,
        seed=seed,
    )  # fmt: skip
    fit(model, planted, recipe=recipe)
    return Network(model, shape, classes=planted.images.classes)


def _follows(net: Network, wrong: Shortcut) -> float:
    answers = [net.logits(images).argmax(1).cpu() for _, images, _ in data.batches(wrong, 500)]
    right = sum(int((found == tags).sum()) for found, tags in zip(answers, wrong.tags.split(500), strict=True))
    return right / len(wrong)


def _masks_of(planted: Shortcut, shown: Images) -> Tensor:
    """Masks of some of the pictures, by their names."""
    place = {planted.images.name(index): index for index in range(len(planted))}
    return planted.masks[[place[shown.name(index)] for index in range(len(shown))]]


def _saved(found: SpottingBias, out: Path) -> None:
    from microtome.reproduce.pages import write_page

    out.mkdir(parents=True, exist_ok=True)
    found.save(out / "spotting-bias.safetensors")
    (out / "spotting-bias.txt").write_text(found.report() + "\n", encoding="utf-8")
    figure = found.plot()
    figure.savefig(out / "spotting-bias.png", dpi=150)
    write_page(
        out / "spotting-bias.html",
        title="Spotting bias",
        picture="spotting-bias.png",
        caption="Left: a network that takes the shortcut fails when the tag is wrong. Right and below: how much of "
        "each map lies on the tag (outlined), for it and for a network trained with random tags.",
        table=found.report(),
        made=f"microtome spotting-bias, {found.provenance.parameters}, seed {found.provenance.seed}",
    )


__all__ = ["SpottingBias", "spotting_bias"]
