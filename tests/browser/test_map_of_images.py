"""The map of images in a browser: dots where the numbers say, colours, a lasso that finds the units, its speed."""

from __future__ import annotations

import pytest

from browser.conftest import Browser
from browser.drawn_map import write_map

pytestmark = pytest.mark.browser
MOVE = """(() => { const f = document.querySelector("figure.map-of-images"), times = [];
for (let k = 0; k < 40; k += 1) { f.mapMove(k & 1 ? 3 : -3, 1); const began = performance.now(); f.mapDraw();
times.push(performance.now() - began); } return times.sort((a, b) => a - b)[20]; })()"""


@pytest.fixture(scope="module")
def drawn(chromium, tmp_path_factory):
    folder = tmp_path_factory.mktemp("map")
    write_map(folder, 2000)
    found = Browser(chromium, folder)
    found.width(1400)
    found.prefer("light")
    return found


def complaints(drawn):
    """What the page wrote to the console, less the advice on reading pixels back: these tests do, the page does not."""
    return [said for said in drawn.complaints() if "getImageData" not in said]


def opened(drawn):
    drawn.open("map.html")
    drawn.wait("Number(document.querySelector('figure').dataset.drawn) > 0")
    return drawn


def colours(drawn) -> int:
    """How many colours the canvas shows."""
    return drawn.ask(
        "(() => { const c = document.querySelector('canvas'), d = c.getContext('2d').getImageData(0, 0, c.width, "
        "c.height).data, s = new Set(); for (let i = 0; i < d.length; i += 4) s.add(d[i] << 16 | d[i + 1] << 8 | "
        "d[i + 2]); return s.size; })()"
    )


def around(drawn, x: float, y: float, radius: float) -> None:
    """Draw a circle with the pointer, in shares of the canvas."""
    drawn.ask(
        """(() => { const c = document.querySelector('canvas'), b = c.getBoundingClientRect();
        const side = Math.min(b.width, b.height);
        const send = (kind, t) => c.dispatchEvent(new PointerEvent(kind, {pointerId: 1, bubbles: true,
          clientX: b.left + b.width * arguments[0] + side * arguments[2] * Math.cos(t),
          clientY: b.top + b.height * arguments[1] + side * arguments[2] * Math.sin(t)}));
        send('pointerdown', 0); for (let t = 0; t < 6.3; t += 0.2) send('pointermove', t); send('pointerup', 6.2); })
        .apply(null, arguments)""",
        x, y, radius,
    )  # fmt: skip


def test_it_opens_from_disk_without_a_complaint(drawn):
    opened(drawn)
    assert complaints(drawn) == []
    assert colours(drawn) > 100
    assert "0" in drawn.one(".map-legend").text


def test_many_classes_are_counted_among_all_of_the_network(chromium, tmp_path):
    """Ten of them have an image here; the names end at the last of those, the count does not."""
    write_map(tmp_path, 200, classes=45, total=1000)
    browser = Browser(chromium, tmp_path)
    browser.open("map.html")
    assert browser.one(".map-legend").text.startswith("10 of 1,000 classes have an image here.")


def test_a_lasso_names_the_unit_that_responds_to_the_group(drawn):
    """Oracle: unit 0 responds to group 0 alone, which lies at the right end of the ring."""
    opened(drawn)
    drawn.one("[data-drag=select]").click()
    size = drawn.ask(
        "(() => { const b = document.querySelector('canvas').getBoundingClientRect(); return [b.width, b.height]; })()"
    )
    side = min(size)
    around(drawn, 0.5 + 0.40 * side / size[0], 0.5, 0.11)
    text = drawn.one(".map-side").text
    assert "0 9" in text.split("\n")[0] or "0 100 %" in text, text
    assert text.split("Units that separate them from the rest")[1].strip().startswith("unit 0"), text


def test_a_click_shows_an_image_and_its_nearest_ones(drawn):
    opened(drawn)
    around(drawn, 0.5, 0.5, 0.0)  # nothing lies in the middle
    assert "probability" not in drawn.one(".map-side").text
    size = drawn.ask(
        "(() => { const b = document.querySelector('canvas').getBoundingClientRect(); return [b.width, b.height]; })()"
    )
    around(drawn, 0.5 + 0.40 * min(size) / size[0], 0.5, 0.0)
    assert "probability" in drawn.one(".map-side").text
    assert len(drawn.all(".map-side .shot")) == 4


def redrawn(drawn, button: str) -> None:
    """Press a button and wait until the map is drawn anew; pictures drawn since are counted."""
    drawn.ask(
        "(() => { window.pictures = 0; const plain = CanvasRenderingContext2D.prototype.drawImage;"
        "CanvasRenderingContext2D.prototype.drawImage = function () { window.pictures += 1; "
        "return plain.apply(this, arguments); }; document.querySelector('figure').dataset.drawn = '0'; })()"
    )
    drawn.one(button).click()
    drawn.wait("Number(document.querySelector('figure').dataset.drawn) > 0")
    assert drawn.one(button).get_attribute("aria-pressed") == "true"


def test_colours_pictures_and_the_grid(drawn):
    opened(drawn)
    for button in ("[data-colour=error]", "[data-colour=confidence]"):
        redrawn(drawn, button)
        assert colours(drawn) > 100
    for button in ("[data-show=pictures]", "[data-show=grid]"):  # a canvas with pictures from disk cannot be read
        redrawn(drawn, button)
        drawn.wait("window.pictures > 50")
    assert complaints(drawn) == []


def test_no_page_with_a_map_is_wider_than_a_phone(drawn):
    opened(drawn)
    drawn.width(390)
    assert drawn.ask("document.documentElement.scrollWidth") <= 390
    drawn.width(1400)


def test_a_map_in_one_file_opens_from_disk_with_its_thumbnails(chromium, axe, tmp_path):
    """No other file is asked for; thumbnails, a selection and the numbers of the map are there."""
    pytest.importorskip("sklearn", reason="the images are scikit-learn's digits")
    import torch

    from microtome import Network, data, representation
    from microtome.atlas.map_file import map_file
    from microtome.loading import Subject

    torch.manual_seed(0)
    images = data.open_data("digits").subset(list(range(300)))
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(288, 10))
    subject = Subject(Network(model.eval(), (1, 8, 8)), images)
    rows = representation.features(subject.net, images, "0")
    (tmp_path / "map.html").write_bytes(map_file(subject, rows, representation.pca(rows)))
    page = Browser(chromium, tmp_path)
    page.width(1280)
    page.prefer("light")
    opened(page)
    asked = "performance.getEntriesByType('resource').map(e => e.name).filter(n => !/^(data|blob):/.test(n))"
    assert page.ask(asked) == []
    redrawn(page, "[data-show=grid]")
    page.wait("window.pictures > 50")
    assert complaints(page) == []
    around(page, 0.5, 0.5, 0.45)
    assert page.violations(axe) == []
    assert page.ask("JSON.parse(document.querySelector('figure script').textContent).data.count") == 300


@pytest.mark.slow
def test_50_000_dots_are_drawn_in_a_thirtieth_of_a_second(chromium, tmp_path):
    write_map(tmp_path, 50_000)
    drawn = opened(Browser(chromium, tmp_path))
    assert drawn.ask(MOVE) < 1000 / 30
