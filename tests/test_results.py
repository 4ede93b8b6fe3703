"""Do files give back what was saved, and can two results be mistaken for each other?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from microtome import Result, StoreError, load
from microtome.results import Provenance


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample(Result):
    value: Tensor
    named: dict[str, Tensor]
    plain: list[int | str | None]
    inner: Result | None = None


def sample(inner: Result | None = None) -> Sample:
    made = Provenance("sample", {"a": 1.5}, "f", 3, {"torch": "2"})
    return Sample(
        provenance=made, value=torch.arange(3.0), named={"x": torch.eye(2)}, plain=[1, "b", None], inner=inner
    )


def test_a_file_gives_back_every_field(tmp_path: Path) -> None:
    first = sample(inner=sample())
    first.save(tmp_path / "s.safetensors")
    second = load(tmp_path / "s.safetensors")
    assert isinstance(second, Sample)
    assert isinstance(second.inner, Sample)
    assert torch.equal(second.inner.named["x"], torch.eye(2))
    assert (second.plain, second.provenance) == (first.plain, first.provenance)


def test_equal_results_have_equal_bytes() -> None:
    assert sample().to_bytes() == sample().to_bytes()


def test_results_print_short() -> None:
    assert repr(sample()).startswith("Sample(value=tensor(3,)")


def test_a_name_belongs_to_one_result() -> None:
    """Files and figures know a result by the name of its class."""
    type("Twofold", (Result,), {"__module__": "here"})
    with pytest.raises(TypeError, match="two results are called Twofold"):
        type("Twofold", (Result,), {"__module__": "there"})


def test_a_broken_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"not a result")
    with pytest.raises(StoreError, match="not a readable result"):
        load(tmp_path / "x")
