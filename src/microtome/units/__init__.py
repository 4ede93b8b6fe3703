"""What a unit looks for and how it is made: stimuli and tuning, dissections, top patches, statistics."""

from microtome.units import stimuli
from microtome.units.activations import ActivationMaps, activation_maps
from microtome.units.dissect import Dissection, dissect
from microtome.units.patches import LayerPatches, TopPatches
from microtome.units.reconstruct import Reconstructions, reconstruct
from microtome.units.specialised import Specialised, specialised
from microtome.units.top_patches import top_patches
from microtome.units.tuning import Tuning, tuning, tunings

__all__ = [
    "ActivationMaps",
    "Dissection",
    "LayerPatches",
    "Reconstructions",
    "Specialised",
    "TopPatches",
    "Tuning",
    "activation_maps",
    "dissect",
    "reconstruct",
    "specialised",
    "stimuli",
    "top_patches",
    "tuning",
    "tunings",
]
