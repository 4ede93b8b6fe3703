"""What changes when only a window of the image does? Patches carried over one shared base pass, exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from microtome.trace.folding import folded
from microtome.trace.geometry import pair, sides
from microtome.trace.graph import logits_of
from microtome.trace.operators import RECTIFIERS, Call, substitute, tensors
from microtome.trace.rules import RuleSet
from microtome.trace.tape import as_logits
from microtome.trace.tracer import Tracer

if TYPE_CHECKING:
    from microtome.network import Network

# Operators that act on every position by itself (batch norm in evaluation is one).
_POINTWISE = RECTIFIERS | frozenset(
    "sigmoid tanh hardsigmoid clamp clamp_min clamp_max threshold hardtanh softsign neg abs square exp".split()
)
_SAME_VALUE = frozenset(("dropout", "identity", "contiguous", "clone"))
_WINDOWED = frozenset(("conv2d", "max_pool2d", "avg_pool2d"))
# Questions that a stand-in answers rightly, since it has the shape and type of the value.
_ANSWERED = frozenset(
    "size dim ndimension numel nelement is_floating_point is_complex get_device len type is_inference".split()
)
_ATTRIBUTES = frozenset(
    "_version shape dtype device ndim layout is_cuda requires_grad is_sparse is_quantized is_mps".split()
)

# From this share of the map on, computing all of it costs no more than computing the patches.
DENSE_FROM = 0.5


@dataclass
class Patched:
    """A batch of values that differ from one shared base inside one rectangle each.

    Attributes
    ----------
    base : Tensor
        (1, C, H, W), the value for the untouched image.
    patch : Tensor
        (B, C, h, w), the value inside the rectangles, all of one size.
    top, left : Tensor
        (B,), where the rectangles begin.
    """

    base: Tensor
    patch: Tensor
    top: Tensor
    left: Tensor

    def dense(self) -> Tensor:
        """All values in full, (B, C, H, W)."""
        height, width = self.base.shape[2:]
        zero = torch.zeros_like(self.top)
        return self.region(zero, zero, int(height), int(width))

    def region(self, top: Tensor, left: Tensor, height: int, width: int, padded: Tensor | None = None) -> Tensor:
        """Values in other rectangles, (B, C, height, width), whose corners count from those of ``padded``."""
        ground = self.base if padded is None else padded
        shift = (0, 0) if padded is None else _shift(self.base, padded)
        rows_of = _positions(top, left, height, width, int(ground.shape[3]))
        channels = ground.shape[1]
        flat = ground.permute(0, 2, 3, 1).reshape(-1, channels)
        out = flat.index_select(0, rows_of.flatten())
        h, w = self.patch.shape[2:]
        row = (self.top + shift[0] - top)[:, None, None] + torch.arange(h)[None, :, None]
        column = (self.left + shift[1] - left)[:, None, None] + torch.arange(w)[None, None, :]
        start = (torch.arange(len(top)) * (height * width))[:, None, None]
        goal = (start + row * width + column).flatten()
        given = self.patch.permute(0, 2, 3, 1).reshape(-1, channels)
        inside = ((row >= 0) & (row < height) & (column >= 0) & (column < width)).flatten()
        if not bool(inside.all()):
            goal, given = goal[inside], given[inside]
        out.index_copy_(0, goal, given)
        return out.reshape(len(top), height, width, channels).permute(0, 3, 1, 2)


def _positions(top: Tensor, left: Tensor, height: int, width: int, pitch: int) -> Tensor:
    """Indices of the positions of rectangles in a flattened map, (B, height, width)."""
    row = top[:, None, None] + torch.arange(height)[None, :, None]
    return row * pitch + (left[:, None, None] + torch.arange(width)[None, None, :])


def _shift(base: Tensor, padded: Tensor) -> tuple[int, int]:
    return int(padded.shape[2] - base.shape[2]) // 2, int(padded.shape[3] - base.shape[3]) // 2


class Windows(RuleSet):
    """Carries patches through a model; what it does not know is computed in full, never wrongly.

    The model runs on stand-ins: tensors of the right shape without content. An operation on
    stand-ins is computed on base and patches where the operator is known (convolution, pooling,
    pointwise functions, batch norm, sums and concatenations), and on the full values otherwise.
    """

    name = "windows"

    def __init__(self, dense_from: float = DENSE_FROM) -> None:
        super().__init__()
        self._dense_from = dense_from
        self._known: dict[int, tuple[Tensor, Patched | Tensor]] = {}
        self._handlers: dict[str, Callable[[Call, Patched], Patched | None]] = {
            **dict.fromkeys(_POINTWISE, self._pointwise),
            **dict.fromkeys(_WINDOWED, self._windowed),
            **dict.fromkeys(_SAME_VALUE, lambda call, value: value),
            **dict.fromkeys(("add", "sub", "mul", "div"), self._arithmetic),
            "batch_norm": self._batch_norm,
            "pad": self._pad,
            "cat": self._concatenate,
        }

    def stand_in(self, value: Patched) -> Tensor:
        """A tensor without content that goes through the model for a value."""
        batch = len(value.top)
        shell = value.base.new_empty(1).expand(batch, *value.base.shape[1:])
        self._known[id(shell)] = (shell, value)
        return shell

    def content(self, value: Tensor) -> Tensor:
        """The full value behind a tensor, whether it is a stand-in or itself."""
        held = self._known.get(id(value), (value, value))[1]
        if isinstance(held, Patched):
            held = held.dense()
            self._known[id(value)] = (value, held)
        return held

    def run(self, call: Call) -> Any:
        """Run one operation on patches where that is known, on full values otherwise."""
        read = tensors((call.args, call.kwargs))
        held = {id(tensor): self._known[id(tensor)][1] for tensor in read if id(tensor) in self._known}
        if not held:
            return call.run()
        subject = held.get(id(call.input))
        handler = self._handlers.get(call.kind)
        if isinstance(subject, Patched) and handler is not None:
            made = handler(call, subject)
            if made is not None:
                if call.inplace:
                    self._known[id(call.input)] = (call.input, made)
                    return call.input
                return self.stand_in(made)
        full = {id(tensor): self.content(tensor) for tensor in read}
        output = call.func(*substitute(call.args, full), **substitute(call.kwargs, full))
        back = {id(full[id(tensor)]): tensor for tensor in read}
        return substitute(output, back)  # an in-place call returns the stand-in it was given

    def ask(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a question about a tensor from its full value, unless its shape is enough."""
        name = getattr(func, "__name__", "").strip("_")
        getter = getattr(getattr(func, "__self__", None), "__name__", "")
        if name in _ANSWERED or (name == "get" and getter in _ATTRIBUTES):
            return func(*args, **kwargs)
        full = {id(tensor): self.content(tensor) for tensor in tensors((args, kwargs))}
        return func(*substitute(args, full), **substitute(kwargs, full))

    # -- operators: each returns None where the full computation is right or cheaper --------------------------------

    def _pointwise(self, call: Call, value: Patched) -> Patched | None:
        if len(tensors((call.args, call.kwargs))) > 1 and call.kind != "prelu":
            return None
        return Patched(self._again(call, value.base), self._again(call, value.patch), value.top, value.left)

    def _batch_norm(self, call: Call, value: Patched) -> Patched | None:
        bound = call.arguments
        if bound["training"] or bound["running_mean"] is None:
            return None
        return Patched(self._again(call, value.base), self._again(call, value.patch), value.top, value.left)

    def _again(self, call: Call, x: Tensor) -> Tensor:
        """The same call on another tensor."""
        swap = {id(call.input): x}
        made: Tensor = call.func(*substitute(call.args, swap), **substitute(call.kwargs, swap))
        return made

    def _pad(self, call: Call, value: Patched) -> Patched | None:
        border = [int(side) for side in call.arguments["pad"]]
        if str(call.arguments["mode"]) != "constant" or len(border) != 4 or min(border) < 0:
            return None
        return Patched(self._again(call, value.base), value.patch, value.top + border[2], value.left + border[0])

    def _arithmetic(self, call: Call, value: Patched) -> Patched | None:
        other = call.arguments["other"]
        if not isinstance(other, Tensor) or (id(other) not in self._known and _no_extent(other)):
            return Patched(self._again(call, value.base), self._again(call, value.patch), value.top, value.left)
        found = self._known.get(id(other))
        if found is None or not isinstance(found[1], Patched) or call.input is other:
            return None
        meeting = self._meeting([value, found[1]])
        if meeting is None:
            return None
        (a, b), top, left = meeting
        scaled = {} if call.arguments.get("alpha") in (None, 1) else {"alpha": call.arguments["alpha"]}
        function = getattr(torch, call.kind)
        return Patched(function(value.base, found[1].base, **scaled), function(a, b, **scaled), top, left)

    def _concatenate(self, call: Call, value: Patched) -> Patched | None:
        parts = [self._known[id(part)][1] for part in tensors(call.args[:1]) if id(part) in self._known]
        patched = [part for part in parts if isinstance(part, Patched)]
        whole = len(tensors(call.args[:1]))
        if len(patched) != whole or whole == 0 or int(call.arguments["dim"]) not in (1, -3):
            return None
        meeting = self._meeting(patched)
        if meeting is None:
            return None
        patches, top, left = meeting
        return Patched(torch.cat([part.base for part in patched], 1), torch.cat(patches, 1), top, left)

    def _meeting(self, values: list[Patched]) -> tuple[list[Tensor], Tensor, Tensor] | None:
        """Patches of several values on one common rectangle each."""
        if len({value.base.shape[2:] for value in values}) != 1:
            return None
        height, width = (int(size) for size in values[0].base.shape[2:])
        top = torch.stack([value.top for value in values]).amin(0)
        left = torch.stack([value.left for value in values]).amin(0)
        h = int(torch.stack([value.top + value.patch.shape[2] for value in values]).amax(0).sub(top).max())
        w = int(torch.stack([value.left + value.patch.shape[3] for value in values]).amax(0).sub(left).max())
        if h * w >= self._dense_from * height * width:
            return None
        top, left = top.clamp(max=height - h), left.clamp(max=width - w)
        return [self._on(value, top, left, h, w) for value in values], top, left

    @staticmethod
    def _on(value: Patched, top: Tensor, left: Tensor, h: int, w: int) -> Tensor:
        same = value.patch.shape[2:] == (h, w) and torch.equal(value.top, top) and torch.equal(value.left, left)
        return value.patch if same else value.region(top, left, h, w)

    def _windowed(self, call: Call, value: Patched) -> Patched | None:
        """A convolution or pooling: the outputs that see the patch, from the inputs that they see."""
        sliding = _sliding(call)
        if sliding is None:
            return None
        kernel, stride, padding, dilation, blank, apply = sliding
        bare = apply(value.base, padding)
        goal = [int(size) for size in bare.shape[2:]]
        reach = [dilation[axis] * (kernel[axis] - 1) for axis in (0, 1)]
        size = [min(goal[axis], (value.patch.shape[2 + axis] - 1 + reach[axis]) // stride[axis] + 1) for axis in (0, 1)]
        if size[0] * size[1] >= self._dense_from * goal[0] * goal[1]:
            return None
        first = []
        for axis, at in enumerate((value.top, value.left)):
            low = torch.div(at + padding[axis] - reach[axis] + stride[axis] - 1, stride[axis], rounding_mode="floor")
            first.append(low.clamp(0, goal[axis] - size[axis]))
        needed = [(size[axis] - 1) * stride[axis] + reach[axis] + 1 for axis in (0, 1)]
        border = (padding[1], padding[1], padding[0], padding[0])
        padded = functional.pad(value.base, border, value=blank) if any(padding) else value.base
        tile = value.region(first[0] * stride[0], first[1] * stride[1], needed[0], needed[1], padded)
        return Patched(bare, apply(tile, (0, 0)), first[0], first[1])


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
    Cost: one pass over the image for each batch, and per box what its patch can reach; where patches
    grow to half of a map it is computed in full. Batch norms are folded in a private copy.
    """
    model = folded(net.model, net.graph)
    end = net.graph.logits if net.graph.closing else None
    base, cover = (net.normalise(value).contiguous(memory_format=torch.channels_last) for value in (image, fill))
    height, width = (int(boxes[0, 2 + axis] - boxes[0, axis]) for axis in (0, 1))
    parts = []
    for part in boxes.split(batch):
        top, left = part[:, 0], part[:, 1]
        rows = _positions(top, left, height, width, int(cover.shape[3]))
        patch = cover.flatten(2)[0, :, rows].transpose(0, 1)
        rules = Windows()
        tracer = Tracer(model, [end] if end is not None else [], rules=rules)
        output = tracer(rules.stand_in(Patched(base, patch, top, left)))
        scores = tracer.value[end] if end is not None else rules.content(logits_of(output))
        parts.append(as_logits(scores, net))
    found = torch.cat(parts)
    return found if found.dtype == torch.float64 else found.float()


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
    if bound.get("ceil_mode") or bound.get("return_indices"):
        return None
    kernel = pair(bound["kernel_size"])
    stride = kernel if bound["stride"] in (None, [], ()) else pair(bound["stride"])
    padding = pair(bound["padding"])
    if call.kind == "max_pool2d":
        dilation = pair(bound["dilation"])

        def maximum(x: Tensor, pad: tuple[int, int]) -> Tensor:
            return functional.max_pool2d(x, kernel, stride, pad, dilation)

        return kernel, stride, padding, dilation, float("-inf"), maximum
    if any(padding) and not bound["count_include_pad"]:
        return None

    def average(x: Tensor, pad: tuple[int, int]) -> Tensor:
        return functional.avg_pool2d(x, kernel, stride, pad, divisor_override=bound["divisor_override"])

    return kernel, stride, padding, (1, 1), 0.0, average


def _no_extent(value: Tensor) -> bool:
    """A constant that is the same at every position."""
    return value.dim() == 0 or (value.dim() in (3, 4) and value.shape[-2:] == (1, 1) and value.shape[:-3].numel() == 1)
