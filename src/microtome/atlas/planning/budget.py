"""Budgets: the amount of each result, in counts and in expected seconds on one core."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from microtome.errors import InputError, nearest

__all__ = ["BUDGETS", "LARGER", "Budget", "affordable", "budget", "fair_shares"]

T = TypeVar("T")


@dataclass(frozen=True)
class Budget:
    """The extent of a run. Names that end in ``seconds`` are expected seconds on one core, all others are counts.

    Attributes
    ----------
    name : str
        ``quick``, ``standard``, ``full``, or your own.
    units_per_layer, units_in_all : int
        Up to ``units_in_all`` units in all chosen layers, every unit gets a page; in larger networks the
        ``units_per_layer`` most selective units of each layer.
    images, photos, classes : int
        Number of images with pages, maximum number if they are larger than 64 pixels, and maximum number of classes
        with pages.
    patches, bins : int
        Strongest patches of each unit, and examples from as many bins of its activation.
    reconstructed_patches : int
        Number of strongest patches that are reconstructed.
    stimulus_steps, class_steps : int
        Steps of ascent of the superstimulus of a unit, and of a class, whose image fills the whole picture.
    diverse_stimuli, restarts : int
        Further, different superstimuli of each unit; and images from other starts that each is compared with.
    compared_patches : int
        Number of strongest patches that a superstimulus is compared with.
    sample_images : int
        Largest number of images on which units are ablated and compared.
    dissections_per_layer : int
        Units of a layer whose activation is dissected.
    occlusion_windows : int
        Positions of the occluding window along the longer side.
    reconstruction_seconds, superstimulus_seconds, tuning_seconds, ablation_seconds, similarity_seconds : float
        For all units. If they do not suffice, fewer units, layers or images are included.
    attribution_seconds : float
        For one slow attribution method; if they do not suffice, it is used only for the predicted class.
    space_seconds : float
        For the lost parts of images at each layer.
    topic_seconds : float
        For each further topic.
    """

    name: str
    units_per_layer: int
    units_in_all: int
    images: int
    photos: int
    classes: int
    patches: int
    bins: int
    reconstructed_patches: int
    stimulus_steps: int
    class_steps: int
    diverse_stimuli: int
    restarts: int
    compared_patches: int
    sample_images: int
    dissections_per_layer: int
    occlusion_windows: int
    reconstruction_seconds: float
    superstimulus_seconds: float
    tuning_seconds: float
    ablation_seconds: float
    similarity_seconds: float
    attribution_seconds: float
    space_seconds: float
    topic_seconds: float


_ALL = 1 << 30
_INF = float("inf")

BUDGETS = {
    "quick": Budget(
        name="quick",
        units_per_layer=6,
        units_in_all=1000,
        images=12,
        photos=8,
        classes=10,
        patches=9,
        bins=5,
        reconstructed_patches=3,
        stimulus_steps=32,
        class_steps=64,
        diverse_stimuli=0,
        restarts=0,
        compared_patches=5,
        sample_images=300,
        dissections_per_layer=64,
        occlusion_windows=10,
        reconstruction_seconds=120.0,
        superstimulus_seconds=95.0,
        tuning_seconds=40.0,
        ablation_seconds=40.0,
        similarity_seconds=30.0,
        attribution_seconds=30.0,
        space_seconds=20.0,
        topic_seconds=28.0,
    ),
    "standard": Budget(
        name="standard",
        units_per_layer=128,
        units_in_all=2500,
        images=60,
        photos=60,
        classes=100,
        patches=9,
        bins=9,
        reconstructed_patches=9,
        stimulus_steps=192,
        class_steps=192,
        diverse_stimuli=2,
        restarts=2,
        compared_patches=9,
        sample_images=2000,
        dissections_per_layer=128,
        occlusion_windows=24,
        reconstruction_seconds=2400.0,
        superstimulus_seconds=3000.0,
        tuning_seconds=900.0,
        ablation_seconds=900.0,
        similarity_seconds=600.0,
        attribution_seconds=900.0,
        space_seconds=600.0,
        topic_seconds=600.0,
    ),
    "full": Budget(
        name="full",
        units_per_layer=_ALL,
        units_in_all=_ALL,
        images=200,
        photos=200,
        classes=1000,
        patches=16,
        bins=9,
        reconstructed_patches=16,
        stimulus_steps=256,
        class_steps=256,
        diverse_stimuli=4,
        restarts=2,
        compared_patches=9,
        sample_images=10000,
        dissections_per_layer=_ALL,
        occlusion_windows=32,
        reconstruction_seconds=_INF,
        superstimulus_seconds=_INF,
        tuning_seconds=_INF,
        ablation_seconds=_INF,
        similarity_seconds=_INF,
        attribution_seconds=_INF,
        space_seconds=_INF,
        topic_seconds=_INF,
    ),
}


LARGER = {"quick": "standard", "standard": "full"}  # the next larger budget


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


def affordable(
    items: Sequence[T], cost: float | Callable[[Sequence[T]], float], seconds: float, *, least: int = 0
) -> list[T]:
    """The first items that can be done in the given time.

    Parameters
    ----------
    items : sequence
        Possible items, the most important first.
    cost : float or function
        Seconds of one item, or a function of the first items that returns the seconds of all of them.
    seconds : float
        The available time; infinity for all items.
    least : int
        Minimum number of items.

    Examples
    --------
    >>> affordable([0, 1, 2, 3], 2.0, 5.0), affordable([0, 1], 2.0, 1.0, least=1), affordable("ab", 1.0, float("inf"))
    ([0, 1], [0], ['a', 'b'])
    >>> affordable([1, 2, 3], sum, 3.0)
    [1, 2]
    """
    if callable(cost):
        count = next((n for n in range(len(items), 0, -1) if cost(items[:n]) <= seconds), 0)
    else:
        count = int(min(len(items), seconds / cost))
    return list(items[: max(count, least)])


def fair_shares(costs: Mapping[str, float], seconds: float) -> dict[str, float]:
    """A share of the time for each: equal shares, but unneeded time is given to the others.

    Examples
    --------
    >>> fair_shares({"deep": 100.0, "first": 1.0, "middle": 8.0}, 30.0)
    {'first': 10.0, 'middle': 14.5, 'deep': 21.0}
    """
    shares = {}
    for place, name in enumerate(sorted(costs, key=lambda name: costs[name])):
        shares[name] = seconds / (len(costs) - place)
        seconds -= min(costs[name], shares[name])
    return shares
