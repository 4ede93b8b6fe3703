"""Finds which entries of which weights belong to one channel, from one watched pass of any module that takes images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from microtome.surgery.channels import channel_axis
from microtome.surgery.channels.channel_axis import Axis
from microtome.surgery.channels.channel_families import Channels, Family, Operation, Slot
from microtome.surgery.channels.tied_channels import TiedChannels
from microtome.trace.guard import named_modules
from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.tracing.tracer import Tracer

# Elementwise functions of one value. A removed channel stays removed.
_ELEMENTWISE = frozenset(
    """relu relu6 leaky_relu rrelu elu celu selu silu mish hardswish hardsigmoid hardtanh gelu softplus softsign sigmoid
    logsigmoid tanh tanhshrink softshrink hardshrink rectifying_clamp clamp clamp_min clamp_max threshold abs neg exp
    log sqrt rsqrt square pow dropout identity to float half double bfloat16 contiguous clone detach type_as nan_to_num
    erf sin cos log1p expm1 reciprocal sign round floor ceil zeros_like ones_like alias cpu cuda""".split()
)


_JOINING = frozenset(
    "add sub mul div rdiv rsub maximum minimum where addcmul addcdiv lerp max min pow masked_fill rpow".split()
)


_POOLING = frozenset(
    """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d lp_pool1d lp_pool2d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d interpolate
    upsample upsample_nearest upsample_bilinear""".split()
)


_CONVOLUTIONS = frozenset("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d".split())


_REDUCING = frozenset("mean sum amax amin var std logsumexp prod".split())


_OVER_ONE_AXIS = frozenset("softmax log_softmax cumsum".split())


_RESHAPING = frozenset("flatten reshape view squeeze unsqueeze unflatten reshape_as view_as ravel".split())


_TURNING = frozenset("permute transpose t T mT movedim".split())


_CUTTING = frozenset("chunk split unbind tensor_split getitem narrow select split_with_sizes".split())


class _Watcher:
    """Follows the channels of every value through one pass."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.tied = TiedChannels()
        self.slots: dict[tuple[int, int], tuple[str, str, int, bool, Tensor, int]] = {}
        self.operations: dict[str, tuple[Any, ...]] = {}
        self.held: dict[int, tuple[str, str]] = {}
        for name, module in named_modules(model):
            for table in (module._parameters, module._buffers):
                for key, tensor in table.items():
                    if isinstance(tensor, Tensor):
                        self.held.setdefault(id(tensor), (name, key))
        self._values: dict[int, tuple[Tensor, Axis | None]] = {}
        self._keep(images, Axis(1, self.tied.new(images.shape[1], "they are the image's own channels")))

    # -- values ----------------------------------------------------------------------------------------------------

    def _keep(self, value: Tensor, axis: Axis | None) -> None:
        if axis is not None and (axis.place >= value.dim() or value.shape[axis.place] != len(axis.channels)):
            self.tied.pin(axis.channels, "an unsupported operation changes their number")
            axis = None
        self._values[id(value)] = (value, axis)

    def _axis(self, value: Any) -> Axis | None:
        found = self._values.get(id(value)) if isinstance(value, Tensor) else None
        return None if found is None else found[1]

    def _slot(self, tensor: Tensor, axis: int, channels: Tensor, *, reads: bool, depth: int = 0) -> bool:
        """Record that a tensor of the model has these channels along an axis; False if it is not the model's."""
        found = self.held.get(id(tensor))
        if found is None or tensor.shape[axis] != len(channels):
            return False
        known = self.slots.get((id(tensor), axis))
        if known is not None:
            self.tied.tie(known[4], channels)
        else:
            self.slots[id(tensor), axis] = (*found, axis, reads, channels, depth)
        return True

    # -- the pass --------------------------------------------------------------------------------------------------

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts: nothing to do."""

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned: outputs of a module without visible operations are not followed."""
        for value in tensors(output):
            if id(value) not in self._values and id(value) not in self.held:
                self._lost([value], tensors(output), f'"{name}" hides its operations')

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        outputs = tensors(output)
        kind = call.kind
        if not outputs:
            for value in call.tensors:
                self._pin_value(value, f'"{call.name}" overwrites a part of them')
            return
        if kind in _CONVOLUTIONS:
            self._convolution(call, outputs[0])
        elif kind == "linear":
            self._linear(call, outputs[0])
        elif kind in ("batch_norm", "instance_norm", "prelu"):
            self._scaling(call, outputs[0])
        elif kind in ("layer_norm", "group_norm"):
            self._normalising(call, outputs[0])
        elif kind in _ELEMENTWISE and len(call.tensors) == 1:
            self._keep_all(outputs, self._axis(call.input))
        elif kind in _JOINING and all(value.dim() <= outputs[0].dim() for value in call.tensors):
            self._joining(call, outputs[0])
        elif kind == "cat":
            self._cat(call, outputs[0])
        elif kind in _POOLING:
            self._keep_all(outputs, self._spatial_only(call, outputs[0]))
        elif kind == "pad":
            self._keep_all(outputs, self._same_count(call, outputs[0]))
        else:
            self._moving(call, outputs)

    def _moving(self, call: Call, outputs: list[Tensor]) -> None:
        """Operations that move values, and all unknown operations."""
        axis, kind, tensor = self._axis(call.input), call.kind, call.input
        if axis is None:
            self._lost(call.tensors, outputs, f'"{call.name}" mixes them')
            return
        found: Axis | None = None
        if kind in _RESHAPING:
            found = channel_axis.reshaped(axis, tuple(tensor.shape), tuple(outputs[0].shape))
        elif kind in _TURNING:
            found = channel_axis.turned(axis, call, tensor.dim())
        elif kind in _REDUCING:
            found = channel_axis.reduced(axis, call.arguments, tensor.dim())
        elif kind in _OVER_ONE_AXIS:
            dim = call.arguments.get("dim", call.arguments.get("argument1"))
            found = axis if isinstance(dim, int) and dim % tensor.dim() != axis.place else None
        elif kind in _CUTTING:
            found = channel_axis.cut(axis, call, tensor.dim())
        elif kind in ("expand", "expand_as", "broadcast_to") and tensor.shape[axis.place] > 1:
            found = Axis(axis.place + outputs[0].dim() - tensor.dim(), axis.channels)
        if found is None or len([value for value in call.tensors if self._axis(value) is not None]) > 1:
            self._lost(call.tensors, outputs, f'"{call.name}" splits or mixes them')
        else:
            self._keep_all(outputs, found)

    def _keep_all(self, outputs: list[Tensor], axis: Axis | None) -> None:
        for value in outputs:
            self._keep(value, axis)

    def _pin_value(self, value: Tensor, why: str) -> None:
        axis = self._axis(value)
        if axis is not None:
            self.tied.pin(axis.channels, why)

    def _lost(self, read: Iterable[Tensor], outputs: list[Tensor], why: str) -> None:
        for value in read:
            self._pin_value(value, why)
        for value in outputs:
            self._values[id(value)] = (value, None)

    def _spatial_only(self, call: Call, output: Tensor) -> Axis | None:
        axis = self._axis(call.input)
        if axis is not None and axis.place != (1 if output.dim() > 2 else -1):
            self.tied.pin(axis.channels, f'"{call.name}" pools over them')
            return None
        return axis

    def _same_count(self, call: Call, output: Tensor) -> Axis | None:
        axis = self._axis(call.input)
        if axis is not None and output.shape[axis.place] != call.input.shape[axis.place]:
            self.tied.pin(axis.channels, f'"{call.name}" pads along the channel axis')
            return None
        return axis

    # -- layers with weights ---------------------------------------------------------------------------------------

    def _convolution(self, call: Call, output: Tensor) -> None:
        arguments = call.arguments
        x, weight, bias, groups = arguments["input"], arguments["weight"], arguments["bias"], int(arguments["groups"])
        transposed = "transpose" in call.kind
        axis = self._axis(x)
        out_axis, in_axis = (1, 0) if transposed else (0, 1)
        per_group = weight.shape[out_axis] if transposed else weight.shape[0] // groups
        outputs = self.tied.new(per_group * groups)
        channels = axis.channels if axis is not None and axis.place == x.dim() - weight.dim() + 1 else None
        if channels is None:
            self._pin_value(x, f'"{call.name}" uses their axis in an unsupported way')
            read = self.tied.new(x.shape[x.dim() - weight.dim() + 1], f'the input of "{call.name}" is not followed')
        else:
            read = channels
        fine = id(weight) in self.held and (bias is None or id(bias) in self.held)
        depth = 0
        if groups > 1 and transposed:
            fine = False
        elif groups == len(read) > 1:  # depthwise: an output belongs to the channel that it reads
            depth = per_group
            outputs = read.repeat_interleave(depth)
        elif groups > 1:  # one channel of each group is removed together
            self._tie_groups(read, groups)
            self._tie_groups(outputs, groups)
            read_slot = read.view(groups, -1)[0]
            fine = fine and self._slot(weight, in_axis, read_slot, reads=True)
        else:
            fine = fine and self._slot(weight, in_axis, read, reads=True)
        fine = fine and self._slot(weight, out_axis, outputs, reads=False, depth=depth)
        if bias is not None:
            fine = fine and self._slot(bias, 0, outputs, reads=False)
        self._weighted(call, output, weight, bias, groups, read, outputs, x.dim() - weight.dim() + 1, fine=fine)

    def _linear(self, call: Call, output: Tensor) -> None:
        arguments = call.arguments
        x, weight, bias = arguments["input"], arguments["weight"], arguments["bias"]
        axis = self._axis(x)
        outputs = self.tied.new(weight.shape[0])
        if axis is None or axis.place != x.dim() - 1:
            self._pin_value(x, f'"{call.name}" uses their axis in an unsupported way')
            read = self.tied.new(weight.shape[1], f'the input of "{call.name}" is not followed')
        else:
            read = axis.channels
        fine = self._slot(weight, 1, read, reads=True) and self._slot(weight, 0, outputs, reads=False)
        fine = fine and (bias is None or self._slot(bias, 0, outputs, reads=False))
        self._weighted(call, output, weight, bias, 1, read, outputs, x.dim() - 1, fine=fine)

    def _weighted(
        self, call: Call, output: Tensor, weight: Tensor, bias: Tensor | None, groups: int, read: Tensor, made: Tensor,
        place: int, *, fine: bool,
    ) -> None:  # fmt: skip
        apart = bias is not None and fine and self.held[id(bias)][0] != self.held[id(weight)][0]
        if not fine or apart:
            why = f'the weights of "{call.name}" are computed from others, or grouped in an unsupported way'
            self.tied.pin(read, why)
            self.tied.pin(made, why)
        else:
            owner, key = self.held[id(weight)]
            other = self.held[id(bias)] if bias is not None else (owner, "")
            batch = output.shape[0]
            positions = max(1, output.numel() // max(1, batch * len(made)))
            area = math.prod(weight.shape[2:])
            self.operations[call.name] = (
                owner, key, other[1], positions, area, groups, read, made, place, call.kind
            )  # fmt: skip
        self._keep(output, Axis(place, made))

    def _tie_groups(self, channels: Tensor, groups: int) -> None:
        rows = channels.view(groups, -1)
        for row in rows[1:]:
            self.tied.tie(rows[0], row)

    def _scaling(self, call: Call, output: Tensor) -> None:
        """One scale and one shift per channel."""
        axis = self._axis(call.input)
        if axis is not None:
            held = [value for key, value in call.arguments.items() if isinstance(value, Tensor) and key != "input"]
            fits = axis.place == (1 if call.input.dim() > 1 else 0)
            sized = [value for value in held if value.numel() > 1]
            if not fits or not all(self._slot(value, 0, axis.channels, reads=False) for value in sized):
                self.tied.pin(axis.channels, f'"{call.name}" scales them with numbers that are not the model\'s')
        self._keep(output, axis)

    def _normalising(self, call: Call, output: Tensor) -> None:
        axis = self._axis(call.input)
        if axis is None:
            self._keep(output, None)
            return
        arguments = call.arguments
        normalised = len(arguments.get("normalized_shape", ())) if call.kind == "layer_norm" else 0
        alone = call.kind == "group_norm" and int(arguments["num_groups"]) == len(axis.channels)
        if call.kind == "group_norm" or axis.place >= call.input.dim() - normalised:
            why = f'"{call.name}" normalises over them, so that each value depends on all of them'
            self.tied.pin(axis.channels, f'"{call.name}" has its number of groups fixed' if alone else why)
        self._keep(output, axis)

    # -- joins -----------------------------------------------------------------------------------------------------

    def _joining(self, call: Call, output: Tensor) -> None:
        """Elementwise operations on several values, with broadcasting."""
        known = [(value, self._axis(value)) for value in call.tensors]
        places = {
            axis.place + output.dim() - value.dim()
            for value, axis in known
            if axis is not None and value.shape[axis.place] == output.shape[axis.place + output.dim() - value.dim()]
        }
        why = f'"{call.name}" joins them along different axes'
        if len(places) != 1:
            self._lost(call.tensors, [output], why)
            return
        place = places.pop()
        first: Tensor | None = None
        for value, axis in known:
            if axis is not None and axis.place + output.dim() - value.dim() == place:
                if len(axis.channels) == output.shape[place]:
                    first = axis.channels if first is None else first
                    self.tied.tie(first, axis.channels)
                else:
                    self.tied.pin(axis.channels, f'"{call.name}" broadcasts one of them over others')
            elif axis is not None:
                self.tied.pin(axis.channels, why)
        assert first is not None  # noqa: S101 - places holds its axis
        for value, axis in known:
            mine = place - (output.dim() - value.dim())
            if axis is not None or mine < 0 or value.dim() == 0 or value.shape[mine] == 1:
                continue
            if not self._slot(value, mine, first, reads=False):
                self.tied.pin(first, f'"{call.name}" joins them with a value that is not followed')
        self._keep(output, Axis(place, first))

    def _cat(self, call: Call, output: Tensor) -> None:
        arguments = call.arguments
        parts, dim = list(arguments["tensors"]), int(arguments["dim"]) % output.dim()
        axes = [self._axis(value) for value in parts]
        places = {axis.place for axis in axes if axis is not None}
        if len(places) != 1 or (dim not in places and None in axes):
            self._lost(parts, [output], f'"{call.name}" joins them with values that are not followed')
            return
        place = places.pop()
        if dim == place:
            found = [
                axis.channels
                if axis is not None
                else self.tied.new(value.shape[dim], f'part of "{call.name}" is unknown')
                for value, axis in zip(parts, axes, strict=True)
            ]
            self._keep(output, Axis(place, torch.cat(found)))
            return
        present = [axis.channels for axis in axes if axis is not None]
        for other in present[1:]:
            self.tied.tie(present[0], other)
        self._keep(output, Axis(place, present[0]))

    def finish(self, output: Any) -> None:
        """The pass has ended: the model's outputs keep their shape."""
        for value in tensors(output):
            self._pin_value(value, "they are the network's output")


def channels_of(model: nn.Module, images: Tensor) -> Channels:
    """Follow the channels of a model through one pass over ``images`` (normalised).

    Every channel gets the entries of all weights, biases and norms that compute, scale or read it. Channels that
    are added, multiplied or joined are tied and removed together; of a grouped convolution one channel of
    each group. Channels that cannot be shown to be removable are pinned, with the reason.
    """
    watcher = _Watcher(model, images)
    output = Tracer(model, observer=watcher)(images)
    watcher.finish(output)
    slots = [
        Slot(owner, key, axis, reads, watcher.tied.roots(channels), depth)
        for owner, key, axis, reads, channels, depth in watcher.slots.values()
    ]
    operations = {
        name: Operation(
            name=name, owner=owner, weight=key, bias=bias, positions=positions, area=area, groups=groups,
            read=watcher.tied.roots(read), made=watcher.tied.roots(made), axis=place, kind=kind,
        )
        for name, (owner, key, bias, positions, area, groups, read, made, place, kind) in watcher.operations.items()
    }  # fmt: skip
    return Channels(slots, operations, _families(watcher, operations))


def _families(watcher: _Watcher, operations: dict[str, Operation]) -> dict[str, Family]:
    makers: dict[int, list[str]] = {}
    readers: dict[int, list[str]] = {}
    for name, operation in operations.items():
        depthwise = operation.groups == len(operation.read) > 1
        for channel in dict.fromkeys(operation.made.tolist()):
            makers.setdefault(channel, []).append(name)
        for channel in () if depthwise else dict.fromkeys(operation.read.tolist()):
            readers.setdefault(channel, []).append(name)
    grouped: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}
    for channel, made in makers.items():
        grouped.setdefault((tuple(made), tuple(readers.get(channel, ()))), []).append(channel)
    families: dict[str, Family] = {}
    for (by, read), channels in grouped.items():
        pins = [watcher.tied.pins[channel] for channel in channels if channel in watcher.tied.pins]
        pinned = pins[0] if pins else "" if read else "no layer with weights reads them"
        name = operations[by[0]].owner or by[0]
        while name in families:
            name += "+"
        families[name] = Family(name, by, read, tuple(channels), pinned)
    return families
