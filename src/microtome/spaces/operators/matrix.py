"""The operator of a Linear layer."""

from __future__ import annotations

from typing import final

from torch import Tensor

from microtome.spaces.operators.operator import Operator


@final
class MatrixOperator(Operator):
    """A Linear layer; on tokens (T, n) it acts on each token."""

    def __init__(self, name: str, weight: Tensor, input_shape: tuple[int, ...]) -> None:
        self.name, self.weight = name, weight.double()
        self.input_shape, self.device = input_shape, weight.device
        self.output_shape = (*input_shape[:-1], int(weight.shape[0]))

    def apply(self, x: Tensor) -> Tensor:
        """W x."""
        return self.as_batch(x, self.input_shape) @ self.weight.T

    def adjoint(self, y: Tensor) -> Tensor:
        """W^T y."""
        return self.as_batch(y, self.output_shape) @ self.weight
