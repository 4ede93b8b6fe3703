"""Which images maximise a unit or a class score, and which images have the same representation at a layer?"""

from microtome.synthesis import objectives
from microtome.synthesis.inversion import Inversion, invert
from microtome.synthesis.maximal import maximize, maximize_class
from microtome.synthesis.objectives import Objective
from microtome.synthesis.optimisation.priors import PRIORS, Prior
from microtome.synthesis.placement import recommended_size
from microtome.synthesis.superstimuli import Superstimuli
from microtome.synthesis.trust.image_credentials import BOUNDS, credentials

__all__ = [
    "BOUNDS",
    "PRIORS",
    "Inversion",
    "Objective",
    "Prior",
    "Superstimuli",
    "credentials",
    "invert",
    "maximize",
    "maximize_class",
    "objectives",
    "recommended_size",
]
