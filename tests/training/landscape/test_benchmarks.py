"""What the benchmarks of the training methods work out from a few measured times."""

from __future__ import annotations

import pytest
from benchmarks import landscape, turns

from microtome.training.landscape import evaluation


@pytest.mark.parametrize("images", [500, 5000])
def test_a_surface_in_bfloat16_is_counted_with_its_comparison(images):
    """Oracle: the times of a point in both precisions are made, and the work is counted point by point."""
    assert evaluation._COMPARED == landscape.COMPARED
    assert evaluation._COMPARED_IMAGES == landscape.COMPARED_IMAGES
    rough_point, exact_point, points = 0.02, 0.05, 9
    share = min(512, images) / images
    comparison = 9 * share * (rough_point + exact_point)
    measured = points * rough_point + comparison
    expected = 441 * rough_point + comparison
    assert landscape.in_bfloat16(measured, points * exact_point, points, images) == pytest.approx(expected)


def test_a_peer_that_is_not_installed_ends_the_program_with_the_command():
    with pytest.raises(SystemExit, match=r"no_such_peer is missing\): pip install no-such-peer"):
        turns.peer("no_such_peer", "pip install no-such-peer")
