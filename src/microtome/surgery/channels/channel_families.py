"""The channels of a model: entries of weights, operations, and families of channels that are removed together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slot:
    """One axis of one parameter or buffer, with the channel that each entry along it belongs to.

    Attributes
    ----------
    owner, key : str
        The module's name and the tensor's name in it.
    axis : int
        The axis of the tensor.
    reads : bool
        True if the entries multiply an input channel; False if they compute or scale a channel.
    channels : Tensor
        (n,) the root channel of each entry.
    depth : int
        Outputs per channel of a depthwise kernel; 0 otherwise.
    """

    owner: str
    key: str
    axis: int
    reads: bool
    channels: Tensor = field(repr=False)
    depth: int = 0


@dataclass(frozen=True)
class Operation:
    """A convolution or matrix product of the pass whose weights are the model's own.

    Attributes
    ----------
    name : str
        The name of the operation in a pass: ``"conv2/conv2d"``.
    owner, weight : str
        The module that holds the weight, and the weight's name in it.
    bias : str
        The bias's name in the same module, or an empty text.
    positions : int
        Number of outputs per image and output channel.
    area : int
        Number of taps of the kernel.
    groups : int
        Of the convolution.
    read, made : Tensor
        (in,) and (out,) root channels.
    axis : int
        The axis of channels in the operation's input and output.
    kind : str
        The operator.
    """

    name: str
    owner: str
    weight: str
    bias: str
    positions: int
    area: int
    groups: int
    read: Tensor = field(repr=False)
    made: Tensor = field(repr=False)
    axis: int
    kind: str


@dataclass(frozen=True)
class Family:
    """Channels of the same kind: the same weights compute and read them, each with its own entries.

    Attributes
    ----------
    name : str
        The first layer that computes them.
    makers, readers : tuple of str
        The operations that compute and read them.
    channels : tuple of int
        Root channels, in the order of their place in the first maker.
    pinned : str
        Why none of them can be removed; empty if they can.
    """

    name: str
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    channels: tuple[int, ...]
    pinned: str


@dataclass(frozen=True)
class Channels:
    """The channels of a model: the entries of each, and which may be removed.

    Attributes
    ----------
    slots : list of Slot
    operations : dict of str to Operation
        By name, in the order they run.
    families : dict of str to Family
        By name, in the order they run.
    """

    slots: list[Slot]
    operations: dict[str, Operation]
    families: dict[str, Family]

    @property
    def free(self) -> list[Family]:
        """The families whose channels may be removed."""
        return [family for family in self.families.values() if not family.pinned]

    def multiply_adds(self, gone: Iterable[int] = ()) -> float:
        """Multiply-adds of one image in all convolutions and matrix products, without some channels."""
        removed = torch.tensor(sorted(gone), dtype=torch.int64, device="cpu")
        total = 0.0
        for operation in self.operations.values():
            outputs = len(operation.made) - int(torch.isin(operation.made, removed).sum())
            read = len(operation.read) - int(torch.isin(operation.read, removed).sum())
            depthwise = operation.groups == len(operation.read) > 1
            inputs = 1 if depthwise else read / operation.groups
            total += operation.positions * operation.area * outputs * inputs
        return total
