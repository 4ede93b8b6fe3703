"""The page of a layer says of its likeness to the layer before what correlation and assignment say by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional

from atlas.small import shown
from microtome.atlas import TOPICS
from microtome.atlas.album import Album
from microtome.atlas.pages.layer_page import layer_page
from microtome.atlas.widgets import Amounts, Statement

TITLE = "Does it repeat the layer before?"


def _by_hand(album: Album) -> np.ndarray:
    """Correlations (units of one, units of two) with numpy, on torch's own convolutions."""
    model, images = album.net.model, album.subject.pictures(album.find("repeats")[0].parameters["images"])
    with torch.no_grad():
        first = model.one(album.net.normalise(images))
        second = model.two(functional.max_pool2d(functional.relu(first), 2))
    first = functional.adaptive_avg_pool2d(first, second.shape[2:])
    rows = [one.transpose(0, 1).flatten(1).double().numpy() for one in (first, second)]
    return np.corrcoef(*rows)[: len(rows[0]), len(rows[0]) :]


def test_the_layer_page_holds_the_best_match_of_units(album: Album) -> None:
    """Independent: numpy and scipy on the plain forward."""
    (section,) = [one for one in layer_page(album, "two", TOPICS).sections if one.title == TITLE]
    table = _by_hand(album)
    rows, columns = linear_sum_assignment(-table)
    (pairs,) = shown([section], Amounts)
    best = sorted(zip(columns, rows, strict=True), key=lambda pair: -table[pair[1], pair[0]])
    assert [row.name for row in pairs.rows] == [f"two:{column}" for column, _ in best]
    assert [row.value for row in pairs.rows] == pytest.approx([table[row, column] for column, row in best], abs=1e-5)
    assert all(f"one:{row}" in found.label for found, (_, row) in zip(pairs.rows, best, strict=True))
    (words,) = shown([section], Statement)
    assert f"their correlation is {table[rows, columns].mean():.2f} on average" in words.text
    assert [row[0] for row in words.numbers] == ["one to two"]


def test_the_first_layer_repeats_none(album: Album) -> None:
    assert TITLE not in [section.title for section in layer_page(album, "one", TOPICS).sections]
