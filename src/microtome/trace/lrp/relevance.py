"""How does relevance travel back through every operator of a network, and where does each part of it stay?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from microtome.errors import OpaqueError
from microtome.trace.backward_rules import BackwardRule, Operation, RuleSet, Through
from microtome.trace.lrp.attention import attention, multi_head
from microtome.trace.lrp.linear import WEIGHTED, Weighted, is_dense_product
from microtome.trace.lrp.norms import held, linear_part
from microtome.trace.lrp.products import Gates, pointwise, reduced, summed
from microtome.trace.lrp.rules import Rule, Shared, stabilised
from microtome.trace.operators import RECTIFIERS, Call, substitute, tensors

# Choose the rule of a weighted operator: (layer's operation, its kind, whether it reads the image) -> rule
Chooser = Callable[[str, str, bool], Rule]

# Values are only moved, chosen or repeated: the gradient moves the relevance along.
_ROUTING = frozenset(
    """view reshape flatten unflatten permute transpose movedim t T squeeze unsqueeze contiguous to float half double
    bfloat16 type_as clone identity dropout getitem setitem chunk split unbind narrow select index_select roll
    max_pool1d max_pool2d max_pool3d adaptive_max_pool2d amax max expand expand_as repeat channel_shuffle detach
    pixel_shuffle pixel_unshuffle flip view_as alias tile repeat_interleave unfold gather reshape_as ravel broadcast_to
    tensor_split split_with_sizes hsplit vsplit dsplit rot90 fliplr flipud diagonal take_along_dim masked_select
    native_channel_shuffle cpu cuda""".split()
)
# One number in, one number out: what arrives goes to the one input.
_POINTWISE = (
    RECTIFIERS
    | frozenset("sigmoid tanh hardsigmoid threshold clamp hardtanh softsign logsigmoid neg pow square sqrt".split())
    | {"normalize", "rms_norm"}
)  # the length is held, as the deviations of other norms are
# Averages and resampling: linear without weights.
_AVERAGING = frozenset(
    """avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d mean sum
    interpolate upsample fold cumsum""".split()
)
_NORMS = frozenset(("group_norm", "instance_norm", "layer_norm"))
# What may stand between the image and the first layer without changing what a pixel is.
_BEFORE_FIRST = frozenset("pad contiguous clone to identity dropout flatten view reshape".split())


class Relevance(RuleSet):
    """Layer-wise relevance propagation, operator by operator; the account of one pass is kept here.

    Attributes
    ----------
    bias_share : Tensor
        Relevance that biases and constants took, (N,).
    stabiliser_share : Tensor
        Relevance that the stabilisers of denominators took, (N,).

    Notes
    -----
    Weighted operators follow the chosen rule. Batch norm in evaluation is one linear layer with the
    convolution before it (weights a*w, bias a*b + c); standing alone it is linear with the epsilon
    rule. Sums share in proportion to their terms. Nonlinearities pass relevance on. A product with a
    gate (squeeze-excite) gives all to the signal and treats the gate as constant; so do attention
    weights, mixed between heads or not, and the deviation in layer norm (Ali et al. 2022). Max-pooling
    sends to the winner, average pooling shares in proportion.
    """

    name = "relevance propagation"

    def __init__(self, choose_rule: Chooser, epsilon: float = 1e-6) -> None:
        super().__init__()
        self._choose_rule, self.epsilon = choose_rule, epsilon
        self._images = 0
        self.bias_share = self.stabiliser_share = torch.empty(0)
        self._ranges: dict[int, tuple[Tensor, Tensor, Tensor]] = {}  # values made of pixels only, with their range
        self._gates = Gates(_ROUTING)
        self._made_by: dict[int, tuple[Tensor, Weighted]] = {}
        self._next: Weighted | None = None

    def start(self, prepared: Tensor, low: Tensor, high: Tensor) -> None:
        """Begin a pass on prepared images, whose pixels lie between ``low`` and ``high`` (both (1, C, H, W))."""
        self._images = prepared.shape[0]
        self.bias_share = prepared.new_zeros(self._images)
        self.stabiliser_share = prepared.new_zeros(self._images)
        self._ranges[id(prepared)] = (prepared, low, high)

    def forget(self) -> None:
        """Let go of the values of a pass that is over.

        They lead to the graph, whose nodes hold their rules and so this object: a circle that Python's collector
        does not see, since it runs through torch.
        """
        for known in (self._made_by, self._ranges, self._gates, self._made_from, self._readers):
            known.clear()

    # -- the forward pass: who reads what ------------------------------------------------------------------------

    def run(self, call: Call) -> Any:
        """Run one operation and remember what the operations after it need to know."""
        if call.kind == "addcmul":
            return self.run(self._sum_of_product(call))
        pixels = self._ranges.get(id(call.input)) if call.kind in _BEFORE_FIRST else None
        for value in call.tensors:
            made = self._made_by.get(id(value))
            if made is not None and made[0] is value and call.kind != "batch_norm":
                made[1].readers += 1
        weighs = self._gates.makes(call)
        if call.inplace:  # the tensor stays, its value does not
            for known in (self._made_by, self._ranges, self._gates):
                known.pop(id(call.input), None)
        source = call.input
        output = super().run(call)
        if weighs is not None:
            self._gates.note(output, weighs)
        if not isinstance(output, Tensor):
            return output
        if pixels is not None:
            low, high = (
                call.func(*substitute(call.args, {id(source): edge}), **substitute(call.kwargs, {id(source): edge}))[:1]
                for edge in (edge.expand_as(source) for edge in pixels[1:])  # x.view(n, -1) names the batch's size
            )
            self._ranges[id(output)] = (output, low, high)
        return output

    def _sum_of_product(self, call: Call) -> Call:
        """The sum that is left of ``input + value * a * b`` when its product has been run."""
        bound = call.arguments
        product = self.run(Call("mul", torch.mul, (bound["tensor1"], bound["tensor2"]), {}, False, call.name))
        add = Tensor.add_ if call.inplace else torch.add
        return Call("add", add, (bound["input"], product), {"alpha": bound["value"]}, call.inplace, call.name)

    def choose(self, call: Call) -> BackwardRule | Through | None:
        """The rule of an operation; None where the gradient moves relevance rightly."""
        kind = call.kind
        if kind in WEIGHTED:
            return self._weighted(call)
        if kind in _ROUTING:
            return None
        if kind in _POINTWISE:
            return _STRAIGHT
        if kind == "batch_norm":
            return self._batch_norm(call)
        if kind in _AVERAGING or kind in _NORMS:
            return self._linear_in(call)
        if kind in ("add", "sub", "rsub"):
            return self._sum(call)
        if kind in ("cat", "stack"):
            return self._concatenation(call)
        if kind == "pad":
            return self._padding
        if kind in ("mul", "div"):
            return pointwise(call, self._gates, self._refuse)
        if kind in ("matmul", "bmm", "einsum"):
            dense = kind != "einsum" and is_dense_product(call)
            return self._weighted(call) if dense else summed(self, call, self._gates, self._refuse)
        if kind == "scaled_dot_product_attention":
            return partial(attention, self)
        if kind == "multi_head_attention_forward":
            return partial(multi_head, self)
        return self._refuse

    # -- the account ---------------------------------------------------------------------------------------------

    def book(self, shared: Shared) -> None:
        """Write down what biases, constants and stabilisers took of the relevance."""
        self.bias_share += self._per_image(shared.bias)
        self.stabiliser_share += self._per_image(shared.stabiliser)

    def _per_image(self, amount: Tensor) -> Tensor:
        """Sum per image; windows and tokens of an image may lie along the batch."""
        n = self._images
        if amount.shape[0] % n == 0:
            return amount.reshape(n, -1).sum(1)
        if amount.dim() > 1 and amount.shape[1] == n:
            return amount.transpose(0, 1).reshape(n, -1).sum(1)
        return amount.sum().expand(n) / n

    # -- weighted operators --------------------------------------------------------------------------------------

    def _weighted(self, call: Call) -> BackwardRule:
        pixels = self._ranges.get(id(call.input))
        rule = self._choose_rule(call.name, call.kind, pixels is not None)
        weighted = Weighted(rule, call, pixels[1:] if pixels is not None else None)

        def share(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
            shared = weighted.rule.share(weighted.operator(operation), arriving)
            self.book(shared)
            return (shared.relevance, *(None,) * (len(operation.inputs) - 1))

        self._next = weighted
        return share

    def _batch_norm(self, call: Call) -> BackwardRule:
        made = self._made_by.get(id(call.input))
        bound = call.arguments
        if made is None or bound["running_mean"] is None or bound["training"]:
            return self._linear_in(call)
        weighted = made[1]
        if weighted.readers or weighted.norm is not None:
            return self._linear_in(call)
        scale = torch.rsqrt(bound["running_var"] + bound["eps"])
        if bound["weight"] is not None:
            scale = scale * bound["weight"]
        shift = -bound["running_mean"] * scale
        if bound["bias"] is not None:
            shift = shift + bound["bias"]
        return self._joined(weighted, scale.detach(), shift.detach(), self._linear_in(call))

    @staticmethod
    def _joined(weighted: Weighted, scale: Tensor, shift: Tensor, alone: BackwardRule) -> BackwardRule:
        """One linear layer of a weighted operator and the scale and shift of its channels that follow it."""

        def share(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
            if weighted.readers:  # somebody else read the operator's output after all: two separate layers
                weighted.norm = None
                return alone(operation, arriving)
            weighted.norm = (scale, shift, operation.output)
            return (arriving,)

        weighted.norm = (scale, shift, None)
        return share

    def _added_bias(self, call: Call) -> tuple[Weighted, Tensor] | None:
        """The weighted operator before a sum, and the constant per channel that the sum adds to it."""
        if call.kind != "add" or call.arguments["alpha"] != 1:
            return None
        for value, constant in (("input", "other"), ("other", "input")):
            made = self._made_by.get(id(call.arguments[value]))
            added = call.arguments[constant]
            if made is None or not isinstance(added, Tensor) or added.requires_grad:
                continue
            channels = made[0].shape[1] if made[1].convolves else made[0].shape[-1]
            per_channel = (channels, 1, 1) if made[1].convolves else (channels,)
            fits = tuple(added.shape[-len(per_channel) :]) == per_channel and added.numel() == channels
            if fits and made[1].readers <= 1 and made[1].norm is None:
                return made[1], added.detach().flatten()
        return None

    def _linear_in(self, call: Call) -> BackwardRule:
        """An operator that is linear (and a constant) in its first input, deviations of norms held."""

        def share(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
            x, z = operation.call.input, operation.output
            quotient = arriving / stabilised(z, self.epsilon)
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                value = held(operation.call, leaf)
                (slope,) = torch.autograd.grad(value, leaf, quotient)
            constant = torch.zeros_like(z) if call.kind in _AVERAGING else z - linear_part(operation.call, x)
            relevance = x * slope
            self.book(Shared(relevance, constant * quotient, arriving - z * quotient))
            return (relevance, *(None,) * (len(operation.inputs) - 1))

        return share

    # -- sums and products ---------------------------------------------------------------------------------------

    def _sum(self, call: Call) -> BackwardRule:
        biased = self._added_bias(call)
        if biased is not None:
            weighted, shift = biased
            weighted.readers -= 1  # this sum, which is part of the layer
            return self._joined(weighted, torch.ones_like(shift), shift, self._terms(call))
        return self._terms(call)

    def _terms(self, call: Call) -> BackwardRule:
        first, second = {"add": (1.0, 1.0), "sub": (1.0, -1.0), "rsub": (-1.0, 1.0)}[call.kind]

        def share(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
            bound, z = operation.call.arguments, operation.output
            quotient = arriving / stabilised(z, self.epsilon)
            scaled = float(bound["alpha"])
            terms = [(bound["input"], first), (bound["other"], second * scaled)]
            sent: list[Tensor] = []
            constant = torch.zeros_like(z)
            for value, factor in terms:
                part = factor * value * quotient
                if any(value is given for given in operation.inputs):
                    sent.append(reduced(part, value.shape))
                else:
                    constant = constant + part
            self.book(Shared(sent[0], constant, arriving - z * quotient))
            return tuple(sent)

        return share

    def _concatenation(self, call: Call) -> BackwardRule | None:
        parts = tensors(call.args[0] if call.args else call.kwargs["tensors"])
        if all(part.requires_grad for part in parts):
            return None

        def share(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
            dim = int(operation.call.arguments["dim"])
            pieces = tensors(operation.call.arguments["tensors"])
            if call.kind == "stack":
                cut = list(arriving.unbind(dim))
            else:
                cut = list(arriving.split([piece.shape[dim] for piece in pieces], dim))
            sent = []
            for piece, part in zip(pieces, cut, strict=True):
                if any(piece is given for given in operation.inputs):
                    sent.append(part)
                else:
                    self.book(Shared(part, part, torch.zeros_like(part)))  # a constant keeps its share
            return tuple(sent)

        return share

    def _padding(self, operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            leaf = operation.inputs[0].detach().requires_grad_()
            (sent,) = torch.autograd.grad(held(operation.call, leaf), leaf, arriving)
        inside = held(operation.call, torch.ones_like(sent))
        if str(operation.call.arguments["mode"]) == "constant":
            border = torch.where(inside == 1, 0, arriving)
            self.book(Shared(sent, border, torch.zeros_like(border)))
        return (sent,)

    def _refuse(self, operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
        """No rule is known; that matters only when relevance arrives."""
        if bool(arriving.any()):
            raise OpaqueError(
                f'{self.name} has no rule for the operation "{operation.call.kind}" at "{operation.call.name}". '
                "Use a gradient method, or write the model with operations that have one."
            )
        return tuple(torch.zeros_like(value) for value in operation.inputs)

    def _remember(self, call: Call, output: Any) -> None:
        super()._remember(call, output)
        if isinstance(output, Tensor) and self._next is not None:
            self._made_by[id(output)] = (output, self._next)
        self._next = None


_STRAIGHT = Through(lambda arriving: arriving)
