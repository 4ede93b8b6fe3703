"""Topics fit together: jobs have one meaning, pages exist, and a further topic needs no other file."""

from __future__ import annotations

import pickle

import pytest

from atlas.small import shown
from microtome.atlas import TOPICS, Topic, build
from microtome.atlas.album import Album
from microtome.atlas.pages.page_sections import joined
from microtome.atlas.pages.unit_page import unit_pages
from microtome.atlas.widgets import Facts, Number, Part, Section
from microtome.errors import InputError


def test_every_task_has_a_job_that_other_processes_find(album: Album) -> None:
    jobs = {name: job for topic in TOPICS for name, job in topic.jobs.items()}
    planned = {task.job for topic in TOPICS for task in topic.tasks(album.plan, album.chosen)}
    of_training = {name for topic in TOPICS[-6:] for name in topic.jobs}  # this atlas is given no training
    assert planned | {"firing"} | of_training == set(jobs)  # no unit of this network sees most of an image
    assert not planned & of_training
    for job in jobs.values():
        assert pickle.loads(pickle.dumps(job)) is job


def test_a_further_topic_comes_last_on_the_page(album: Album) -> None:
    def show(album: Album, layer: str, unit: int) -> list[Section]:
        return [Section("Its number", (Part(Facts((Number("number", unit),))),))]

    (page, *_) = unit_pages(album, [Topic("numbers", sections={"unit": show}), *TOPICS])
    assert page.sections[-1].title == "Its number"
    assert [facts.numbers[0].value for facts in shown(page.sections[-1:], Facts)] == [0]


def test_sections_of_one_title_are_joined_in_the_order_of_topics() -> None:
    one, two = Part(None, "one"), Part(None, "two")
    (found,) = joined([Section("a", (one,), beside=True), Section("a", (two,))])
    assert found.parts == (one, two)
    assert found.beside


def test_two_jobs_of_one_name_are_an_error(album: Album, tmp_path) -> None:
    with pytest.raises(InputError, match='topic "mine" has a job "tuning"'):
        build(album.subject, tmp_path / "out", topics=[*TOPICS, Topic("mine", jobs={"tuning": len})])


def test_a_page_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ValueError, match='names the page "units"'):
        Topic("mine", sections={"units": lambda album: []})
