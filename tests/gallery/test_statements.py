"""Are the documents' tables whole, and is every statement answered by one measurement?"""

from __future__ import annotations

import re
from collections import Counter

import pytest

from microtome import InputError
from microtome.gallery.measurement_list import MEASUREMENTS, chosen
from microtome.reproduce.statements import DOCUMENTS, document, read

HEAD = "id,place,statement,value,how\n"


def test_the_values_are_those_of_the_documents():
    """Written from the documents a second time: numbers that a slip of the pen would change."""
    paper = document("vector-spaces")
    assert [paper[name].value for name in ("one-layer-accuracy", "five-layer-accuracy", "resnet18-accuracy")] == [
        "92 %", "97 %", "99 %",
    ]  # fmt: skip
    assert (paper["one-layer-condition"].value, paper["resnet18-condition"].value) == ("7.22", "1.07")
    assert document("explaining-lecture")["task-entropy"].value == "0.99916 bit"
    assert "7 rounds" in document("dissecting-a-convnet")["pruning"].value


@pytest.mark.parametrize("name", ["one-layer-ideal", "five-layer-ideal", "resnet18-ideal"])
def test_every_digit_has_a_best_image_in_figure_3(name):
    """ResNet18's 4 stands twice in the paper."""
    digits = Counter(re.findall(r"\b\d\b", document("vector-spaces")[name].value))
    assert set(digits) == set("0123456789")
    assert sum(digits.values()) == (11 if name == "resnet18-ideal" else 10)


def test_every_statement_is_answered_once_or_says_why_not():
    answers = Counter(answer for one in MEASUREMENTS.values() for answer in one.answers)
    assert set(answers.values()) == {1}
    for name in DOCUMENTS:
        for one in document(name).statements.values():
            assert ((name, one.id) in answers) != one.how.startswith("Not measured")
    known = {(name, one) for name in DOCUMENTS for one in document(name).statements}
    assert set(answers) <= known


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("id,statement\na,b\n", "begins with id, place"),
        (f"{HEAD}a,b,c\n", "line 2"),
        (f"{HEAD}a,b,,92,e\n", "only the value may be empty"),
        (f"{HEAD}a,b,c,,e\na,b,c,,e\n", 'repeats the name "a"'),
    ],
)
def test_a_damaged_table_is_refused(text, wrong):
    with pytest.raises(InputError, match=wrong):
        read(text, "paper")


def test_unknown_names_get_the_nearest():
    with pytest.raises(InputError, match="vector-spaces"):
        document("vector-space")
    with pytest.raises(InputError, match="residual-of-8"):
        document("vector-spaces")["residual-of-9"]
    with pytest.raises(InputError, match="hand-net"):
        chosen(("handnet",))
    assert [one.name for one in chosen(("hand-net", "hand-net"))] == ["hand-net"]
