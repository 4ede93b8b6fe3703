"""Surveys of shards, merged in any order, against one pass over all images."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from microtome import InputError, Network, load, units
from microtome.results import Result
from microtome.units.streaming import streaming_pass
from microtome.units.streaming.merge_tree import MergeTree
from microtome.units.streaming.patch_survey import PatchSummary, PatchSurvey

IMAGES, SIZE = 38, 8  # four whole shards and a part of one


class Small(nn.Module):
    """A convolution with many equal values behind its ReLU, a bounded function and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.one = nn.Conv2d(1, 6, 3, stride=2)
        self.relu = nn.ReLU()
        self.bound = nn.Sigmoid()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bound(self.relu(self.one(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def net() -> Network:
    return Network(Small(), (1, 9, 11))


@pytest.fixture(scope="module")
def data() -> list[tuple[Tensor, int]]:
    torch.manual_seed(2)
    pictures = [torch.rand(1, 9, 11) for _ in range(IMAGES - 4)]
    pictures += [pictures[3], pictures[20], pictures[3], torch.zeros(1, 9, 11)]  # equal values in other shards
    return [(picture, index % 3) for index, picture in enumerate(pictures)]


def shard(net: Network, data: Any, number: int, **options: Any) -> PatchSummary:
    survey = PatchSurvey(net, IMAGES, shard=(number, SIZE), **options)
    streaming_pass.read(net, data, survey.readers, batch=4, within=survey.within)
    return survey.summary()


def merged(net: Network, data: Any, parts: list[PatchSummary], **options: Any) -> units.TopPatches:
    survey = PatchSurvey(net, IMAGES, **options)
    for part in parts:
        survey.absorb(part)
    return survey.result(torch.tensor([label for _, label in data]), 5, net.classes)


@pytest.mark.parametrize("options", [{}, {"sample": 11, "seed": 3}, {"one_per_image": False, "k": 14}, {"k": 60}])
def test_shards_merge_to_the_plain_pass_in_any_order_with_equal_bytes(net: Network, data: Any, options: Any) -> None:
    """Oracle: one pass. Tables are equal; means of sums in another order differ by rounding."""
    plain = units.top_patches(net, data, bins=5, batch=4, **options)
    parts = [shard(net, data, number, **options) for number in range(5)]
    expected = merged(net, data, parts, **options)
    for seed in range(4):
        shuffled = random.Random(seed).sample(parts, len(parts))
        assert merged(net, data, shuffled, **options).to_bytes() == expected.to_bytes()
    for name, table in plain.items():
        found = expected[name]
        for field in ("image", "position", "activation", "low_image", "low_position", "low_activation", "edges",
                      "binned_image", "binned_activation", "histogram", "groups", "selectivity", "dead"):  # fmt: skip
            assert torch.equal(torch.nan_to_num(getattr(found, field)), torch.nan_to_num(getattr(table, field))), field
        assert all(torch.equal(found.quantiles[kind], table.quantiles[kind]) for kind in table.quantiles)
        for field in ("mean", "std", "active"):
            torch.testing.assert_close(getattr(found, field), getattr(table, field), rtol=1e-12, atol=1e-14)
        assert (found.images, found.sampled) == (table.images, table.sampled)


def test_merged_summaries_merge_again_and_survive_a_file(net: Network, data: Any, tmp_path: Any) -> None:
    """A tree of merges, as a cluster may do it, over files."""
    parts = [shard(net, data, number) for number in range(5)]
    one, other = PatchSurvey(net, IMAGES), PatchSurvey(net, IMAGES)
    for survey, numbers in ((one, (3, 0)), (other, (4, 2, 1))):
        for number in numbers:
            survey.absorb(parts[number])
    summaries: list[Result] = []
    for name, survey in (("one", one), ("other", other)):
        # A merged survey holds rows for the whole sample; those of images it has not seen are left out.
        survey.summary().save(tmp_path / name)
        summaries.append(load(tmp_path / name))
    expected = merged(net, data, parts).to_bytes()
    assert merged(net, data, [summaries[1], summaries[0]]).to_bytes() == expected  # type: ignore[list-item]


def test_a_shard_twice_a_missing_one_and_other_options_are_errors(net: Network, data: Any) -> None:
    survey = PatchSurvey(net, IMAGES)
    parts = [shard(net, data, number) for number in range(2)]
    for part in parts:
        survey.absorb(part)
    with pytest.raises(InputError, match="22 of 38 images are missing"):
        survey.result(None, 5, None)
    with pytest.raises(InputError, match="already"):
        survey.absorb(parts[0])
    with pytest.raises(InputError, match="other layers or options"):
        PatchSurvey(net, IMAGES, k=3).absorb(parts[0])
    with pytest.raises(InputError, match="shard 5 of 8 images is empty"):
        PatchSurvey(net, IMAGES, shard=(5, SIZE))


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_a_tree_gives_one_sum_for_every_order(count: int) -> None:
    """Every order of some numbers whose sum depends on it; the sum of neighbours in pairs is the oracle."""
    numbers = [0.1, 1e16, -1e16, 0.7, 3e-17, 0.3][:count]
    totals = set()
    for order in itertools.permutations(range(count)):
        tree: MergeTree[float] = MergeTree(lambda low, high: low + high)
        for number in order:
            tree.add((0, number), numbers[number])
        assert len(tree.nodes()) == count.bit_count()
        totals.add(tree.total())
    assert len(totals) == 1
    if count == 6:
        assert totals == {((0.1 + 1e16) + (-1e16 + 0.7)) + (3e-17 + 0.3)}


def test_scores_come_from_the_same_pass(net: Network, data: Any) -> None:
    """Beside the reader of a layer; scores are the output of the model, or what its softmax reads."""
    images = torch.stack([picture for picture, _ in data])
    for model in (net.model, nn.Sequential(net.model, nn.Softmax(1))):
        one = Network(model, (1, 9, 11))
        found: list[Tensor] = []
        seen: list[int] = []
        readers = {
            "logits": lambda value, batch, found=found: found.append(value),
            next(iter(one.layers)): lambda value, batch, seen=seen: seen.extend(batch.indices.tolist()),
        }
        streaming_pass.read(one, data, readers, batch=8, within=(5, 20))
        torch.testing.assert_close(torch.cat(found), one.logits(images[5:20], batch=8), rtol=0, atol=0)
        assert seen == list(range(5, 20))
