"""Which output holds the scores: chosen by the user, or refused with an error that says what came.

Oracle: ``oracles.heads_by_hand``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from microtome import InputError, ModelError, Network, attribution
from oracles.heads_by_hand import SHAPE, Headed, Make, by_hand, first, images, mean_sigmoid, network, sigmoid, softmax


@pytest.mark.parametrize(
    ("make", "output", "said"),
    [
        (first, "sigmoid", lambda a, b: sigmoid(a)),
        (first, "value", first),
        (lambda a, b: a.sigmoid(), "logits", lambda a, b: softmax(sigmoid(a))),
        (lambda a, b: a.sigmoid(), "probabilities", lambda a, b: sigmoid(a)),
        (lambda a, b: a.softmax(1), "probabilities", lambda a, b: softmax(a)),
        (lambda a, b: a.softmax(1), "value", lambda a, b: softmax(a)),
        (lambda a, b: (a.sigmoid() + b.sigmoid()) / 2, "sigmoid", mean_sigmoid),
    ],
)
def test_the_output_may_be_given(make: Make, output: str, said: Make) -> None:
    net, x = network(make, output=output), images()
    assert net.output == output
    torch.testing.assert_close(net.head.readout(net.logits(x)), by_hand(net, x, said), rtol=1e-10, atol=1e-12)
    assert net.around(net.model).output == output


def test_outputs_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="output must be one of logits"):
        network(first, output="softmax")
    with pytest.raises(InputError, match="ends in a softmax"):
        network(lambda a, b: a.softmax(1), output="sigmoid")
    with pytest.raises(InputError, match="gives values from"):
        network(lambda a, b: 9 * a, output="probabilities")
    with pytest.raises(InputError, match="has no probability"):
        network(first, output="value").probabilities(images())


@pytest.mark.parametrize("head", ["shape", 1])
def test_a_name_or_a_position_chooses_the_head(head: str | int) -> None:
    net, x = network(lambda a, b: {"color": a, "shape": b.softmax(1)}, head=head), images()
    torch.testing.assert_close(net.logits(x), by_hand(net, x, lambda a, b: b), rtol=1e-10, atol=1e-12)
    assert net.head.path == ("shape",)
    assert 'scores of "shape"' in repr(net)
    other = network(lambda a, b: {"color": a, "shape": b.softmax(1)}, head="color")
    assert other.fingerprint != net.fingerprint


def test_heads_side_by_side_are_asked_for() -> None:
    net = network(lambda a, b: {"color": a, "shape": b})
    with pytest.raises(ModelError, match=r'"color" \(2, 4\), "shape" \(2, 4\).*head="color"'):
        net.logits(images())
    assert net.activations(images(), "conv")["conv"].shape == (3, 5, 4, 4)
    named = network(lambda a, b: (a, b[:, :2]), classes=4).around
    assert named is not None
    chosen = Network(Headed(lambda a, b: (a, b[:, :2])).double(), SHAPE, classes=["x", "y"])
    assert chosen.head.path == (1,)  # the one with as many classes as there are names
    with pytest.raises(InputError, match='head "depth" does not exist'):
        network(lambda a, b: {"color": a, "shape": b}, head="depth")
    with pytest.raises(InputError, match="needs no head"):
        network(first, head="aux")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda a, b: [{"boxes": row[None].relu(), "scores": row} for row in a], "a list of 2 .*boxes.* detectors"),
        (lambda a, b: a.T, r"\(4, 2\)"),
        (lambda a, b: a[:, :, None, None].expand(-1, -1, 2, 2), r"\(2, 4, 2, 2\)"),
        (lambda a, b: a.argmax(1), "int64.*decided classes"),
        (lambda a, b: None, "returned None"),
        (lambda a, b: (row for row in a), "generator"),
        (lambda a, b: a.sum(), r"the network gives \(\)"),
    ],
)
def test_what_is_no_row_of_scores_per_image_is_an_error_that_says_what_came(make: Make, words: str) -> None:
    net = network(make)
    for run in (
        lambda: net.logits(images(2)),
        lambda: attribution.gradient(net, images(2)),
        lambda: attribution.occlusion(net, images(1), window=3, stride=3),
    ):
        with pytest.raises(ModelError, match=words) as caught:
            run()
        assert "\n" not in str(caught.value)


def test_images_along_the_second_axis_are_refused_where_the_shape_does_not_tell() -> None:
    net = network(lambda a, b: a.T, classes=2)
    with pytest.raises(ModelError, match="second axis"):
        net.logits(images(2))


def test_more_rows_than_images_are_refused() -> None:
    class Doubling(Headed):
        def forward(self, x: Tensor) -> Any:
            rows = super().forward(x)
            return torch.cat([rows, rows]) if len(x) > 2 else rows

    net = Network(Doubling(first).double(), SHAPE)
    with pytest.raises(ModelError, match=r"shape \(3, 4\) were expected.*\(6, 4\)"):
        net.logits(images(3))
