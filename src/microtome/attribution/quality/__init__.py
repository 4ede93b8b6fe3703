"""Is a map any good? Measures for any map of any method, and one protocol for all of them."""

from microtome.attribution.quality.curves import PixelCurve, deletion, insertion
from microtome.attribution.quality.evaluate import Evaluation, evaluate
from microtome.attribution.quality.infidelity import Infidelity, infidelity
from microtome.attribution.quality.likeness import rank_correlation, structural_similarity
from microtome.attribution.quality.localisation import energy_in_mask, pointing_game
from microtome.attribution.quality.randomisation import Randomisation, randomisation
from microtome.attribution.quality.sensitivity import Sensitivity, max_sensitivity
from microtome.attribution.quality.shortcut import ShortcutShare, shortcut_share

__all__ = [
    "Evaluation",
    "Infidelity",
    "PixelCurve",
    "Randomisation",
    "Sensitivity",
    "ShortcutShare",
    "deletion",
    "energy_in_mask",
    "evaluate",
    "infidelity",
    "insertion",
    "max_sensitivity",
    "pointing_game",
    "randomisation",
    "rank_correlation",
    "shortcut_share",
    "structural_similarity",
]
