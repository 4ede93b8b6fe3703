"""One examined network: as the library reads it, as plain PyTorch runs it, and the images for both."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from microtome import Network
from proof.plain import Plain

COUNT = 3  # images
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3}  # of the largest value


class Wrong(Exception):
    """The library's answer is not the reference's."""


class NotCompared(Exception):
    """The reference has no answer; why."""


@dataclass
class Subject:
    """The data that all checks of one network share."""

    model: nn.Module
    shape: tuple[int, int, int]
    dtype: torch.dtype
    seed: int = 0
    plain: Plain = field(init=False)
    images: Tensor = field(init=False)
    scores: Tensor = field(init=False)
    values: dict[str, Tensor] = field(init=False)
    targets: list[int] = field(init=False)
    before: dict[str, Any] = field(init=False)
    made: Network | None = None
    known: dict[str, Any] = field(
        default_factory=dict
    )  # answers of the references, for comparison with other libraries
    mixing: bool | None = None
    timings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.plain = Plain(self.model)
        dice = torch.Generator().manual_seed(self.seed + 7)
        self.images = torch.rand(COUNT, *self.shape, generator=dice).to(self.dtype)
        self.before = state(self.model)
        self.values, self.scores = self.plain.values(self.images)
        if self.scores.dim() != 2 or len(self.scores) != COUNT:
            raise NotCompared(f"no classifier: {COUNT} images give {tuple(self.scores.shape)}")
        self.targets = [(int(row.argmax()) + place) % row.numel() for place, row in enumerate(self.scores)]
        if not bool(torch.isfinite(self.scores).all()):
            raise NotCompared("the model gives NaN or infinity")

    @property
    def net(self) -> Network:
        """The network as the library reads it; stores the processor seconds of the reading and of a plain pass."""
        if self.made is None:
            self.made = self._read()
        return self.made

    def _read(self) -> Network:
        seconds = []
        for _ in range(2):  # the first reading imports modules
            start = time.process_time()
            made = Network(self.model, self.shape)
            seconds.append(time.process_time() - start)
            if seconds[0] > 10:
                break
        passes = []
        for _ in range(3):
            start = time.process_time()
            with torch.no_grad():
                self.plain.model(self.images[:1])
            passes.append(time.process_time() - start)
        self.timings = {"reading": round(min(seconds), 3), "pass": round(min(passes), 4)}
        return made

    def by_rounding(self) -> bool:
        """Whether the scores depend on the image only by rounding, as for the mean of a normalised value."""
        slope = self.plain.gradient(self.images, self.targets)
        return float((slope * self.images).flatten(1).abs().sum(1).max()) < 1e-9 * float(self.scores.abs().max())

    def mixes(self) -> bool:
        """Whether the scores of an image depend on the others in its batch, in plain PyTorch."""
        if self.mixing is None:
            alone = torch.cat([self.plain.scores(self.images[i : i + 1]).detach() for i in range(COUNT)])
            self.mixing = off(alone, self.scores) > TOLERANCE[self.dtype]
        return self.mixing

    def hold(self, what: str, found: Tensor, expected: Tensor, tolerance: float | None = None) -> str:
        """Compare, and return the difference in words.

        Raises
        ------
        Wrong
            If the difference is more than rounding.
        """
        if found.shape != expected.shape:
            raise Wrong(f"{what}: shape {tuple(found.shape)} where {tuple(expected.shape)} is right")
        error = off(found, expected)
        if not error <= (TOLERANCE[self.dtype] if tolerance is None else tolerance):
            raise Wrong(f"{what}: off by {error:.2g} of the largest value")
        return f"{what} {error:.1g}"


def off(found: Tensor, expected: Tensor) -> float:
    """The largest difference over the largest expected value."""
    found, expected = found.detach().double(), expected.detach().double()
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    error = float((found - expected).abs().max()) if expected.numel() else 0.0
    return error / max(largest, 1e-12) if error else 0.0


def state(model: nn.Module) -> dict[str, Any]:
    """All that a user could find changed in a model."""
    return {
        "tensors": {name: value.detach().clone() for name, value in _tensors(model)},
        "identity": {name: (id(value), value.requires_grad, id(value.grad)) for name, value in _tensors(model)},
        "flags": {name: part.training for name, part in model.named_modules()},
        "modules": {name: id(part) for name, part in model.named_modules()},
        "attributes": {name: sorted(vars(part)) for name, part in model.named_modules()},
        "hooks": {
            name: tuple(len(value) for key, value in sorted(vars(part).items()) if key.endswith("hooks") and value)
            for name, part in model.named_modules()
        },
        "random": torch.get_rng_state(),
        "gradients": torch.is_grad_enabled(),
    }


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def difference(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The differences between two states in words; empty if there are none."""
    for kind, known in before.items():
        now = after[kind]
        if kind == "random":
            if not torch.equal(known, now):
                return "the random state"
        elif kind == "tensors":
            for name, value in known.items():
                if name not in now or not torch.equal(value.nan_to_num(), now[name].nan_to_num()):
                    return f"the tensor {name}"
        elif known != now:
            changed = [k for k in known if now.get(k) != known[k]] if isinstance(known, dict) else []
            return f"{kind} {changed[:1]}"
    return ""
