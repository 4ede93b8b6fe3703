"""The meaning of an output: logits, probabilities, sigmoids or plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from microtome.errors import InputError, ModelError
from microtome.trace.graph import Layer
from microtome.trace.heads.closing_softmax import CLOSINGS, HANDING_ON, closing_of, recorded
from microtome.trace.heads.head import Head, tensors_by_path
from microtome.trace.heads.last_operations import Ending
from microtome.trace.operators.operator_table import WEIGHTED, those
from microtome.trace.tracing.tracer import Tracer

# Operators whose values lie in [0, 1], and those that mix such values: averages, products, choices.
PROBABILITIES = frozenset(("sigmoid", "hardsigmoid", "softmax"))
_HANDED_ON = HANDING_ON | those(role=("selection", "rearrangement", "reduction", "averaging", "pooling"))
_MIXING = those(activation="clipping") | those(
    role=tuple(
        """arithmetic function mask product reduction view rearrangement selection split join copy cast
        repetition""".split()
    )
)


def meaning(
    ending: Ending,
    layers: Mapping[str, Layer],
    value: Tensor,
    path: tuple[str | int, ...],
    rows: Tensor,
    output: str | None,
    bounded: Callable[[], bool],
) -> Head:
    """The head of an output: the meaning of its numbers, and the function that closes it."""
    rows = rows.detach()  # of a model that differentiates itself they carry a graph
    count = int(rows.shape[1])
    node = ending.node_of(value)
    closed = None if output == "value" else closing_of(ending, node, rows)
    if closed is not None:
        squash, _ = CLOSINGS[closed[0]]
        kind = "logits" if squash == "softmax" else "sigmoid"
        if (output, squash) == ("sigmoid", "softmax"):
            raise InputError(
                'output="sigmoid" was given, but the model ends in a softmax; leave output out, or give "logits".'
            )
        if (output, squash) != ("logits", "sigmoid"):
            layer, cut = recorded(ending, layers, closed[1])
            reason = f'logits, which the closing {closed[0]} reads ("{layer}")'
            return Head(count, path, output or kind, squash, layer, closed[0], cut, reason)
    kind, reason = _measured(ending, node, rows, bounded)
    if output is None:
        return Head(count, path, kind, {"logits": "softmax", "sigmoid": "sigmoid"}.get(kind, ""), reason=reason)
    if output == "probabilities" and kind != "probabilities" and not in_range(rows):
        low, high = (float(edge) for edge in rows.aminmax())
        raise InputError(
            f'output="probabilities" was given, but the network gives values from {low:.3g} to {high:.3g}; '
            'use "logits", "sigmoid" or "value".'
        )
    squash = {"logits": "softmax", "sigmoid": "" if kind == "probabilities" else "sigmoid"}.get(output, "")
    return Head(count, path, output, squash, reason=f"{_PLURAL.get(output, output)}, as given")


_PLURAL = {"value": "values", "sigmoid": "logits of a sigmoid"}


def _measured(ending: Ending, node: int | None, rows: Tensor, bounded: Callable[[], bool]) -> tuple[str, str]:
    """The meaning of an output without a closing softmax or sigmoid."""
    several = rows.shape[1] > 1
    wide = rows.double()
    rough = 1e-2 if rows.dtype in (torch.float16, torch.bfloat16) else 1e-4
    if several and in_range(rows) and bool(((wide.sum(1) - 1).abs() < rough).all()):
        return "probabilities", "probabilities, since they lie in [0, 1] and sum to 1 for each image"
    if several and bool((wide <= rough).all()) and bool(((wide.exp().sum(1) - 1).abs() < rough).all()):
        return "logits", "logarithms of probabilities, since their exponentials sum to 1 for each image"
    if several and bool((wide >= -rough).all()) and _same_sums(wide, rough):
        total = float(wide.sum(1)[0])
        return "value", f"values, since they are not negative and sum to {total:.4g} for each image, as shares do"
    if node is not None and in_range(rows) and _of_probabilities(ending, node):
        return (
            "probabilities",
            "probabilities, since they are computed only from sigmoids or softmaxes and lie in [0, 1]",
        )
    if in_range(rows) and not _weighted_sums(ending, node) and bounded():
        return "probabilities", "probabilities, since they stay in [0, 1] for images far outside of the pixel range"
    if several:
        return "logits", "logits, since no softmax or sigmoid closes the model"
    return "value", 'value; give output="sigmoid" (--scores sigmoid) where it is the logit of one class'


def _same_sums(rows: Tensor, rough: float) -> bool:
    """Whether different rows have the same sum, as percentages have."""
    sums = rows.sum(1)
    differ = float((rows - rows[:1]).abs().max()) > 100 * rough * float(rows.abs().max())
    return len(rows) > 1 and differ and float((sums - sums[0]).abs().max()) <= rough * float(sums[0].abs())


def stays_in_range(model: nn.Module, images: Tensor, path: tuple[str | int, ...]) -> bool:
    """Whether outputs change but stay in [0, 1] for images far outside their range."""
    found: list[Tensor] = []
    try:
        stretched = [factor * images[:2] for factor in (1e2, -1e2, 1e4, -1e4)]  # small weights need the larger factors
        for image in torch.cat(stretched).split(1):
            rows = _alone(model, image, path)
            if rows is not None and found and not bool(rows.isfinite().all()):
                continue  # beyond the range of half precision
            if rows is not None and not (bool(rows.isfinite().all()) and in_range(rows)):
                return False  # logits usually leave the range at the first image
            found += [] if rows is None else [rows]
    except (ModelError, RuntimeError):
        return False
    returned = torch.cat(found) if found else images.new_zeros(1)
    return float(returned.max() - returned.min()) > 1e-3


def _alone(model: nn.Module, image: Tensor, path: tuple[str | int, ...]) -> Tensor | None:
    value = dict(tensors_by_path(Tracer(model)(image))).get(path)
    return None if value is None else value.detach().reshape(-1)


def _weighted_sums(ending: Ending, node: int | None) -> bool:
    """Whether an output is that of a linear layer: if its inputs are bounded, its range is due to its weights."""
    while node is not None and ending.nodes[node].kind in _HANDED_ON and len(ending.nodes[node].inputs) == 1:
        node = ending.nodes[node].inputs[0]
    return node is not None and ending.nodes[node].kind in WEIGHTED


def _of_probabilities(ending: Ending, node: int) -> bool:
    """Whether a value is a mixture of sigmoids and softmaxes alone."""
    waiting, seen = [node], {node}
    any_found = False
    while waiting:
        at = waiting.pop()
        operation = ending.nodes[at]
        if operation.kind in PROBABILITIES:
            any_found = True
            continue
        if operation.kind not in _MIXING or not operation.inputs:
            return False
        fresh = [source for source in operation.inputs if source not in seen]
        seen.update(fresh)
        waiting += fresh
    return any_found


def in_range(rows: Tensor) -> bool:
    """Whether all numbers lie in [0, 1], up to rounding."""
    low, high = (float(edge) for edge in rows.aminmax())
    return low >= -1e-6 and high <= 1 + 1e-6
