"""Relevance of sums: each term gets its share, and constants absorb theirs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from microtome.trace.backward_rules import BackwardRule, Operation
from microtome.trace.lrp.account import Account, proportional
from microtome.trace.lrp.products import reduced
from microtome.trace.lrp.rules import stabilised
from microtome.trace.operators.nested_tensors import substitute

# Sums that may hold constants: linear in the first and the named argument.
ADDING = {"lerp": 1, "index_add": 3, "scatter_add": 3}


def terms(account: Account, operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
    """A sum or difference: each term gets its share, and constants absorb theirs."""
    bound, z = operation.call.arguments, operation.output
    first, second = {"add": (1.0, 1.0), "sub": (1.0, -1.0), "rsub": (-1.0, 1.0)}[operation.call.kind]
    quotient = arriving / stabilised(z, account.epsilon(operation))
    scaled = float(bound["alpha"])
    parts = ((bound["input"], first * scaled), (bound["other"], second)) if first < 0 else (
        (bound["input"], first), (bound["other"], second * scaled)
    )  # fmt: skip
    sent: list[tuple[Tensor, Tensor]] = []
    constant: Tensor | None = None
    for value, factor in parts:
        part = value * quotient if factor == 1 else (factor * value) * quotient
        if any(value is one for one in operation.inputs):
            sent.append((value, reduced(part, value.shape)))
        else:
            constant = part if constant is None else constant + part
    account.book_places(operation, bias=constant, stabiliser=arriving - z * quotient)
    return operation.back(*sent)


def added(account: Account, unknown: BackwardRule, operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
    """A sum written as one operation; the added value may be a constant, and the weight of lerp is a constant."""
    named = operation.call.arguments
    values = [
        named["input"],
        named.get(f"argument{ADDING[operation.call.kind]}", named.get("end", named.get("src"))),
    ]
    takers = [value for value in values if any(value is one for one in operation.inputs)]
    none = {id(value): torch.zeros_like(value) for value in takers}
    if not takers:
        return unknown(operation, arriving)
    return proportional(account, operation, arriving, takers, constant=operation.again(none))


def mean_of_two(
    account: Account, unknown: BackwardRule, operation: Operation, arriving: Tensor
) -> tuple[Tensor | None, ...]:
    """Variance and mean: only the mean can take relevance, in proportion to its terms."""
    if bool(arriving.any()):  # the signal at the variance output
        return unknown(operation, arriving)
    x = operation.call.input
    mean = operation.call.func(*operation.call.args, **operation.call.kwargs)[1]
    alone = replace(operation, output=mean)

    def run(swap: dict[int, Tensor]) -> Tensor:
        call = operation.call
        again: Tensor = call.func(*substitute(call.args, swap), **substitute(call.kwargs, swap))[1]
        return again

    signal = operation.signals[1].to(mean.dtype)
    return proportional(account, alone, signal, [x], run=run)
