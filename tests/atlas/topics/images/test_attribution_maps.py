"""Maps for pages: integrated gradients takes more steps until it is complete, at most so many times."""

from __future__ import annotations

import pytest

from microtome.atlas.album import Album
from microtome.atlas.topics.images.attribution_maps import explain


@pytest.mark.parametrize("trials", [0, 1, 2])
def test_steps_grow_until_the_map_is_complete_or_the_trials_are_used_up(album: Album, trials: int) -> None:
    def steps(within: float) -> int:
        made = explain(
            album.subject, method="integrated-gradients", images=[0], target=[0], within=within, trials=trials, steps=3
        )
        return int(made.provenance.parameters["steps"])

    assert steps(1e9) == 3
    assert steps(0.0) == 3 * 4**trials
