"""Light and dark pages: what the system asks for, what a person chooses, and maps with a dark twin."""

from __future__ import annotations

import time

import pytest

pytestmark = pytest.mark.browser


def test_the_theme_is_remembered(browser):
    light = browser.ask("getComputedStyle(document.body).backgroundColor")
    browser.one("[data-act=theme]").click()
    dark = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert light != dark
    _opens_in(browser, "layers/conv1.html", dark)
    browser.press("d")
    browser.wait(f"getComputedStyle(document.body).backgroundColor === '{light}'")
    _opens_in(browser, "index.html", light)


def _opens_in(browser, address, colour):
    """A page opens in a colour, once the browser has handed what was stored from one page to the next."""
    for _ in range(20):
        browser.open(address)
        if browser.ask("getComputedStyle(document.body).backgroundColor") == colour:
            return
        time.sleep(0.2)
    raise AssertionError(f"{address} does not open in {colour}")


def test_the_theme_follows_the_system_until_chosen(browser):
    light = browser.ask("getComputedStyle(document.body).backgroundColor")
    browser.prefer("dark")
    assert browser.ask("getComputedStyle(document.body).backgroundColor") != light


def test_signed_maps_have_a_dark_twin(browser):
    browser.open("units/conv1/2.html")
    assert browser.ask("getComputedStyle(document.querySelector('.p.dv')).filter") == "none"
    browser.prefer("dark")
    assert browser.ask("getComputedStyle(document.querySelector('.p.dv')).filter").startswith("invert(1)")
