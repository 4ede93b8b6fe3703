"""What a unit looks for and how it is made: stimuli and tuning, dissections, top patches, statistics."""

from microtome.units import stimuli
from microtome.units.tuning import Tuning, tuning, tunings

__all__ = ["Tuning", "stimuli", "tuning", "tunings"]
