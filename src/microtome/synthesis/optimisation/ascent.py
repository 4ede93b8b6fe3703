"""Gradient ascent: Adam on the canvas of each image, with all images of a batch in one pass."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import OpaqueError
from microtome.network import Network
from microtome.progress import reported
from microtome.synthesis.objectives import Objective, arranged
from microtome.synthesis.optimisation import clipping, penalties
from microtome.synthesis.optimisation.augment import Moves
from microtome.synthesis.optimisation.canvas import Canvas, Fourier, Phases, Pixels
from microtome.synthesis.optimisation.diversity import similarity
from microtome.synthesis.optimisation.priors import Prior
from microtome.synthesis.optimisation.relu_override import RedirectedReLU
from microtome.synthesis.placement import Placement, mean_colour
from microtome.trace.cuda_graph import Repeated

_DECAYS = (0.9, 0.99)
_STEPS = 128  # the number of steps that the rate of a prior refers to
_RETRIES = 4  # an image is given up after this number of steps with the ReLU override without a gradient


@dataclass(frozen=True)
class Ascent:
    """One optimisation problem per row of an objective: network, objective, placement and prior.

    Attributes
    ----------
    net, objective, placement, prior
        The parts.
    crop_maps : bool
        Whether the objective reads only the positions above the canvas. False if it names one position
        of the window's map.
    steps, seed : int
        Number of steps; seed of the noise and of the augmentation.
    diverse : int
        Number of images per row that shall differ from each other. They are neighbours in the batch.
    contrast_layer : str
        The layer whose maps measure the similarity of these images.
    diversity : float
        Share of the activation that complete similarity costs.
    begin : Tensor, optional
        (rows, C, h, w) the images that the ascents start from, on the canvas; default the flat image.
    """

    net: Network
    objective: Objective
    placement: Placement
    prior: Prior
    crop_maps: bool
    steps: int
    seed: int
    diverse: int
    contrast_layer: str
    diversity: float
    begin: Tensor | None = None

    def faster(self, images: int) -> Ascent:
        """The same problem on a faster copy of the network, if that has the same values; ``images`` are in one pass.

        Neither the number of rows nor their order decides, so that an image does not depend on them.
        """
        first = torch.zeros(self.diverse, dtype=torch.int64, device=self.net.device)
        with torch.no_grad():
            begun = self.placement.in_window(self._canvas(first, 0).images()[:1], self.net)
        return dataclasses.replace(self, net=self.net.quick(begun, self._layers, self.steps * images))

    def run(self, rows: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Maximise some rows of the objective, with ``diverse`` images each.

        Parameters
        ----------
        rows : Tensor
            Row of each image. The images of one row follow each other.
        start : int
            Number of the start. Each start has its own noise.

        Returns
        -------
        images, history : Tensor
            (n, C, h, w), and (steps, n): the objective under augmentation.
        """
        canvas = self._canvas(rows, start)
        adam = _Adam(canvas.parameters, self.prior.lr, self.steps)
        generator, prior = torch.Generator().manual_seed(_mixed(self.seed, start, 1)), self.prior
        moves = Moves(
            generator, self.steps, self.placement.size, jitter=prior.jitter, rotate=prior.rotate, scale=prior.scale,
            like=canvas.parameters,
        )  # fmt: skip
        gradient_under = Repeated(lambda move: self._gradient(canvas, rows, moves, move))
        replayed = moves.of_one_shape and not self.net.random  # a recording would repeat its random numbers
        history = torch.zeros(self.steps, len(rows), dtype=torch.float32, device=self.net.device)
        retries = torch.zeros(len(rows), dtype=torch.int64, device=self.net.device)
        for step in reported(range(self.steps), "steps of ascent"):
            move = moves[step]
            score, gradient = gradient_under(move) if replayed else self._gradient(canvas, rows, moves, move)
            dead = _without_gradient(gradient) & (retries < _RETRIES)
            if bool(dead.any()):  # no gradient at all: try again with the ReLU override
                redirected = self._redirected(canvas, rows, moves, move, dead)
                retries += dead & _without_gradient(redirected)  # still none: the unit does not depend on the image
                gradient = torch.where(_column(dead, gradient), redirected, gradient)
            history[step] = score
            adam.ascend(gradient)
            self._regularise(canvas, gradient, step)
        return canvas.images().detach(), history

    @torch.no_grad()
    def evaluate(self, images: Tensor, rows: Tensor, objective: Objective) -> Tensor:
        """The value of an objective for images in the whole picture, without augmentation, (n,)."""
        values = self._arranged(self.net.forward(self.placement.in_picture(images, self.net), objective.layers), images)
        if self.crop_maps:
            values = {name: self.placement.crop(value, self.net, name) for name, value in values.items()}
        return objective.score(values, rows)

    def _canvas(self, rows: Tensor, start: int) -> Canvas:
        """The first images: the same noise for every row, different for the images of one row."""
        net, (height, width), n = self.net, self.placement.size, len(rows)
        generator = torch.Generator().manual_seed(_mixed(self.seed, start, 0))
        low, high = net.pixels if net.pixels is not None else (None, None)
        shape = (self.diverse, net.input_shape[0], height, width)
        begin = None if self.begin is None else self.begin.to(net.device)[rows]
        if self.prior.canvas == "pixels":
            noise = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu") * self.prior.noise
            noise = noise.repeat(n // self.diverse, 1, 1, 1).to(net.device)
            return Pixels((mean_colour(net, noise) if begin is None else begin) + noise, low, high)
        box = (0.0, 1.0) if low is None or high is None else (low, high)
        spectrum = Fourier.spectrum(shape)
        if self.prior.canvas == "phase":
            turns = torch.rand(spectrum[:-1], generator=generator, dtype=torch.float32, device="cpu")
            canvas: Fourier | Phases = Phases((n, *shape[1:]), _repeated(turns, n, net.device), *box)
        else:
            noise = torch.randn(spectrum, generator=generator, dtype=torch.float32, device="cpu") * self.prior.noise
            canvas = Fourier((n, *shape[1:]), _repeated(noise, n, net.device), *box)
        if begin is not None:
            canvas.begin(begin)
        return canvas

    def _redirected(self, canvas: Canvas, rows: Tensor, moves: Moves, move: Tensor, dead: Tensor) -> Tensor:
        """The gradient under the ReLU override, for the dead images and the other images of their rows."""
        groups = dead.view(-1, self.diverse).any(1).repeat_interleave(self.diverse)
        return self._gradient(canvas, rows, moves, move, RedirectedReLU(), groups.nonzero()[:, 0])[1]

    def _gradient(
        self,
        canvas: Canvas,
        rows: Tensor,
        moves: Moves,
        move: Tensor,
        rules: RedirectedReLU | None = None,
        subset: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The objective of each augmented image, and the gradient of objective minus penalties on the canvas."""
        with torch.enable_grad():
            images = canvas.images()
            if subset is not None:
                images, rows = images[subset], rows[subset]
            background = mean_colour(self.net, images)
            augmented = moves.apply(images, move, background)
            values = self._values(augmented, rules)
            if not any(values[layer].requires_grad for layer in self.objective.layers):
                raise OpaqueError(
                    f"{' and '.join(self.objective.layers)} does not depend on the image by differentiable operations, "
                    "so there is no gradient to follow. Choose another layer."
                )
            score = self.objective.score(values, rows)
            total = score - self._penalty(images, score, values, background)
            gradient = torch.autograd.grad(total.sum(), canvas.parameters)[0]
        return score.detach(), gradient.nan_to_num(0.0, 0.0, 0.0)

    @property
    def _layers(self) -> tuple[str, ...]:
        """The layers of the objective, and that by which diverse images differ."""
        layers = self.objective.layers
        return (*layers, self.contrast_layer) if self.diverse > 1 and self.contrast_layer not in layers else layers

    def _values(self, images: Tensor, rules: RedirectedReLU | None) -> dict[str, Tensor]:
        layers = self._layers
        values = self._arranged(
            self.net.forward(self.placement.in_window(images, self.net), layers, rules=rules), images
        )
        if self.placement.window == self.placement.canvas or not self.crop_maps:
            return values
        return {name: self.placement.crop(value, self.net, name) for name, value in values.items()}

    def _arranged(self, values: dict[str, Tensor], images: Tensor) -> dict[str, Tensor]:
        return {name: arranged(self.net, name, value, len(images)) for name, value in values.items()}

    def _penalty(self, images: Tensor, score: Tensor, values: dict[str, Tensor], background: Tensor) -> Tensor:
        prior, pixels = self.prior, images[0].numel()
        weighted = (
            (prior.l2, lambda: penalties.l2(images, background) / pixels),
            (prior.tv, lambda: penalties.total_variation(images) / pixels),
            (prior.alpha, lambda: penalties.alpha_norm(images, background) / pixels),
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
    def _regularise(self, canvas: Canvas, gradient: Tensor, step: int) -> None:
        canvas.settle()
        prior = self.prior
        if prior.canvas != "pixels" or step == self.steps - 1:
            return
        images = canvas.parameters
        background = mean_colour(self.net, images)
        if prior.blur and (step + 1) % prior.blur_every == 0:
            images.copy_(clipping.blurred(images, prior.blur))
        if prior.small_norm:
            norm = clipping.pixel_norm(images, background)
            images.copy_(clipping.without_small(images, background, norm, prior.small_norm))
        if prior.small_contribution:
            contribution = clipping.pixel_contribution(images, background, gradient)
            images.copy_(clipping.without_small(images, background, contribution, prior.small_contribution))


class _Adam:
    """Adam [1]_ on gradients of unit length per image, so that images do not influence each other.

    References
    ----------
    .. [1] Kingma, Ba: Adam: A Method for Stochastic Optimization, ICLR 2015.
    """

    def __init__(self, parameters: Tensor, lr: float, steps: int) -> None:
        self._parameters, self._steps, self._step = parameters, steps, 0
        self._lr = lr * (_STEPS / steps) ** 0.5  # fewer steps are longer steps
        self._first, self._second = torch.zeros_like(parameters), torch.zeros_like(parameters)

    @torch.no_grad()
    def ascend(self, gradient: Tensor) -> None:
        """One step of ascent."""
        length = gradient.flatten(1).square().mean(1).sqrt()
        gradient = gradient / _column(length.clamp(min=1e-30), gradient)
        self._step += 1
        fast, slow = _DECAYS
        self._first.mul_(fast).add_(gradient, alpha=1 - fast)
        self._second.mul_(slow).addcmul_(gradient, gradient, value=1 - slow)
        mean = self._first / (1 - fast**self._step)
        spread = (self._second / (1 - slow**self._step)).sqrt_().add_(1e-4)
        decay = 0.5 * (1 + math.cos(math.pi * (self._step - 1) / self._steps))
        self._parameters.addcdiv_(mean, spread, value=self._lr * decay)


def _repeated(noise: Tensor, n: int, device: torch.device) -> Tensor:
    """The noise of one row's images for all rows, (n, ...)."""
    return noise.repeat(n // len(noise), *(1,) * (noise.dim() - 1)).to(device)


def _without_gradient(gradient: Tensor) -> Tensor:
    """True for the images (n,) whose gradient is zero everywhere."""
    return (gradient.flatten(1) == 0).all(1)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """One value per image, in a shape that broadcasts with a tensor of images."""
    return values.view(-1, *(1,) * (like.dim() - 1))


def _mixed(seed: int, start: int, purpose: int) -> int:
    """One seed from several numbers."""
    return (seed * 1_000_003 + start * 7919 + purpose * 104_729) % (2**63 - 1)
