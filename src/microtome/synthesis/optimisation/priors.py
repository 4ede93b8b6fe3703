"""Priors of synthesis: named combinations of canvas, penalties, clipping and augmentation."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from microtome.errors import InputError


@dataclass(frozen=True)
class Prior:
    r"""Canvas, penalties, clipping and augmentation of an ascent, which suppress unnatural noise.

    The ascent maximises :math:`S(x) - s \sum_r \lambda_r R_r(x) / P`. P = C H W is the number of values of
    an image. Without ``relative``, s = 1 (eq. 12 of the lectures). With ``relative``, :math:`s = |S(x)|` is
    a constant: a weight is then the share of the activation that a penalty of one per value costs,
    for any scale of the unit and any size of the picture.

    Attributes
    ----------
    canvas : str
        ``"fourier"`` (1/f spectrum, decorrelated colour, sigmoid), ``"phase"`` (the same with fixed magnitudes) or
        ``"pixels"`` (box by projection).
    lr : float
        First step of Adam in the canvas' coordinates for an ascent of 128 steps. For n steps it is
        multiplied by sqrt(128 / n). It falls to zero along half a cosine.
    noise : float
        Standard deviation of the first coordinates around the flat image, or around the image that the ascent starts
        from. The first phases are random at any ``noise``.
    l2, tv, alpha : float
        Weights of the squared distance from the mean image, the total variation (beta 2) and the
        sixth-power norm, each per value of the image.
    relative : bool
        Whether the weights are shares of the activation.
    blur, blur_every : float, int
        Standard deviation of a Gaussian blur in pixels, and the number of steps between two blurs.
    small_norm, small_contribution : float
        Percentage of the pixels that each step sets to the mean image: those with the smallest norm, and
        those with the smallest contribution.
    jitter, rotate, scale : float
        Largest shift in pixels, angle in degrees and relative change of size per step.

    Raises
    ------
    InputError
        When a value is out of range.
    """

    canvas: str = "fourier"
    lr: float = 0.05
    noise: float = 0.01
    l2: float = 0.0
    tv: float = 0.0
    alpha: float = 0.0
    relative: bool = True
    blur: float = 0.0
    blur_every: int = 4
    small_norm: float = 0.0
    small_contribution: float = 0.0
    jitter: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.canvas not in ("fourier", "phase", "pixels"):
            raise InputError(f'the canvas is "fourier", "phase" or "pixels", got "{self.canvas}".')
        if not 0 < self.lr < math.inf or self.blur_every < 1:
            raise InputError(f"lr and blur_every are positive, got {self.lr} and {self.blur_every}.")
        for name in ("noise", "l2", "tv", "alpha", "blur", "jitter", "rotate", "scale"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be finite and not negative, got {getattr(self, name)}.")
        if self.canvas != "pixels" and (self.blur or self.small_norm or self.small_contribution):
            raise InputError("blur and clipping act on pixels; use them with canvas='pixels'.")


PRIORS: dict[str, Prior] = {
    # Photographs: lucid's recipe.
    "natural": Prior(canvas="fourier", lr=0.1, jitter=8, rotate=5, scale=0.05),
    # Photographs, with the magnitudes of photographs at every step: MACO.
    "maco": Prior(canvas="phase", lr=0.3, jitter=8, rotate=5, scale=0.1),
    # A few pixels, the input of one convolution: no regularisation is necessary.
    "plain": Prior(canvas="pixels", lr=0.05, noise=0.05),
    # Small pictures: strokes on an empty background.
    "strokes": Prior(canvas="pixels", lr=0.05, noise=0.05, tv=2.0, l2=1.0, jitter=1),
    # Eq. 12 of the lectures.
    "l2": Prior(canvas="pixels", lr=0.05, l2=10.0, relative=False),
    # Yosinski et al. 2015: small steps of decay, blur and clipping.
    "yosinski": Prior(canvas="pixels", lr=0.05, l2=0.1, blur=0.5, small_norm=10, small_contribution=10),
}


def prior_named(prior: str | Prior | None, picture: tuple[int, int], canvas: tuple[int, int]) -> Prior:
    """Return a prior by name; None selects one by size.

    The default is natural for pictures of more than 64 pixels, with longer steps and less jitter on a canvas
    of less than 128; strokes for smaller pictures; plain for a canvas of up to 8.

    Raises
    ------
    InputError
        When there is no prior of that name.
    """
    if prior is None:
        if max(picture) <= 64:
            return PRIORS["plain" if max(canvas) <= 8 else "strokes"]
        natural, side = PRIORS["natural"], min(max(canvas), 128)
        return replace(natural, lr=natural.lr * (128 / side) ** 0.5, jitter=min(natural.jitter, side / 8))
    if isinstance(prior, Prior):
        return prior
    if prior not in PRIORS:
        raise InputError(f'there is no prior "{prior}". Known: {", ".join(PRIORS)}, or a Prior of your own.')
    return PRIORS[prior]
