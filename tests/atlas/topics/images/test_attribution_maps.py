"""Maps for pages: integrated gradients takes more steps until it is complete."""

from __future__ import annotations

import pytest

from microtome.atlas.album import Album
from microtome.atlas.topics.images.attribution_maps import explain
from microtome.attribution import integrated_gradients


@pytest.mark.parametrize("finer", [0, 1, 2])
def test_steps_grow_until_the_map_is_complete_or_there_are_enough(album: Album, finer: int) -> None:
    def gap(within: float) -> float:
        made = explain(
            album.subject, method="integrated-gradients", images=[0], target=[0], within=within,
            max_steps=3 * 3**finer, steps=3, rule="cosine",
        )  # fmt: skip
        return float(made.numbers["completeness_gap"].abs())

    def direct(steps: int) -> float:
        found = integrated_gradients(album.net, album.subject.pictures([0]), 0, steps=steps, rule="cosine")
        return float(found.completeness_gap.abs())

    assert gap(1e9) == pytest.approx(direct(3), rel=1e-3, abs=1e-5)
    assert gap(1e-12) == pytest.approx(direct(3 * 3**finer), rel=1e-3, abs=1e-5)
