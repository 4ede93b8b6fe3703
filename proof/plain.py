"""Reads a model with plain PyTorch: scores, values by hooks, gradients by autograd and by finite differences."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


class Plain:
    """A copy of a model with frozen weights, so that autograd's graph holds only values that depend on the image."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model)
        for weight in self.model.parameters():
            weight.requires_grad_(False)

    def scores(self, images: Tensor) -> Tensor:
        """Class scores (N, K), wherever the model returns them; attention is computed step by step."""
        with sdpa_kernel(SDPBackend.MATH):
            return scores_in(self.model(images), len(images))

    def gradient(self, images: Tensor, targets: Sequence[int]) -> Tensor:
        """Autograd's gradient of each image's score."""
        x = images.clone().requires_grad_()
        score = self.scores(x)[range(len(x)), list(targets)].sum()
        return torch.autograd.grad(score, x)[0]

    def slopes(self, images: Tensor, targets: Sequence[int], direction: Tensor, step: float) -> Tensor:
        """Central differences (N,) of each image's score along a direction of its own."""
        with torch.no_grad():
            up, down = (self.scores(images + sign * step * direction) for sign in (1, -1))
        return (up - down)[range(len(images)), list(targets)] / (2 * step)

    def values(self, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Outputs of all modules that run once and give one tensor, copied as they return; and the scores."""
        found: dict[str, list[Any]] = {}
        handles = [
            module.register_forward_hook(
                lambda _module, _args, out, name=name: found.setdefault(name, []).append(
                    out.detach().clone() if isinstance(out, Tensor) else None
                )
            )
            for name, module in self.model.named_modules()
            if name
        ]
        try:
            scores = self.scores(images.clone().requires_grad_()).detach()
        finally:
            for handle in handles:
                handle.remove()
        return {name: out[0] for name, out in found.items() if len(out) == 1 and out[0] is not None}, scores

    def calls(self, images: Tensor, names: Sequence[str]) -> dict[str, tuple[Tensor, Tensor]]:
        """Inputs and outputs of some modules, copied before anything can change them in place."""
        parts, found = dict(self.model.named_modules()), dict[str, tuple[Tensor, Tensor]]()
        read: dict[str, Tensor] = {}
        handles = []
        for name in names:

            def before(_module: Any, args: Any, name: str = name) -> None:
                read[name] = args[0].clone()

            def after(_module: Any, _args: Any, out: Tensor, name: str = name) -> None:
                found[name] = read[name], out.clone()

            handles += [parts[name].register_forward_pre_hook(before), parts[name].register_forward_hook(after)]
        try:
            with torch.no_grad():
                self.scores(images)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def value_and_gradient(
        self, images: Tensor, targets: Sequence[int], name: str, known: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """Value and gradient at a module, or at the operation whose value is ``known``; None if there is none."""
        found: list[tuple[Tensor, Any]] = []
        x = images.clone().requires_grad_()
        module = dict(self.model.named_modules()).get(name)
        if module is not None:
            handle = module.register_forward_hook(lambda _module, _args, out: found.append(_noted(out)))
            try:
                scores = self.scores(x)
            finally:
                handle.remove()
        else:
            with _Finder(known) as finder:
                scores = self.scores(x)
            found = finder.found[::-1]
        score = scores[range(len(x)), list(targets)].sum()
        for value, edge in found:  # of several equal values, the last that the score depends on
            slope = torch.autograd.grad(score, edge, retain_graph=True, allow_unused=True)[0]
            if slope is not None:
                return value, slope
        return None


class _Finder(TorchFunctionMode):
    """Looks for the operation that gives a known value."""

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.known, self.found = known, list[tuple[Tensor, Any]]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.shape == self.known.shape and out.requires_grad:
            with torch._C.DisableTorchFunction():
                if torch.allclose(out.detach(), self.known, rtol=1e-6, atol=1e-9):
                    self.found.append(_noted(out))
        return out


def _noted(out: Any) -> tuple[Tensor, Any]:
    """The output of a module, and its node in the graph; the first tensor of a tuple, as with gates beside a value."""
    first = out if isinstance(out, Tensor) else next(part for part in out if isinstance(part, Tensor))
    return first.detach().clone(), get_gradient_edge(first)


def scores_in(output: Any, count: int) -> Tensor:
    """The class scores in what a model returns."""
    if isinstance(output, Tensor):
        return output
    if getattr(output, "logits", None) is not None:
        return output.logits
    if isinstance(output, dict):
        return output["logits"] if "logits" in output else next(iter(output.values()))
    return next(part for part in output if isinstance(part, Tensor) and part.dim() == 2 and len(part) == count)
