"""A surface as data and as a still picture: heights, colours and outlines against closed forms."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from microtome.atlas.site.surface_drawing import AZIMUTH, ELEVATION, projected, surface_picture
from microtome.atlas.widgets.surface_canvas import COLOURS, solid
from microtome.atlas.widgets.tick_marks import decades

ALPHA, BETA = np.array([-1.0, 0.0, 1.0]), np.array([-2.0, -1.0, 0.0, 1.0, 2.0])


def planted() -> np.ndarray:
    """Ten to the power of alpha + beta: a plane on the logarithmic scale."""
    return 10.0 ** (ALPHA[:, None] + BETA)


def made(loss: np.ndarray, **options) -> dict:
    return solid(ALPHA, BETA, loss, 0.1 * np.ones_like(loss), **options)


def test_heights_are_the_logarithms_share_of_its_range():
    """Closed form: (alpha + beta + 3) / 6; and (loss - least) / range on the linear scale."""
    data = made(planted())
    log, linear = data["heights"]
    expected = (ALPHA[:, None] + BETA + 3) / 6
    np.testing.assert_allclose(log["z"], expected.ravel(), atol=5e-5)  # four digits are written
    np.testing.assert_allclose(linear["z"], ((planted() - 1e-3) / (1e3 - 1e-3)).ravel(), atol=5e-5)
    assert data["colour"] == [round(z * (COLOURS - 1)) for z in log["z"]]
    assert (data["x"], data["y"]) == ([-1, 0, 1], [-1, -0.5, 0, 0.5, 1])
    assert [text for _, text in log["ticks"]] == ["0.001", "0.01", "0.1", "1", "10", "100", "1000"]
    np.testing.assert_allclose([z for z, _ in log["ticks"]], np.arange(7) / 6, atol=5e-5)


def test_a_path_lies_on_the_surface():
    """Closed form: on a plane of log losses the height between four points is the plane's own."""
    points = np.array([[0.5, 0.25], [-1.0, -2.0], [1.0, 2.0]])
    rows = made(planted(), path=points)["marks"]["path"]
    np.testing.assert_allclose([row[2] for row in rows], (points.sum(1) + 3) / 6, atol=1e-4)
    np.testing.assert_allclose([row[:2] for row in rows], points / [1, 2], atol=1e-5)
    assert made(planted())["marks"]["network"][0] == [0, 0, 0.5, pytest.approx(1 / 1e3, abs=1e-4)]


def test_losses_that_are_not_finite_have_no_height_and_leave_a_hole():
    loss = planted()
    loss[0, 1], loss[2, 4] = math.nan, math.inf
    data = made(loss)
    assert [place for place, z in enumerate(data["heights"][0]["z"]) if z is None] == [1, 14]
    assert data["loss"][14] is None
    picture = str(surface_picture(data, "s"))
    assert len(re.findall("<path fill", picture)) == 8 - 2 - 1  # two patches share the first point, one has the second


def test_negative_losses_have_the_linear_height_only():
    data = made(planted() - 1)
    assert [height["name"] for height in data["heights"]] == ["linear"]


def test_nothing_finite_is_drawn_as_an_empty_box():
    data = made(np.full((3, 5), math.nan))
    ElementTree.fromstring(str(surface_picture(data, "s")))


def test_points_are_seen_where_matplotlib_shows_them():
    """Oracle: matplotlib's own orthographic projection of the same points, up to one scale and shift."""
    from matplotlib.figure import Figure
    from mpl_toolkits.mplot3d import proj3d

    axes = Figure().add_subplot(projection="3d", proj_type="ortho")
    axes.view_init(elev=ELEVATION, azim=AZIMUTH)
    axes.set_box_aspect((2, 2, 1.2))
    axes.set(xlim3d=(-1, 1), ylim3d=(-1, 1), zlim3d=(0, 1))
    points = np.random.default_rng(0).uniform([-1, -1, 0], [1, 1, 1], (40, 3))
    x, y, depth = proj3d.proj_transform(*points.T, axes.get_proj())
    ours = np.array([projected(*point, AZIMUTH, ELEVATION) for point in points])
    for mine, theirs in ((ours[:, 0], x), (ours[:, 1], y)):
        assert np.corrcoef(mine, theirs)[0, 1] == pytest.approx(1, abs=1e-9)
    assert abs(np.corrcoef(ours[:, 2], depth)[0, 1]) == pytest.approx(1, abs=1e-6)
    slope = np.polyfit(ours[:, 0], x, 1)[0], np.polyfit(ours[:, 1], y, 1)[0]
    assert slope[0] == pytest.approx(slope[1], rel=1e-6)


def test_the_picture_is_sound_and_says_what_it_shows():
    picture = str(surface_picture(made(planted(), path=[[0.5, 0.5], [0, 0]]), "a <surface>"))
    found = ElementTree.fromstring(picture)
    assert found.attrib["aria-label"] == "a <surface>"
    assert "style=" not in picture  # pages with a strict policy admit none
    assert picture == str(surface_picture(made(planted(), path=[[0.5, 0.5], [0, 0]]), "a <surface>"))


@pytest.mark.parametrize(("low", "high"), [(1e-8, 1e6), (0.3, 0.31), (0.9, 11), (2.0, 2.0), (1e-3, 2e-3)])
def test_round_losses_lie_within_the_range_and_are_few(low, high):
    found = decades(low, high)
    assert 1 <= len(found) <= 12
    assert all(low * (1 - 1e-9) <= mark <= high * (1 + 1e-9) for mark in found)
