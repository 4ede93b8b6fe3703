"""Are networks told apart by all that they do, and known again when built anew?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome import Network


class Written(nn.Module):
    """A small network whose parts can each be written otherwise."""

    def __init__(
        self,
        bend: Callable[[Tensor], Tensor] = torch.relu,
        dilation: int = 1,
        factor: float = 2.0,
        shift: float = 0.0,
        crossed: bool = False,
    ) -> None:
        super().__init__()
        made = torch.Generator().manual_seed(0)
        self.kernel: Tensor
        self.register_buffer("kernel", torch.randn(4, 1, 3, 3, generator=made), persistent=False)
        self.weight = nn.Parameter(torch.randn(3, 4, generator=made))
        self.shift = torch.full((4, 1, 1), shift)  # a mere attribute: in no state dict
        self.bend, self.dilation, self.factor, self.crossed = bend, dilation, factor, crossed

    def forward(self, x: Tensor) -> Tensor:
        a = functional.conv2d(x, self.kernel, padding=self.dilation, dilation=self.dilation)
        b = self.bend(a) * self.factor + self.shift
        return ((a if self.crossed else b) - b).add(a).mean((2, 3)) @ self.weight.T


def made(**other: object) -> str:
    return Network(Written(**other), input_shape=(1, 6, 6)).fingerprint  # type: ignore[arg-type]  # one each, by name


def test_a_network_built_anew_is_known_again() -> None:
    assert made() == made()


@pytest.mark.parametrize(
    "other",
    [{"bend": torch.tanh}, {"dilation": 2}, {"factor": 3.0}, {"shift": 1.0}, {"crossed": True}],
    ids=lambda other: next(iter(other)),
)
def test_what_is_in_no_state_dict_counts(other: dict[str, object]) -> None:
    assert made(**other) != made()


def test_a_weight_and_the_normalisation_count() -> None:
    model = Written()
    before = Network(model, input_shape=(1, 6, 6)).fingerprint
    assert Network(model, input_shape=(1, 6, 6), mean=0.1).fingerprint != before
    with torch.no_grad():
        model.weight[2, 3] += 1e-3
    assert Network(model, input_shape=(1, 6, 6)).fingerprint != before


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch 2.14, in its own forward mode too
def test_a_scripted_network_counts_by_its_code_and_weights() -> None:
    def scripted(bend: nn.Module, seed: int = 0) -> str:
        torch.manual_seed(seed)
        inside = torch.jit.script(nn.Sequential(nn.Linear(4, 3), bend))
        return Network(nn.Sequential(nn.Flatten(), inside), input_shape=(1, 2, 2)).fingerprint

    assert scripted(nn.ReLU()) == scripted(nn.ReLU())
    assert len({scripted(nn.ReLU()), scripted(nn.Tanh()), scripted(nn.ReLU(), seed=1)}) == 3
