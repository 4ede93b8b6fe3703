"""Find the softmax or sigmoid that closes a model, in any spelling, and the scores that it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from microtome.trace.graph import Layer
from microtome.trace.heads.head import as_rows
from microtome.trace.heads.last_operations import TIGHT, Ending
from microtome.trace.operators.operator_table import those

CLOSINGS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "softmax": ("softmax", lambda x: x.softmax(1)),
    "log_softmax": ("softmax", lambda x: x.log_softmax(1)),
    "sigmoid": ("sigmoid", torch.sigmoid),
    "log_sigmoid": ("sigmoid", nn.functional.logsigmoid),
}


# Operators that pass values on: their input is the same score, and often the value of a module.
HANDING_ON = those(role=("view", "copy", "cast"))


def closing_of(ending: Ending, node: int | None, rows: Tensor) -> tuple[str, int] | None:
    """The softmax or sigmoid, in any spelling, that computes the output, and the value that it reads."""
    # An output of unseen code, such as a scripted function, may be computed from any of the last values.
    before = sorted(ending.value if node is None else ending.behind(node), reverse=True)
    for source in before:
        read = None if source not in ending.value else as_rows(ending.value[source], len(rows), rows.shape[1])
        if read is None or torch.equal(read, rows):
            continue
        between = [] if node is None else [node, *(one for one in before if one > source)]
        if any(ending.nodes[one].bends for one in between):
            break
        if node is not None and not _all_through(ending, source, node):
            continue
        for closing in CLOSINGS:
            if _gives(closing, read, rows):
                return closing, _handed_on(ending, source, closing, rows)
    return None


def _all_through(ending: Ending, source: int, node: int) -> bool:
    """Whether a value is computed from one other value alone: then equal numbers are no coincidence."""
    waiting, seen = [node], {node}
    while waiting:
        operation = ending.nodes[waiting.pop()]
        if not operation.inputs:  # computed from weights alone, or from the images
            return False
        for one in operation.inputs:
            if one < source:
                return False
            if one != source and one not in seen:
                seen.add(one)
                waiting.append(one)
    return True


def _gives(closing: str, read: Tensor, rows: Tensor) -> bool:
    if rows.shape[1] == 1 and "softmax" in closing:
        return False  # the softmax of one class is always 1
    expected = CLOSINGS[closing][1](read.double())
    exact = 1e-2 if rows.dtype in (torch.float16, torch.bfloat16) else 2 * TIGHT if "log" not in closing else 1e-4
    clear = 1e-2 if rows.dtype in (torch.float16, torch.bfloat16) else 1e-5
    away = (expected - rows.double()).abs() / (1 + rows.double().abs())
    # Of every image: the scores of a gray one may also be those of its mirror image.
    return bool((away <= exact).all()) and bool((away.median(1).values <= clear).all())


def _handed_on(ending: Ending, node: int, closing: str, rows: Tensor) -> int:
    """The value before operations that pass the scores on unchanged, or shift all scores of an image by one number."""
    while len(ending.nodes[node].inputs) >= 1:
        kind, before = ending.nodes[node].kind, ending.nodes[node].inputs[0]
        value = ending.value.get(before)
        read = None if value is None else as_rows(value, len(rows), rows.shape[1])
        same = as_rows(ending.value[node], len(rows), rows.shape[1])
        if read is None or same is None:
            break
        unchanged = kind in HANDING_ON and read.dtype == same.dtype and torch.equal(read, same)
        if not unchanged and not (kind in ("log_softmax", "sub") and _gives(closing, read, rows)):
            break
        node = before
    return node


def recorded(ending: Ending, layers: Mapping[str, Layer], node: int) -> tuple[str, str]:
    """The name under which a value is recorded (a module's if possible), and the first operation that reads it."""
    operation, cut = ending.nodes[node], ending.reader.get(node, "")
    if not operation.recordable:  # one of several values of an operation
        return f"{cut}@input", cut
    owner = next((one.name for one in layers.values() if one.leaf and one.operation == operation.name), operation.name)
    return owner, cut
