"""How much is made? Three budgets: what each includes, in counts and in expected seconds on one core."""

from __future__ import annotations

from dataclasses import dataclass

from microtome.errors import InputError, nearest

__all__ = ["BUDGETS", "Budget", "budget"]


@dataclass(frozen=True)
class Budget:
    """What a run includes. Counts are for networks of any size; seconds bound what grows with them.

    Attributes
    ----------
    name : str
        ``quick``, ``standard``, ``full``, or your own.
    units : int
        Units of a layer that get pages, the most selective first, in networks of more than ``many`` units.
    many : int
        Up to so many units in all chosen layers, every unit gets a page.
    images : int
        Images that get pages.
    patches, bins : int
        Strongest patches of each unit, and examples drawn from as many bins of its activation.
    reconstructed, reconstructions : int, float
        How many of the strongest patches are reconstructed, and expected seconds for that: where they do not
        suffice fewer patches of each unit, then fewer units.
    stimuli, steps : float, int
        Expected seconds for all superstimuli, and steps of ascent of each.
    diverse : int
        Further, different superstimuli of each unit.
    explanations, tunings, ablations, similarities, spaces : float
        Expected seconds for a slow attribution method before it is left out for the second class, for
        tuning, for setting units to zero one by one, for comparing units, and for what images lose at each layer.
    sample : int
        Most images that units are ablated and compared on.
    sheets : int
        Units of a layer whose activation is dissected.
    windows : int
        Positions of the occluding window along the longer side.
    classes : int
        Most classes that get a page with images made for their score.
    """

    name: str
    units: int
    many: int
    images: int
    patches: int
    bins: int
    reconstructed: int
    reconstructions: float
    stimuli: float
    steps: int
    diverse: int
    explanations: float
    tunings: float
    ablations: float
    similarities: float
    spaces: float
    sample: int
    sheets: int
    windows: int
    classes: int


_INF = float("inf")

BUDGETS = {
    "quick": Budget(
        name="quick",
        units=32,
        many=1000,
        images=12,
        patches=9,
        bins=5,
        reconstructed=3,
        reconstructions=300.0,
        stimuli=150.0,
        steps=64,
        diverse=0,
        explanations=30.0,
        tunings=60.0,
        ablations=40.0,
        similarities=30.0,
        spaces=60.0,
        sample=300,
        sheets=64,
        windows=10,
        classes=10,
    ),
    "standard": Budget(
        name="standard",
        units=128,
        many=2500,
        images=60,
        patches=9,
        bins=9,
        reconstructed=9,
        reconstructions=2400.0,
        stimuli=2400.0,
        steps=192,
        diverse=2,
        explanations=900.0,
        tunings=900.0,
        ablations=900.0,
        similarities=600.0,
        spaces=600.0,
        sample=2000,
        sheets=128,
        windows=24,
        classes=100,
    ),
    "full": Budget(
        name="full",
        units=1 << 30,
        many=1 << 30,
        images=200,
        patches=16,
        bins=9,
        reconstructed=16,
        reconstructions=_INF,
        stimuli=_INF,
        steps=256,
        diverse=4,
        explanations=_INF,
        tunings=_INF,
        ablations=_INF,
        similarities=_INF,
        spaces=_INF,
        sample=10000,
        sheets=1 << 30,
        windows=32,
        classes=1000,
    ),
}


def budget(size: str | Budget) -> Budget:
    """A budget by its name.

    Raises
    ------
    InputError
        There is none of that name.

    Examples
    --------
    >>> budget("quick").images
    12
    """
    if isinstance(size, Budget):
        return size
    if size not in BUDGETS:
        raise InputError(f'there is no budget "{size}". Nearest: {nearest(size, BUDGETS)}; all: {", ".join(BUDGETS)}.')
    return BUDGETS[size]
