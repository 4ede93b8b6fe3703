"""How each operator carries the axes of images, units, rows and columns from its inputs to its outputs: the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from microtome.trace.axes import layer_rules, move_rules
from microtome.trace.axes.axis_labels import WEIGHT, Known, Labels, Size, alike, resized
from microtome.trace.axes.value_axes import COLUMN, PLACE, ROW, Factor
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those


def carried(call: Call, known: Callable[[Any], Known], outputs: list[Tensor], step: int) -> list[Labels | None]:
    """Labels of an operation's outputs.

    Parameters
    ----------
    call : Call
        The operation.
    known : function
        Shape and labels of any tensor among its arguments.
    outputs : list of Tensor
        Outputs of the operation.
    step : int
        Its number in the pass.
    """
    read = [known(value) for value in call.tensors]
    if all(one.labels is None for one in read):
        return [None] * len(outputs)
    rule = _RULES.get(call.kind)
    found: list[Labels | None] = []
    for place, output in enumerate(outputs):
        shape = tuple(output.shape)
        try:
            labels = None if rule is None else rule(call, known, shape, step)
        except (IndexError, KeyError, TypeError, ValueError, AttributeError):  # arguments in a form unknown to the rule
            labels = None
        if labels is not None and len(labels.axes) != len(shape):
            labels = None
        if labels is None or (place and call.kind in ("multi_head_attention_forward", "lstm", "gru")):
            labels = alike(read, shape)
        found.append(_fitted(labels, shape, step, shuffled=call.kind in _SHUFFLING))
    return found


# They change the order of positions and keep their number.
_SHUFFLING = frozenset(
    "roll flip fliplr flipud rot90 sort argsort gather index_select take_along_dim scatter topk renorm".split()
)


def _fitted(labels: Labels | None, shape: Size, step: int, *, shuffled: bool) -> Labels | None:
    """Labels with the sizes of the axes: an axis with a new length keeps its role if it has only one."""
    if labels is None:
        return None
    axes = [resized(axis, size) for axis, size in zip(labels.axes, shape, strict=True)]
    return Labels(tuple(tuple(_dated(f, step, shuffled=shuffled) for f in axis) for axis in axes), labels.since)


def _dated(f: Factor, step: int, *, shuffled: bool) -> Factor:
    """Rearranged positions get this operation as their origin."""
    if shuffled and f.role in (ROW, COLUMN, PLACE):
        return Factor(PLACE, f.size, 1, step)
    if f.origin == WEIGHT:
        return Factor(PLACE, f.size, f.step, WEIGHT - step)  # another weight has other positions
    return Factor(PLACE, f.size, f.step, step) if f.role == PLACE and not f.origin else f


_TRANSFORMS = those(role="transform") - {"fft_fftshift", "fft_ifftshift"}  # which move frequencies

Rule = Callable[[Call, Callable[[Any], Known], Size, int], Labels | None]


_RULES: dict[str, Rule] = {
    **dict.fromkeys([f"conv{d}d" for d in "123"] + [f"conv_transpose{d}d" for d in "123"], layer_rules.convolution),
    **dict.fromkeys(("linear", "addmm", "bilinear"), layer_rules.linear),
    **dict.fromkeys(("batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm"), layer_rules.norm),
    **dict.fromkeys(("matmul", "mm", "bmm", "baddbmm"), layer_rules.product),
    "scaled_dot_product_attention": layer_rules.attention,
    **dict.fromkeys(("multi_head_attention_forward", "lstm", "gru", "rnn_tanh", "rnn_relu"), layer_rules.multi_head),
    "einsum": layer_rules.einsum,
    **dict.fromkeys(("tensordot", "inner"), layer_rules.contracted),
    **dict.fromkeys(_TRANSFORMS, layer_rules.transform),
    "embedding": layer_rules.embedding,
    **dict.fromkeys(
        "view reshape flatten unflatten squeeze unsqueeze ravel view_as reshape_as".split(), move_rules.reshape
    ),
    **dict.fromkeys("permute transpose movedim t T mT adjoint H mH".split(), move_rules.permuted),
    **dict.fromkeys("expand expand_as broadcast_to repeat tile".split(), move_rules.expanded),
    "repeat_interleave": move_rules.interleaved,
    **dict.fromkeys(
        """mean sum amax amin max min var std norm prod logsumexp median any all argmax argmin nansum count_nonzero
        vector_norm linalg_vector_norm var_mean std_mean unbind nanmean quantile select cosine_similarity""".split(),
        move_rules.reduced,
    ),
    "getitem": move_rules.selected,
    "setitem": move_rules.written,
    "cat": move_rules.concatenated,
    "stack": move_rules.stacked,
    "unfold": move_rules.unfolded,
    "fold": move_rules.folded,
}  # fmt: skip
