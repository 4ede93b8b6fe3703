"""Relevance through operators that move, select, repeat or overwrite values: it moves with the values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from microtome.trace.backward_rules import Operation
from microtome.trace.lrp.account import Account
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those

# Values are only moved, chosen or repeated: the gradient moves the relevance along.
MOVES = (
    those(role=("view", "rearrangement", "selection", "split", "copy", "cast", "repetition"), function="identity")
    | those(role=("pooling", "reduction", "selection"), function="piecewise")
    | those(role="resampling", function="identity")
)
# Values are joined with others, which may be constants.
WRITES = those(role=("join", "padding", "mask")) | those(role="writing", function="identity")
_ALWAYS = frozenset("fill zero masked_fill index_fill tril triu diag diag_embed block_diag constant_pad_nd".split())


def mixes_in_constants(call: Call) -> bool:
    """Whether the result may contain constants, whose relevance the gradient alone would lose."""
    if call.kind in _ALWAYS:
        return True
    if call.kind == "pad":
        return str(call.arguments["mode"]) == "constant"
    if any(not value.requires_grad for value in call.tensors if value.is_floating_point()):
        return True
    sources = {"where": ("input", "other"), "setitem": ("value",), "scatter": ("argument3", "value", "src")}
    return any(isinstance(call.arguments.get(name), int | float) for name in sources.get(call.kind, ()))


def moved(account: Account, operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
    r"""Relevance goes where the value came from; the relevance of a constant is recorded in the account.

    Each place of the result is a place of an input or a constant. The column sums of the Jacobian,
    :math:`J^\top 1`, are 1 for the former and 0 for the latter.
    """
    with torch.enable_grad():
        leaves = [value.detach().requires_grad_() for value in operation.inputs]
        signal = arriving.detach().requires_grad_()
        swap = {id(value): leaf for value, leaf in zip(operation.inputs, leaves, strict=True)}
        again = operation.again(swap)
        sent: Sequence[Tensor | None] = torch.autograd.grad(again, leaves, signal, create_graph=True, allow_unused=True)
        reached = [part for part in sent if part is not None]
        total = sum((part.sum() for part in reached), start=signal.new_zeros(()))
        passed = torch.autograd.grad(total, signal, allow_unused=True)[0] if total.requires_grad else None
    passed = torch.zeros_like(arriving) if passed is None else passed
    account.book_places(operation, bias=arriving * (1 - passed))
    pairs = zip(operation.inputs, sent, strict=True)
    return operation.back(*((value, part.detach()) for value, part in pairs if part is not None))


def glued(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
    """Gated linear unit, a * sigmoid(b): all to a, as in the product that it stands for."""
    x = operation.inputs[0]
    dim = int(operation.call.arguments["dim"])
    return operation.back((x, torch.cat([arriving, torch.zeros_like(arriving)], dim)))
