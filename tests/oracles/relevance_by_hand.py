"""Layer-wise relevance propagation written from the papers: dense float64 matrices on random small networks.

A network is a list of steps. ``RandomNetwork`` runs them as a PyTorch model writes them; ``relevance`` walks them
back on one image with the formula of the paper: every linear step becomes the matrix :math:`W` of its responses to
unit vectors, and :math:`R_i = \\sum_j q(x_i W_{ji}) / \\sum_{i'} q(x_{i'} W_{ji'}) R_j` is summed as it stands. It
shares nothing with ``microtome.trace``: no hooks, no autograd, no adjoint convolutions.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES, SIDE = 3, 6


@dataclass
class Step:
    """One step: its kind, the steps it reads (-1 is the image), its numbers and its spelling."""

    kind: str
    reads: list[int]
    made: dict[str, Any] = field(default_factory=dict)
    spelling: int = 0


def draw(seed: int) -> list[Step]:
    """A random network of 5 to 9 steps and a head, from the seed alone."""
    dice = random.Random(seed)
    normal = torch.Generator().manual_seed(seed)
    steps: list[Step] = []
    shapes: list[tuple[int, int]] = []  # channels and side of every step's maps

    def numbers(*size: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*size, generator=normal, dtype=torch.float64) * scale

    def add(kind: str, reads: list[int], shape: tuple[int, int], **made: Any) -> int:
        steps.append(Step(kind, reads, made, dice.randrange(6)))
        shapes.append(shape)
        return len(steps) - 1

    def conv(read: int, channels: int, size: int, stride: int = 1, groups: int = 1) -> int:
        inside, side = shapes[read] if read >= 0 else (3, SIDE)
        pad = size // 2
        weight = numbers(channels, inside // groups, size, size, scale=(inside / groups * size * size) ** -0.5)
        made = {"weight": weight, "bias": numbers(channels, scale=0.2), "stride": stride, "padding": pad}
        return add("conv", [read], (channels, (side + 2 * pad - size) // stride + 1), groups=groups, **made)

    last = conv(-1, dice.choice((4, 6)), 3)
    for _ in range(dice.randint(4, 8)):
        channels, side = shapes[last]
        kind = dice.choice(
            "conv convbn relu relu leaky maxpool avgpool residual residual cat gate attention norm bn upsample "
            "depthwise smaller glu".split()
        )
        if kind == "conv":
            last = conv(last, dice.choice((4, 6)), dice.choice((1, 3)))
        elif kind == "depthwise":
            last = conv(last, channels, 3, groups=channels)
        elif kind == "smaller" and side > 3:
            last = conv(last, channels, 3, stride=2)
        elif kind in ("convbn", "bn"):
            last = conv(last, channels, 3) if kind == "convbn" else last
            spread = 0.5 + torch.rand(2, channels, generator=normal, dtype=torch.float64)
            merged = kind == "convbn" or steps[last].kind == "conv"  # a batch norm belongs to the convolution before it
            mean, shift = numbers(channels, scale=0.1), numbers(channels, scale=0.2)
            last = add(
                "bn", [last], shapes[last], mean=mean, var=spread[0], scale=spread[1], shift=shift, merged=merged
            )
        elif kind in ("relu", "leaky"):
            last = add(kind, [last], shapes[last])
        elif kind in ("maxpool", "avgpool") and side >= 4:
            last = add(kind, [last], (channels, side // 2))
        elif kind == "upsample" and side <= 3:
            last = add(kind, [last], (channels, side * 2))
        elif kind in ("residual", "cat", "gate", "glu"):
            other = conv(last, channels, dice.choice((1, 3)))
            if kind == "residual":
                last = add("add", [last, other], (channels, side))
            elif kind == "cat":
                last = add("cat", [last, other], (2 * channels, side))
            elif kind == "glu":
                last = add("glu", [last, other], (channels, side))
            else:
                weight, bias = numbers(channels, channels, scale=0.5), numbers(channels, scale=0.2)
                last = add("gate", [other], (channels, side), weight=weight, bias=bias)
        elif kind == "norm":
            last = add("norm", [last], (channels, side), scale=1 + numbers(channels, scale=0.2),
                       shift=numbers(channels, scale=0.2))  # fmt: skip
        elif kind == "attention":
            made = {name: numbers(channels, channels, scale=channels**-0.5) for name in "qkv"}
            last = add("attention", [last], (channels, side), bias=numbers(channels, scale=0.2), **made)
    channels, _ = shapes[last]
    pooled = add("mean", [last], (channels, 1))
    add("linear", [pooled], (CLASSES, 1), weight=numbers(CLASSES, channels), bias=numbers(CLASSES, scale=0.2))
    return steps


# -- as a PyTorch model writes it ------------------------------------------------------------------------------------


class RandomNetwork(nn.Module):
    """The steps as torch's operators, each in one of several spellings."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps
        for index, step in enumerate(steps):
            for name, value in step.made.items():
                if isinstance(value, Tensor):
                    self.register_buffer(f"{name}_{index}", value.clone())

    def forward(self, image: Tensor) -> Tensor:
        values: dict[int, Tensor] = {-1: image}
        readers = [sum(index in step.reads for step in self.steps) for index in range(len(self.steps))]
        for index, step in enumerate(self.steps):
            read = [values[one] for one in step.reads]
            alone = step.reads[0] >= 0 and readers[step.reads[0]] == 1  # nobody else sees an in-place change
            made = {name: getattr(self, f"{name}_{index}", value) for name, value in step.made.items()}
            values[index] = _run(step, read, made, alone and step.spelling % 2 == 0)
        return values[len(self.steps) - 1]


def _run(step: Step, read: list[Tensor], made: dict[str, Any], inplace: bool) -> Tensor:
    x, spelling = read[0], step.spelling
    if step.kind == "conv":
        return F.conv2d(x, made["weight"], made["bias"], made["stride"], made["padding"], 1, made["groups"])
    if step.kind == "bn":
        return F.batch_norm(x, made["mean"], made["var"], made["scale"], made["shift"], False, 0.0, 1e-5)
    if step.kind == "relu":
        spelled = (lambda: x.relu_() if inplace else x.relu(), lambda: F.relu(x, inplace), lambda: x.clamp(min=0))
        return spelled[spelling % 3]()  # one of them alone: in place, a second would write on what the first has saved
    if step.kind == "leaky":
        return F.leaky_relu(x, 0.1, inplace)
    if step.kind == "maxpool":
        return F.max_pool2d(x, 2) if spelling % 2 else x[..., : x.shape[-1] // 2 * 2, : x.shape[-1] // 2 * 2].unfold(
            2, 2, 2).unfold(3, 2, 2).amax((4, 5))  # fmt: skip
    if step.kind == "avgpool":
        return F.avg_pool2d(x, 2)
    if step.kind == "upsample":
        return F.interpolate(x, scale_factor=2)
    if step.kind == "add":
        return x + read[1] if spelling % 2 else read[1].add_(x)
    if step.kind == "cat":
        return torch.cat(read, 1)
    if step.kind == "glu":
        return F.glu(torch.cat(read, 1), 1) if spelling % 2 else x * read[1].sigmoid()
    if step.kind == "gate":
        gate = F.linear(x.mean((2, 3)), made["weight"], made["bias"]).sigmoid()[:, :, None, None]
        spread = (gate, gate.expand_as(x), F.interpolate(gate, x.shape[2:]), gate.repeat(1, 1, *x.shape[2:]))
        return x * spread[spelling % 4] if spelling < 4 else spread[spelling % 4] * x
    if step.kind == "mean":
        return x.mean((2, 3)) if spelling % 2 else F.adaptive_avg_pool2d(x, 1).flatten(1)
    if step.kind == "linear":
        return F.linear(x, made["weight"], made["bias"])
    tokens = x.flatten(2).transpose(1, 2)
    if step.kind == "norm":
        tokens = F.layer_norm(tokens, tokens.shape[-1:], made["scale"], made["shift"])
    elif step.kind == "attention":
        q, k, v = (F.linear(tokens, made[name], made["bias"] if name == "v" else None) for name in "qkv")
        if spelling % 2:
            tokens = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        else:
            tokens = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v
    return tokens.transpose(1, 2).reshape(x.shape)


# -- as the papers write it --------------------------------------------------------------------------------------------


def _stable(z: Tensor, epsilon: float) -> Tensor:
    return torch.where(z >= 0, z + epsilon, z - epsilon)


def _matrix(linear: Any, shape: torch.Size) -> Tensor:
    """The matrix (outputs, inputs) of a linear map, column by column."""
    unit = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape)
    return linear(unit).flatten(1).T


def _through(x: Tensor, w: Tensor, b: Tensor, relevance: Tensor, rule: str, epsilon: float) -> Tensor:
    """The rules as printed, with contributions c[j, i] = x_i w_ji."""
    c = w * x.flatten()[None, :]
    z = c.sum(1) + b
    r = relevance.flatten()

    def shared(parts: Tensor, rest: Tensor, arriving: Tensor) -> Tensor:
        return (parts / _stable(parts.sum(1) + rest, epsilon)[:, None] * arriving[:, None]).sum(0)

    up, down, b_up, b_down = c.clamp(min=0), c.clamp(max=0), b.clamp(min=0), b.clamp(max=0)
    if rule == "epsilon":
        found = shared(c, b, r)
    elif rule == "z-plus":
        found = shared(up, b_up, r)
    elif rule == "gamma":
        found = shared(c + 0.25 * up, b + 0.25 * b_up, r * (z > 0)) + shared(
            c + 0.25 * down, b + 0.25 * b_down, r * (z < 0)
        )
    else:  # alpha 2, beta 1
        found = 2 * shared(up, b_up, r) - shared(down, b_down, r)
    return found.reshape(x.shape)


def relevance(steps: list[Step], image: Tensor, target: int, rule: str, epsilon: float = 1e-6) -> Tensor:
    """Relevance of one image (3, H, W) for a class; weighted steps follow the rule, the others share in proportion."""
    values: dict[int, Tensor] = {-1: image}
    for index, step in enumerate(steps):
        read = [values[one][None] for one in step.reads]
        values[index] = _run(step, [one.clone() for one in read], step.made, False)[0]
    arrived = {index: torch.zeros_like(value) for index, value in values.items()}
    arrived[len(steps) - 1][target] = values[len(steps) - 1][target]
    for index in reversed(range(len(steps))):
        step = steps[index]
        for read, part in zip(step.reads, _back(steps, values, index, arrived[index], rule, epsilon), strict=True):
            arrived[read] = arrived[read] + part
    return arrived[-1]


def _back(
    steps: list[Step], values: dict[int, Tensor], index: int, r: Tensor, rule: str, epsilon: float
) -> list[Tensor]:
    step, z = steps[index], values[index]
    read = [values[one] for one in step.reads]
    x, made, zero = read[0], step.made, torch.zeros(z.numel(), dtype=torch.float64)

    def proportional(linear: Any, bias: Tensor = zero) -> list[Tensor]:
        return [_through(x, _matrix(linear, x.shape), bias, r, "epsilon", epsilon)]

    if step.kind in ("relu", "leaky"):
        return [r]
    if step.kind == "conv":
        merged = [one for one in steps if one.kind == "bn" and one.reads == [index] and one.made["merged"]]
        alone = merged and sum(index in one.reads for one in steps) == 1
        w = _matrix(
            lambda v: F.conv2d(v, made["weight"], None, made["stride"], made["padding"], 1, made["groups"]), x.shape
        )
        places = z.shape[1] * z.shape[2]
        b = made["bias"].repeat_interleave(places)
        if alone:  # the affine map of the norm joins the convolution's
            norm = merged[0].made
            a = norm["scale"] / (norm["var"] + 1e-5).sqrt()
            w = a.repeat_interleave(places)[:, None] * w
            b = (a * made["bias"] + norm["shift"] - a * norm["mean"]).repeat_interleave(places)
        return [_through(x, w, b, r, rule, epsilon)]
    if step.kind == "bn":
        if made["merged"] and sum(step.reads[0] in one.reads for one in steps) == 1:
            return [r]
        a = made["scale"] / (made["var"] + 1e-5).sqrt()
        b = (made["shift"] - a * made["mean"])[:, None, None].expand_as(z).flatten()
        return proportional(lambda v: v * a[:, None, None], b)
    if step.kind == "linear":
        return [_through(x, made["weight"], made["bias"], r, rule, epsilon)]
    if step.kind == "mean":
        return proportional(lambda v: v.mean((2, 3)))
    if step.kind == "avgpool":
        return proportional(lambda v: F.avg_pool2d(v, 2))
    if step.kind == "upsample":
        return proportional(lambda v: v.repeat_interleave(2, -1).repeat_interleave(2, -2))
    if step.kind == "maxpool":
        back = torch.zeros_like(x)
        for c in range(z.shape[0]):
            for i in range(z.shape[1]):
                for j in range(z.shape[2]):
                    window = x[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                    ties = window == window.max()
                    back[c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = r[c, i, j] * ties / ties.sum()
        return [back]
    if step.kind == "add":
        return [part / _stable(z, epsilon) * r for part in read]
    if step.kind == "cat":
        return [r[: x.shape[0]], r[x.shape[0] :]]
    if step.kind == "glu":
        return [r, torch.zeros_like(read[1])]
    if step.kind == "gate":
        return [r]
    tokens = x.flatten(1).T  # (places, channels)
    if step.kind == "norm":
        deviation = (tokens.var(1, unbiased=False) + 1e-5).sqrt()[None, :]
        scale = made["scale"][:, None]

        def centred(v: Tensor) -> Tensor:
            v = v.flatten(2)
            return (v - v.mean(1, keepdim=True)) / deviation * scale

        return proportional(centred, made["shift"].repeat_interleave(tokens.shape[0]))
    q, k = tokens @ made["q"].T, tokens @ made["k"].T
    weights = (q @ k.T / q.shape[1] ** 0.5).softmax(-1)
    v = tokens @ made["v"].T + made["bias"]
    at_output = r.flatten(1).T
    mixed = weights @ v
    at_v = torch.zeros_like(v)
    for one in range(len(v)):  # the part of token ``one`` in every mixed token
        at_v[one] = (weights[:, one, None] * v[one] / _stable(mixed, epsilon) * at_output).sum(0)
    back = torch.zeros_like(tokens)
    for one in range(len(tokens)):
        back[one] = _through(tokens[one], made["v"], made["bias"], at_v[one], rule, epsilon)
    return [back.T.reshape(x.shape)]
