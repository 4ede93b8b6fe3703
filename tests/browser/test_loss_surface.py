"""The loss surface in a browser: it turns by hand and key, hides what lies behind, and needs nothing from elsewhere."""

from __future__ import annotations

import functools
import http.server
import threading
from importlib import resources

import numpy as np
import pytest

from browser.conftest import Browser
from microtome.atlas.site.page_file import page_file
from microtome.atlas.site.render import templates
from microtome.atlas.site.surface_drawing import projected
from microtome.atlas.widgets import SurfaceCanvas
from microtome.atlas.widgets.surface_canvas import solid

pytestmark = pytest.mark.browser
N = 21


def widget() -> SurfaceCanvas:
    """A ridge along beta at alpha = 0, losses of .01 to its left and right, and a path across it."""
    axis = np.linspace(-1, 1, N)
    loss = np.full((N, N), 0.01)
    loss[N // 2] = 10.0
    data = solid(axis, axis, loss, 0.001 * np.ones_like(loss), path=[[-1, 0], [0, 0]])
    return SurfaceCanvas(data, "A ridge", "A ridge between two valleys.")


class _View:
    root = ""


class _Strict(http.server.SimpleHTTPRequestHandler):
    """Serves the page under the policy of the explorer."""

    def end_headers(self) -> None:
        from microtome.explorer.server.request_checks import POLICY

        self.send_header("Content-Security-Policy", POLICY)
        super().end_headers()

    def log_message(self, *said) -> None:
        pass


@pytest.fixture(scope="module")
def shown(chromium, tmp_path_factory):
    folder = tmp_path_factory.mktemp("surface")
    (folder / "surface.html").write_bytes(page_file("A ridge", widget()))
    macro = templates().get_template("surface_canvas.html").module.canvas(_View(), widget())
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>ridge</title><link rel="icon" href="data:,">'
    (folder / "strict.html").write_text(f'{head}<link rel="stylesheet" href="assets/style.css"><main>{macro}</main>')
    (folder / "assets").mkdir()
    for name in ("style.css", "surface_canvas.css", "surface_canvas.js"):
        asset = resources.files("microtome.atlas.site").joinpath("assets", name).read_bytes()
        (folder / "assets" / name).write_bytes(asset)
    found = Browser(chromium, folder)
    found.width(1280)
    found.prefer("light")
    yield found
    found.width(1400)
    found.prefer("light")


def test_no_line_of_the_file_ends_between_a_number_and_its_unit():
    """Also where a figure stands alone."""
    assert "35\u00a0% away" in page_file("35 % away", widget()).decode()


def opened(shown):
    shown.open("surface.html")
    ready(shown)
    return shown


def ready(shown):
    shown.wait("Number(document.querySelector('figure').dataset.drawn) > 0")


def after(shown, act) -> dict[str, float]:
    """Do something, wait for the next drawing, and read the view."""
    shown.ask("(() => { document.querySelector('figure').dataset.drawn = '0'; })()")
    act()
    ready(shown)
    return {name: float(value) for name, value in shown.ask("({...document.querySelector('figure').dataset})").items()}


def colour(shown, i: int, j: int) -> list[int]:
    """The canvas's colour where a point of the grid is, or would be if nothing stood before it."""
    return shown.ask(
        """(() => { const f = document.querySelector('figure'), c = f.querySelector('canvas');
        const [x, y] = f.surfacePoint(...arguments), r = c.width / c.getBoundingClientRect().width;
        return [...c.getContext('2d').getImageData(Math.round(x * r), Math.round(y * r), 1, 1).data].slice(0, 3); })
        .apply(null, arguments)""",
        i, j,
    )  # fmt: skip


def told(shown) -> list[str]:
    """What the page wrote to the console, less the advice on reading pixels back: these tests do, the page does not."""
    return [said for said in shown.complaints() if "getImageData" not in said]


def test_it_opens_from_disk_and_asks_for_no_other_file(shown):
    opened(shown)
    assert shown.ask("performance.getEntriesByType('resource').map(e => e.name).filter(n => !/^data:/.test(n))") == []
    assert told(shown) == []
    assert not shown.one(".surface-picture").is_displayed()


def test_points_are_where_the_still_picture_has_them(shown):
    """Oracle: the projection of the still picture, which has its own test against matplotlib's."""
    opened(shown)
    view = after(shown, lambda: shown.one("[data-turn=right]").click())
    data = widget().data
    places = [(0, 0), (3, 17), (10, 10), (20, 5), (20, 20)]
    theirs = np.array([shown.ask("document.querySelector('figure').surfacePoint.apply(null, arguments)", *p)[:2]
                       for p in places])  # fmt: skip
    ours = np.array([
        projected(data["x"][i], data["y"][j], data["heights"][0]["z"][i * N + j], view["azimuth"], view["elevation"])
        for i, j in places
    ])  # fmt: skip
    across, down = theirs - theirs[0], (ours - ours[0])[:, :2] * [1, -1]
    np.testing.assert_allclose(across / np.abs(across).max(), down / np.abs(down).max(), atol=1e-6)


def test_a_ridge_hides_the_valley_behind_it_and_turning_shows_it(shown):
    """A point just behind the ridge has the ridge's colours; seen from the other side it is a dark valley."""
    opened(shown)
    place = N // 2 - 2, 3
    canvas = shown.one("canvas")

    def turned(azimuth: float) -> list[int]:
        for _ in range(72):
            view = after(shown, lambda: canvas.send_keys("\ue014"))  # right arrow
            if view["azimuth"] == azimuth:
                return colour(shown, *place)
        raise AssertionError(f"it does not turn to {azimuth}: {view}")

    front = turned(-180)  # the eye is at alpha = -1: the valley lies before the ridge
    behind = turned(0)
    assert max(front) < 110, front  # the lowest colours: violet, darkened by the lines of the grid
    assert front[1] < 30
    assert behind[1] > 60, behind  # the ridge's slope: blue to yellow


def test_hand_keys_and_buttons_turn_it_and_home_comes_back(shown):
    opened(shown)
    start = after(shown, lambda: shown.ask("document.querySelector('figure').surfaceDraw()"))
    canvas = shown.one("canvas")
    assert after(shown, lambda: canvas.send_keys("\ue012"))["azimuth"] == start["azimuth"] + 5  # left arrow
    assert after(shown, lambda: canvas.send_keys("\ue013"))["elevation"] == start["elevation"] + 5  # up arrow
    assert after(shown, lambda: canvas.send_keys("+"))["zoom"] == pytest.approx(1.2)
    dragged = after(shown, lambda: shown.ask(
        """(() => { const c = document.querySelector('canvas'), b = c.getBoundingClientRect();
        const send = (kind, x, y) => c.dispatchEvent(new PointerEvent(kind, {pointerId: 1, bubbles: true,
          clientX: b.left + x, clientY: b.top + y}));
        send('pointerdown', 100, 100); send('pointermove', 140, 110); send('pointerup', 140, 110); })()"""
    ))  # fmt: skip
    assert dragged["azimuth"] == start["azimuth"] + 5 - 20
    assert dragged["elevation"] == start["elevation"] + 5 + 5
    home = after(shown, lambda: canvas.send_keys("\ue011"))
    assert [home[name] for name in ("azimuth", "elevation", "zoom")] == [-60, 35, 1]
    for _ in range(14):
        steep = after(shown, lambda: shown.one("[data-turn=up]").click())
    assert steep["elevation"] == 90


def test_the_linear_height_and_the_loss_under_the_pointer(shown):
    opened(shown)
    assert after(shown, lambda: shown.one("[data-height='1']").click())["height"] == 1
    assert shown.one("[data-height='0']").get_attribute("aria-pressed") == "false"
    after(shown, lambda: shown.ask(
        """(() => { const f = document.querySelector('figure'), c = f.querySelector('canvas');
        const b = c.getBoundingClientRect(), [x, y] = f.surfacePoint(10, 20);
        const at = {clientX: b.left + x, clientY: b.top + y};
        c.dispatchEvent(new PointerEvent('pointermove', {pointerId: 1, ...at})); })()"""
    ))  # fmt: skip
    assert shown.one(".surface-says").text == "loss 10 ± 0.001 (standard error) at alpha 0, beta 1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nobody_is_shut_out(shown, axe, width, scheme):
    shown.width(width)
    shown.prefer(scheme)
    opened(shown)
    assert shown.violations(axe) == []
    assert shown.ask("document.documentElement.scrollWidth") <= width
    shown.width(1280)
    shown.prefer("light")


def test_without_a_script_the_still_picture_is_seen(shown):
    command = shown.driver.execute_cdp_cmd
    command("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        shown.open("surface.html")
        assert shown.one(".surface-picture svg").is_displayed()
        assert not shown.one("canvas").is_displayed()
        assert not shown.one(".surface-acts").is_displayed()
    finally:
        command("Emulation.setScriptExecutionDisabled", {"value": False})


def test_it_turns_under_the_policy_of_the_explorer(shown):
    """Neither an inline script nor an inline style is admitted there, and none is asked for."""
    pytest.importorskip("starlette", reason="the policy is the explorer's: pip install microtome[explorer]")
    handler = functools.partial(_Strict, directory=str(shown.site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            shown.driver.get(f"http://127.0.0.1:{server.server_port}/strict.html")
            ready(shown)
            before = shown.ask("document.querySelector('figure').dataset.azimuth")
            assert after(shown, lambda: shown.one("[data-turn=left]").click())["azimuth"] != float(before)
            assert told(shown) == []
        finally:
            shown.driver.get("about:blank")
            server.shutdown()
