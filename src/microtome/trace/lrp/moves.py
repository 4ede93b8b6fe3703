"""Relevance through operators that move, choose, repeat or overwrite values: it moves along with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from microtome.trace.backward_rules import Operation
from microtome.trace.lrp.account import Account
from microtome.trace.operators import Call

# Values are only moved, chosen or repeated: the gradient moves the relevance along.
MOVES = frozenset(
    """view reshape flatten unflatten permute transpose movedim t T mT H mH squeeze unsqueeze contiguous to float half
    double bfloat16 type type_as clone identity dropout getitem chunk split unbind narrow select index_select roll
    max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d fractional_max_pool2d
    max_unpool1d max_unpool2d max_unpool3d amax amin max min aminmax topk sort msort median nanmedian kthvalue mode
    cummax cummin expand expand_as repeat channel_shuffle detach pixel_shuffle pixel_unshuffle flip view_as alias tile
    repeat_interleave unfold gather reshape_as ravel broadcast_to broadcast_tensors atleast_1d atleast_2d atleast_3d
    tensor_split split_with_sizes hsplit vsplit dsplit rot90 fliplr flipud diagonal take take_along_dim masked_select
    native_channel_shuffle cpu cuda as_strided swapaxes swapdims adjoint nested_to_padded_tensor requires_grad_
    unsafe_chunk unsafe_split triu_indices lift_fresh set view_copy slice detach_copy""".split()
)
# Values are put together with others, which may be constants.
WRITES = frozenset(
    """cat stack hstack vstack dstack column_stack row_stack pad constant_pad_nd setitem copy fill zero where
    masked_fill masked_scatter index_put index_fill index_copy put scatter slice_scatter select_scatter
    diagonal_scatter tril triu
    diag diag_embed diagonal_copy block_diag meshgrid""".split()
)
_ALWAYS = frozenset("fill zero masked_fill index_fill tril triu diag diag_embed block_diag constant_pad_nd".split())


def mixes_in_constants(call: Call) -> bool:
    """Whether a constant may stand at places of the result, where the gradient alone would lose what arrives."""
    if call.kind in _ALWAYS:
        return True
    if call.kind == "pad":
        return str(call.arguments["mode"]) == "constant"
    if any(not value.requires_grad for value in call.tensors if value.is_floating_point()):
        return True
    sources = {"where": ("input", "other"), "setitem": ("value",), "scatter": ("argument3", "value", "src")}
    return any(isinstance(call.arguments.get(name), int | float) for name in sources.get(call.kind, ()))


def moved(account: Account, operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
    r"""Relevance goes where the value came from; what arrives at a constant is booked.

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
