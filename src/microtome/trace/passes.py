"""What did the network compute for these images, and how does the answer depend on it? Values and gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from microtome.errors import InputError, ModelError, OpaqueError
from microtome.trace.backward_rules import RuleSet
from microtome.trace.graph import logits_of
from microtome.trace.lrp.relevance import Relevance
from microtome.trace.tracer import Replacement, Tracer

if TYPE_CHECKING:
    from microtome.network import Network

Seed = Tensor | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tape:
    """The record of one pass.

    Attributes
    ----------
    value, gradient : dict of str to Tensor
        By layer; ``"input"`` is the image in the user's pixel space. Gradients are those of the
        class score of each image (images do not mix), or of what was seeded.
    logits : Tensor
        Class scores, shape (N, K); empty when a layer was seeded instead.
    score, target : Tensor
        The score of the target class of each image, and that class, shape (N,).
    """

    value: dict[str, Tensor]
    gradient: dict[str, Tensor]
    logits: Tensor
    score: Tensor
    target: Tensor


@torch.inference_mode(False)
def take(
    net: Network,
    images: Tensor,
    target: Any,
    *,
    record: Iterable[str],
    gradient: bool,
    rules: RuleSet | None,
    replace: Mapping[str, Replacement] | None,
    of: str | None,
    seed: Seed | None,
) -> Tape:
    """Run the network on images and keep what was asked for; see ``Network.tape``."""
    names = list(dict.fromkeys(record))
    inner = [name for name in names if name != "input"]
    pixels = images.detach()
    pixels = pixels.clone() if pixels.is_inference() else pixels
    source = pixels.requires_grad_(gradient and "input" in names)  # a view of the user's tensor: its own flag stays
    end = of if of is not None else net.graph.logits if net.graph.closing else None
    with torch.set_grad_enabled(gradient):
        prepared = net.normalise(source)
    if isinstance(rules, Relevance):  # a pixel keeps its relevance through the normalisation
        source = prepared = prepared.detach().requires_grad_(gradient and "input" in names)
        rules.start(prepared, *(net.normalise(edge) for edge in _range(net, pixels.detach())))
    tracer = Tracer(
        net.model,
        [*inner, end] if end is not None else inner,
        gradient=gradient,
        live=(end,) if end is not None and gradient and end not in inner else (),
        rules=rules,
        replace=replace,
        stop=end is not None,
    )
    output = tracer(prepared)
    _all_there(tracer, net)
    reached = tracer.value[end] if end is not None else logits_of(output)
    value = {name: tracer.value[name].detach() for name in inner}
    if "input" in names:
        value["input"] = pixels.detach()
    empty = torch.empty(0, device=pixels.device)
    logits, score, chosen = empty, empty, empty.long()
    if of is None:
        logits = as_logits(reached, net)
        chosen = net.targets(target, logits)
        score = logits.gather(1, chosen[:, None])[:, 0]
    if not gradient:
        return Tape(value, {}, logits.detach(), score.detach(), chosen)
    places: dict[str, Any] = {**tracer.edge, **({"input": source} if "input" in names else {})}
    cotangent = _cotangent(seed, reached, of) if of is not None else None
    # Relevance begins as the score itself, a gradient as one.
    begun = score * score.detach() if isinstance(rules, Relevance) else score
    begin = begun.sum() if of is None else reached
    found = _gradients(begin, cotangent, places, names, rules)
    if isinstance(rules, Relevance):
        rules.forget()
    for name, slope in found.items():
        found[name] = _finite(torch.zeros_like(value[name]) if slope is None else slope, name)
    return Tape(value, found, logits.detach(), score.detach(), chosen)


def _range(net: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and highest value that a pixel may have; each image's own where the network names none."""
    if net.pixels is not None:
        low, high = (torch.full_like(images[:1], edge) for edge in net.pixels)
        return low, high
    flat = images.flatten(1)
    low, high = (edge.reshape(-1, 1, 1, 1).expand_as(images).clone() for edge in (flat.amin(1), flat.amax(1)))
    return low, high


def _gradients(
    output: Tensor, cotangent: Tensor | None, places: dict[str, Any], names: list[str], rules: RuleSet | None
) -> dict[str, Any]:
    """Gradients at the recorded places; None where the output does not depend on one."""
    if not output.requires_grad:
        raise OpaqueError(
            f"the score does not depend on {', '.join(names)} by differentiable operations "
            "(a detach, rounding or a NumPy call in the model?), so there is no gradient to take."
        )
    if rules is not None:
        rules.check_graph(output)
    asked = [name for name in names if name in places]
    try:
        found = torch.autograd.grad(output, [places[name] for name in asked], cotangent, allow_unused=True)
    except RuntimeError as error:  # torch's own: the model overwrites a value that its gradient needs, and the like
        raise ModelError(f"the model runs forwards but cannot be differentiated: {error}") from error
    return dict.fromkeys(names) | dict(zip(asked, found, strict=True))


def _cotangent(seed: Seed | None, reached: Tensor, of: str) -> Tensor:
    if seed is None:
        raise InputError(f'a seed is needed beside of="{of}": a tensor of shape {tuple(reached.shape)} or a function.')
    cotangent = seed(reached.detach()) if callable(seed) else seed
    if cotangent.shape != reached.shape:
        raise InputError(f'the seed for "{of}" has shape {tuple(cotangent.shape)}; expected {tuple(reached.shape)}.')
    return cotangent.to(reached)


def _finite(slope: Tensor, name: str) -> Tensor:
    # The sum is finite where all are, unless it overflows; it takes a tenth of the time of asking each number.
    if not bool(slope.sum().isfinite()) and not bool(torch.isfinite(slope).all()):
        bad = (~torch.isfinite(slope.flatten(1))).any(1).nonzero().flatten().tolist()
        raise ModelError(
            f'the gradient at "{name}" is not finite for images {bad[:8]}: expected numbers, got NaN or infinity. '
            "Look for a division by zero, a square root of zero or NaN weights in the model."
        )
    return slope.detach()


def _all_there(tracer: Tracer, net: Network) -> None:
    if tracer.missing:
        name = sorted(tracer.missing)[0]
        raise OpaqueError(
            f'layer "{name}" did not run for these images, though it did when the network was read; '
            "the model takes different paths for different inputs. Choose a layer that always runs."
        )


def as_logits(output: Tensor, net: Network) -> Tensor:
    """The class scores as (N, K).

    Raises
    ------
    ModelError
        When the output is no vector of class scores.
    """
    if output.dim() == 4 and output.shape[2:] == (1, 1):
        output = output[:, :, 0, 0]
    if output.dim() == 1 and output.numel():
        output = output[:, None]
    if output.dim() != 2:
        raise ModelError(
            f"class scores of shape (N, classes) were expected, the network gives {tuple(output.shape)}; "
            "wrap the model so that it returns one score per class and image."
        )
    if not bool(torch.isfinite(output).all()):
        raise ModelError(
            "the class scores hold NaN or infinity; check the weights and the normalisation of the network."
        )
    return output
