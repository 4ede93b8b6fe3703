"""Nobody is shut out: axe-core finds no violation of any impact on any kind of page, light or dark, wide or narrow."""

from __future__ import annotations

import pytest

from browser.kinds_of_pages import kinds

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_no_violation(browser, site, axe, width, scheme):
    browser.width(width)
    browser.prefer(scheme)
    for page in kinds(site):
        browser.open(page)
        assert browser.violations(axe) == [], page


def test_axe_finds_what_is_wrong(browser, axe):
    """The oracle is awake: a picture without words and a link without a name are found."""
    wrong = '<img src="x.png"><a href="#"></a>'
    browser.ask("document.querySelector('main').insertAdjacentHTML('beforeend', arguments[0])", wrong)
    found = {rule for rule, *_ in browser.violations(axe)}
    assert {"image-alt", "link-name"} <= found
