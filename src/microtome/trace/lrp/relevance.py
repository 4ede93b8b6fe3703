"""Layer-wise relevance propagation through every operator of a network, with an account of lost relevance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from microtome.trace.axes.value_axes import Axes
from microtome.trace.backward_rules import BackwardRule, Operation, RuleSet, Through
from microtome.trace.lrp import additions
from microtome.trace.lrp.account import Account, Chooser, proportional
from microtome.trace.lrp.attention import attention, multi_head
from microtome.trace.lrp.by_hand.channel_scaling import Scaled
from microtome.trace.lrp.by_hand.nonlinearities import Nonlinearities
from microtome.trace.lrp.by_hand.products_by_hand import ProductsByHand, Terms
from microtome.trace.lrp.joined_layers import JoinedLayers
from microtome.trace.lrp.linear import WEIGHTED, Weighted, is_layer_by_product, read_by_layer
from microtome.trace.lrp.moves import MOVES, WRITES, glued, mixes_in_constants, moved
from microtome.trace.lrp.norms import norm
from microtome.trace.lrp.pixel_ranges import PixelRanges
from microtome.trace.lrp.products import Gates, pointwise, reduced, summed
from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those

__all__ = ["Chooser", "Relevance"]

# One number in, one number out: what arrives goes to the one input.
_POINTWISE = those(role=("activation", "function")) | {"normalize", "rms_norm", "local_response_norm"}
# The larger or smaller of two values: the winner takes the relevance, like the gradient.
_CHOICES = those(role="arithmetic", function="piecewise")
# Averages and resampling: linear without weights.
_AVERAGING = those(role=("averaging", "reduction"), function="affine") | those(
    role="resampling", function=("affine", "curved")
)
_NORMS = frozenset(("group_norm", "instance_norm", "layer_norm"))
_SUMMED_PRODUCTS = those(role="product")
_TRANSFORMS = those(role="transform")
# Affine in all complex numbers that they read; an absolute value is linear along its own direction.
_LINEAR_IN_COMPLEX = _TRANSFORMS | _AVERAGING | WRITES | frozenset("complex add sub rsub neg conj abs".split())
# Linear in one value if all others are constants.
_ONE_FACTOR = WEIGHTED | _SUMMED_PRODUCTS | {"mul"}


class Relevance(RuleSet):
    """Layer-wise relevance propagation, operator by operator.

    Parameters
    ----------
    choose_rule : Chooser
        The rule of an operation by its name. Its epsilon also holds for pooling, sums and products.
    axes : mapping, optional
        The axes of the result of each operation, by its name; by default the images lie along the first axis.

    Attributes
    ----------
    account : Account
        The relevance that biases, constants and stabilisers took.

    Notes
    -----
    Weighted operators follow the chosen rule, except on complex numbers, where the epsilon rule holds. Batch norm
    in evaluation is one linear layer with the convolution before it (weights a*w, bias a*b + c); standing alone it
    is linear with the epsilon rule. Sums share in proportion to their terms. Nonlinearities pass relevance on. A
    product with a gate (squeeze-excite) gives all to the signal and treats the gate as constant; so do attention
    weights, mixed between heads or not, and the deviation in layer norm (Ali et al. 2022). Max-pooling sends to the
    winner, average pooling shares in proportion. Constants that are written into a value keep what arrives at them.
    """

    name = "relevance propagation"
    several = frozenset(("var_mean", "std_mean"))

    def __init__(self, choose_rule: Chooser, axes: Mapping[str, Axes] | None = None) -> None:
        super().__init__()
        self.account = Account(choose_rule, axes)
        self._ranges = PixelRanges()
        self._prepares = False  # whether the running operation prepares pixels for the first layer
        self._gates = Gates()
        self._products = ProductsByHand()
        self._layers = JoinedLayers(self.account)
        self._step: Scaled | None = None  # what the running operation makes of a layer's output
        self._nonlinearities = Nonlinearities()
        self._constants: dict[int, tuple[Tensor, str]] = {}  # with the operation that made them
        self._next: Weighted | None = None

    def start(self, prepared: Tensor, low: Tensor, high: Tensor) -> None:
        """Begin a pass on prepared images, whose pixels lie between ``low`` and ``high`` ((1 or N, C, H, W))."""
        self.account.open(prepared)
        self._ranges.keep(prepared, low, high)

    def forget(self) -> None:
        """Release the values of a finished pass.

        They lead to the graph, whose nodes hold their rules and so this object: a circle that Python's collector
        does not see, since it runs through torch.
        """
        for known in (self._layers, self._ranges, self._gates, self._products, self._constants):
            known.clear()
        self._masks_and_gates.clear()
        self._readers.clear()
        self._nonlinearities = Nonlinearities()

    # -- the forward pass: who reads what ------------------------------------------------------------------------

    def run(self, call: Call) -> Any:
        """Run one operation and remember what the operations after it need to know."""
        if call.kind == "addcmul":
            return self.run(self._sum_of_product(call))
        if call.kind in ("addmm", "baddbmm") and (call.kind == "baddbmm" or not _is_layer(call)):
            return self._sum_of_matrix_product(call)
        if call.kind == "broadcast_tensors":  # one at a time, as each is a gate or none
            shape = torch.broadcast_shapes(*(value.shape for value in call.tensors))
            expand = torch.broadcast_to
            return tuple(
                self.run(Call("broadcast_to", expand, (value, shape), {}, False, call.name)) for value in call.tensors
            )
        ranges, self._prepares = self._ranges.after(call), self._ranges.prepares(call)
        step = self._layers.read(call)
        weighs, terms = self._gates.made(call), self._products.before(call, self._ranges)
        source = call.input
        if call.inplace and not source.requires_grad:
            self._layers.before_overwriting()
        if call.inplace:  # the tensor stays, its value does not
            for known in (self._layers, self._ranges, self._gates, self._products):
                known.pop(id(source), None)
        base = source._base if call.inplace and source._is_view() else None
        if base is not None:
            for known in (self._layers, self._ranges):
                known.pop(id(base), None)
        fresh = base is not None and not base.requires_grad
        self._nonlinearities.before(call)
        self._step = step
        output, noted = super().run(call), self._nonlinearities.taken()
        self._layers.keep(step, source if output is None and call.inplace else output)
        self._nonlinearities.after(noted, call, output)
        if base is not None and fresh and base.requires_grad:
            self._book_around(base, source)
        if isinstance(output, Tensor) and not output.requires_grad:
            self._constants[id(output)] = (output, call.name)
        self._gates.note(call, source if output is None and call.inplace else output, weighs)
        self._products.after(terms, output, self.will_read)
        for value, edges in zip(tensors(source if output is None else output), ranges, strict=False):
            self._ranges.keep(value, *edges)
        return output

    def _book_around(self, base: Tensor, view: Tensor) -> None:
        """Record the relevance of a constant at the positions that no value was written to."""
        shape, stride = view.shape, view.stride()
        offset = view.storage_offset() - base.storage_offset()
        name = self._constants[id(base)][1] if id(base) in self._constants else ""

        def book(arriving: Tensor) -> None:
            around = arriving.contiguous().clone()
            around.as_strided(shape, stride, offset).zero_()
            self.account.take(bias=self.account.images(name, base_shape).total(around))

        base_shape = base.shape
        if base.is_contiguous():
            base.register_hook(book)
        else:
            base.register_hook(lambda arriving: self._no_layout(name, arriving))

    def _no_layout(self, name: str, arriving: Tensor) -> None:
        if bool(arriving.any()):
            self.opaque(f'a value written into a part of the constant "{name}", which is not contiguous,')

    def _sum_of_product(self, call: Call) -> Call:
        """The sum that remains of ``input + value * a * b`` after its product has been run."""
        bound = call.arguments
        product = self.run(Call("mul", torch.mul, (bound["tensor1"], bound["tensor2"]), {}, False, call.name))
        add = Tensor.add_ if call.inplace else torch.add
        return Call("add", add, (bound["input"], product), {"alpha": bound["value"]}, call.inplace, call.name)

    def _sum_of_matrix_product(self, call: Call) -> Any:
        """Run ``beta * bias + alpha * input @ weight`` one operation at a time."""
        bound = call.arguments
        base = bound["bias"]
        product = self.run(Call("matmul", torch.matmul, (bound["input"], bound["weight"]), {}, False, call.name))
        if bound["beta"] != 1:
            scale = Tensor.mul_ if call.inplace else torch.mul
            base = self.run(Call("mul", scale, (base, bound["beta"]), {}, call.inplace, call.name))
        add = Tensor.add_ if call.inplace else torch.add
        return self.run(Call("add", add, (base, product), {"alpha": bound["alpha"]}, call.inplace, call.name))

    def check_graph(self, root: Tensor, begins: Sequence[Any] = ()) -> None:
        """Refuse hidden functions; then settle where the nonlinearities of the pass begin and end."""
        super().check_graph(root)
        self._nonlinearities.settle()

    def _chosen(self, call: Call) -> BackwardRule | Through | None:
        return self._nonlinearities.led(super()._chosen(call), partial(moved, self.account))

    def choose(self, call: Call) -> BackwardRule | Through | None:
        """The rule of an operation; None if the gradient moves relevance rightly."""
        step, self._step = self._step, None
        alone = self._alone(call)
        return alone if step is None or self._prepares else step.rule(alone)

    def _alone(self, call: Call) -> BackwardRule | Through | None:
        kind = call.kind
        if self._prepares:
            return _keep
        if kind in _TRANSFORMS or kind == "complex" or any(value.is_complex() for value in call.tensors):
            return self._of_complex(call)
        if kind in WEIGHTED:
            return self._weighted(call)
        if kind in _CHOICES or (kind in ("max", "min") and len(call.tensors) == 2):  # of two values, or along an axis
            return None if all(value.requires_grad for value in call.tensors) else _STRAIGHT
        if kind in MOVES:
            return None
        if kind in _POINTWISE:
            return _STRAIGHT
        if kind == "batch_norm":
            return self._layers.batch_norm(call)
        if kind in _AVERAGING:
            terms = self._products.of(call)
            return self._linear if terms is None else self._weighted(call, terms)
        if kind in _NORMS:
            return partial(norm, self.account)
        if kind in additions.ADDING:
            return partial(additions.added, self.account, self._refuse)
        if kind in self.several:
            return partial(additions.mean_of_two, self.account, self._refuse)
        if kind in ("add", "sub", "rsub"):
            return self._layers.sum(call)
        if kind in WRITES:
            return partial(moved, self.account) if mixes_in_constants(call) else None
        if kind == "glu":
            return glued
        if kind in ("mul", "div"):
            return pointwise(call, self._gates, self._refuse)
        if kind in _SUMMED_PRODUCTS:
            return (
                self._weighted(call)
                if is_layer_by_product(call)
                else summed(self.account, call, self._gates, self._refuse)
            )
        if kind == "scaled_dot_product_attention":
            return partial(attention, self.account)
        if kind == "multi_head_attention_forward":
            return partial(multi_head, self.account)
        return self._refuse

    # -- operators with weights ----------------------------------------------------------------------------------

    def _weighted(self, call: Call, terms: Terms | None = None) -> BackwardRule:
        x = read_by_layer(call) if terms is None else call.input
        if not x.requires_grad:  # weights made from the image on constants: linear in the weights
            return self._of_live_weights
        pixels = self._ranges.of(x) if terms is None else terms.edges
        rule = self.account.choose_rule(call.name, call.kind, pixels is not None)
        weighted = Weighted(rule, call, pixels, terms)

        def share(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
            images = self.account.images(call.name, operation.output.shape)
            shared = weighted.rule.share(weighted.operator(operation, images), arriving)
            self.account.book(shared)
            return operation.back((operation.inputs[0], shared.relevance))

        self._next = weighted
        return share

    def _of_live_weights(self, operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
        none = {id(value): torch.zeros_like(value) for value in operation.inputs}
        return proportional(self.account, operation, arriving, constant=operation.again(none))

    def _linear(self, operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
        """An operator that is linear in its inputs; sampling positions take no relevance."""
        takers = [operation.call.input] if operation.call.kind == "grid_sample" else None
        return proportional(self.account, operation, arriving, takers)

    def _of_complex(self, call: Call) -> BackwardRule | None:
        """The epsilon rule for operators that are linear in complex numbers, which have no signs for other rules."""
        kind, live = call.kind, [value for value in call.tensors if value.requires_grad]
        if kind in MOVES:
            return None
        if kind in ("mul", *_SUMMED_PRODUCTS) and len(live) > 1:
            return summed(self.account, call, self._gates, self._refuse)
        divided = kind in ("div", "true_divide") and call.args[0] is live[0]
        linear = kind in _LINEAR_IN_COMPLEX or (len(live) == 1 and (kind in _ONE_FACTOR or divided))
        return partial(self._affine, live[:1] if divided else live) if linear or divided else self._refuse

    def _affine(self, live: Sequence[Tensor], operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
        takers = operation.inputs[: len(live)]
        none = {id(value): torch.zeros_like(value) for value in takers}
        return proportional(self.account, operation, arriving, takers, constant=operation.again(none))

    # -- the rest ------------------------------------------------------------------------------------------------

    def _refuse(self, operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
        """No rule is known; that matters only when relevance arrives."""
        if bool(arriving.any()):
            raise self.unknown(operation.call)
        return operation.back()

    def _remember(self, call: Call, output: Any) -> None:
        super()._remember(call, output)
        self._layers.remember(call, output, self._next)
        self._next = None


def _is_layer(call: Call) -> bool:
    """Whether a matrix product with a sum is a linear layer: weights and bias of the network's own."""
    bound = call.arguments
    own = not bound["bias"].requires_grad and not bound["weight"].requires_grad
    return own and bound["beta"] == 1 and bound["alpha"] == 1 and bound["bias"].dim() == 1


_STRAIGHT = Through(lambda arriving: arriving)


def _keep(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
    """A pixel keeps its relevance through the model's preparation before its first layer."""
    x = operation.inputs[0]
    return operation.back((x, reduced(arriving, x.shape)))
