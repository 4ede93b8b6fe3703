"""The page of a layer shows every unit, and those with pages first."""

from __future__ import annotations

from microtome.atlas.pages.layer_page import layer_page
from microtome.atlas.site.view import View


def test_units_with_pages_stand_first_and_each_stands_once(album, monkeypatch):
    monkeypatch.setattr(album, "paged", lambda layer: [3, 1])
    cards = layer_page(album, "two", ()).cards
    assert [card.unit for card in cards] == [1, 3, 0, 2, *range(4, len(cards))]
    assert [card.unit for card in cards if card.paged] == [1, 3]
    assert [key for key, _ in View.orders(cards)][:2] == ["paged", "unit"]


def test_where_all_units_have_pages_the_order_is_that_of_the_numbers(album):
    cards = layer_page(album, "two", ()).cards
    assert [card.unit for card in cards] == list(range(len(cards)))
    assert View.orders(cards)[0] == ("unit", "number")
