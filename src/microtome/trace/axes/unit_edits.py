"""Edits of a model: units of some layers whose values are scaled or clamped in every pass."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from microtome.errors import InputError
from microtome.trace.axes.value_axes import UNIT, Axes
from microtome.trace.operators.operator_calls import Call

__all__ = ["Edit", "edited", "edits_of"]

_KEY = "_microtome_edits"  # among the attributes of an edited model, so that copies of it are edited, too


@dataclass(frozen=True, eq=False)
class Edit:
    """One layer's units after an edit: ``scale * value + shift``.

    Attributes
    ----------
    axes : Axes
        The axes of the units in the layer's value.
    scale, shift : Tensor
        (units,) in float64 on the CPU: 1 and 0 leave a unit unchanged, 0 and a number clamp it to that number.
    """

    axes: Axes
    scale: Tensor
    shift: Tensor

    def apply(self, name: str, value: Tensor, run: Callable[[Call], Tensor]) -> Tensor:
        """The edited value; ``run`` executes its operations.

        They are operations like those of the model, so backward rules apply to them and patches pass through them.
        """
        if bool((self.scale != 1).any()):
            factor = self._laid_out(self.scale, value)
            value = run(Call("mul", torch.mul, (value, factor), {}, False, f"{name}/edit/mul"))
        if bool(self.shift.any()):
            value = run(
                Call("add", torch.add, (value, self._laid_out(self.shift, value)), {}, False, f"{name}/edit/add")
            )
        return value

    def _laid_out(self, numbers: Tensor, value: Tensor) -> Tensor:
        """One number for each unit, in a shape that multiplies the layer's value."""
        if not value.is_floating_point():
            raise InputError(f"units of {value.dtype} cannot be edited; use the model before it was quantised.")
        numbers = numbers.to(value.device, value.dtype)
        place = self.axes.unit_axis
        if place is not None and len(self.axes.factors[place]) == 1 and self._axes_with_units() == 1:
            shape = [1] * value.dim()
            shape[place] = len(numbers)
            return numbers.reshape(shape)
        count = value.numel() // math.prod(self.axes.shape)  # units that share an axis with images or positions
        units = numbers[None, :, None].expand(count, -1, value.numel() // (count * len(numbers)))
        return self.axes.from_units(units, tuple(value.shape))

    def _axes_with_units(self) -> int:
        return sum(any(factor.role == UNIT for factor in axis) for axis in self.axes.factors)


def edited(model: nn.Module, edits: Mapping[str, Edit]) -> nn.Module:
    """The model with edits: another object with the same modules and weights, which are not copied.

    Parameters
    ----------
    model : nn.Module
        The model; neither it nor its present edits are changed.
    edits : mapping
        By the name under which a pass records the layer.

    Raises
    ------
    InputError
        The model is scripted and cannot be copied this way.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("a scripted model hides its operations and cannot be edited; give the plain module.")
    other = copy.copy(model)
    vars(other)[_KEY] = dict(edits)
    return other


def edits_of(model: nn.Module) -> Mapping[str, Edit]:
    """The edits of a model by layer; empty for an unedited model."""
    found: Mapping[str, Edit] = vars(model).get(_KEY, {})
    return found
