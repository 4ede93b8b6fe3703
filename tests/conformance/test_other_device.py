"""Does every registered method run on a device that refuses to mix its tensors with the processor's?

The device needs no hardware, see ``oracles.other_device``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from oracles import other_device

SCRIPT = Path(other_device.__file__)
# Refusals that a network deserves on any device; anything else that is refused was not compared.
REFUSED = {
    "small": {"attention-rollout", "invert-outputs"},
    "transformer": {
        *("cam", "class-residuals", "convert-to-cam", "exit-distance", "facets-between", "filters", "invert-outputs"),
        *("weight-vectors", "without"),
    },
    "ResNet18": {"attention-rollout", "cam", "invert-outputs", "natural-filters"},
}

pytestmark = [
    pytest.mark.skipif(not other_device.known(), reason="this torch admits no device written in Python"),
    pytest.mark.first,
]


def rows(*arguments: str) -> list[dict]:
    ran = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.parametrize("network", ["small", "transformer", pytest.param("ResNet18", marks=pytest.mark.slow)])
def test_every_method_gives_what_the_processor_gives(network):
    found = rows(network)
    assert len(found) > 60
    assert not [row for row in found if row["wrong"]]
    assert {row["method"] for row in found if "refused" in row} == REFUSED[network]


def test_options_and_tensors_of_the_user_give_what_the_processor_gives():
    found = rows("options")
    assert len(found) > 30
    assert not [row for row in found if row["wrong"] or "refused" in row]


def test_an_atlas_is_built_there():
    *failed, pages = rows("atlas")
    assert not failed
    assert pages["pages"] > 10


REFUSALS = """
import torch
from oracles import other_device as other

other.set_up()
with other.Device():
    there, here = torch.ones(2, 2, device="other:0"), torch.ones(2, 2)
    number, draws = torch.tensor(2.0), torch.Generator()
    print((there * number)[torch.tensor([0])].sum().item(), there.cpu().device, here.to("other:0").device)
    for mixed in (
        lambda: there + here,
        lambda: there @ here,
        lambda: torch.cat([there.flatten(), number[None]]),
        lambda: there.gather(0, torch.tensor([[0, 0]])),
        lambda: here[torch.zeros(1, dtype=torch.long, device="other:0")],
        lambda: there.index_put_((torch.tensor([0]),), here[0]),
        lambda: torch.randn(2, device="other:0", generator=draws),
        lambda: there.numpy(),
        lambda: torch.nn.functional.conv2d(there[None, None], here[None, None]),
    ):
        try:
            print("mixed", mixed())
        except (RuntimeError, TypeError) as error:
            print("refused")
"""


def test_the_device_refuses_what_cuda_refuses():
    ran = subprocess.run(
        [sys.executable, "-c", REFUSALS], capture_output=True, text=True, check=True, cwd=SCRIPT.parents[1]
    )
    first, *others = ran.stdout.splitlines()
    assert first == "4.0 cpu other:0"
    assert others == ["refused"] * 9
