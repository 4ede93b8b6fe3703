"""The map of images on a layer's page: its numbers arrive in the page as they were computed."""

from __future__ import annotations

import base64
import dataclasses
import re

import numpy as np
import pytest
import torch

from microtome import representation
from microtome.atlas.album import Album
from microtome.atlas.map_file import map_file
from microtome.atlas.site.drawing import image_map
from microtome.atlas.topics.network.image_features import image_features
from microtome.atlas.topics.network.image_positions import _map as _drawn_positions
from microtome.atlas.topics.network.image_positions import image_positions
from microtome.atlas.topics.network.map_of_images import LayerMap, _canvas, _caption, _repeated, map_of_images
from microtome.atlas.widgets import ImageMap, ImagePoint
from microtome.atlas.widgets.map_canvas import packed


def read(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=kind)


def _map(album: Album, images: list[int]) -> LayerMap:
    features = image_features(album.subject, images=images, layers=["two"], last="two", batch=4)
    return map_of_images(album.subject, features, layer="two", seed=0)


def test_responses_and_neighbours_are_those_of_the_layer(album: Album) -> None:
    """Oracle: means over positions by hand, neighbours by all distances."""
    images = list(range(9))
    found = _map(album, images)
    values = album.net.activations(album.subject.pictures(images), ["two"])["two"].double().mean((2, 3))
    torch.testing.assert_close(found.responses.double(), values[:, found.units], rtol=1e-5, atol=1e-7)
    distance = torch.cdist(values, values).fill_diagonal_(torch.inf)
    gaps = distance.gather(1, distance.argsort(1)[:, :6]) - distance.gather(1, found.nearest)
    assert float(gaps.abs().max()) < 1e-6
    again = _map(album, images)
    assert torch.equal(found.points, again.points)


def test_the_page_holds_labels_places_and_links(album: Album) -> None:
    images = list(range(9))
    found = _map(album, images)
    shown = _canvas(album, found, "two")
    assert read(shown.data["label"], "<i2").tolist() == album.seen.labels[images].tolist()
    assert read(shown.data["predicted"], "<i2").tolist() == album.seen.predicted[images].tolist()
    assert set(shown.links) == {place for place in images if place in album.images}
    assert set(shown.units) <= set(found.units)
    x, points = read(shown.data["x"], "<u2").astype(float), found.points.double().numpy()
    span = np.ptp(points, axis=0).max()
    np.testing.assert_allclose(x / 65535 * span, points[:, 0] - points[:, 0].min(), atol=span / 65535)
    assert shown.thumbnails.count == len(images)


def test_the_page_counts_all_classes_of_the_network(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those above the last one that an image has or gets."""
    seen = album.seen
    one_class = torch.zeros_like(seen.logits) + torch.tensor([1.0, 0.0, 0.0])
    found = dataclasses.replace(seen, labels=torch.zeros_like(seen.labels), logits=one_class)
    monkeypatch.setattr(album, "seen", found)
    shown = _canvas(album, _map(album, list(range(9))), "two")
    assert (len(shown.data["classes"]), shown.data["total"]) == (1, 3)


def test_responses_are_packed_from_least_to_largest() -> None:
    responses = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]])
    data = packed(
        np.zeros((3, 2)), np.ones(3), label=[-1, 0, 1], predicted=[0, 0, 1], confidence=[0, 0.5, 1], names=list("abc"),
        classes=["x", "y"], nearest=[[1], [2], [0]], responses=responses, units=[4, 9],
    )  # fmt: skip
    assert read(data["responses"], "u1").reshape(3, 2).tolist() == [[0, 0], [128, 0], [255, 0]]
    assert read(data["label"], "<i2").tolist() == [-1, 0, 1]


def test_the_share_of_right_neighbours_is_told_only_where_a_class_has_two_images(album: Album) -> None:
    found = _map(album, list(range(9)))
    assert found.accuracy
    assert "the right class" in _caption(found, repeated=True)
    assert "the right class" not in _caption(found, repeated=False)
    assert _repeated(torch.tensor([0, 1, 1, -1]))
    assert not _repeated(torch.tensor([0, 1, 2, -1, -1]))


def test_both_maps_say_what_they_keep_and_what_they_do_not(album: Album) -> None:
    images = list(range(9))
    features = image_features(album.subject, images=images, layers=["two"], last="two", batch=4)
    near = _caption(_map(album, images), repeated=False)
    assert "t-SNE keeps neighbours" in near
    assert "does not keep distances" in near
    positions = image_positions(album.subject, features, layers=["two"])
    drawn = _drawn_positions(album, positions, "two")
    share = 100 * float(positions.explained["two"].sum())
    assert "PCA keeps distances along the two directions" in drawn.caption
    assert f"{share:.0f} % of all differences" in drawn.caption
    rows = representation.features(album.net, album.subject.images, "two")
    for found, said in (
        (representation.pca(rows), "PCA keeps distances"),
        (representation.tsne(rows, perplexity=2), "t-SNE keeps"),
    ):
        page = map_file(album.subject, rows, found).decode()
        assert said in page
        assert ("means nothing" in page) == ("t-SNE" in said)


def test_dots_of_a_drawn_map_lie_on_one_scale() -> None:
    """Four corners of an oblong of 4 by 1: the drawing has its shape."""
    corners = [(0.0, 0.0), (4.0, 0.0), (0.0, 1.0), (4.0, 1.0)]
    drawn = image_map(ImageMap(tuple(ImagePoint(x, y, 0, False) for x, y in corners), ""), str)
    x, y = (
        [float(value) for value in re.findall(rf'class="dot dot0" [^>]*?{axis}="([\d.]+)"', drawn)[:4]]
        for axis in ("cx", "cy")
    )
    assert max(x) - min(x) == pytest.approx(4 * (max(y) - min(y)), abs=0.4)
    assert max(x) - min(x) == pytest.approx(496, abs=0.2)
