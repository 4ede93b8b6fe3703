"""Relevance of norms: layer, group and instance norm, linearised with their standard deviation as a constant."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from microtome.trace.backward_rules import Operation
from microtome.trace.lrp.account import Account, proportional
from microtome.trace.operators.nested_tensors import substitute
from microtome.trace.operators.operator_calls import Call


def with_constant_deviation(call: Call, x: Tensor) -> Tensor:
    """The operator at x, with the standard deviation of its original input."""
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


def _normed(x: Tensor, original: Tensor, dims: list[int], eps: float, weight: Any, bias: Any) -> Tensor:
    deviation = torch.sqrt(original.var(dims, unbiased=False, keepdim=True) + eps)
    return _scaled((x - x.mean(dims, keepdim=True)) / deviation, weight, bias)


def _scaled(z: Tensor, weight: Any, bias: Any) -> Tensor:
    shape = (1, -1, *(1,) * (z.dim() - 2))
    z = z * weight.reshape(shape) if weight is not None else z
    return z + bias.reshape(shape) if bias is not None else z


def norm(account: Account, operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
    """Relevance of a norm, which is affine with its standard deviation treated as a constant."""
    call = operation.call
    x = call.input
    linear = with_constant_deviation(call, x) - with_constant_deviation(call, torch.zeros_like(x))

    def run(swap: dict[int, Tensor]) -> Tensor:
        return with_constant_deviation(call, swap[id(x)])

    return proportional(account, operation, arriving, [x], run=run, constant=operation.output - linear)
