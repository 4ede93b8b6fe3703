"""The site as a person meets it: opened from disk, clicked, typed at, narrow and wide, light and dark."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from browser.kinds_of_pages import kinds

pytestmark = pytest.mark.browser

HERE = Path(__file__).parent
SEEN = "Array.from(document.querySelectorAll('.p:not(.strip):not(.over):not(.on)')).filter(e => e.checkVisibility())"


def test_no_page_complains_and_every_address_resolves(browser, site):
    pages = sorted(str(p.relative_to(site)) for p in site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        browser.open(page)
        assert browser.complaints() == [], page
        named = browser.ask(
            "Array.from(document.querySelectorAll('a:not(svg a), link, script[src]')).map(e => e.href || e.src)"
            ".concat(Array.from(document.querySelectorAll('svg a')).map(e => new URL(e.href.baseVal, location).href))"
        )
        shown = browser.ask("Array.from(document.querySelectorAll('.p')).map(e => getComputedStyle(e).backgroundImage)")
        assert "none" not in shown, page
        named += [address for picture in shown for address in re.findall(r'url\("([^"]+)"\)', picture)]
        for address in set(named):
            if not address.startswith("data:"):
                assert address.startswith("file://"), (page, address)
                assert Path(unquote(address.removeprefix("file://").split("#")[0])).is_file(), (page, address)


def test_every_picture_says_what_it_shows(browser, site):
    for page in kinds(site):
        browser.open(page)
        assert browser.ask("document.querySelectorAll('.p').length") > 0 or page == "classes/5.html"
        mute = browser.ask(
            "Array.from(document.querySelectorAll('.p:not([aria-hidden]), img, svg[role=img]'))"
            ".filter(e => !(e.getAttribute('aria-label') || e.alt)).length"
        )
        assert mute == 0, page


@pytest.mark.parametrize("width", [390, 1400])
def test_no_page_is_wider_than_the_window(browser, site, width):
    browser.width(width)
    for page in kinds(site):
        browser.open(page)
        assert browser.ask("document.documentElement.scrollWidth") <= width, page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable(browser, site, scheme):
    browser.prefer(scheme)
    for page in kinds(site):
        browser.open(page)
        assert browser.ask((HERE / "contrast.js").read_text()) == [], page


def test_digits_are_shown_at_four_times_or_more_with_square_pixels(browser, site):
    for page in kinds(site):
        browser.open(page)
        sizes = browser.ask(
            f"{SEEN}.map(e => "
            "[e.clientWidth / Number(getComputedStyle(e).getPropertyValue('--w')), getComputedStyle(e).imageRendering])"
        )
        assert all(zoom >= 4 and zoom == int(zoom) and how == "pixelated" for zoom, how in sizes), (page, sizes)


def test_arrows_turn_pages_and_u_goes_up(browser):
    from selenium.webdriver.common.keys import Keys

    browser.open("units/conv2/3.html")
    browser.press(Keys.ARROW_RIGHT)
    browser.arrive("units/conv2/4.html")
    browser.press(Keys.ARROW_LEFT)
    browser.arrive("units/conv2/3.html")
    browser.press("u")
    browser.arrive("layers/conv2.html")
    browser.press("u")
    browser.arrive("index.html")


def test_the_slider_keeps_the_arrow_keys(browser, site):
    from selenium.webdriver.common.keys import Keys

    page = kinds(site)[4]
    browser.open(page)
    browser.one(".opacity input").send_keys(Keys.ARROW_RIGHT)
    assert browser.ask("location.pathname").endswith(page)
    assert browser.ask("document.querySelector('.opacity input').value") == "81"


def test_search_finds_units_layers_classes_and_images(browser):
    from selenium.webdriver.common.keys import Keys

    browser.open("layers/conv1.html")
    for wanted, address in (
        ("conv2:7", "units/conv2/7.html"),
        ("conv2", "layers/conv2.html"),
        ("class 5", "classes/5.html"),
    ):
        browser.press("/")
        browser.wait("document.getElementById('search').open")
        browser.press(wanted)
        browser.wait("document.querySelector('#search li a')")
        browser.press(Keys.ENTER)
        browser.arrive(address)
    browser.press("/")
    browser.press("line at")
    browser.wait("document.querySelectorAll('#search li a').length > 3")
    browser.press(" nothing like that")
    browser.wait("document.querySelector('#search .none')")
    browser.press(Keys.ESCAPE)
    browser.wait("!document.getElementById('search').open")


def test_search_finds_the_nearest_label_an_image_by_number_and_layers_without_a_page(browser, site):
    from selenium.webdriver.common.keys import Keys

    hits = "Array.from(document.querySelectorAll('#search li a')).map(a => a.textContent)"
    browser.press("/")
    browser.wait("document.getElementById('search').open")
    number = int(Path(kinds(site)[4]).stem)
    for wanted, found in (
        ("line at 131", "line at"),
        ("conv3", "layer without a page"),
        (f"image {number}", f"digit {number}"),
    ):
        browser.ask("document.querySelector('#search input').value = ''")
        browser.press(wanted)
        browser.wait(f"({hits}).some(text => text.includes('{found}'))")
        assert found in browser.ask(hits)[0], browser.ask(hits)[:3]
    browser.press(Keys.ESCAPE)


def test_arrows_follow_the_order_chosen_on_the_layer(browser):
    from selenium.webdriver.common.keys import Keys

    browser.open("layers/conv2.html")
    browser.one("[data-sort=similarity]").click()
    order = browser.ask("Array.from(document.querySelectorAll('.card')).map(c => c.dataset.unit)")
    browser.open(f"units/conv2/{order[0]}.html")
    browser.press(Keys.ARROW_RIGHT)
    browser.arrive(f"units/conv2/{order[1]}.html")


def test_a_patch_shows_the_whole_image_with_its_place(browser):
    browser.open("units/conv2/3.html")
    browser.all("button.patch")[0].click()
    browser.wait("document.getElementById('whole').open")
    about = browser.one("#whole .about").text
    assert "at the marked position" in about
    inside = "document.querySelector('#whole .spot').getBoundingClientRect().width"
    whole = "document.querySelector('#whole .p').getBoundingClientRect().width"
    assert 0 < browser.ask(inside) < 0.5 * browser.ask(whole)


def test_the_picture_stays_in_view_while_maps_are_chosen(browser, site):
    for width in (390, 1280):
        browser.width(width)
        browser.open(kinds(site)[4])
        browser.ask("window.scrollTo(0, document.querySelector('.maps').offsetTop + 400)")
        top, bottom = browser.ask("(r => [r.top, r.bottom])(document.querySelector('.stages').getBoundingClientRect())")
        assert 0 <= top < bottom <= 900, width


def test_the_breadcrumb_keeps_layer_and_unit_on_a_phone(browser):
    browser.width(390)
    browser.open("units/conv2/3.html")
    names = "Array.from(document.querySelectorAll('.crumbs > :not(.sep)')).slice(1)"
    assert browser.ask(f"{names}.filter(e => e.scrollWidth > e.clientWidth + 1).length") == 0


def test_question_mark_shows_the_keys(browser):
    browser.press("?")
    browser.wait("document.getElementById('keys').open")
    assert "previous and next" in browser.one("#keys").text
    browser.press("?")
    browser.wait("!document.getElementById('keys').open")


def test_cards_sort_and_the_address_remembers(browser):
    browser.open("layers/conv2.html")
    browser.one("[data-sort=selectivity]").click()
    values = [
        float(value)
        for value in browser.ask("Array.from(document.querySelectorAll('.card')).map(c => c.dataset.selectivity)")
    ]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 5
    browser.open("layers/conv2.html#sort=similarity")
    order = [
        int(value)
        for value in browser.ask("Array.from(document.querySelectorAll('.card')).map(c => c.dataset.similarity)")
    ]
    assert order == sorted(order)
    assert order[0] != int(browser.ask("document.querySelector('[data-unit=\"0\"]').dataset.similarity"))


def test_a_click_switches_the_scale(browser):
    browser.open("layers/conv2.html")
    before = browser.ask("getComputedStyle(document.querySelector('.strip')).backgroundImage")
    button = browser.one("figure:has(.strip) button.scale")
    assert "one scale: " in button.text
    button.click()
    after = browser.ask("getComputedStyle(document.querySelector('.strip')).backgroundImage")
    assert before != after
    assert "own" in after
    assert button.text == "each picture on its own scale"


def test_the_overlay_follows_the_slider_and_the_chosen_map(browser, site):
    browser.open(kinds(site)[4])
    opacity = "Number(getComputedStyle(document.querySelector('.over')).opacity)"
    browser.wait(f"Math.abs({opacity} - 0.8) < 0.01")
    browser.ask(
        "(s => { s.value = 20; s.dispatchEvent(new Event('input')); })(document.querySelector('.opacity input'))"
    )
    browser.wait(f"Math.abs({opacity} - 0.2) < 0.01")
    source = "getComputedStyle(document.querySelector('.over')).backgroundImage"
    first = browser.ask(source)
    browser.all("button.map")[1].click()
    assert browser.ask(source) != first
    assert browser.ask(source) == browser.ask(
        "getComputedStyle(document.querySelectorAll('button.map .p:not(.under)')[1]).backgroundImage"
    )
    assert "gradient-x-input" in browser.one(".opacity output").text
    browser.all("button.map")[1].click()
    assert not browser.one(".over").is_displayed()


def test_the_dissection_sorts_folds_and_adds_up(browser):
    browser.open("units/conv2/3.html")
    amounts = (
        "Array.from(document.querySelectorAll('.dissection tbody tr'))"
        ".map(r => Number(r.querySelector('.amt').textContent.replace('−', '-')))"
    )
    weak = browser.ask("document.querySelectorAll('.dissection tr.weak').length")
    assert weak > 0
    assert not browser.one(".dissection tr.weak").is_displayed()
    browser.one(".unfold").click()
    assert browser.one(".dissection tr.weak").is_displayed()
    browser.one("[data-rows=channel]").click()
    rows = "Array.from(document.querySelectorAll('.dissection tbody tr'))"
    order = browser.ask(f"{rows}.map(r => Number(r.dataset.channel))")
    assert order == sorted(order)
    browser.one("[data-rows=rank]").click()
    found = browser.ask(amounts)
    assert [abs(a) for a in found] == sorted((abs(a) for a in found), reverse=True)
    last = browser.ask(
        "document.querySelector('.dissection tbody tr:last-child .by-rank .amt').textContent.replace('−', '-')"
    )
    assert abs(float(last) - sum(found)) < 0.02 * max(map(abs, found))  # three digits are shown


def test_tab_reaches_the_content_with_a_visible_focus(browser):
    from selenium.webdriver.common.keys import Keys

    browser.open("layers/conv2.html")
    seen = set()
    for _ in range(14):
        browser.press(Keys.TAB)
        seen.add(browser.ask("(e => e.dataset.sort || e.dataset.act || e.className)(document.activeElement)"))
        assert browser.ask("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert {"skip", "search", "theme", "unit", "similarity"} <= seen
