"""How is an image climbed to? Adam on a canvas, every image on its own, all images of a chunk in one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import OpaqueError
from microtome.network import Network
from microtome.synthesis import clipping, penalties
from microtome.synthesis.augment import moved
from microtome.synthesis.canvas import Canvas, Fourier, Pixels
from microtome.synthesis.diversity import similarity
from microtome.synthesis.objectives import Objective, arranged
from microtome.synthesis.placement import Frame, mean_colour
from microtome.synthesis.priors import Prior
from microtome.synthesis.relu_override import Redirected

_DECAYS = (0.9, 0.99)
_STEPS = 128  # what a prior's rate is meant for
_TRIES = 4  # steps for which ReLUs are opened in vain before an image is given up


@dataclass(frozen=True)
class Climb:
    """One problem set: what is climbed, on which network, where the canvas lies, under which prior.

    Attributes
    ----------
    net, objective, frame, prior
        The parts.
    cuts : bool
        Whether the objective reads the positions on the canvas only; False where it names a position
        of the window's map.
    steps, seed : int
        How many steps; where noise and motion come from.
    diverse : int
        Images that belong together, which shall differ; neighbours in the batch.
    contrast_layer : str
        The layer whose maps say how alike such images are.
    diversity : float
        Share of the activation given up for complete likeness.
    """

    net: Network
    objective: Objective
    frame: Frame
    prior: Prior
    cuts: bool
    steps: int
    seed: int
    diverse: int
    contrast_layer: str
    diversity: float

    def run(self, rows: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Climb for some rows of the objective, ``diverse`` images each.

        Parameters
        ----------
        rows : Tensor
            Row of each image; the images of one row follow each other.
        start : int
            Which start: another one gives other noise.

        Returns
        -------
        images, history : Tensor
            (n, C, h, w) and (steps, n), the objective as it was seen, moved about.
        """
        canvas = self._canvas(len(rows), start)
        adam = _Adam(canvas.parameters, self.prior.rate, self.steps)
        generator = torch.Generator().manual_seed(_mixed(self.seed, start, 1))
        history = torch.zeros(self.steps, len(rows), device=self.net.device)
        barren = torch.zeros(len(rows), dtype=torch.int64, device=self.net.device)
        for step in range(self.steps):
            again = generator.clone_state()  # the others of a chunk move alike, whoever of them is dead
            score, gradient = self._slope(canvas, rows, generator)
            dead = _without_gradient(gradient) & (barren < _TRIES)
            if bool(dead.any()):  # no gradient at all: open the ReLUs for those
                found = self._opened(canvas, rows, again, dead)
                barren += dead & _without_gradient(found)  # not even then: nothing of the image reaches the unit
                gradient = torch.where(_column(dead, gradient), found, gradient)
            history[step] = score
            adam.ascend(gradient)
            self._after(canvas, gradient, step)
        return canvas.images().detach(), history

    @torch.no_grad()
    def reached(self, images: Tensor, rows: Tensor, objective: Objective) -> Tensor:
        """An objective's value for the images at rest in the whole picture, (n,)."""
        values = self._arranged(self.net.forward(self.frame.in_picture(images, self.net), objective.layers), images)
        if self.cuts:
            values = {name: self.frame.cut(value, self.net, name) for name, value in values.items()}
        return objective.score(values, rows)

    def _canvas(self, n: int, start: int) -> Canvas:
        """The same first image for every row, other ones for the images of one row."""
        net, (height, width) = self.net, self.frame.size
        generator = torch.Generator().manual_seed(_mixed(self.seed, start, 0))
        low, high = net.pixels if net.pixels is not None else (None, None)
        shape = (self.diverse, net.input_shape[0], height, width)
        groups = n // self.diverse
        if self.prior.canvas == "fourier":
            noise = torch.randn(Fourier.spectrum(shape), generator=generator) * self.prior.noise
            noise = noise.repeat(groups, 1, 1, 1, 1).to(net.device)
            box = (0.0, 1.0) if low is None or high is None else (low, high)
            return Fourier((n, *shape[1:]), noise, *box)
        noise = (torch.randn(shape, generator=generator) * self.prior.noise).repeat(groups, 1, 1, 1).to(net.device)
        return Pixels(mean_colour(net, noise) + noise, low, high)

    def _opened(self, canvas: Canvas, rows: Tensor, generator: torch.Generator, dead: Tensor) -> Tensor:
        """The slope through opened ReLUs for some images, with those that are compared with them."""
        groups = dead.view(-1, self.diverse).any(1).repeat_interleave(self.diverse)
        return self._slope(canvas, rows, generator, Redirected(), groups.nonzero()[:, 0])[1]

    def _slope(
        self,
        canvas: Canvas,
        rows: Tensor,
        generator: torch.Generator,
        rules: Redirected | None = None,
        chosen: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The objective of each image as seen, and the slope of objective less penalties on the canvas."""
        prior = self.prior
        with torch.enable_grad():
            images = canvas.images()
            if chosen is not None:
                images, rows = images[chosen], rows[chosen]
            ground = mean_colour(self.net, images)
            seen = moved(
                images, generator, jitter=prior.jitter, rotate=prior.rotate, scale=prior.scale, background=ground
            )
            values = self._values(seen.contiguous(memory_format=torch.channels_last), rules)
            score = self.objective.score(values, rows)
            climbed = score - self._penalty(images, score, values, ground)
            if not climbed.requires_grad:
                raise OpaqueError(
                    f"{' and '.join(self.objective.layers)} does not depend on the image by differentiable operations, "
                    "so there is no gradient to follow. Choose another layer."
                )
            gradient = torch.autograd.grad(climbed.sum(), canvas.parameters)[0]
        return score.detach(), gradient.nan_to_num(0.0, 0.0, 0.0)

    def _values(self, seen: Tensor, rules: Redirected | None) -> dict[str, Tensor]:
        layers = self.objective.layers
        if self.diverse > 1 and self.contrast_layer not in layers:
            layers = (*layers, self.contrast_layer)
        values = self._arranged(self.net.forward(self.frame.in_window(seen, self.net), layers, rules=rules), seen)
        if self.frame.window == self.frame.canvas or not self.cuts:
            return values
        return {name: self.frame.cut(value, self.net, name) for name, value in values.items()}

    def _arranged(self, values: dict[str, Tensor], images: Tensor) -> dict[str, Tensor]:
        return {name: arranged(self.net, name, value, len(images)) for name, value in values.items()}

    def _penalty(self, images: Tensor, score: Tensor, values: dict[str, Tensor], ground: Tensor) -> Tensor:
        prior, pixels = self.prior, images[0].numel()
        weighted = (
            (prior.l2, lambda: penalties.l2(images, ground) / pixels),
            (prior.tv, lambda: penalties.total_variation(images) / pixels),
            (prior.alpha, lambda: penalties.alpha_norm(images, ground) / pixels),
        )
        scale = score.detach().abs() if prior.relative else torch.ones_like(score)
        total = torch.zeros_like(score)
        for weight, penalty in weighted:
            if weight:
                total = total + weight * scale * penalty()
        if self.diverse > 1 and self.diversity:
            total = total + self.diversity * score.detach().abs() * similarity(
                values[self.contrast_layer], self.diverse
            )
        return total

    @torch.no_grad()
    def _after(self, canvas: Canvas, gradient: Tensor, step: int) -> None:
        canvas.settle()
        prior = self.prior
        if prior.canvas != "pixels" or step == self.steps - 1:
            return
        images = canvas.parameters
        ground = mean_colour(self.net, images)
        if prior.blur and (step + 1) % prior.blur_every == 0:
            images.copy_(clipping.blurred(images, prior.blur))
        if prior.small_norm:
            norm = clipping.pixel_norm(images, ground)
            images.copy_(clipping.without_small(images, ground, norm, prior.small_norm))
        if prior.small_contribution:
            share = clipping.pixel_contribution(images, ground, gradient)
            images.copy_(clipping.without_small(images, ground, share, prior.small_contribution))


class _Adam:
    """Adam [1]_ on gradients brought to the same length for every image, so that no image sets another's pace.

    References
    ----------
    .. [1] Kingma, Ba: Adam: A Method for Stochastic Optimization, ICLR 2015.
    """

    def __init__(self, parameters: Tensor, rate: float, steps: int) -> None:
        self._parameters, self._steps, self._step = parameters, steps, 0
        self._rate = rate * (_STEPS / steps) ** 0.5  # few steps have to be longer ones
        self._first, self._second = torch.zeros_like(parameters), torch.zeros_like(parameters)

    @torch.no_grad()
    def ascend(self, gradient: Tensor) -> None:
        """One step uphill."""
        length = gradient.flatten(1).square().mean(1).sqrt()
        gradient = gradient / _column(length.clamp(min=1e-30), gradient)
        self._step += 1
        fast, slow = _DECAYS
        self._first.mul_(fast).add_(gradient, alpha=1 - fast)
        self._second.mul_(slow).addcmul_(gradient, gradient, value=1 - slow)
        mean = self._first / (1 - fast**self._step)
        spread = (self._second / (1 - slow**self._step)).sqrt_().add_(1e-4)
        falling = 0.5 * (1 + math.cos(math.pi * (self._step - 1) / self._steps))
        self._parameters.addcdiv_(mean, spread, value=self._rate * falling)


def _without_gradient(gradient: Tensor) -> Tensor:
    """Which images (n,) get no gradient at all."""
    return (gradient.flatten(1) == 0).all(1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """Values per image, shaped to go with a tensor of images."""
    return values.view(-1, *(1,) * (like.dim() - 1))


def _mixed(seed: int, start: int, purpose: int) -> int:
    """One seed from several numbers."""
    return (seed * 1_000_003 + start * 7919 + purpose * 104_729) % (2**63 - 1)
