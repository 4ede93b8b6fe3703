"""What is an image allowed to look like? The canvas, penalties, clipping and motion that go together."""

from __future__ import annotations

from dataclasses import dataclass, replace

from microtome.errors import InputError


@dataclass(frozen=True)
class Prior:
    r"""How ascent is kept away from noise that no photograph holds.

    What is climbed is :math:`S(x) - s \sum_r \lambda_r R_r(x) / P`, P = C H W the number of values of an
    image, with s = 1 (``relative`` false: eq. 12 of the lectures) or :math:`s = |S(x)|` held constant,
    so that a weight means the share of the activation that is given up for a penalty of one per value,
    whatever the unit's scale and the picture's size.

    Attributes
    ----------
    canvas : str
        ``"fourier"`` (1/f spectrum, decorrelated colour, sigmoid) or ``"pixels"`` (box by projection).
    rate : float
        First step of Adam in the canvas' coordinates for a climb of 128 steps, longer in inverse proportion
        to the square root of their number; it falls to zero along half a cosine.
    noise : float
        Standard deviation of the first coordinates around the flat image.
    l2, tv, alpha : float
        Weights of the squared distance from the mean image, the total variation (beta 2) and the
        sixth-power norm, each per value of the image.
    relative : bool
        Whether weights are shares of the activation.
    blur, blur_every : float, int
        Width of a Gaussian blur in pixels, and how many steps between two of them.
    small_norm, small_contribution : float
        Percentile of the pixels that is set to the mean image after a step: those of least norm, and
        those that contribute least.
    jitter, rotate, scale : float
        Largest shift in pixels, angle in degrees and relative change of size per step.

    Raises
    ------
    InputError
        When a value cannot be.
    """

    canvas: str = "fourier"
    rate: float = 0.05
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
        """Refuse what cannot be."""
        if self.canvas not in ("fourier", "pixels"):
            raise InputError(f'the canvas is "fourier" or "pixels", got "{self.canvas}".')
        if self.rate <= 0 or self.blur_every < 1:
            raise InputError(f"rate and blur_every are positive, got {self.rate} and {self.blur_every}.")
        for name in ("noise", "l2", "tv", "alpha", "blur", "jitter", "rotate", "scale"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is not negative, got {getattr(self, name)}.")
        if self.canvas == "fourier" and (self.blur or self.small_norm or self.small_contribution):
            raise InputError("blur and clipping act on pixels; use them with canvas='pixels'.")


PRIORS: dict[str, Prior] = {
    # Photographs: lucid's recipe.
    "natural": Prior(canvas="fourier", rate=0.1, jitter=8, rotate=5, scale=0.05),
    # A handful of pixels, seen by one convolution: nothing to hold back.
    "plain": Prior(canvas="pixels", rate=0.05, noise=0.05),
    # Small pictures: strokes on an empty ground.
    "strokes": Prior(canvas="pixels", rate=0.05, noise=0.05, tv=2.0, l2=1.0, jitter=1),
    # Eq. 12 of the lectures, as it stands.
    "l2": Prior(canvas="pixels", rate=0.05, l2=10.0, relative=False),
    # Yosinski et al. 2015: small steps of decay, blur and clipping.
    "yosinski": Prior(canvas="pixels", rate=0.05, l2=0.1, blur=0.5, small_norm=10, small_contribution=10),
}


def prior_named(prior: str | Prior | None, picture: tuple[int, int], canvas: tuple[int, int]) -> Prior:
    """A prior by name; None chooses by size.

    Natural for pictures of more than 64 pixels, with longer steps and less motion on a canvas of less than 128;
    for smaller pictures strokes, or plain on a canvas of up to 8.

    Raises
    ------
    InputError
        When there is none of that name.
    """
    if prior is None:
        if max(picture) <= 64:
            return PRIORS["plain" if max(canvas) <= 8 else "strokes"]
        natural, side = PRIORS["natural"], min(max(canvas), 128)
        return replace(natural, rate=natural.rate * (128 / side) ** 0.5, jitter=min(natural.jitter, side / 8))
    if isinstance(prior, Prior):
        return prior
    if prior not in PRIORS:
        raise InputError(f'there is no prior "{prior}". Known: {", ".join(PRIORS)}, or a Prior of your own.')
    return PRIORS[prior]
