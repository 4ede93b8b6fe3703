"""Attention: its weights, and relevance through it with the weights treated as constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome.trace.backward_rules import Operation
from microtome.trace.lrp.account import Account, proportional
from microtome.trace.lrp.image_sums import ImageSums
from microtome.trace.lrp.rules import Linear, Rule, Shared, stabilised
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those


def attention(account: Account, operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
    """Scaled dot-product attention: all relevance to the values, the attention weights held (Ali et al. 2022)."""
    bound = dict(operation.call.arguments)
    value = bound["value"]

    def run(swap: dict[int, Tensor]) -> Tensor:
        """Only the values are exchanged, also where one tensor serves as keys or queries as well."""
        again: Tensor = operation.call.func(**{**_as_keywords(bound), "value": swap[id(value)]})
        return again

    if not any(value is one for one in operation.inputs):  # attention weights from the image on constant values
        account.book_places(operation, bias=arriving)
        return operation.back()
    return proportional(account, operation, arriving, [value], run=run)


def multi_head(account: Account, operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
    """Three linear steps: output projection, attention-weighted values, value projection.

    Both projections use the rule of the layer. The step between them has no weights and uses only the stabiliser.
    """
    names = ("query", "key", "value", "width", "heads", "in_weight", "in_bias", "bias_k", "bias_v", "zeros", "drop")
    named = dict(zip((*names, "out_weight", "out_bias"), operation.call.args, strict=False))
    keywords = dict(operation.call.kwargs)
    value, heads = named["value"], int(named["heads"])
    weights = _of_module(operation.call)
    w = keywords["v_proj_weight"] if keywords.get("use_separate_proj_weight") else named["in_weight"].chunk(3)[2]
    b = named["in_bias"].chunk(3)[2] if named["in_bias"] is not None else w.new_zeros(w.shape[0])
    if value.dim() == 2:  # one image without an image axis
        value, arriving, output = value[:, None], arriving[:, None], operation.output[:, None]
    else:
        output = operation.output
    if weights.dim() == 3:
        weights = weights[None]
    tokens, n = value.shape[0], value.shape[1]  # this call is always (tokens, images, width)
    v = functional.linear(value, w, b)
    by_head = v.reshape(tokens, n, heads, -1).permute(1, 2, 0, 3)
    mine = weights[..., :tokens]  # keys that the layer adds (bias_k, zeros) have constant values
    mixed = mine @ by_head
    hidden = mixed.permute(2, 0, 1, 3).reshape(weights.shape[2], n, -1)
    whole = hidden
    if named.get("bias_v") is not None:
        added = weights[..., tokens : tokens + 1] @ named["bias_v"].reshape(1, heads, 1, -1)
        whole = hidden + added.permute(2, 0, 1, 3).reshape(hidden.shape)
    out_w = named["out_weight"]
    out_b = named["out_bias"] if named["out_bias"] is not None else out_w.new_zeros(out_w.shape[0])
    epsilon = account.epsilon(operation)
    sums = account.images(operation.call.name, operation.output.shape)
    if sums.where is None or operation.output.dim() == 2 or sums.where.axis != 1:
        sums = ImageSums(sums.count, None)
    rule = account.choose_rule(operation.call.name, "linear", False)
    r_hidden = _dense(account, rule, sums, (whole, out_w, out_b), output, arriving)
    quotient = r_hidden / stabilised(whole, epsilon)
    q = quotient.reshape(weights.shape[2], n, heads, -1).permute(1, 2, 0, 3)
    back = (mine.transpose(-1, -2) @ q).permute(2, 0, 1, 3).reshape(tokens, n, -1)
    account.book(
        Shared(back, sums.product(whole - hidden, quotient), sums.total(r_hidden) - sums.product(whole, quotient))
    )
    r_value = _dense(account, rule, sums, (value, w, b), v, v * back)
    if not any(named["value"] is one for one in operation.inputs):
        account.book(Shared(r_value, sums.total(r_value), torch.zeros_like(account.bias_share)))
    return operation.back((named["value"], r_value.reshape(named["value"].shape)))


def _dense(
    account: Account, rule: Rule, sums: ImageSums, layer: tuple[Tensor, Tensor, Tensor], z: Tensor, arriving: Tensor
) -> Tensor:
    """Relevance through a linear layer (its input, weights and bias) by its rule."""
    x, w, b = layer
    shared = rule.share(Linear(x, w, b, z, functional.linear, torch.matmul, images=sums), arriving)
    account.book(shared)
    return shared.relevance


def _of_module(call: Call) -> Tensor:
    """Attention weights of every head, (images, heads, queries, keys)."""
    keywords = {**call.kwargs, "need_weights": True, "average_attn_weights": False, "training": False}
    weights: Tensor = call.func(*call.args, **keywords)[1]
    return weights


def _of_product(call: Call) -> Tensor:
    """Attention weights of a scaled dot-product attention: what it would give with the identity as values."""
    bound = call.arguments
    keys = bound["key"].shape[-2]
    one = torch.eye(keys, dtype=bound["value"].dtype, device=bound["value"].device)
    identity = one.expand(*bound["value"].shape[:-2], keys, keys)
    weights: Tensor = call.func(**{**_as_keywords(bound), "value": identity, "dropout_p": 0.0})
    return weights


_PRODUCTS = those(role="product")


def are_shares(weights: Tensor) -> bool:
    """Whether every row of weights is positive and sums to one."""
    return bool((weights >= 0).all()) and bool(((weights.sum(-1) - 1).abs() < 1e-3).all())


def _alike(value: Tensor, weights: Tensor) -> bool:
    return value.shape[-2:] == weights.shape[-2:] and value.numel() == weights.numel()


class Attentions:
    """Observer that tells of the weights of every attention of a pass, (images, heads, queries, keys), in order.

    ``nn.MultiheadAttention`` and ``scaled_dot_product_attention`` return theirs. Where attention is
    written by hand, a softmax announces it and the next product with a factor of that shape carries it
    out: the factor is the weights, whatever has been done to them in between (heads mixed, a second softmax
    added, rows scaled).
    """

    def __init__(self, tell: Callable[[str, Tensor], None]) -> None:
        self._tell = tell
        self._announced: list[tuple[str, Tensor]] = []

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts: nothing to do."""

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run: tell of its weights if it attends."""
        if call.kind == "multi_head_attention_forward":
            self._tell(call.name, _of_module(call))
        elif call.kind == "scaled_dot_product_attention":
            self._tell(call.name, _of_product(call))
        elif call.kind == "softmax" and isinstance(output, Tensor) and output.dim() in (3, 4):
            if call.arguments["dim"] not in (1, -output.dim() + 1):  # channels of maps
                self._announced.append((call.name, output))
        elif call.kind in _PRODUCTS and self._announced:
            self._carried_out(call)

    def _carried_out(self, call: Call) -> None:
        """A product: where one factor has the shape of weights announced, these are what it applies."""
        factors = call.tensors[0], call.tensors[-1].transpose(-1, -2)  # weights @ v, or v^T @ weights^T
        for weights in sorted(factors, key=lambda factor: not are_shares(factor)):
            found = [name for name, made in self._announced if _alike(made, weights)]
            if found:
                self._announced = [
                    (name, made) for name, made in self._announced if made.shape[-2:] != weights.shape[-2:]
                ]
                self._tell(found[-1], weights)
                return

    def finish(self) -> None:
        """The pass is over: tell of weights that no product has applied, as they are."""
        announced, self._announced = self._announced, []
        for name, weights in announced:
            self._tell(name, weights)

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned: nothing to do."""


def _as_keywords(bound: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in bound.items() if not key.startswith("argument")}
