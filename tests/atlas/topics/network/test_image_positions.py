"""Maps and neighbours of images: principal components by a decomposition, neighbours by all distances."""

from __future__ import annotations

import torch

from microtome.atlas.album import Album
from microtome.atlas.topics.network.image_features import image_features
from microtome.atlas.topics.network.image_positions import image_positions


def test_points_are_principal_components_and_neighbours_are_nearest(album: Album) -> None:
    images = list(range(9))
    features = image_features(album.subject, images=images, layers=["one", "two"], last="two", batch=4)
    found = image_positions(album.subject, features, layers=["one", "two"])
    values = album.net.activations(album.subject.pictures(images), ["two"])["two"].double().mean((2, 3))
    centred = values - values.mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    expected = (u * s)[:, :2]
    got = found.points["two"].double()
    signs = (got * expected).sum(0).sign()
    torch.testing.assert_close(got, expected * signs, rtol=1e-4, atol=1e-5)
    distance = torch.cdist(values, values)
    distance.fill_diagonal_(torch.inf)
    nearest = distance.argsort(1)[:, :6]
    gaps = distance.gather(1, nearest) - distance.gather(1, found.nearest)
    assert float(gaps.abs().max()) < 1e-4
