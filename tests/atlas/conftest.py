"""The album of a small network's atlas, built once."""

from __future__ import annotations

import sys

import pytest

from atlas import small
from microtome.atlas import TOPICS, build
from microtome.atlas.album import Album
from microtome.atlas.planning.first_look import first_tasks
from microtome.atlas.planning.network_summary import network_summary
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import select
from microtome.atlas.store import Store
from microtome.loading import RunConfig


@pytest.fixture(scope="session")
def album(tmp_path_factory: pytest.TempPathFactory) -> Album:
    """All results of an atlas of the small network."""
    folder = tmp_path_factory.mktemp("album")
    small.write(folder)
    sys.path.insert(0, str(folder))
    sys.modules.pop("nets", None)
    subject = RunConfig("nets:build", input_shape=(1, 12, 10), data=str(folder / "images")).open()
    sys.path.remove(str(folder))
    report = build(subject, folder / "out", size=small.TINY)
    assert not report.failed
    plan, store = Plan(network_summary(subject, small.TINY), subject), Store(folder / "out")
    chosen = select(plan, store)
    tasks = [*first_tasks(plan), *(task for topic in TOPICS for task in topic.tasks(plan, chosen))]
    return Album(plan, chosen, store, tasks)
