"""Networks with planted units: fooled ones, whose superstimulus takes another path than photos do, and honest ones.

All weights are set by hand. The layers: ``0`` oriented patterns, ``2`` their combinations at some places, ``4`` gates,
``6`` mixtures, ``8`` the planted units. A fooled unit adds two parts: what photos show, and a decoy that photos lack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from microtome import Network

SIZE = 24
KINDS = ("gate", "deep gate", "fine pattern", "plain", "either", "both", "unless")
FOOLED = ("gate", "deep gate", "fine pattern")
_FIELD = 9
_TAPS = 5  # places a side that the combinations read, three pixels apart
_COARSE = 8  # orientations of the coarse patterns of photos
_FINE = 8  # orientations of the fine patterns of decoys


@dataclass(frozen=True)
class Planting:
    """A network, photos, and for each unit its kind and the channels of layer 4 that photos and the decoy drive."""

    net: Network
    photos: Tensor
    kinds: list[str]
    decoys: list[int | None]


def planting(seed: int, copies: int = 1) -> Planting:
    """A network with ``copies`` units of each kind, at random angles, places and strengths."""
    generator = torch.Generator().manual_seed(seed)
    coarse = [_bar(180 * i / _COARSE) for i in range(_COARSE)] + [-_bar(180 * i / _COARSE) for i in range(_COARSE)]
    fine = [sign * _ripple(180 * i / _FINE, phase) for i in range(_FINE) for phase in (0, 90) for sign in (1, -1)]
    first = [*coarse, *fine, torch.full((_FIELD, _FIELD), 1 / _FIELD**2)]
    kinds = list(KINDS) * copies
    n = len(kinds)
    patterns = _conv(1, len(first), _FIELD)
    patterns.weight.data.copy_(torch.stack(first)[:, None])
    parts = _conv(len(first), 2 * n + 2, _TAPS, 3)  # two parts of every unit, and two steps of brightness
    parts.weight.data[2 * n :, -1] = 1 / _TAPS**2 / 0.16  # photos are brighter than the canvas
    parts.bias.data[2 * n :] = -torch.tensor([0.32, 0.48]) / 0.16
    gates = _conv(2 * n + 2, 2 * n, 1)
    mixed = _conv(2 * n, 2 * n, 1)
    units = _conv(2 * n, n, 1)
    units.weight.data[:, :, 0, 0] = 0.1 * torch.rand(n, 2 * n, generator=generator)  # every unit reads a little of all
    decoys: list[int | None] = []
    for unit, kind in enumerate(kinds):
        one, other = 2 * unit, 2 * unit + 1
        seen = torch.randperm(len(coarse), generator=generator)[:2].tolist()
        _place(parts, one, seen[0], generator)
        strength = 1.0
        if kind in FOOLED:
            strength = _between(2.0, 4.0, generator)
            if kind == "fine pattern":  # at any phase, which photos have no power in
                first_phase = len(coarse) + 4 * _pick(_FINE, generator)
                parts.weight.data[other, first_phase : first_phase + 4, _TAPS // 2, _TAPS // 2] = 1.0
            else:
                _place(parts, other, seen[1], generator)
        elif kind in ("either", "both", "unless"):
            _place(parts, other, seen[1], generator)
        gates.weight.data[one, one] = gates.weight.data[other, other] = 1.0
        if kind in ("gate", "deep gate"):
            closed = 50.0
            gates.weight.data[one, 2 * n :, 0, 0] = torch.tensor([closed, -closed])
            gates.bias.data[one] = -closed
            gates.weight.data[other, 2 * n :, 0, 0] = torch.tensor([-closed, closed])
        if kind == "both":  # the smaller of two: b - relu(b - a)
            gates.weight.data[one, other] = 1.0
            gates.bias.data[one] = -_between(0.5, 1.5, generator)
        mixed.weight.data[one, one] = 1.0
        mixed.weight.data[other, other] = 1.0
        if kind == "deep gate":
            mixed.weight.data[one, other] = strength
        sign = {"unless": -1.0, "plain": 0.0, "both": 0.0, "deep gate": 0.0}.get(kind, strength)
        units.weight.data[unit, one] = 1.0
        units.weight.data[unit, other] = sign
        decoys.append(other if kind in FOOLED else None)
    model = nn.Sequential(
        patterns, nn.ReLU(), parts, nn.ReLU(), gates, nn.ReLU(), mixed, nn.ReLU(), units,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, 2),
    )  # fmt: skip
    return Planting(
        Network(model, input_shape=(1, SIZE, SIZE), mean=0.5, std=0.25), photos(96, generator), kinds, decoys
    )


def decoyed(planting: Planting, pictures: Tensor, units: Tensor, places: Tensor) -> Tensor:
    """The share of each unit's activation that its decoy gives, at a place of layer 8; 0 for honest units."""
    with torch.no_grad():
        gates = planting.net.activations(pictures, "5")["5"]
    found = torch.zeros(len(pictures))
    last, mixed = planting.net.model[8].weight.detach(), planting.net.model[6].weight.detach()
    for row, (unit, (y, x)) in enumerate(zip(units.tolist(), places.tolist(), strict=True)):
        decoy = planting.decoys[unit]
        if decoy is not None:
            through = last[unit, :, 0, 0] @ mixed[:, :, 0, 0]
            parts = (through * gates[row, :, y, x]).clamp(min=0)
            found[row] = parts[decoy] / parts.sum().clamp(min=1e-9)
    return found


def photos(count: int, generator: torch.Generator) -> Tensor:
    """Bright pictures with a 1/f background and bars and edges of random angles: no fine patterns."""
    rows = torch.fft.fftfreq(SIZE)[:, None]
    columns = torch.fft.rfftfreq(SIZE)[None]
    frequency = (rows.square() + columns.square()).sqrt()
    weight = torch.where((frequency > 0.08) & (frequency < 0.2), 1 / frequency.clamp(min=1 / SIZE) ** 1.5, 0.0)
    noise = torch.fft.rfft2(torch.randn(count, SIZE, SIZE, generator=generator)) * weight
    background = torch.fft.irfft2(noise, s=(SIZE, SIZE))
    pictures = 0.7 + 0.1 * background / background.std((1, 2), keepdim=True)
    at = torch.arange(SIZE) - (SIZE - 1) / 2
    for picture in pictures:
        for _ in range(3):
            angle = math.pi * float(torch.rand(1, generator=generator))
            shift = 8 * torch.randn(1, generator=generator)
            across = -at[None] * math.sin(angle) + at[:, None] * math.cos(angle) - shift
            contrast = 0.3 * float(torch.randn(1, generator=generator).sign())
            picture += contrast * torch.exp(-((across / 2.0) ** 2))
    pictures += 0.72 - pictures.mean((1, 2), keepdim=True)
    return pictures[:, None].clamp(0, 1)


def _conv(inputs: int, outputs: int, side: int, dilation: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, side, dilation=dilation)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def _place(parts: nn.Conv2d, row: int, pattern: int, generator: torch.Generator) -> None:
    """A pattern at two places near the middle, and a little of all coarse ones."""
    for weight in (1.0, _between(0.3, 1.0, generator)):
        y, x = (_TAPS // 2 + _pick(3, generator) - 1 for _ in range(2))
        parts.weight.data[row, pattern, y, x] += weight
    parts.weight.data[row, : 2 * _COARSE, _TAPS // 2, _TAPS // 2] += 0.2 * torch.rand(2 * _COARSE, generator=generator)


def _across(angle: float) -> Tensor:
    at = torch.arange(_FIELD) - (_FIELD - 1) / 2
    return -at[None] * math.sin(math.radians(angle)) + at[:, None] * math.cos(math.radians(angle))


def _bar(angle: float) -> Tensor:
    return _normed(torch.exp(-((_across(angle) / 2.0) ** 2)))


def _ripple(angle: float, phase: float) -> Tensor:
    window = torch.exp(-(_across(angle) ** 2 + _across(angle + 90) ** 2) / 20)
    return _normed(torch.cos(2 * math.pi * _across(angle) / 2.6 + math.radians(phase)) * window)


def _normed(kernel: Tensor) -> Tensor:
    kernel = kernel - kernel.mean()
    return kernel / kernel.norm()


def _pick(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (1,), generator=generator))


def _between(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand(1, generator=generator))
