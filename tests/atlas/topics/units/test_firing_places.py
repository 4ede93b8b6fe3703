"""The place where a unit fires is bright on its strongest images, as the activation map says."""

from __future__ import annotations

import torch

from microtome.atlas.album import Album
from microtome.atlas.topics.units.firing_places import Firing, firing, lit


def test_the_maps_are_those_of_the_network_by_their_largest_value(album: Album) -> None:
    """Oracle: a pass over each image alone; half precision is kept."""
    tables, units = album.tables, {"two": [4, 1]}
    found = firing(album.subject, tables, units=units, k=2, batch=3)
    for place, unit in enumerate(units["two"]):
        for rank in range(2):
            image, *_ = tables["two"].entry(unit, rank)
            values = album.net.activations(album.subject.pictures([image]), ["two"])["two"][0, unit].clamp(min=0)
            expected = values / values.max().clamp(min=1e-30)
            torch.testing.assert_close(found.maps["two"][place, rank].float(), expected, rtol=0, atol=1e-3)


def test_a_patch_is_dark_where_the_unit_does_not_fire(album: Album) -> None:
    table = album.tables["two"]
    unit = 0
    maps = torch.zeros(1, 1, 6, 5, dtype=torch.float16)
    maps[0, 0, 0, 0] = 1.0
    made = Firing(provenance=table.provenance, units={"two": [unit]}, maps={"two": maps})
    album._memory[("firing",)] = made
    try:
        bright = lit(album, table, unit, 0)
        assert bright is not None
        crop = table.crop(unit, 0)
        assert bright.shape == crop.shape
        assert float((bright - 0.4 * crop).abs()[:, -1, -1].max()) < 1e-6  # far from the place
        assert lit(album, table, 5, 0) is None  # a unit that was not asked about
    finally:
        del album._memory[("firing",)]
