"""Norms linearised: layer, group and instance norm with their standard deviation treated as a constant."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from microtome.trace.operators.nested_tensors import substitute
from microtome.trace.operators.operator_calls import Call


def held(call: Call, x: Tensor) -> Tensor:
    """The operator at x; layer, group and instance norms keep the standard deviation of their original input."""
    bound = call.arguments
    if call.kind == "batch_norm" and (bound["training"] or bound["running_mean"] is None):
        return _normed(x, call.input, [0, *range(2, x.dim())], float(bound["eps"]), bound["weight"], bound["bias"])
    if call.kind == "batch_norm" or (call.kind == "instance_norm" and not bound["use_input_stats"]):
        # Not torch's: its backward is wrong for one image whose signal is laid out as tokens (torch 2.13, processor).
        shape = (1, -1, *(1,) * (x.dim() - 2))
        deviation = torch.sqrt(bound["running_var"] + float(bound["eps"]))
        return _scaled(
            (x - bound["running_mean"].reshape(shape)) / deviation.reshape(shape), bound["weight"], bound["bias"]
        )
    if call.kind == "layer_norm":
        dims = list(range(-len(bound["normalized_shape"]), 0))
        weight, bias = bound["weight"], bound["bias"]
        mean = x.mean(dims, keepdim=True)
        deviation = torch.sqrt(call.input.var(dims, unbiased=False, keepdim=True) + float(bound["eps"]))
        z = (x - mean) / deviation
        z = z * weight if weight is not None else z
        return z + bias if bias is not None else z
    if call.kind in ("group_norm", "instance_norm"):
        groups = int(bound["num_groups"]) if call.kind == "group_norm" else x.shape[1]
        folded = x.reshape(x.shape[0], groups, -1)
        grouped = call.input.reshape(x.shape[0], groups, -1)
        z = _normed(folded, grouped, [2], float(bound["eps"]), None, None).reshape(x.shape)
        return _scaled(z, bound["weight"], bound["bias"])
    swap = {id(call.input): x}
    output: Tensor = call.func(*substitute(call.args, swap), **substitute(call.kwargs, swap))
    return output


def _normed(x: Tensor, given: Tensor, dims: list[int], eps: float, weight: Any, bias: Any) -> Tensor:
    deviation = torch.sqrt(given.var(dims, unbiased=False, keepdim=True) + eps)
    return _scaled((x - x.mean(dims, keepdim=True)) / deviation, weight, bias)


def _scaled(z: Tensor, weight: Any, bias: Any) -> Tensor:
    shape = (1, -1, *(1,) * (z.dim() - 2))
    z = z * weight.reshape(shape) if weight is not None else z
    return z + bias.reshape(shape) if bias is not None else z


def linear_part(call: Call, x: Tensor) -> Tensor:
    """The linear part alone: the operator at x less the operator at zero."""
    return held(call, x) - held(call, torch.zeros_like(x))
