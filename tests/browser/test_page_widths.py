"""Does each part of a page fit its width, on a phone and on a screen?"""

from __future__ import annotations

import itertools

import pytest

from browser.kinds_of_pages import kinds

pytestmark = pytest.mark.browser


def test_a_matrix_wider_than_a_phone_is_made_to_fit(browser):
    browser.width(390)
    browser.open("layers/conv2.html")
    browser.ask("document.querySelector('.alike .p').style.setProperty('--z', '64')")
    assert browser.ask("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", [390, 1280])
def test_no_number_of_a_dissection_is_cut_off(browser, site, width):
    """A table that is too wide is scrolled; on a phone a row is a grid, where a number runs into the next cell."""
    browser.width(width)
    for page in ("units/conv2/3.html", kinds(site)[4], kinds(site)[5]):
        browser.open(page)
        browser.ask("document.querySelectorAll('.dissection .amt').forEach(e => e.lastChild.textContent = '+0.00861')")
        cut = (
            "Array.from(document.querySelectorAll('.dissection .scroll'))"
            ".filter(e => e.scrollWidth > e.clientWidth + 1).length"
        )
        assert browser.ask(cut) == 0, page
        outside = (
            "Array.from(document.querySelectorAll('.dissection td .amt')).filter(e => e.checkVisibility()"
            " && e.getBoundingClientRect().right > e.closest('td').getBoundingClientRect().right + 1).length"
        )
        assert browser.ask(outside) == 0, page


def test_the_pages_of_decomposed_units_stand_in_one_column_beside_their_names(browser, site):
    for width, page in itertools.product((390, 1280), kinds(site)[4:6]):
        browser.width(width)
        browser.open(page)
        browser.ask(  # the units of this site's score have no pages, unlike its class: they are given its link
            "document.querySelectorAll('.walk .step-item .step-item')"
            ".forEach(e => e.append(document.querySelector('.walk > .step-item > .go').cloneNode(true)))"
        )
        links, names = (
            browser.ask(
                f"Array.from(document.querySelectorAll('.walk > .step-item > .step > ul > li > .step-item > {kind}'))"
                ".map(e => e.getBoundingClientRect()).map(r => [r.left, r.top, r.right])"
            )
            for kind in (".go", ".step > summary .step-name")
        )
        assert len(links) > 1
        assert len({left for left, _, _ in links}) == 1
        for (left, top, right), (_, at, end) in zip(links, names, strict=True):
            assert left >= end
            assert abs(top - at) <= 4
            assert right <= width


def test_the_way_up_is_wide_enough_for_a_finger(browser):
    browser.width(390)
    browser.open("classes/5.html")
    assert browser.ask("document.querySelector('.crumbs a').getBoundingClientRect().width") >= 24


@pytest.mark.parametrize("width", [390, 1280])
def test_a_table_of_units_takes_the_width_and_its_bars_are_its_numbers(browser, width):
    """Six units: at 1280 px no half of the page is empty. A bar is as long as its number in its column."""
    browser.width(width)
    browser.open("layers/conv2.html")
    left, right = browser.ask("(r => [r.left, r.right])(document.querySelector('.criteria').getBoundingClientRect())")
    wide = browser.ask("document.querySelector('.criteria').closest('.scroll').clientWidth")
    assert right - left >= wide
    for column, signed in ((1, False), (2, True)):
        cell = f"Array.from(document.querySelectorAll('.criteria td:nth-of-type({column})'))"
        numbers = [float(text.replace("−", "-").split()[0]) for text in browser.ask(f"{cell}.map(e => e.innerText)")]
        bars = browser.ask(f"{cell}.map(e => e.querySelector('.track i').style.width).map(parseFloat)")
        span = max(0, *numbers) - min(0, *numbers)
        assert bars == pytest.approx([100 * abs(number) / span for number in numbers], abs=0.6)
        assert browser.ask(f"{cell}.some(e => e.querySelector('i.neg'))") == signed
    assert browser.ask("document.querySelectorAll('.criteria td:nth-of-type(3) .track').length") == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_the_bars_of_few_units_fill_the_width(browser, width):
    """Twelve units have bars that lie, each with its name; the last ends where the text column does."""
    browser.width(width)
    browser.open("layers/conv2.html")
    rows = browser.ask(
        "[...document.querySelectorAll('.shares > a')].map((one) => { const [name, parts] ="
        "[...one.children].map((part) => part.getBoundingClientRect());"
        "return [name.left, name.right, parts.left, parts.right, parts.height]; })"
    )
    left, right = browser.ask(
        "[document.querySelector('.shares').parentElement].map((one) => one.getBoundingClientRect())"
        ".flatMap((one) => [one.left, one.right])"
    )
    assert len(rows) == 12
    assert max(row[3] for row in rows) == pytest.approx(right, abs=2)
    assert min(row[0] for row in rows) == pytest.approx(left, abs=2)
    assert all(row[1] <= row[2] and row[3] - row[2] > 200 and 8 < row[4] < 24 for row in rows)
    assert browser.all(".shares > a")[0].text.startswith("conv2:")


def test_a_finger_chooses_a_narrow_bar_and_follows_a_wide_link(browser):
    """Sixty bars on a phone are 8 px wide: a touch names one and offers a link. A mouse opens the page at once."""
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    def touch(element) -> None:
        actions = ActionBuilder(browser.driver, mouse=PointerInput("touch", "finger"))
        actions.pointer_action.move_to(element).pointer_down().pointer_up()
        actions.perform()

    browser.width(390)
    browser.open("layers/conv2.html")
    browser.ask(
        "Array.from({length: 48}).forEach((_, i) => { const bars = document.querySelector('.shares');"
        "bars.classList.remove('few'); bars.append(bars.children[i % 12].cloneNode(true)); })"
    )
    browser.ask("document.querySelector('.shares').scrollIntoView({block: 'center'})")
    bar = browser.all(".shares > a")[7]
    assert bar.size["width"] < 24
    touch(bar)
    link = browser.one(".shares-touched a")
    assert link.text == bar.get_attribute("title")
    assert link.size["width"] >= 24
    assert link.size["height"] >= 24
    page = link.get_attribute("href").rsplit("/", 2)
    touch(link)
    browser.arrive("/".join(page[-2:]))
    browser.driver.back()
    browser.arrive("layers/conv2.html")
    browser.one(".shares > a").click()
    browser.arrive("/".join(page[-2:-1]) + "/" + browser.ask("location.pathname").rsplit("/", 1)[1])
    assert "/units/conv2/" in browser.ask("location.pathname")
