"""Checks of single units: their strongest images, and the terms that one output channel is the sum of."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome.units import dissect, top_patches
from proof.subject import COUNT, TOLERANCE, NotCompared, Subject, Wrong, off

_DISSECTED = 4  # layers of each network


def units(s: Subject) -> str:
    """Strongest images of every unit of convolutions, linear layers and norms, one image at a time by hooks."""
    if s.mixes():
        raise NotCompared("the images of a batch influence each other")
    k = 2
    found = top_patches(s.net, list(s.images), k=k)
    alone = [s.plain.values(s.images[i : i + 1])[0] for i in range(COUNT)]
    parts = dict(s.plain.model.named_modules())
    compared = 0
    for name in s.values:
        axis = _unit_axis(parts[name])
        if axis is None or any(name not in values for values in alone):
            continue
        each = [values[name].movedim(axis, 0).flatten(1) for values in alone]
        if name not in found.layers:
            inner = [other for other in s.values if other.startswith(f"{name}.") and other in found.layers]
            same = [other for other in inner if torch.equal(s.values[other], s.values[name])]
            if same:  # a norm that ends in an activation is listed under the activation's name
                continue
            if any(one.shape != each[0].shape or not torch.equal(one, each[0]) for one in each):
                raise Wrong(f"{name} has no table of units")
            continue
        best = torch.stack([one.amax(1) for one in each])  # images, units
        order = best.argsort(dim=0, descending=True, stable=True)
        table = found[name]
        if table.activation.shape[0] != best.shape[1]:
            raise Wrong(f"{name} has {best.shape[1]} units, the table {table.activation.shape[0]}")
        s.hold(name, table.activation, best.gather(0, order)[:k].T)
        gaps = -best.gather(0, order).diff(dim=0)
        clear = (gaps > TOLERANCE[s.dtype] * best.abs().max()).all(0)
        if not torch.equal(table.image[clear], order[:k].T[clear]):
            raise Wrong(f"{name}: the images")
        if axis == 1 and s.values[name].dim() == 4 and len(alone[0][name]) == 1:
            _places(name, table.position, table.image, alone)
        compared += 1
    if not compared:
        raise NotCompared("no layer whose unit axis is known beforehand")
    return f"{compared} layers"


def _places(name: str, position: Tensor, image: Tensor, alone: list[dict[str, Tensor]]) -> None:
    """The value at the stated position is the maximum."""
    maps = torch.cat([values[name] for values in alone])
    channels = torch.arange(maps.shape[1])
    at = maps[image[:, 0], channels, position[:, 0, 0], position[:, 0, 1]]
    if off(at, maps[image[:, 0], channels].flatten(1).amax(1)) > 1e-3:
        raise Wrong(f"{name}: the position of the strongest patch")


def _unit_axis(part: nn.Module) -> int | None:
    if isinstance(part, nn.Conv1d | nn.Conv2d | nn.BatchNorm1d | nn.BatchNorm2d):
        return 1
    return -1 if type(part) in (nn.Linear, nn.LayerNorm) else None


def dissection(s: Subject) -> str:
    """One channel of some convolutions and linear layers: the terms from the layer's input add up to its output."""
    parts = dict(s.plain.model.named_modules())
    image = s.images[:1]
    fit = [name for name in s.values if isinstance(parts[name], nn.Conv2d | nn.Linear) and name in s.net.layers]
    if not fit:
        raise NotCompared("no module is a convolution or a linear layer")
    dice = random.Random(s.seed)
    chosen = sorted({fit[0], fit[-1], *dice.sample(fit, min(len(fit), _DISSECTED - 2))}, key=fit.index)
    calls = s.plain.calls(image, chosen)
    for name in chosen:
        x, y = calls[name]
        part = parts[name]
        units = y.movedim(1, -1) if isinstance(part, nn.Conv2d) else y
        channel = dice.randrange(units.shape[-1])
        found = dissect(s.net, image, name, channel)
        value = units[..., channel].flatten()
        if found.output.numel() != value.numel():
            raise Wrong(f"{name}: {found.output.numel()} places of {value.numel()}")
        s.hold(f"{name} output", found.output.flatten(), value)
        largest = max(float(found.contributions.abs().sum(0).max()), 1e-12)
        away = float((found.contributions.sum(0).flatten() + found.bias - value).abs().max()) / largest
        if away > TOLERANCE[s.dtype]:
            raise Wrong(f"{name}: the terms do not add up to the output, off by {away:.2g}")
        if type(part) in (nn.Conv2d, nn.Linear):  # other layers change their weights before they use them
            terms = _terms(part, x, channel)
            s.hold(f"{name} terms", found.contributions.flatten(1), terms)
    return f"{len(chosen)} layers"


def _terms(part: nn.Module, x: Tensor, channel: int) -> Tensor:
    """The sum over the window for each input channel, (J, places), from patches cut out."""
    if isinstance(part, nn.Linear):
        return x.reshape(-1, x.shape[-1]).T * part.weight[channel][:, None]
    assert isinstance(part, nn.Conv2d)
    weight = part.weight[channel]  # J, kh, kw
    group = channel // (part.out_channels // part.groups)
    x = x[:, group * len(weight) : (group + 1) * len(weight)]
    (height, width), (dy, dx) = part.kernel_size, part.dilation
    if part.padding == "same":
        rest = [dx * (width - 1), dy * (height - 1)]
        sides = [rest[0] // 2, rest[0] - rest[0] // 2, rest[1] // 2, rest[1] - rest[1] // 2]
    else:
        top, left = (0, 0) if part.padding == "valid" else part.padding
        sides = [left, left, top, top]
    mode = "constant" if part.padding_mode == "zeros" else part.padding_mode
    x = functional.pad(x, sides, mode=mode) if any(sides) else x
    patches = functional.unfold(x, part.kernel_size, part.dilation, 0, part.stride)  # n, J kh kw, places
    patches = patches.reshape(len(x), len(weight), height * width, -1)
    return torch.einsum("njkp,jk->jnp", patches, weight.flatten(1)).flatten(1)
