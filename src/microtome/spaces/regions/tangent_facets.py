"""Values, slopes and gradients of all facet functions, from a forward pass with tangents."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from microtome.errors import OpaqueError
from microtome.network import Network
from microtome.spaces.regions.facets import KINKED, PAIRS, Facets, bent, check, facets_of
from microtome.trace import Call, RuleSet, Tracer
from microtome.trace.heads.head import at_path
from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_table import COMPARISONS

_MASKING = COMPARISONS
_NOISE = 1e-12  # changes and values below this share of the layer's largest are rounding


@dataclass(frozen=True)
class Bends:
    """All facet functions of a batch: value, and slope along each image's direction.

    Attributes
    ----------
    facets : list of Facets
        By operation.
    value, slope : Tensor
        (N, facets) over all operations; a slope below rounding is 0.
    tied : Tensor
        (N, facets): the image lies on the facet, to rounding.
    logits, logits_slope : Tensor
        (N, K).
    """

    facets: list[Facets]
    value: Tensor
    slope: Tensor
    tied: Tensor
    logits: Tensor
    logits_slope: Tensor

    def owner(self, facet: int) -> dict[str, Any]:
        """Which unit a facet belongs to."""
        return owner(self.facets, facet)


def together(parts: Sequence[Bends]) -> Bends:
    """The facet functions of several batches."""
    names = ("value", "slope", "tied", "logits", "logits_slope")
    return Bends(parts[0].facets, *(torch.cat([getattr(part, name) for part in parts]) for name in names))


def owner(facets: list[Facets], facet: int) -> dict[str, Any]:
    """Which unit a facet belongs to, counted over all operations."""
    for part in facets:
        if facet < part.value.shape[1]:
            return part.owner(facet)
        facet -= part.value.shape[1]
    return {}


# What an operation reads, with the images first; None if it belongs to no image.
ByImage = Callable[[Call, Tensor], Tensor | None]


def _by_image(net: Network, count: int) -> ByImage:
    """Put the images of a value first, wherever the model has them: behind tokens, or folded with windows."""
    alone = net.admitted(2) == 1

    def arranged(call: Call, value: Tensor) -> Tensor | None:
        axes = net.graph.axes.get(call.name)
        if axes is not None and axes.image_axis is not None:
            return axes.per_image(value, count)
        if alone:
            return value[None]
        if axes is None or value.requires_grad or forward_ad.unpack_dual(value).tangent is not None:
            raise OpaqueError(
                f'which numbers of "{call.name}" belong to which image is not known: the model takes different paths '
                "for different images, or computes one value from all images of a batch. Give one image."
            )
        return None

    return arranged


class KinkRules(RuleSet):
    """Rules that do not change the pass and record what each operation with kinks reads.

    Of two values that are compared it is their difference. The images come first; what belongs to no image, such as
    weights that are rectified, has no facet.
    """

    name = "a linear region"

    def __init__(self, note: Callable[[Call, Tensor], None], *, verify: bool, by_image: ByImage | None = None) -> None:
        super().__init__()
        self._note, self._verify, self._by_image = note, verify, by_image
        self._masks: dict[int, Any] = {}

    def run(self, call: Call) -> Any:
        """Record the input, then run the operation as it is."""
        call = self._recognised(call)  # x * (x > 0) is a relu
        if self._verify:
            self._check(call)
        if call.kind in KINKED and self._by_image is not None:
            others = call.tensors[1:] if call.kind in PAIRS else []
            read = self._by_image(call, call.input - others[0] if others else call.input)
            if read is not None:
                self._note(call, read)
        output = call.run()
        self._remember(call, output)
        if self._verify and call.kind in _MASKING and (self._dependent(call) or self._masked(call)):
            self._masks[id(output)] = output
        return output

    def rows(self, images: int, scores: Tensor) -> int:
        """The expected number of rows of the scores for this number of images."""
        return images

    def _check(self, call: Call) -> None:
        if self._masked(call) and call.kind not in _MASKING:
            raise bent(call, "uses a comparison of image values in a way that is not recognised as a rectifier")
        if call.kind not in _MASKING:
            check(call, lambda value: value.requires_grad)

    def _dependent(self, call: Call) -> bool:
        return any(value.requires_grad for value in call.tensors)

    def _masked(self, call: Call) -> bool:
        return any(id(value) in self._masks for value in call.tensors)


def verify(net: Network, image: Tensor) -> None:
    """Refuse a network that is not piecewise linear in the image, naming the operation.

    Raises
    ------
    OpaqueError
        Where it bends other than at facets, or hides an operation.
    """
    x = image[:1].detach().clone().requires_grad_()
    with torch.enable_grad():
        prepared = net.normalise(x)
    run(net, prepared, KinkRules(lambda call, z: None, verify=True), live=True)


def bends(net: Network, images: Tensor, directions: Tensor) -> Bends:
    """Values and slopes of all facet functions: a forward pass with one direction for each image.

    Parameters
    ----------
    net : Network
        A piecewise linear network in float64.
    images, directions : Tensor
        (N, C, H, W) in pixel space.
    """
    at_once = net.admitted(len(images))
    if at_once < len(images):
        return together(
            [bends(net, *some) for some in zip(images.split(at_once), directions.split(at_once), strict=True)]
        )
    parts: list[Facets] = []
    slopes: list[Tensor] = []

    def note(call: Call, z: Tensor) -> None:
        split = forward_ad.unpack_dual(z)
        found = facets_of(call, split.primal.detach())
        if found is None:
            return
        parts.append(found)
        slopes.append(found.along(torch.zeros_like(split.primal) if split.tangent is None else split.tangent.detach()))

    with forward_ad.dual_level(), torch.no_grad():
        with warnings.catch_warnings():  # torch scripts its own forward rules when the first dual number is made
            warnings.filterwarnings("ignore", message=".*torch.jit.*")
            dual = forward_ad.make_dual(images, directions.to(images))
        output = run(
            net, net.normalise(dual), KinkRules(note, verify=False, by_image=_by_image(net, len(images))), live=False
        )
        split = forward_ad.unpack_dual(output)
        logits = split.primal.detach().clone()
        moved = torch.zeros_like(logits) if split.tangent is None else split.tangent.detach().clone()
    ties = []
    for place, part in enumerate(parts):
        largest = slopes[place].abs().amax(1, keepdim=True)
        slopes[place] = torch.where(slopes[place].abs() > _NOISE * largest, slopes[place], 0.0)
        finite = torch.where(part.value.isfinite(), part.value, 0.0)
        ties.append((finite.abs() <= _NOISE * finite.abs().amax(1, keepdim=True)) & (slopes[place] != 0))
    value = torch.cat([part.value for part in parts], 1) if parts else logits[:, :0]
    slope = torch.cat(slopes, 1) if parts else logits[:, :0]
    tied = torch.cat(ties, 1) if parts else value.bool()
    return Bends(parts, value, slope, tied, logits, moved)


def gradients(net: Network, images: Tensor, chosen: Tensor) -> Tensor:
    """The gradient of one facet function for each image, (N, C, H, W).

    Parameters
    ----------
    net : Network
        A piecewise linear network in float64.
    images : Tensor
        (N, C, H, W).
    chosen : Tensor
        (N,) facets, counted over all operations.
    """
    at_once = net.admitted(len(images))
    if at_once < len(images):
        return torch.cat(
            [gradients(net, *some) for some in zip(images.split(at_once), chosen.split(at_once), strict=True)]
        )
    x = images.detach().clone().requires_grad_()
    values: list[Tensor] = []
    start = 0

    def note(call: Call, z: Tensor) -> None:
        nonlocal start
        found = facets_of(call, z.detach())
        if found is None:
            return
        count = found.value.shape[1]
        mine = (chosen >= start) & (chosen < start + count)
        if bool(mine.any()):
            # Taken at once: the model may write on z later. Offsets have no gradient.
            values.append(found.along(z.clone()).gather(1, (chosen - start).clamp(0, count - 1)[:, None])[mine].sum())
        start += count

    with torch.enable_grad():
        prepared = net.normalise(x)
        run(net, prepared, KinkRules(note, verify=False, by_image=_by_image(net, len(x))), live=True)
        found: Tensor | None = torch.autograd.grad(torch.stack(values).sum(), x, allow_unused=True)[0]
    return torch.zeros_like(x) if found is None else found


class _Effects(KinkRules):
    """Collects the gradient of the scores at each operation with kinks."""

    def __init__(self, by_image: ByImage) -> None:
        self.found: list[tuple[Facets, list[Tensor]]] = []
        self._part: Facets | None = None
        super().__init__(self._record, verify=False, by_image=by_image)

    def _record(self, call: Call, z: Tensor) -> None:
        self._part = facets_of(call, z.detach())

    def run(self, call: Call) -> Any:
        """Run the operation and hook the gradient of its output."""
        output = super().run(call)
        part, self._part = self._part, None
        if part is not None:
            signals: list[Tensor] = []
            self.found.append((part, signals))
            outputs = tensors(output) or [call.input]
            if outputs[0].requires_grad:  # a hook belongs to the value of this moment, whatever is written later
                outputs[0].register_hook(partial(self._keep, signals, call))
        return output

    def _keep(self, signals: list[Tensor], call: Call, signal: Tensor) -> None:
        arranged = None if self._by_image is None else self._by_image(call, signal)
        if arranged is not None:
            signals.append(arranged)


def reaches_scores(net: Network, images: Tensor) -> Tensor:
    """(N, facets): whether a unit's value changes any class score, with all other units fixed.

    A facet of a unit that does not is no bend of the scores: what is behind it is the same affine map.

    Parameters
    ----------
    net : Network
        A piecewise linear network in float64.
    images : Tensor
        (N, C, H, W).
    """
    at_once = net.admitted(len(images))
    if at_once < len(images):
        return torch.cat([reaches_scores(net, some) for some in images.split(at_once)])
    x = images.detach().clone().requires_grad_()
    rules = _Effects(_by_image(net, len(x)))
    with torch.enable_grad():
        scores = run(net, net.normalise(x), rules, live=True)
        mixed = torch.randn(
            scores.shape, generator=torch.Generator().manual_seed(0), dtype=scores.dtype, device="cpu"
        ).to(scores.device)
        torch.autograd.grad(scores, x, mixed, allow_unused=True)
    parts = []
    for facets, signals in rules.found:
        count = facets.value.shape[1]
        if not signals:
            parts.append(x.new_zeros(len(x), count, dtype=torch.bool))
            continue
        units = signals[0].detach().flatten(1) != 0
        pooled = "pool" in facets.kind
        parts.append(units.repeat_interleave(facets.each, 1) if pooled else units.repeat(1, facets.each))
    return torch.cat(parts, 1) if parts else x.new_zeros(len(x), 0, dtype=torch.bool)


def run(net: Network, prepared: Tensor, rules: KinkRules, *, live: bool) -> Tensor:
    """Class scores of prepared images; the rules see every operation with kinks."""
    wanted = net.head.record
    tracer = Tracer(net.model, wanted, live=wanted or ("",) if live else wanted, rules=rules, stop=bool(wanted))
    output = tracer(prepared)
    scores = tracer.value[net.head.layer] if net.head.layer else tracer.content(at_path(output, net.head.path))
    return net.head.scores(tracer, output, rules.rows(len(prepared), scores))
