"""The explorer in a real Chromium: draw, walk from the prediction to a unit's dissection, change units, send, share."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from browser.conftest import Browser

pytest.importorskip("fastapi", reason="the explorer needs FastAPI: pip install 'microtome[explorer]'")

pytestmark = pytest.mark.browser

DIFFERENT = "new Set(Array.from(document.querySelectorAll('#scores .rows'), (list) => list.textContent)).size === 2"


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """A small trained network, served on a free port."""
    pytest.importorskip("sklearn", reason="the network learns scikit-learn's digits")
    import uvicorn

    from microtome import Network, data
    from microtome.explorer import LiveNetwork, create_app
    from microtome.explorer.server.serving import bound
    from microtome.loading import Subject

    torch.manual_seed(0)
    images = data.open_data("digits")
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 12, 3, padding=1), torch.nn.ReLU(),
        torch.nn.MaxPool2d(2), torch.nn.Flatten(), torch.nn.Linear(192, 10),
    )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    x, y = images.images, images.labels
    for _ in range(60):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    net = Network(model.eval(), (1, 8, 8))
    other = Network(torch.nn.Sequential(*model[:6], torch.nn.Linear(192, 10)), (1, 8, 8))
    networks = [LiveNetwork(Subject(net, images), "digits-net"), LiveNetwork(Subject(other, images), "untrained head")]
    socket = bound("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(networks), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{socket.getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)


class Page(Browser):
    """What the tests do with the explorer."""

    def __init__(self, driver, address: str) -> None:
        super().__init__(driver, Path())
        self.address = address

    def go(self, state: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(self.address + state)
        self.wait("document.body.dataset.ready === 'true'")
        self.wait("document.querySelector('#scores .rows button') !== null")

    def text(self, selector: str) -> str:
        return self.ask(f"document.querySelector({selector!r}).textContent")

    def scores(self) -> list[str]:
        return self.ask("Array.from(document.querySelectorAll('#scores .rows button')).map((b) => b.textContent)")

    def changed(self, before, seconds: float = 10) -> list[str]:
        until = time.monotonic() + seconds
        while self.scores() == before and time.monotonic() < until:
            time.sleep(0.05)
        assert self.scores() != before
        return self.scores()

    def click(self, selector: str) -> None:
        """Click an element; where the page draws it anew between finding and clicking, the new one."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        def clicked(driver) -> bool:
            element = self.one(selector)
            driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            element.click()
            return True

        WebDriverWait(self.driver, 10, ignored_exceptions=[StaleElementReferenceException]).until(clicked)


@pytest.fixture
def page(chromium, address) -> Page:
    found = Page(chromium, address)
    found.width(1280)
    found.prefer("light")
    found.go()
    found.complaints()
    return found


def test_drawing_a_digit_changes_scores_and_maps(page):
    from selenium.webdriver.common.action_chains import ActionChains

    page.click("#clear")
    page.wait("location.hash.includes('drawn')")
    before, option = page.scores(), page.text(".grid [role=option]")
    pad = page.one("#inputs canvas")
    size = pad.size["width"]
    stroke = ActionChains(page.driver, duration=20).move_to_element_with_offset(pad, 0, -size // 3).click_and_hold()
    for _ in range(6):
        stroke = stroke.move_by_offset(0, size // 10)
    stroke.release().perform()
    page.changed(before)
    page.wait(f"document.querySelector('.grid [role=option]').textContent !== {option!r}")
    hash_ = page.ask("location.hash")
    assert "picture=drawn" in hash_
    time.sleep(0.6)  # until the address is written
    drawn = page.scores()
    page.go(page.ask("location.hash"))  # the address alone brings the drawing back
    page.wait(f"document.querySelector('#scores .rows button').textContent === {drawn[0]!r}")
    assert page.scores() == drawn
    assert page.complaints() == []


def test_from_the_prediction_to_a_unit_to_its_dissection(page):
    page.go("#layer=2")
    label = page.ask("document.querySelector('#scores .rows button').dataset.class")
    page.ask("document.querySelector('#scores .rows button').click()")  # at once: the rows are drawn anew meanwhile
    page.wait(f"document.querySelector('#target').value === {label!r}")
    page.wait("document.querySelector('#sums .rows button[data-unit]') !== null")
    unit = page.ask("document.querySelector('#sums .rows button').dataset.unit")
    page.click("#sums .rows button")
    page.wait(f"document.querySelector('#unit-name').textContent.endsWith(':{unit}')")
    page.wait("document.querySelector('#dissection tbody tr a') !== null")
    assert "add up to" in page.text("#dissection .note")
    name = page.ask("document.querySelector('#dissection tbody tr a').title")
    page.click("#dissection tbody tr a")  # to the unit that feeds it
    page.wait(f"document.querySelector('#unit-name').textContent === {name!r}")
    assert page.complaints() == []


def test_ablating_a_unit_changes_the_scores_and_undo_brings_them_back(page):
    page.wait("document.querySelector('#sums .rows button[data-unit]') !== null")
    before = page.scores()
    page.click("#sums .rows button")
    page.click("#ablate")
    after = page.changed(before)
    page.wait("document.querySelector('#scores .rows').textContent.includes('(')")  # the change in brackets
    assert "(off)" in page.text("#unit-name")
    assert "*0" in page.ask("decodeURIComponent(location.hash)")
    page.click("#undo")
    page.changed(after)
    page.wait(f"document.querySelector('#scores .rows button').textContent === {before[0]!r}")
    page.one("#clamp-to").clear()
    page.one("#clamp-to").send_keys("9.5")
    page.click("#clamp")
    page.changed(before)
    assert "(= 9.5)" in page.text("#unit-name")


def test_sending_a_photo(page, tmp_path):
    photo = tmp_path / "photo.png"
    Image.effect_noise((300, 200), 120).convert("RGB").save(photo)
    before = page.scores()
    page.one("#file").send_keys(str(photo))
    page.changed(before)
    assert "picture=kept" in page.ask("location.hash")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    page.one("#file").send_keys(str(tmp_path / "broken.png"))
    page.wait("!document.querySelector('#problem').hidden")
    assert "picture" in page.text("#problem")


def test_by_keyboard_alone(page):
    from selenium.webdriver.common.keys import Keys

    page.ask("document.querySelector('.grid').focus()")
    page.press(Keys.ARROW_RIGHT)
    page.press(Keys.ARROW_RIGHT)
    page.wait("document.querySelector('#unit-name').textContent.endsWith(':2')")
    before = page.scores()
    page.press("x")
    after = page.changed(before)
    page.press("z")
    page.changed(after)
    page.press("]")
    page.wait("document.querySelector('#layer').selectedIndex === 1")
    page.press("n")
    page.wait("location.hash.includes('picture=data%3A1')")
    page.ask("document.querySelector('#inputs canvas').focus()")
    before = page.scores()
    page.press(" " + Keys.ARROW_RIGHT + Keys.ARROW_DOWN)
    page.changed(before)
    page.ask("document.activeElement.blur()")
    page.press("?")
    page.wait("document.querySelector('#keys').open")
    stops = page.ask("document.querySelectorAll('[tabindex=\"-1\"]').length")
    assert stops == 1  # the file field, which its button opens


def test_occlusion_fills_in_and_maps_follow_the_method(page):
    page.click("#occlude")
    page.wait("document.querySelector('#occlusions .note') !== null", 30)
    assert "Windows of" in page.text("#occlusions .note:last-child")
    for method in ("saliency", "lrp"):
        page.driver.execute_script(
            "const field = document.querySelector('#method'); field.value = arguments[0];"
            "field.dispatchEvent(new Event('change'));",
            method,
        )
        page.wait(f"document.querySelector('#maps .note').textContent.startsWith({method!r})")


def test_patches_are_searched_on_demand(page):
    page.wait("document.querySelector('[data-compute=patches]') !== null")
    page.click("[data-compute=patches]")
    page.wait("document.querySelectorAll('#examples .row-pictures button').length === 9", 30)
    page.click("#examples .row-pictures button")
    page.wait("!location.hash.includes('picture=data%3A0&')")


def test_two_pictures_and_two_checkpoints_side_by_side(page):
    page.click("#compare")
    page.wait("document.querySelectorAll('.grid').length === 2")
    page.wait("document.querySelectorAll('#scores .rows').length === 2")
    page.click("[data-image='5']")
    page.wait("location.hash.includes('second=data%3A5')")
    page.wait(DIFFERENT)
    page.click("#compare")
    page.wait("location.hash.includes('compare=networks')")
    page.wait("document.querySelectorAll('#scores .rows').length === 2")
    page.wait(DIFFERENT)
    assert "untrained head" in page.text("#scores")
    assert page.complaints() == []


def test_a_shared_view_opens_from_disk(page, tmp_path):
    from microtome.explorer import read_shared

    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    shown = page.text("#scores .rows button .name")
    page.click("#share")
    until = time.monotonic() + 30
    while not list(tmp_path.glob("*.html")) and time.monotonic() < until:
        time.sleep(0.1)
    (file,) = tmp_path.glob("*.html")
    view = read_shared(file)
    page.driver.get("about:blank")
    page.driver.get(file.as_uri())
    page.wait("document.body.dataset.ready === 'true'")
    assert page.text("#scores td") == shown
    written = float(page.text("#scores td.amount"))
    assert written == pytest.approx(float(view.tensors["scores"].max()), rel=1e-6)
    page.ask("document.querySelector('#units').focus()")
    from selenium.webdriver.common.keys import Keys

    page.press(Keys.ARROW_RIGHT)
    page.wait("document.querySelector('#under').textContent.startsWith('unit 1,')")
    assert page.complaints() == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_over_the_edge_and_text_is_legible(page, width, scheme):
    page.width(width)
    page.prefer(scheme)
    page.go()
    page.wait("document.querySelector('#dissection tbody tr') !== null")
    assert page.ask("document.documentElement.scrollWidth <= innerWidth")
    script = (Path(__file__).parent / "contrast.js").read_text()
    found = page.ask(script)
    assert not found, found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_no_violation_in_any_state(page, axe, tmp_path, width, scheme):
    """As opened, with a drawing, an uploaded picture, changed units, two pictures side by side, and the keys open."""
    page.width(width)
    page.prefer(scheme)
    page.go()
    page.wait("document.querySelector('#maps canvas') !== null && document.querySelector('#sums button') !== null")
    assert page.violations(axe) == [], "as opened"
    page.click("#clear")
    page.wait("location.hash.includes('drawn')")
    assert page.violations(axe) == [], "a drawing"
    file = tmp_path / "stripes.png"
    Image.fromarray((torch.arange(64) % 8 * 30).reshape(8, 8).to(torch.uint8).numpy()).save(file)
    page.one("#file").send_keys(str(file))
    page.wait("location.hash.includes('kept')")
    page.click("#ablate")
    page.wait("!document.getElementById('edits').hidden")
    time.sleep(0.5)
    assert page.violations(axe) == [], "an upload with a changed unit"
    page.click("#compare")
    page.wait("document.querySelectorAll('#inputs .side').length === 2")
    time.sleep(0.5)
    assert page.violations(axe) == [], "two pictures"
    page.click("#keys-open")
    assert page.violations(axe) == [], "the keys"
