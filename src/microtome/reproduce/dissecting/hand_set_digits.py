"""Test accuracy of HandNet set by hand, with trained named numbers and with free weights, and of SimpleConvNet."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from microtome import data
from microtome.errors import InputError
from microtome.network import Network
from microtome.reproduce.dissecting.trained_convnet import trained_convnet
from microtome.results import Result, provenance
from microtome.tables import Table
from microtome.training.fit import Recipe, evaluate, fit
from microtome.zoo.hand_set import HandNet, hand_net
from microtome.zoo.hand_set.hand_net import FreedHandNet

__all__ = ["STATES", "HandSet", "hand_set"]

Say = Callable[[str], None]
STATES = ("set by hand", "named numbers trained", "free weights trained", "SimpleConvNet")
RATE, FREE_RATE = 0.1, 0.005  # of Adam, one-cycle, batches of 100; chosen on the validation images


@dataclass(frozen=True, eq=False, kw_only=True)
class HandSet(Result, drawing="hand_set_figures:hand_set"):
    """HandNet before and after training.

    Attributes
    ----------
    accuracy : dict of str to float
        Test accuracy, by ``STATES``.
    numbers : dict of str to int
        Number of trainable numbers in each state.
    images : dict of str to int
        Number of ``train`` and ``test`` images.
    before, after : dict of str to Tensor
        The named numbers as set by hand and as trained.
    free : dict of str to Tensor
        Weights of the free network.
    explanation : dict of str to str
        The network in words, ``"before"`` and ``"after"``.
    changed_words : int
        Number of words of the vote table that change in training.
    seconds : float
        Run time.
    """

    accuracy: dict[str, float]
    numbers: dict[str, int]
    images: dict[str, int]
    before: dict[str, Tensor]
    after: dict[str, Tensor]
    free: dict[str, Tensor]
    explanation: dict[str, str]
    changed_words: int
    seconds: float

    def network(self, state: str) -> Network:
        """The network of a state: the first three of ``STATES``.

        Raises
        ------
        InputError
            There is no such state.
        """
        if state not in STATES[:3]:
            raise InputError(f'there is no state "{state}"; choose from {", ".join(STATES[:3])}.')
        model: nn.Module = hand_net()
        if state == STATES[1]:
            model.load_state_dict({**model.state_dict(), **self.after})
        if state == STATES[2]:
            weight = self.free["patterns.weight"]
            model = FreedHandNet(weight.shape[1], weight.shape[0])
            model.load_state_dict(self.free)
        return Network(model.eval(), (1, 28, 28), classes=list("0123456789"))

    def table(self) -> Table:
        """Accuracy in percent, its standard error, and the number of trainable numbers, by state."""
        count = self.images["test"]
        return Table.of(
            [
                {
                    "state": state,
                    "accuracy": 100 * value,
                    "error": 100 * (value * (1 - value) / count) ** 0.5,
                    "numbers": self.numbers[state],
                }
                for state, value in self.accuracy.items()
            ]
        )

    def changes(self) -> Table:
        """The named numbers before and after training, sorted by their change over the spread of their kind."""
        rows = []
        for name, first in self.before.items():
            moved = (self.after[name] - first).flatten()
            spread = float((self.after[name].std() if first.numel() > 1 else moved.abs().max()).clamp(min=1e-12))
            for place in range(first.numel()):
                old, new = float(first.flatten()[place]), float(self.after[name].flatten()[place])
                rows.append((name, place, old, new, (new - old) / spread))
        rows.sort(key=lambda row: -abs(row[4]))
        return Table(("number", "place", "by hand", "trained", "change in spreads"), tuple(rows))

    def report(self) -> str:
        """The numbers as text."""
        lines = [f"test accuracy on {self.images['test']:,} images; trained on {self.images['train']:,}"]
        lines += [
            f"  {row['state']:<24} {row['accuracy']:6.2f} % ± {row['error']:.2f}   {row['numbers']:>7,} numbers"
            for row in self.table()
        ]
        total = self.before["votes.odds"].numel()
        lines.append(f"{self.changed_words} of {total} words of the vote table change in training")
        return "\n".join(lines)


def hand_set(
    train: data.Images | None = None,
    test: data.Images | None = None,
    *,
    epochs: int = 5,
    beside: Network | None = None,
    seed: int = 0,
    out: Path | None = None,
    say: Say | None = None,
) -> HandSet:
    """Test HandNet as set by hand, after its named numbers are trained, and after all weights are trained.

    Parameters
    ----------
    train, test : Images, optional
        Labelled digits; default all of MNIST's 60,000 and 10,000.
    epochs : int
        Passes over the training images: first for the named numbers, then for the free weights.
    beside : Network, optional
        A trained SimpleConvNet; by default one is trained here on the same images.
    seed : int
        Seed of the order of the images.
    out : Path, optional
        Folder for the result, the figure, the network in words and a page.
    say : function, optional
        Called with each line of progress.

    Returns
    -------
    HandSet

    Notes
    -----
    Cost: some two minutes an epoch of 60,000 images on one core. The free network starts from the trained named
    numbers, as the same function.

    References
    ----------
    .. [1] "Dissecting a ConvNet": a network built by hand from constrained blocks, then fine-tuned.
    """
    started, tell = time.monotonic(), say if say is not None else lambda _line: None
    train = data.mnist("train+validation") if train is None else train
    test = data.mnist("test") if test is None else test
    model = hand_net().eval()
    net = Network(model, (1, 28, 28), classes=list("0123456789"))
    accuracy = {STATES[0]: evaluate(model, test)[1]}
    tell(f"{STATES[0]}: {accuracy[STATES[0]]:.2%}")
    trained = copy.deepcopy(model)
    fit(trained, train, recipe=_recipe(RATE, epochs, seed))
    accuracy[STATES[1]] = evaluate(trained, test)[1]
    tell(f"{STATES[1]}: {accuracy[STATES[1]]:.2%}")
    free = trained.freed()
    fit(free, train, recipe=_recipe(FREE_RATE, epochs, seed + 1))
    accuracy[STATES[2]] = evaluate(free, test)[1]
    tell(f"{STATES[2]}: {accuracy[STATES[2]]:.2%}")
    simple = trained_convnet(train, seed=seed) if beside is None else beside
    accuracy[STATES[3]] = evaluate(simple.model, test, mean=simple.mean, std=simple.std)[1]
    tell(f"{STATES[3]}: {accuracy[STATES[3]]:.2%}")
    counted = dict(zip(STATES, (0, _count(trained), _count(free), _count(simple.model)), strict=True))
    found = HandSet(
        provenance=provenance(net, "hand-net", seed, epochs=epochs, train=len(train), test=len(test)),
        accuracy=accuracy,
        numbers=counted,
        images={"train": len(train), "test": len(test)},
        before=model.named_numbers(),
        after=trained.named_numbers(),
        free={name: value.detach().cpu().clone() for name, value in free.state_dict().items()},
        explanation={"before": model.describe(), "after": trained.describe()},
        changed_words=_changed(model, trained),
        seconds=time.monotonic() - started,
    )
    if out is not None:
        _saved(found, out)
    return found


def _recipe(rate: float, epochs: int, seed: int) -> Recipe:
    return Recipe(epochs=epochs, batch=100, lr=rate, optimizer="adam", schedule="one-cycle", seed=seed)


def _count(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())


def _changed(before: HandNet, after: HandNet) -> int:
    pairs = zip(before.votes.words(), after.votes.words(), strict=True)
    return sum(first != second for old, new in pairs for first, second in zip(old, new, strict=True))


def _saved(found: HandSet, out: Path) -> None:
    from microtome.reproduce.pages import write_page

    out.mkdir(parents=True, exist_ok=True)
    found.save(out / "hand-net.safetensors")
    for name, text in found.explanation.items():
        (out / f"hand-net-{name}.txt").write_text(text + "\n", encoding="utf-8")
    found.plot().savefig(out / "hand-net.png", dpi=110, bbox_inches="tight")
    write_page(
        out / "hand-net.html",
        title="HandNet: the whole network",
        picture="hand-net.png",
        caption="Top: the kernels of the line detectors. Below, one row for each pattern: where it looks for which "
        "lines (red: must be there, blue: must be absent), and how often each digit shows it, as set by hand and as "
        "trained.",
        table=f"{found.report()}\n\nAs set by hand\n{found.explanation['before']}\n\nAfter training the named numbers\n"
        f"{found.explanation['after']}",
        made=f"microtome hand-net, {found.provenance.parameters}, seed {found.provenance.seed}",
    )
