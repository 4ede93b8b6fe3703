"""One recorded pass: values of layers, and gradients or relevance at them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from microtome.errors import InputError, MicrotomeError, ModelError, OpaqueError, OverwrittenError
from microtome.trace.axes.unit_edits import edits_of
from microtome.trace.backward_rules import RuleSet
from microtome.trace.lrp.relevance import Relevance
from microtome.trace.rectifiers.known_graphs import UnknownGraphError
from microtome.trace.rectifiers.rectifier_rules import RectifierRules
from microtome.trace.tracing import broken_pass
from microtome.trace.tracing.tracer import Tracer
from microtome.trace.tracing.watching import INPUT, Replacement

if TYPE_CHECKING:
    from microtome.network import Network

GradOutput = Tensor | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class RecordedPass:
    """The values and gradients of one pass.

    Attributes
    ----------
    value, gradient : dict of str to Tensor
        By layer; ``"input"`` is the image in the user's pixel space. Gradients are those of the
        class score of each image (images do not mix), or of the weighted output layer.
    logits : Tensor
        Class scores, shape (N, K); empty when an output layer was differentiated instead.
    score, target : Tensor
        The score of the target class of each image, and that class, shape (N,).
    notes : tuple of str
        Patterns that the backward rules could not recognise, by name.
    """

    value: dict[str, Tensor]
    gradient: dict[str, Tensor]
    logits: Tensor
    score: Tensor
    target: Tensor
    notes: tuple[str, ...] = ()


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
    output_layer: str | None,
    grad_output: GradOutput | None,
) -> RecordedPass:
    """Run the network on images and keep values and gradients; see ``Network.run``."""
    names = list(dict.fromkeys(record))
    if isinstance(rules, RectifierRules) and gradient and not replace and not edits_of(net.model):
        rules.recall(net.model, (*names, output_layer, *net.head.record, images.shape, images.dtype, images.device))
    try:
        return _take(net, images, target, names, gradient, rules, replace, output_layer, grad_output)
    except (UnknownGraphError, OverwrittenError) as error:  # now it is known what to watch, and what to copy
        if isinstance(error, OverwrittenError) and not error.again:
            raise
        if rules is not None:
            rules.forget()
    return take(
        net, images, target, record=names, gradient=gradient, rules=rules, replace=replace, output_layer=output_layer,
        grad_output=grad_output,
    )  # fmt: skip


def _take(
    net: Network, images: Tensor, target: Any, names: list[str], gradient: bool, rules: RuleSet | None,
    replace: Mapping[str, Replacement] | None, output_layer: str | None, grad_output: GradOutput | None,
) -> RecordedPass:  # fmt: skip
    """One pass.

    Raises
    ------
    UnknownGraphError
        When the pass was not watched, but has to be.
    OverwrittenError
        When the model wrote on tensors on which it had never written before.
    """
    inner = [name for name in names if name != "input"]
    pixels = images.detach()
    pixels = pixels.clone() if pixels.is_inference() else pixels
    source = pixels.requires_grad_(gradient and "input" in names)  # a view of the user's tensor: its own flag stays
    ends = net.head.record if output_layer is None else [output_layer]
    with torch.set_grad_enabled(gradient):
        prepared = net.normalise(source)
    if isinstance(rules, Relevance):  # a pixel keeps its relevance through the normalisation
        source = prepared.detach().requires_grad_(gradient and "input" in names)
        prepared = source.clone()  # the model may write into its input
        rules.start(prepared, *(net.normalise(edge) for edge in _range(net, pixels.detach())))
    watching = rules if rules is None or rules.watches else None
    tracer = Tracer(
        net.model,
        [*inner, *ends],
        gradient=gradient,
        live=[end for end in ends if gradient and end not in inner],
        rules=watching,
        replace=replace,
        stop=bool(ends),
        backward_hooks=rules is None,
    )
    begins = prepared.grad_fn
    output = tracer(prepared)
    _all_there(tracer)
    value = {name: tracer.value[name].detach() for name in inner}
    if "input" in names:
        value["input"] = pixels.detach()
    empty = torch.empty(0, dtype=torch.float32, device=pixels.device)
    logits, score, chosen = empty, empty, empty.long()
    if output_layer is None:
        logits = net.head.scores(tracer, output, len(pixels))
        chosen = net.targets(target, logits)
        score = logits.gather(1, chosen[:, None])[:, 0]
    if not gradient:
        return RecordedPass(value, {}, logits.detach(), score.detach(), chosen)
    places: dict[str, Any] = {**tracer.edge, **({"input": source} if "input" in names else {})}
    if output_layer is None:
        # Relevance begins as the score itself, a gradient as one.
        begun = score * score.detach() if isinstance(rules, Relevance) else score
        found = _gradients(begun.sum(), None, places, names, rules, begins)
    else:
        reached = tracer.value[output_layer]
        found = _gradients(reached, _weights(grad_output, reached, output_layer), places, names, rules, begins)
    if rules is not None:
        rules.forget()
    if not replace:  # a replaced value may cut the graph, and the gradient before it is zero
        _check_existence(net, found, ends)
    for name, slope in found.items():
        found[name] = _finite(torch.zeros_like(value[name]) if slope is None else slope, name)
    notes = tuple(getattr(rules, "notes", ()))
    return RecordedPass(value, found, logits.detach(), score.detach(), chosen, notes)


def _range(net: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """The lowest and highest value that a pixel may have; each image's own where the network names none."""
    if net.pixels is not None:
        low, high = (torch.full_like(images[:1], edge) for edge in net.pixels)
        return low, high
    flat = images.flatten(1)
    low, high = (edge.reshape(-1, 1, 1, 1).expand_as(images).clone() for edge in (flat.amin(1), flat.amax(1)))
    return low, high


def _gradients(
    output: Tensor, grad_output: Tensor | None, places: dict[str, Any], names: list[str], rules: RuleSet | None,
    begins: Any,
) -> dict[str, Any]:  # fmt: skip
    """Gradients at the recorded places; None if the output does not depend on one."""
    if not output.requires_grad:
        raise OpaqueError(
            f"the score does not depend on {', '.join(names)} by differentiable operations "
            "(a detach, rounding or a NumPy call in the model?), so there is no gradient to take."
        )
    if rules is not None:
        rules.check_graph(output, [begins, *places.values()])
    present = [name for name in names if name in places]
    try:
        with warnings.catch_warnings():
            # An operation without a gradient: the result is an error below.
            warnings.filterwarnings("ignore", message=".*an autograd kernel was not registered", category=UserWarning)
            found = torch.autograd.grad(output, [places[name] for name in present], grad_output, allow_unused=True)
    except (MicrotomeError, torch.cuda.OutOfMemoryError):  # a rule has refused an operation, and says which
        raise
    except Exception as error:
        if rules is not None and broken_pass.is_ours(error):
            raise OpaqueError(
                f"{rules.name} failed in the backward pass with {type(error).__name__}: {error}. The fault is in "
                "microtome, not in the model. Please report it with the model; methods that need only gradients "
                "still work."
            ) from error
        if not isinstance(error, RuntimeError) and broken_pass.is_ours(error):
            raise
        # An error of torch, such as an overwritten value that the gradient needs; or of an autograd function.
        what = str(error) if isinstance(error, RuntimeError) else f"{type(error).__name__}: {error}"
        raise ModelError(f"the model runs forwards but cannot be differentiated: {what}") from error
    return dict.fromkeys(names) | dict(zip(present, found, strict=True))


broken_pass.calls_the_model(_gradients)


def _check_existence(net: Network, gradients: Mapping[str, Any], ends: Iterable[str]) -> None:
    """Refuse a gradient that does not exist, as behind an int8 layer; a layer without effect has gradient zero."""
    missing = [name for name, slope in gradients.items() if slope is None]
    if not missing:
        return
    feeding = net.graph.feeding(ends)
    lost = [name for name in missing if name == "input" or name.removesuffix(INPUT) in feeding]
    if lost:
        raise OpaqueError(
            f'the score depends on "{lost[0]}", but not by differentiable operations (int8 layers, a detach, rounding '
            "or a NumPy call in the model?), so there is no gradient. Use the model before it was quantised, "
            "or a method that needs no gradient, such as occlusion."
        )


def _weights(grad_output: GradOutput | None, reached: Tensor, layer: str) -> Tensor:
    if grad_output is None:
        raise InputError(
            f'grad_output is needed with output_layer="{layer}": a tensor of shape {tuple(reached.shape)} or a '
            "function of the layer's value."
        )
    weights = grad_output(reached.detach()) if callable(grad_output) else grad_output
    if weights.shape != reached.shape:
        raise InputError(
            f'grad_output for "{layer}" has shape {tuple(weights.shape)}; {tuple(reached.shape)} was expected.'
        )
    return weights.to(reached)


def _finite(slope: Tensor, name: str) -> Tensor:
    # The sum is finite where all are, unless it overflows; it takes a tenth of the time of asking each number.
    if not bool(slope.sum().isfinite()) and not bool(torch.isfinite(slope).all()):
        bad = (~torch.isfinite(slope.flatten(1))).any(1).nonzero().flatten().tolist()
        raise ModelError(
            f'the gradient at "{name}" is not finite for images {bad[:8]}: expected numbers, got NaN or infinity. '
            "Look for a division by zero, a square root of zero or NaN weights in the model."
        )
    return slope.detach()


def _all_there(tracer: Tracer) -> None:
    if tracer.missing:
        name = sorted(tracer.missing)[0]
        raise OpaqueError(
            f'layer "{name}" did not run for these images, though it did when the network was read; '
            "the model takes different paths for different inputs. Choose a layer that always runs."
        )


def up_to(model: nn.Module, layer: str, images: Tensor) -> Tensor:
    """The value of a layer, where the pass ends; the model runs as it is, and its weights may learn from the value.

    Raises
    ------
    OpaqueError
        When the layer does not run.
    ModelError
        When the model itself raises.
    """
    tracer = Tracer(model, [layer], live=[layer])
    tracer.run_as_is(images)
    if tracer.missing:
        raise OpaqueError(f'layer "{layer}" did not run for these images.')
    return tracer.value[layer]
