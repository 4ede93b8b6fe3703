"""Nobody is shut out: axe-core finds no violation of any impact on any kind of page, light or dark, wide or narrow."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from browser.kinds_of_pages import kinds

pytestmark = pytest.mark.browser

# All rules that are on by default, and the size of targets (24 px, WCAG 2.2).
RUN = """
const tell = arguments[arguments.length - 1];
axe.run(document, {preload: false, resultTypes: ["violations"], rules: {"target-size": {enabled: true}}})
  .then((found) => tell(found.violations.map((v) => [v.id, v.impact, v.nodes.length, v.nodes[0].html.slice(0, 160)])));
"""


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, which a package carries; the package itself is not imported."""
    try:
        found = importlib.metadata.distribution("axe-playwright-python")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("axe-core is not installed: pip install --no-deps axe-playwright-python==0.1.8")
    return Path(str(found.locate_file("axe_playwright_python/axe.min.js"))).read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_no_violation(browser, site, axe, width, scheme):
    browser.width(width)
    browser.prefer(scheme)
    browser.driver.set_script_timeout(120)
    for page in kinds(site):
        browser.open(page)
        browser.driver.execute_script(axe)
        assert browser.driver.execute_async_script(RUN) == [], page


def test_axe_finds_what_is_wrong(browser, axe):
    """The oracle is awake: a picture without words and a link without a name are found."""
    browser.driver.set_script_timeout(120)
    wrong = '<img src="x.png"><a href="#"></a>'
    browser.ask("document.querySelector('main').insertAdjacentHTML('beforeend', arguments[0])", wrong)
    browser.driver.execute_script(axe)
    found = {rule for rule, *_ in browser.driver.execute_async_script(RUN)}
    assert {"image-alt", "link-name"} <= found
