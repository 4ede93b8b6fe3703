"""Does the gallery deliver what can be made, report what failed, and do nothing twice?"""

from __future__ import annotations

import json

import pytest

from gallery_cases import ANSWER, case
from microtome import InputError
from microtome.gallery import gallery_pages, gallery_run
from microtome.gallery.finding import Finding, verdict
from microtome.gallery.gallery_run import gallery
from microtome.gallery.measurement_store import key, measure, stored


@pytest.fixture
def cases(monkeypatch):
    """Let the gallery consist of some cases, in this process where no other is asked for."""

    def inline(waiting, folder, quick, photos, _count, _tell):
        for one in waiting:
            yield measure(one, folder, quick=quick, photos=photos)

    def use(*names: str, processes: bool = False) -> None:
        given = {name: case(name, photos=name == "refuses") for name in names}
        monkeypatch.setattr(gallery_run, "chosen", lambda wanted=(): [given[name] for name in wanted or given])
        monkeypatch.setattr(gallery_pages, "MEASUREMENTS", given)
        if not processes:
            monkeypatch.setattr(gallery_run, "side_by_side", inline)

    return use


def test_what_fails_is_reported_and_the_rest_delivered(cases, tmp_path):
    """One process ends without a word, one needs photos: the page has the third, and both reasons."""
    cases("dies", "refuses", "works", processes=True)
    lines: list[str] = []
    made = gallery(tmp_path, workers=2, say=lines.append)
    assert set(made.failed) == {"dies", "refuses"}
    assert "code 9" in made.failed["dies"]
    assert "--data" in made.failed["refuses"]
    assert [finding.value for finding in made.outcomes["works"].findings] == ["91 %"]
    assert "1 statements measured; hold: yes 0, partly 1, no 0" in made.report()
    first = made.page.read_text(encoding="utf-8")
    assert all(reason in first for reason in ("ended with code 9", "needs photos"))
    assert any("[3/3]" in line for line in lines)


def test_what_is_done_is_not_done_again(cases, tmp_path):
    cases("works", "fails")
    for _ in range(2):
        made = gallery(tmp_path, workers=1)
        assert "ZeroDivisionError: by nothing" in made.failed["fails"]
    assert "by nothing" in (tmp_path / "fails" / "error.txt").read_text(encoding="utf-8")
    assert "by nothing" in made.page.read_text(encoding="utf-8")
    calls = tmp_path / "works" / "calls"
    assert calls.read_text(encoding="utf-8") == "x"
    (tmp_path / "works" / "seen.png").unlink()  # a figure that is gone is made again
    gallery(tmp_path, workers=1, only=["works"])
    assert calls.read_text(encoding="utf-8") == "xx"
    gallery(tmp_path, quick=False, workers=1, only=["works"])  # another size is another measurement
    assert calls.read_text(encoding="utf-8") == "xxx"


def test_a_page_shows_statement_value_verdict_command_and_picture(cases, tmp_path):
    cases("works")
    gallery(tmp_path, workers=1)
    page = (tmp_path / "vector-spaces.html").read_text(encoding="utf-8")
    assert 'id="one-layer-accuracy"' in page
    for shown in (
        "92\u00a0%",
        "91\u00a0%",
        "holds in part",
        "few epochs",
        "works/seen.png",
        "--only works --quick",
        "of &lt;100&gt;",
    ):
        assert shown in page
    assert "http" not in page.replace("http-equiv", "")
    assert (tmp_path / "assets" / "style.css").is_file()
    other = (tmp_path / "explaining-lecture.html").read_text(encoding="utf-8")
    assert other.count("not measured") > 10


def test_a_measurement_answers_its_own_statements_only(tmp_path):
    found = measure(case("strays"), tmp_path, quick=True, photos=None)
    assert "should answer" in found.error
    assert stored(case("strays"), tmp_path, quick=True, photos=None) is None


def test_a_damaged_store_is_measured_again(tmp_path):
    one = case("works")
    (tmp_path / "works").mkdir()
    made = measure(one, tmp_path, quick=True, photos=None)
    again = stored(one, tmp_path, quick=True, photos=None)
    assert again is not None
    assert again.findings == made.findings
    file = tmp_path / "works" / "findings.json"
    whole = json.loads(file.read_text(encoding="utf-8"))
    for damaged in ("{", json.dumps({**whole, "key": "other"}), json.dumps({**whole, "findings": [{"document": "x"}]})):
        file.write_text(damaged, encoding="utf-8")
        assert stored(one, tmp_path, quick=True, photos=None) is None


def test_photos_are_part_of_the_key(tmp_path):
    with_photos = case("works", photos=True)
    before = key(with_photos, quick=True, photos=tmp_path)
    (tmp_path / "more.png").write_bytes(b"1")
    assert key(with_photos, quick=True, photos=tmp_path) != before
    assert key(case("works"), quick=True, photos=tmp_path) == key(case("works"), quick=True, photos=None)


def test_bad_input_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a folder of photos"):
        gallery(tmp_path, photos=tmp_path / "none")
    with pytest.raises(InputError, match="one process"):
        gallery(tmp_path, workers=0)
    with pytest.raises(InputError, match="no measurement"):
        gallery(tmp_path, only=["nothing"])
    with pytest.raises(ValueError, match="yes, partly, no"):
        Finding(*ANSWER, "1", "1", "maybe")
    assert [verdict(True), verdict(False, True), verdict(False)] == ["yes", "partly", "no"]
