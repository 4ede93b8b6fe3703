"""The agenda: long tasks come first, each behind what it needs; interim results only as long as somebody needs them."""

from __future__ import annotations

from microtome.atlas.execution.agenda import Agenda
from microtome.atlas.task import task


def test_long_tasks_come_first_and_each_behind_what_it_needs() -> None:
    short, middle, long = (
        task(name, "", "", cost=cost) for name, cost in (("short", 1.0), ("middle", 2.0), ("long", 3.0))
    )
    last = task("last", "", "", needs=(short.key,), cost=9.0)
    agenda = Agenda([short, last, middle, long], {}.get)
    assert [one.job for one in agenda.take(9)] == ["long", "middle", "short"]
    agenda.finish(long)
    assert not [*agenda.take(9)]
    agenda.finish(short)
    assert [one.job for one in agenda.take(9)] == ["last"]


def test_an_interim_task_is_done_only_where_a_missing_one_needs_it() -> None:
    features = task("features", "", "", interim=True)
    maps = task("maps", "", "", needs=(features.key,))
    agenda = Agenda([features, maps], {}.get)
    assert [one.job for one in agenda.take(9)] == ["features"]
    agenda.finish(features)
    assert [one.job for one in agenda.take(9)] == ["maps"]
    assert not agenda.unneeded()
    agenda.finish(maps)
    assert [one.job for one in agenda.unneeded()] == ["features"]
    assert not [*Agenda([features, maps], {maps.key: True}.get).take(9)]


def test_two_tasks_of_one_key_are_done_once() -> None:
    one = task("one", "", "")
    agenda = Agenda([one, task("one", "", "")], {}.get)
    assert [*agenda.take(9)] == [one]
    agenda.finish(one)
    assert agenda.count == 1
    assert not [*agenda.take(9)]
