"""Asks captum, zennit, pytorch-grad-cam and TorchLens the same questions, with the same references.

Each library gets a copy of the model whose output has the form that it expects. A library that is not installed is left
out.
"""

from __future__ import annotations

import copy
import importlib.util
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from proof.plain import scores_in
from proof.subject import COUNT, TOLERANCE, Subject, off
from proof.verdicts import OUT_OF_TIME, RIGHT, WRONG

ERROR = "error"
SECONDS = 20.0  # processor seconds per question
_MODULES = {"captum": "captum", "zennit": "zennit", "grad-cam": "pytorch_grad_cam", "torchlens": "torchlens"}


class _Late(Exception):
    """The time for a question is over."""


class _NotAsked(Exception):
    """The library does not claim to answer this."""


class _Scores(nn.Module):
    """A model that returns only its class scores."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return scores_in(self.model(x), len(x))


def installed() -> list[str]:
    """The installed peers."""
    return [name for name, module in _MODULES.items() if importlib.util.find_spec(module) is not None]


def ask(s: Subject) -> dict[str, dict[str, str]]:
    """Question -> peer -> verdict, for each question with a reference."""
    found: dict[str, dict[str, str]] = {}
    for (question, peer), answer in _ANSWERS.items():
        if peer in installed() and (question == "activations" or question in s.known):
            said = _verdict(answer, s)
            if said:
                found.setdefault(question, {})[peer] = said
    return found


def _verdict(answer: Callable[[Subject, nn.Module], tuple[Tensor, Tensor]], s: Subject) -> str:
    model = _Scores(copy.deepcopy(s.model)).eval()
    try:
        with warnings.catch_warnings(), _limited():
            warnings.simplefilter("ignore")
            given, expected = answer(s, model)
    except _Late:
        return OUT_OF_TIME
    except _NotAsked:
        return ""
    except Exception as error:
        return f"{ERROR}: {type(error).__name__}: {error}"[:160]
    if given.shape != expected.shape:
        return f"{WRONG}: shape {tuple(given.shape)}"
    away = off(given, expected)
    return RIGHT if away <= max(TOLERANCE[s.dtype], 1e-4) else f"{WRONG}: off by {away:.2g}"


@contextmanager
def _limited() -> Any:
    def stop(*_: object) -> None:
        raise _Late

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    start = time.process_time()
    try:
        yield
    except Exception:
        if time.process_time() - start >= SECONDS:  # the library may wrap the exception that stops it
            raise _Late from None
        raise
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


Answer = tuple[Tensor, Tensor]  # given, expected
_ANSWERS: dict[tuple[str, str], Callable[[Subject, nn.Module], Answer]] = {}


def _answers(question: str, peer: str) -> Any:
    def enter(answer: Callable[[Subject, nn.Module], Answer]) -> Callable[[Subject, nn.Module], Answer]:
        _ANSWERS[question, peer] = answer
        return answer

    return enter


def _classes(s: Subject) -> Tensor:
    return torch.tensor(s.targets)


@_answers("activations", "torchlens")
def _traced(s: Subject, model: nn.Module) -> Answer:
    import torchlens

    options = torchlens.options.CaptureOptions(unwrap_when_done=True)
    seen = torchlens.trace(model, s.images.clone(), capture=options)
    given, expected = [], []
    for name, value in s.values.items():
        scale = max(float(value.abs().max()), 1e-12) if value.numel() else 1.0
        given.append(seen.modules[f"model.{name}"].out.detach().to(value).flatten() / scale)
        expected.append(value.flatten() / scale)
    return torch.cat(given), torch.cat(expected)


@_answers("gradient", "captum")
def _saliency(s: Subject, model: nn.Module) -> Answer:
    from captum.attr import Saliency

    x = s.images.clone().requires_grad_()
    return Saliency(model).attribute(x, target=_classes(s), abs=False), s.known["gradient"]


def _by_zennit(s: Subject, model: nn.Module, composite: Any) -> Tensor:
    from zennit.attribution import Gradient

    seed = torch.eye(s.scores.shape[1], dtype=s.dtype)[_classes(s)]
    with Gradient(model=model, composite=composite) as attributor:
        return attributor(s.images.clone(), seed)[1]


@_answers("gradient", "zennit")
def _zennit_gradient(s: Subject, model: nn.Module) -> Answer:
    return _by_zennit(s, model, None), s.known["gradient"]


@_answers("guided", "captum")
def _captum_guided(s: Subject, model: nn.Module) -> Answer:
    from captum.attr import GuidedBackprop

    x = s.images.clone().requires_grad_()
    return GuidedBackprop(model).attribute(x, target=_classes(s)), s.known["guided"]


@_answers("guided", "zennit")
def _zennit_guided(s: Subject, model: nn.Module) -> Answer:
    from zennit.composites import GuidedBackprop

    return _by_zennit(s, model, GuidedBackprop()), s.known["guided"]


@_answers("guided", "grad-cam")
def _replaced(s: Subject, model: nn.Module) -> Answer:
    from pytorch_grad_cam import GuidedBackpropReLUModel

    guided = GuidedBackpropReLUModel(model=model, device="cpu")
    maps = [
        torch.as_tensor(guided(x[None].clone(), target)).permute(2, 0, 1)
        for x, target in zip(s.images, s.targets, strict=True)
    ]
    return torch.stack(maps), s.known["guided"]


@_answers("relevance", "captum")
def _captum_lrp(s: Subject, model: nn.Module) -> Answer:
    from captum.attr import LRP

    x = s.images.clone().requires_grad_()
    return LRP(model).attribute(x, target=_classes(s)), s.known["relevance"]


@_answers("relevance", "zennit")
def _zennit_lrp(s: Subject, model: nn.Module) -> Answer:
    from torchvision.models import ResNet
    from zennit.attribution import Gradient
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import LayerMapComposite, layer_map_base
    from zennit.rules import Epsilon
    from zennit.torchvision import ResNetCanonizer
    from zennit.types import Convolution, Linear

    canonizer = ResNetCanonizer if isinstance(s.model, ResNet) else SequentialMergeBatchNorm
    layers = [(Convolution, Epsilon(1e-13)), (Linear, Epsilon(1e-13))]
    composite = LayerMapComposite(layer_map=layers + layer_map_base(), canonizers=[canonizer()])
    seed = torch.zeros_like(s.scores)
    rows = range(COUNT)
    seed[rows, s.targets] = s.scores[rows, s.targets]
    with Gradient(model=model, composite=composite) as attributor:
        return attributor(s.images.clone(), seed)[1], s.known["relevance"]


def _at(s: Subject, model: nn.Module) -> nn.Module:
    """The module with these maps: the last that returns them, if a function inside computes them."""
    layer, expected = s.known["grad-cam"]
    maps = s.net.activations(s.images, layer)[layer]
    if maps.dim() != 4 or maps.shape[2:] != expected.shape[2:]:
        raise _NotAsked("channels are not where the library expects them")
    same = [name for name, value in s.values.items() if value.shape == maps.shape and torch.equal(value, maps)]
    parts = dict(model.named_modules())
    return parts[f"model.{same[-1] if same else layer}"]


@_answers("grad-cam", "captum")
def _layer_cam(s: Subject, model: nn.Module) -> Answer:
    from captum.attr import LayerGradCam

    x = s.images.clone().requires_grad_()
    found = LayerGradCam(model, _at(s, model)).attribute(x, target=_classes(s), relu_attributions=True)
    return found, s.known["grad-cam"][1]


@_answers("grad-cam", "grad-cam")
def _cam(s: Subject, model: nn.Module) -> Answer:
    from pytorch_grad_cam import GradCAM

    with GradCAM(model, [_at(s, model)]) as cam:
        scores = cam.activations_and_grads(s.images.clone().requires_grad_())
        model.zero_grad()
        scores[range(COUNT), s.targets].sum().backward()
        seen = cam.activations_and_grads
        values, slopes = (part[0].detach().numpy() for part in (seen.activations, seen.gradients))
        raw = cam.get_cam_image(s.images, cam.target_layers[0], [], values, slopes, False)
    return torch.as_tensor(raw).clamp(min=0)[:, None], s.known["grad-cam"][1]


@_answers("occlusion", "captum")
def _covered(s: Subject, model: nn.Module) -> Answer:
    from captum.attr import Occlusion

    from proof.checks import FILL

    window, stride, boxes, drops = s.known["occlusion"]
    with torch.no_grad():
        found = Occlusion(model).attribute(
            s.images[:1],
            sliding_window_shapes=(s.shape[0], window, window),
            strides=(s.shape[0], stride, stride),
            target=s.targets[0],
            baselines=FILL,
            perturbations_per_eval=len(boxes),
        )
    rows = [((top + bottom) // 2, (left + right) // 2) for top, left, bottom, right in boxes.tolist()]
    given = torch.stack([found[0, 0, row, column] for row, column in rows])  # in the middle, windows do not overlap
    return given.to(drops), drops


# Peers that answer each question, for the page.
QUESTIONS: dict[str, list[str]] = {}
for _question, _peer in _ANSWERS:
    QUESTIONS.setdefault(_question, []).append(_peer)
