"""Sparse propagation of local image changes: patches over one shared base pass, exact."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from microtome.errors import OpaqueError
from microtome.trace.backward_rules import RuleSet
from microtome.trace.delta.patched import Patched, column, positions, rectangles
from microtome.trace.operators.conv_arithmetic import pair, sides
from microtome.trace.operators.nested_tensors import substitute, tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those
from microtome.trace.tracing.tracer import Tracer

if TYPE_CHECKING:
    from microtome.network import Network

# Pointwise operators: each position is computed from that position alone (so does batch norm in evaluation).
_POINTWISE = those(role=("activation", "function"))
_SAME_VALUE = those(role="copy")
_WINDOWED = frozenset(("conv2d", "max_pool2d", "avg_pool2d"))
# Queries that a stand-in answers correctly, because it has the shape and type of the value.
_ANSWERED = frozenset(
    "size dim ndimension numel nelement is_floating_point is_complex get_device len type is_inference".split()
)
_ATTRIBUTES = frozenset("_version shape dtype device ndim layout is_cuda is_sparse is_quantized is_mps".split())

# Above this share of the map, a full computation costs no more than cutting out patches and computing those.
DENSE_FROM = 0.85


@dataclass(frozen=True)
class _Base:
    """A value of the unchanged image, the call that made it, and the objects whose ids it uses, kept alive."""

    made_from: tuple[Any, Any]
    kept: tuple[Any, ...]
    value: Tensor


Bases = dict[str, _Base]


class Windows(RuleSet):
    """Propagate patches through a model; an unknown operator runs on full values, so the result is always exact.

    The model runs on stand-ins: tensors of the right shape without content. An operation on
    stand-ins is computed on base and patches where the operator is known (convolution, pooling,
    pointwise functions, batch norm, sums and concatenations), and on the full values otherwise.
    """

    name = "windows"
    # The model runs with gradients enabled, though none is taken; the values themselves have none.
    differentiable = True

    def __init__(self, dense_from: float = DENSE_FROM, bases: Bases | None = None) -> None:
        super().__init__()
        self._dense_from = dense_from
        self._bases: Bases = {} if bases is None else bases
        self._known: dict[int, tuple[Tensor, Patched | Tensor]] = {}

    def stand_in(self, value: Patched) -> Tensor:
        """A tensor without content that passes through the model in place of a value."""
        batch = len(value.patch)
        with torch.enable_grad():  # the output of an unseen function on a stand-in is detected by its gradient
            shell = value.base.new_empty(1).requires_grad_().expand(batch, *value.base.shape[1:])
        self._known[id(shell)] = (shell, value)
        return shell

    def content(self, value: Tensor) -> Tensor:
        """The full value behind a tensor, whether it is a stand-in or itself."""
        held = self._known.get(id(value), (value, value))[1]
        if held is value and value.requires_grad:
            self.opaque("a function that does not run in Python")
        if isinstance(held, Patched):
            held = held.dense()
            self._known[id(value)] = (value, held)
        return held

    def run(self, call: Call) -> Any:
        """Run one operation on patches if its rule is known, else on full values."""
        read = call.tensors
        held = {id(tensor): self._known[id(tensor)][1] for tensor in read if id(tensor) in self._known}
        if any(tensor.requires_grad and id(tensor) not in held for tensor in read):
            self.opaque("a function that does not run in Python")
        if call.kind == "grad":
            self.opaque("a gradient that the model takes itself")
        if not held:
            return call.run()
        subject = held.get(id(call.input))
        handler = _HANDLERS.get(call.kind)
        if isinstance(subject, Patched) and handler is not None:
            result = handler(self, call, subject)
            if result is not None:
                if call.inplace:
                    self._known[id(call.input)] = (call.input, result)
                    return call.input
                return self.stand_in(result)
        full = {id(tensor): self.content(tensor) for tensor in read}
        output = call.func(*substitute(call.args, full), **substitute(call.kwargs, full))
        back = {id(full[id(tensor)]): tensor for tensor in read}
        return substitute(output, back)  # an in-place call returns the stand-in that it received

    def ask(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a query about a tensor: from its shape if that is enough, else from its full value."""
        name = getattr(func, "__name__", "").strip("_")
        getter = getattr(getattr(func, "__self__", None), "__name__", "")
        if name in _ANSWERED or (name == "get" and getter in _ATTRIBUTES):
            return func(*args, **kwargs)
        full = {id(tensor): self.content(tensor) for tensor in tensors((args, kwargs))}
        return func(*substitute(args, full), **substitute(kwargs, full))

    # -- operators: each returns None if the full computation is right or cheaper --------------------------------

    def _base(self, call: Call, make: Callable[[], Tensor], part: str = "") -> Tensor:
        """A value of the untouched image: the same for every pass, so made in the first one.

        A model that takes another way in a later pass calls other functions on other values, and gets its own.
        """
        read = {id(x): self._ground(x) for x in call.tensors}
        made_from = (call.func, _frozen((call.args, call.kwargs), read))
        found = self._bases.get(call.name + part)
        if found is None or found.made_from != made_from:
            found = self._bases[call.name + part] = _Base(made_from, (call, *read.values()), make())
        return found.value

    def _ground(self, value: Tensor) -> Tensor:
        """The shared base of a stand-in, and any other tensor itself."""
        held = self._known.get(id(value), (value, value))[1]
        if held is value and value.requires_grad:
            self.opaque("a function that does not run in Python")
        return held.base if isinstance(held, Patched) else held

    def _through(self, call: Call, value: Patched) -> Patched:
        """The same call on base and patches; the base may be another pass's too and is not written on."""
        base = self._base(call, lambda: self._again(call, value.base.clone() if call.inplace else value.base))
        return value.like(base, self._again(call, value.patch))

    def _again(self, call: Call, x: Tensor) -> Tensor:
        """The same call on another tensor."""
        swap = {id(call.input): x}
        result: Tensor = call.func(*substitute(call.args, swap), **substitute(call.kwargs, swap))
        return result

    def _pointwise(self, call: Call, value: Patched) -> Patched | None:
        if len(call.tensors) > 1 and call.kind != "prelu":
            return None
        return self._through(call, value)

    def _batch_norm(self, call: Call, value: Patched) -> Patched | None:
        bound = call.arguments
        if bound["training"] or bound["running_mean"] is None:
            return None
        return self._through(call, value)

    def _pad(self, call: Call, value: Patched) -> Patched | None:
        border = [int(side) for side in call.arguments["pad"]]
        if str(call.arguments["mode"]) != "constant" or len(border) != 4 or min(border) < 0:
            return None
        shift = column((border[2], border[0]), value.first)
        base = self._base(call, lambda: self._again(call, value.base))
        return Patched(base, value.patch, value.corner + shift, value.first + shift, value.last + shift)

    def _arithmetic(self, call: Call, value: Patched) -> Patched | None:
        other = call.arguments["other"]
        if not isinstance(other, Tensor) or (id(other) not in self._known and _no_extent(other)):
            return self._through(call, value)
        found = self._known.get(id(other))
        if found is None or not isinstance(found[1], Patched) or call.input is other:
            return None
        second = found[1]
        joined = self._joined([value, second])
        if joined is None:
            return None
        (a, b), place = joined
        scaled = {} if call.arguments.get("alpha") in (None, 1) else {"alpha": call.arguments["alpha"]}
        function = getattr(torch, call.kind)
        base = self._base(call, lambda: function(value.base, second.base, **scaled))
        return Patched(base, function(a, b, **scaled), *place)

    def _concatenate(self, call: Call, value: Patched) -> Patched | None:
        parts = [self._known[id(part)][1] for part in tensors(call.args[:1]) if id(part) in self._known]
        patched = [part for part in parts if isinstance(part, Patched)]
        whole = len(tensors(call.args[:1]))
        if len(patched) != whole or whole == 0 or int(call.arguments["dim"]) not in (1, -3):
            return None
        joined = self._joined(patched)
        if joined is None:
            return None
        base = self._base(call, lambda: torch.cat([part.base for part in patched], 1))
        return Patched(base, torch.cat(joined[0], 1), *joined[1])

    def _joined(self, values: list[Patched]) -> tuple[list[Tensor], tuple[Tensor, Tensor, Tensor]] | None:
        """Patches of several values on one common rectangle each, and where these are."""
        if len({value.size for value in values}) != 1:
            return None
        first = torch.stack([value.first for value in values]).amin(0)
        last = torch.stack([value.last for value in values]).amax(0)
        whole = values[0].size
        corner, size = rectangles(first, last, whole)
        if self._dense(size, whole):
            return None
        return [self._on(value, corner, size) for value in values], (corner, first, last)

    def _dense(self, size: tuple[int, int], whole: tuple[int, int]) -> bool:
        return size[0] * size[1] >= self._dense_from * whole[0] * whole[1]

    @staticmethod
    def _on(value: Patched, corner: Tensor, size: tuple[int, int]) -> Tensor:
        same = value.patch.shape[2:] == size and torch.equal(value.corner, corner)
        return value.patch if same else value.region(corner, size)

    def _windowed(self, call: Call, value: Patched) -> Patched | None:
        """A convolution or pooling: the outputs that see the patch, from the inputs that they see."""
        sliding = _sliding(call)
        if sliding is None:
            return None
        kernel, stride, padding, dilation, blank, apply = sliding
        if kernel == stride == (1, 1) and not any(padding):
            return value.like(self._base(call, lambda: apply(value.base, (0, 0))), apply(value.patch, (0, 0)))
        base = self._base(call, lambda: apply(value.base, padding))
        goal = (int(base.shape[2]), int(base.shape[3]))
        reach = [dilation[axis] * (kernel[axis] - 1) for axis in (0, 1)]
        step, before, span = (column(numbers, value.first) for numbers in (stride, padding, reach))
        first = torch.div(value.first + before - span + step - 1, step, rounding_mode="floor").clamp(min=0)
        last = torch.div(value.last + before, step, rounding_mode="floor")
        last = torch.minimum(last, column(goal, last) - 1)
        first = torch.minimum(first, last)  # a stride may skip all changed positions
        corner, size = rectangles(first, last, goal)
        if self._dense(size, goal):
            return None
        # With ceil_mode the last pooling window may extend beyond the padded map.
        over = [max(0, (goal[a] - 1) * stride[a] + reach[a] + 1 - value.size[a] - 2 * padding[a]) for a in (0, 1)]
        border = (padding[1], padding[1] + over[1], padding[0], padding[0] + over[0])
        padded = value.base
        if any(border):
            padded = self._base(call, lambda: functional.pad(value.base, border, value=blank), "@padded")
        needed = [(size[axis] - 1) * stride[axis] + reach[axis] + 1 for axis in (0, 1)]
        tile = value.region(corner * step, (needed[0], needed[1]), padded, padding)
        return Patched(base, apply(tile, (0, 0)), corner, first, last)


# Module-level, not bound methods: a reference cycle would keep the values of a pass until garbage collection.
_HANDLERS: dict[str, Callable[[Windows, Call, Patched], Patched | None]] = {
    **dict.fromkeys(_POINTWISE, Windows._pointwise),
    **dict.fromkeys(_WINDOWED, Windows._windowed),
    **dict.fromkeys(_SAME_VALUE, lambda rules, call, value: value),
    **dict.fromkeys(("add", "sub", "mul", "div"), Windows._arithmetic),
    "batch_norm": Windows._batch_norm,
    "pad": Windows._pad,
    "cat": Windows._concatenate,
}


@torch.no_grad()
def logits_under(net: Network, image: Tensor, boxes: Tensor, fill: Tensor, batch: int) -> Tensor:
    """Class scores of one image with each of many boxes covered.

    Parameters
    ----------
    net : Network
        The network.
    image, fill : Tensor
        (1, C, H, W) in pixel space: the image and what covers it.
    boxes : Tensor
        (n, 4): top, left, bottom, right, all of one size.
    batch : int
        Boxes in one pass.

    Returns
    -------
    Tensor
        Logits, (n, K), in float32 or better.

    Notes
    -----
    Cost: one pass over the image, kept for all batches, and per box what its patch can reach; where
    patches grow to most of a map it is computed in full. A model with a function that the engine does not
    see (a scripted function, ``torch.vmap``) is run on whole covered images.
    """
    try:
        found = _propagated(net, image, boxes, fill, batch)
    except OpaqueError:
        found = _plain(net, image, boxes, fill, batch)
    return found if found.dtype == torch.float64 else found.float()


def covered(image: Tensor, boxes: Tensor, fill: Tensor) -> Tensor:
    """One image (1, C, H, W) with each of the boxes (n, 4) covered by ``fill``, (n, C, H, W)."""
    rows = torch.arange(image.shape[2], device=image.device)[:, None]
    columns = torch.arange(image.shape[3], device=image.device)
    top, left, bottom, right = boxes.to(image.device).T[:, :, None, None]
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    return torch.where(inside[:, None], fill, image)


def _plain(net: Network, image: Tensor, boxes: Tensor, fill: Tensor, batch: int) -> Tensor:
    """The scores by plain passes over covered images."""
    return torch.cat([net.logits(covered(image, some, fill), check=False) for some in boxes.split(batch)])


def _propagated(net: Network, image: Tensor, boxes: Tensor, fill: Tensor, batch: int) -> Tensor:
    base, cover = net.normalise(image), net.normalise(fill)
    boxes, whole = boxes.to(base.device), (int(base.shape[2]), int(base.shape[3]))
    bases: Bases = {}
    groups, parts = list(_alike(boxes, whole, batch)), []
    for group in groups:
        first, last = boxes[group, :2].T, boxes[group, 2:].T - 1
        corner, size = rectangles(first, last, whole)
        patch = cover.flatten(2)[0, :, positions(corner, size, int(cover.shape[3]))].transpose(0, 1)
        rules = Windows(bases=bases)
        tracer = Tracer(net.model, net.head.record, rules=rules)
        output = tracer(rules.stand_in(Patched(base, patch, corner, first, last)))
        parts.append(net.head.scores(tracer, output, len(patch)))
    return torch.cat(parts)[torch.cat(groups).argsort()]


def _alike(boxes: Tensor, size: tuple[int, int], most: int) -> Iterator[Tensor]:
    """Indices of boxes, grouped by distance from the edges: the edges crop the patches of a group alike."""
    rows, columns = ((boxes[:, axis] + boxes[:, 2 + axis] - size[axis]).abs() for axis in (0, 1))
    bands = max(1, round(math.sqrt(len(boxes) / most)))
    for band in rows.argsort(stable=True).tensor_split(bands):
        ordered = band[columns[band].argsort(stable=True)]
        yield from ordered.tensor_split(math.ceil(len(ordered) / most))


Apply = Callable[[Tensor, tuple[int, int]], Tensor]


def _sliding(
    call: Call,
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int], float, Apply] | None:
    """Kernel, stride, padding, dilation and blank of a window operator, and how to run it with another padding."""
    bound = call.arguments
    if call.kind == "conv2d":
        weight, dilation, stride = bound["weight"], pair(bound["dilation"]), pair(bound["stride"])
        kernel = (int(weight.shape[2]), int(weight.shape[3]))
        around = sides(bound["padding"], kernel, dilation)
        if any(before != behind for before, behind in around):
            return None
        padding = around[0][0], around[1][0]

        def convolve(x: Tensor, pad: tuple[int, int]) -> Tensor:
            return functional.conv2d(x, weight, bound["bias"], stride, pad, dilation, int(bound["groups"]))

        return kernel, stride, padding, dilation, 0.0, convolve
    if bound.get("return_indices"):
        return None
    kernel = pair(bound["kernel_size"])
    stride = kernel if bound["stride"] in (None, [], ()) else pair(bound["stride"])
    padding = pair(bound["padding"])
    if call.kind == "max_pool2d":
        dilation = pair(bound["dilation"])

        def maximum(x: Tensor, pad: tuple[int, int]) -> Tensor:
            return functional.max_pool2d(x, kernel, stride, pad, dilation, bool(bound["ceil_mode"]))

        return kernel, stride, padding, dilation, float("-inf"), maximum
    if bound.get("ceil_mode") or (any(padding) and not bound["count_include_pad"]):
        return None  # windows at the edge are divided by fewer values

    def average(x: Tensor, pad: tuple[int, int]) -> Tensor:
        return functional.avg_pool2d(x, kernel, stride, pad, divisor_override=bound["divisor_override"])

    return kernel, stride, padding, (1, 1), 0.0, average


def _frozen(tree: Any, read: dict[int, Tensor]) -> Any:
    """Arguments in a form that can be compared: tensors and other objects by identity."""
    if isinstance(tree, Tensor):
        return id(read[id(tree)])
    if isinstance(tree, list | tuple):
        return tuple(_frozen(item, read) for item in tree)
    if isinstance(tree, dict):
        return tuple((key, _frozen(item, read)) for key, item in tree.items())
    return tree if isinstance(tree, int | float | str | None) else ("object", id(tree))


def _no_extent(value: Tensor) -> bool:
    """A constant that is the same at every position."""
    return value.dim() == 0 or (value.dim() in (3, 4) and value.shape[-2:] == (1, 1) and value.shape[:-3].numel() == 1)
