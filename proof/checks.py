"""The checks of one network, each against a reference that shares no code with the library."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from microtome import attribution
from microtome.attribution import rules
from microtome.attribution.occlusion import evaluate
from microtome.errors import LayerError
from microtome.trace.delta.propagate import logits_under
from proof.guided_reference import guided
from proof.relevance_reference import NoReplica, relevance
from proof.subject import COUNT, TOLERANCE, NotCompared, Subject, Wrong, difference, off, state
from proof.unit_checks import dissection, units

FILL = 0.25


def read(s: Subject) -> str:
    """Every module that runs and returns one tensor is listed, with its shape; the scores are found."""
    if s.net.output_shape != (s.scores.shape[1],):
        raise Wrong(f"scores {s.net.output_shape} where {tuple(s.scores.shape[1:])} is right")
    alone, _ = s.plain.values(s.images[:1])
    for name, value in alone.items():
        if name not in s.net.layers:
            raise Wrong(f"{name} runs and is not listed")
        layer = s.net.layers[name]
        if torch.Size(layer.shape).numel() != value.numel():
            raise Wrong(f"{name} is listed as {layer.shape}, its value is {tuple(value.shape)}")
    if s.net.output == "logits":
        s.hold("scores", s.net.logits(s.images), s.scores)
    return f"{len(s.net.layers)} layers"


def activations(s: Subject) -> str:
    """Values of all modules, as hooks see them."""
    names = [name for name in s.values if name in s.net.layers]
    found = s.net.activations(s.images, names)
    for name in names:
        s.hold(name, found[name], s.values[name])
    return f"{len(names)} layers"


def gradient(s: Subject) -> str:
    """Against autograd, and against central differences, for one image and for a batch."""
    said = []
    direction = torch.randn(s.images.shape, generator=torch.Generator().manual_seed(s.seed + 9)).to(s.dtype)
    for count in (1, COUNT):
        x, targets = s.images[:count], s.targets[:count]
        found = attribution.gradient(s.net, x, targets).values
        auto = s.plain.gradient(x, targets)
        s.known["gradient"] = auto
        slope = (found * direction[:count]).flatten(1).sum(1)
        agreed = off(found, auto) <= TOLERANCE[s.dtype]
        if s.dtype == torch.float64 and not (count > 1 and s.mixes()):
            scale = auto.flatten(1).norm(dim=1) * direction[:count].flatten(1).norm(dim=1) / 10
            if agreed and float(scale.min()) < 1e-5 * float(s.scores.abs().max()):
                said.append("too flat for differences")  # differences are smaller than the rounding of two scores
                continue
            # A kink within a step spoils its difference: the best step of each image counts.
            steps = [s.plain.slopes(x, targets, direction[:count], step) for step in (1e-5, 1e-6, 1e-7, 1e-8, 1e-9)]
            away = float(torch.stack([(one - slope).abs() / (scale + 1e-300) for one in steps]).amin(0).max())
            # If autograd differs, the differences decide: its batch norm is wrong for one image.
            if away > 1e-4 and not (agreed and _rough(steps)):
                raise Wrong(
                    f"central differences of {count} images are off by {away:.2g}; autograd {off(found, auto):.2g}"
                )
            said.append(f"differences {away:.0e}")
            if not agreed:
                said.append("plain autograd is wrong here")
        elif not agreed:
            raise Wrong(f"autograd of {count} images: off by {off(found, auto):.2g}")
    return ", ".join(said)


def _rough(steps: list[Tensor]) -> bool:
    """Whether differences with several steps disagree with each other: the function has jumps."""
    return off(steps[0], steps[1]) > 1e-3 and off(steps[1], steps[2]) > 1e-3


def guided_backprop(s: Subject) -> str:
    """Against hooks on autograd's nodes."""
    found = attribution.guided_backprop(s.net, s.images, s.targets)
    expected = s.known["guided"] = guided(s.plain, s.images, s.targets)
    try:
        return s.hold("signal", found.values, expected)
    except Wrong as wrong:
        if found.unrecognised:
            raise NotCompared(f"the result says: {found.unrecognised[0]}") from wrong
        raise


def conservation(s: Subject) -> str:
    """Pixels, biases and stabilisers add up to the score, for the default rules and for epsilon."""
    for name in ("epsilon-sparing-plus", "epsilon"):
        found = attribution.lrp(s.net, s.images, s.targets, rules=name)
        parts = found.values.flatten(1)
        total = parts.sum(1) + found.bias_share + found.stabiliser_share
        score = s.scores[range(COUNT), s.targets]
        if s.net.output == "logits":
            s.hold("score", found.score, score)
        if s.mixes():  # relevance passes between images: only the sum over all images adds up
            parts, total, score = parts.flatten()[None], total.sum()[None], found.score.sum()[None]
        else:
            score = found.score
        scale = parts.abs().sum(1) + found.bias_share.abs() + found.stabiliser_share.abs() + found.score.abs()
        error = float(((total - score).abs() / (scale + 1e-300)).max())  # a score may be 0
        if not error <= TOLERANCE[s.dtype]:
            raise Wrong(f"{name}: sums are off by {error:.2g}")
    return f"{error:.0e}"


def relevance_values(s: Subject) -> str:
    """Epsilon with a vanishing stabiliser against slopes at autograd's nodes."""
    if s.dtype != torch.float64:
        raise NotCompared("the model does not run in double precision")
    try:
        expected = relevance(s.plain, s.images, s.targets)
    except NoReplica as name:
        raise NotCompared(f"no replica of {name}") from name
    mass = expected.flatten(1).abs().sum(1) / s.scores[range(COUNT), s.targets].abs()
    if not bool(torch.isfinite(mass).all()) or float(mass.max()) > 1e8:
        raise NotCompared(f"relevance explodes ({float(mass.max()):.0e} times the score)")
    s.known["relevance"] = expected
    found = attribution.lrp(s.net, s.images, s.targets, rules=rules.Epsilon(1e-13)).values
    return s.hold("values", found, expected, 1e-4)


def grad_cam(s: Subject) -> str:
    """The map at the default layer, from values and gradients that hooks see."""
    try:
        found = attribution.grad_cam(s.net, s.images, s.targets)
    except LayerError:
        if not any(value.dim() == 4 and min(value.shape[1:]) > 1 for value in s.values.values()):
            raise NotCompared("no layer has positions on the picture") from None
        raise
    known = s.net.activations(s.images, found.layer)[found.layer]
    noted = s.plain.value_and_gradient(s.images, s.targets, found.layer, known)
    if noted is None:
        raise NotCompared(f"{found.layer} is found by no hook")
    height, width = found.values.shape[2:]
    if height * width == 1 and any(v.dim() == 4 and min(v.shape[1:]) > 1 for v in s.values.values()):
        raise Wrong(f"{found.layer} has one place, other layers have more")
    maps = list(_as_maps(*noted, height, width))
    if not maps:
        raise Wrong(f"{found.layer}: {tuple(noted[0].shape)} is no grid of {height} x {width}")
    expected = min(maps, key=lambda one: off(found.values, one))
    s.known["grad-cam"] = found.layer, expected
    s.hold(found.layer, found.values, expected)
    if not bool(noted[1].any()):
        raise Wrong(f"the score does not depend on {found.layer}")
    return found.layer


def _as_maps(value: Tensor, slope: Tensor, height: int, width: int) -> list[Tensor]:
    """The map for each layout that the shape admits: channels first, channels last, tokens after others."""
    laid = []
    for channels_last in (False, True):
        v, g = (x.movedim(-1, 1) if channels_last else x for x in (value, slope))
        v, g = v.flatten(2), g.flatten(2)
        for first in range(min(9, v.shape[2] - height * width + 1)):
            if v.shape[0] == COUNT and (first == 0 or v.shape[2] != height * width):
                cut = slice(first, first + height * width)
                weights = g[:, :, cut].mean(2, keepdim=True)
                laid.append((weights * v[:, :, cut]).sum(1).relu().reshape(COUNT, 1, height, width))
    return laid


def occlusion(s: Subject) -> str:
    """Nine windows against covered images in plain passes; also windows carried as patches, even if that is slower."""
    stride = s.shape[1] // 3
    window = s.shape[1] - 2 * stride
    found = attribution.occlusion(s.net, s.images[:1], s.targets[:1], window=window, stride=stride, fill=FILL)
    boxes = found.boxes.reshape(-1, 4)
    covered = s.images[:1].repeat(len(boxes), 1, 1, 1)
    for row, (top, left, bottom, right) in enumerate(boxes.tolist()):
        covered[row, :, top:bottom, left:right] = FILL
    with torch.no_grad():
        expected = s.plain.scores(covered)
    if s.mixes():
        raise NotCompared("the images of a batch influence each other")
    target = s.targets[0]
    s.known["occlusion"] = window, stride, boxes, s.scores[0, target] - expected[:, target]
    if s.net.output == "logits":
        s.hold("scores under windows", found.logit.flatten(), expected[:, target])
        s.hold("probability", found.probability.flatten(), expected.softmax(1)[:, target])
    top = expected.topk(min(2, expected.shape[1])).values
    clear = top[:, 0] - top[:, -1] > 1e-3 * expected.abs().max()
    if not torch.equal(found.winner.flatten()[clear], expected.argmax(1)[clear]):
        raise Wrong("the winning class")
    fill = torch.full_like(s.images[:1], FILL)
    if s.net.output == "logits":
        for name, evaluator in (("patches", logits_under), ("plain passes", evaluate)):
            s.hold(name, evaluator(s.net, s.images[:1], boxes, fill, 4), expected)
    return f"{len(boxes)} windows"


def batch(s: Subject) -> str:
    """One image against the same image in a batch."""
    if s.mixes():
        if not s.net.graph.mixes:
            raise Wrong("the images of a batch influence each other, and nothing says so")
        return "the images of a batch influence each other, as is said"
    names = [name for name in s.values if name in s.net.layers]
    whole, single = (s.net.activations(s.images, names, batch=size) for size in (COUNT, 1))
    for name in names:
        s.hold(f"{name} in batches of one", single[name], whole[name])
    for method in (attribution.gradient, attribution.guided_backprop, attribution.lrp, attribution.grad_cam):
        try:
            together = method(s.net, s.images, s.targets).values
        except LayerError:
            continue
        apart = torch.cat([method(s.net, s.images[i : i + 1], s.targets[i]).values for i in range(COUNT)])
        tolerance = 1e-5 if s.dtype == torch.float64 else 1e-2
        if method is attribution.lrp:  # quotients amplify rounding
            excess = float(together.abs().sum() / s.scores.abs().max())
            if excess > 1e6:
                continue
            tolerance = max(tolerance, 1e-8 * excess)
        s.hold(method.__name__, apart, together, tolerance)
    return ""


def left_as_found(s: Subject) -> str:
    """Weights, buffers, flags, hooks, attributes and the random state are unchanged."""
    changed = difference(s.before, state(s.model))
    if changed:
        raise Wrong(f"changed: {changed}")
    return ""


# In the order in which they run; the last one checks the model after all others.
CHECKS: dict[str, Callable[[Subject], str]] = {
    "read": read,
    "activations": activations,
    "gradient": gradient,
    "guided": guided_backprop,
    "conservation": conservation,
    "relevance": relevance_values,
    "grad-cam": grad_cam,
    "occlusion": occlusion,
    "units": units,
    "dissection": dissection,
    "batch": batch,
    "left as found": left_as_found,
}
