"""The attribution methods from their papers, on the plain functional forward, in float64: the gold standard.

Independent: shares no code with ``microtome``. The backward passes are written out layer by
layer, the adjoint of a convolution as a scatter over its patches, so no engine, hook, function mode, autograd
or transposed convolution of torch takes part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

METHODS = (
    "saliency", "gradient", "gradient-x-input", "guided-backprop", "deconvnet", "grad-cam", "cam", "guided-grad-cam",
    "integrated-gradients", "smooth-grad", "occlusion",
)  # fmt: skip


@dataclass
class Pass:
    """What a network of a family computes for images, and what comes back from a class score."""

    logits: Tensor
    features: Tensor
    at_image: Tensor
    at_features: Tensor
    convolution: tuple[Tensor, Tensor]


def run(family: str, pool: str, p: dict[str, Tensor], x: Tensor, target: Tensor, rule: str = "gradient") -> Pass:
    """Forward, then backward by hand under a rule."""
    return {"plain": _plain, "residual": _residual, "concat": _concat}[family](p, x, target, rule, pool)


def _plain(p, x, target, rule, pool):
    z1 = F.conv2d(x, p["w1"], p["b1"], padding=1)
    a1 = z1 * (z1 > 0)
    m1, unpool = pooled(a1, pool)
    z2 = F.conv2d(m1, p["w2"], p["b2"], padding=1, stride=2)
    f = z2 * (z2 > 0)
    logits, at_f = head(p, f, target)
    at_z2 = _back(at_f, z2, rule)
    g = adjoint(m1, p["w2"], at_z2, stride=2)
    g = adjoint(x, p["w1"], _back(unpool(g), z1, rule))
    return Pass(logits, f, g, at_f, (z2, at_z2))


def _residual(p, x, target, rule, pool):
    z1 = F.conv2d(x, p["w1"], p["b1"], padding=1)
    a = z1 * (z1 > 0)
    z2 = F.conv2d(a, p["w2"], p["b2"], padding=1)
    h = z2 * (z2 > 0)
    z3 = F.conv2d(h, p["w3"], p["b3"], padding=1)
    s = a + z3
    f = s * (s > 0)
    logits, at_f = head(p, f, target)
    g = _back(at_f, s, rule)
    through = adjoint(a, p["w2"], _back(adjoint(h, p["w3"], g), z2, rule))
    return Pass(logits, f, adjoint(x, p["w1"], _back(g + through, z1, rule)), at_f, (z3, g))


def _concat(p, x, target, rule, pool):
    z1 = F.conv2d(x, p["w1"], p["b1"], padding=1)
    a = z1 * (z1 > 0)
    z2 = F.conv2d(a, p["w2"], p["b2"], padding=1)
    b = z2 * (z2 > 0)
    both = torch.stack([a, b], 1).flatten(1, 2)
    z3 = F.conv2d(both, p["w3"], p["b3"], padding=1)
    f = z3 * (z3 > 0)
    logits, at_f = head(p, f, target)
    at_z3 = _back(at_f, z3, rule)
    g = adjoint(both, p["w3"], at_z3)
    width = a.shape[1]
    at_a = g[:, :width] + adjoint(a, p["w2"], _back(g[:, width:], z2, rule))
    return Pass(logits, f, adjoint(x, p["w1"], _back(at_a, z1, rule)), at_f, (z3, at_z3))


def head(p, f, target):
    logits = torch.einsum("kc,nc->nk", p["wf"], f.mean((2, 3))) + p["bf"]
    h, w = f.shape[2:]
    return logits, (p["wf"][target] / (h * w))[:, :, None, None].expand_as(f)


def _back(signal, read, rule):
    """Springenberg et al., fig. 1: what passes a rectifier backwards."""
    if rule == "gradient":
        return signal * (read > 0)
    if rule == "deconvnet":
        return signal * (signal > 0)
    return signal * (signal > 0) * (read > 0)


def adjoint(read, weight, signal, stride=1):
    """The transposed filters: scatter each signal over the patch it came from."""
    n, _, height, width = read.shape
    out = torch.zeros(n, weight.shape[1], height + 2, width + 2, dtype=read.dtype)
    rows, columns = signal.shape[2:]
    for i in range(3):
        for j in range(3):
            part = torch.einsum("nohw,oc->nchw", signal, weight[:, :, i, j])
            out[:, :, i : i + stride * rows : stride, j : j + stride * columns : stride][:, :, :rows, :columns] += part
    return out[:, :, 1:-1, 1:-1]


def pooled(a, pool):
    """2 x 2 pooling and its way back: the switches of the maximum, or a quarter to each."""
    n, c, height, width = a.shape
    h, w = height // 2, width // 2
    cells = a[:, :, : 2 * h, : 2 * w].reshape(n, c, h, 2, w, 2).permute(0, 1, 2, 4, 3, 5).reshape(n, c, h, w, 4)
    if pool == "max":
        value, switch = cells.max(-1)
        share = F.one_hot(switch, 4).to(a.dtype)
    else:
        value, share = cells.mean(-1), torch.full_like(cells, 0.25)

    def back(signal):
        spread = (signal[..., None] * share).reshape(n, c, h, w, 2, 2).permute(0, 1, 2, 4, 3, 5)
        out = torch.zeros_like(a)
        out[:, :, : 2 * h, : 2 * w] = spread.reshape(n, c, 2 * h, 2 * w)
        return out

    return value, back


# -- the methods -------------------------------------------------------------------------------------------------------


def attribution(
    method: str, family: str, pool: str, p: dict[str, Tensor], x: Tensor, target: Tensor, **options
) -> Tensor:
    """``values`` of a method as its paper defines them; ``x`` is what the network reads, without normalisation."""
    if method in ("saliency", "gradient", "gradient-x-input"):
        g = run(family, pool, p, x, target).at_image
        return {"saliency": g.abs(), "gradient": g, "gradient-x-input": g * x}[method]
    if method in ("guided-backprop", "deconvnet"):
        return run(family, pool, p, x, target, method.removesuffix("-backprop")).at_image
    if method == "grad-cam":
        return _grad_cam(run(family, pool, p, x, target))
    if method == "cam":
        f = run(family, pool, p, x, target).features
        return torch.einsum("nc,nchw->nhw", p["wf"][target], f)[:, None]
    if method == "guided-grad-cam":
        region = _grad_cam(run(family, pool, p, x, target))
        guided = run(family, pool, p, x, target, "guided").at_image
        return guided * F.interpolate(region, x.shape[2:], mode="bilinear", align_corners=False)
    if method == "integrated-gradients":
        return _integrated(family, pool, p, x, target, options["steps"])
    if method == "smooth-grad":
        return _smooth(family, pool, p, x, target, options["samples"], options["noise"])
    if method == "occlusion":
        return _occlusion(family, pool, p, x, target, options["window"], options["stride"])
    raise KeyError(f"the oracle has no {method}: write it from the paper")


def _grad_cam(done):
    return torch.einsum("nc,nchw->nhw", done.at_features.mean((2, 3)), done.features)[:, None].clamp(min=0)


def _integrated(family, pool, p, x, target, steps):
    nodes, share = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(x)
    for node, weight in zip((nodes + 1) / 2, share / 2, strict=True):
        total += weight * run(family, pool, p, node * x, target).at_image
    return x * total


def _smooth(family, pool, p, x, target, samples, noise):
    draws = torch.randn((samples, *x.shape[1:]), generator=torch.Generator().manual_seed(0)).double()
    span = (x.flatten(1).max(1).values - x.flatten(1).min(1).values).view(-1, 1, 1, 1)
    return sum(run(family, pool, p, x + noise * span * draw, target).at_image for draw in draws) / samples


def _occlusion(family, pool, p, x, target, window, stride):
    def probability(images):
        scores = run(family, pool, p, images, target).logits
        return (scores.exp() / scores.exp().sum(1, keepdim=True))[torch.arange(len(images)), target]

    def starts(size, length, step):
        found = list(range(0, size - length + 1, step))
        return found if found[-1] == size - length else [*found, size - length]

    whole, rows = probability(x), []
    for top in starts(x.shape[2], window[0], stride[0]):
        row = []
        for left in starts(x.shape[3], window[1], stride[1]):
            covered = x.clone()
            covered[:, :, top : top + window[0], left : left + window[1]] = 0.5
            row.append(whole - probability(covered))
        rows.append(torch.stack(row, -1))
    return torch.stack(rows, 1)[:, None]


def grad_cam_at_convolution(family: str, pool: str, p: dict[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
    """Grad-CAM at the last convolution's output, before anything is added to it or rectified."""
    z, at_z = run(family, pool, p, x, target).convolution
    return torch.einsum("nc,nchw->nhw", at_z.mean((2, 3)), z)[:, None].clamp(min=0)
