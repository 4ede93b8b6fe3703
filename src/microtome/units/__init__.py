"""What a unit looks for and how it is made: stimuli and tuning, dissections, top patches, statistics."""

from microtome.units import stimuli
from microtome.units.ablation import Ablation, ablate
from microtome.units.activations import ActivationMaps, activation_maps
from microtome.units.connections import Connections, Link, connections
from microtome.units.dissect import Dissection, dissect
from microtome.units.effective_field import EffectiveField, effective_field
from microtome.units.filters import Filters, filters
from microtome.units.patches import LayerPatches, TopPatches
from microtome.units.reconstruct import Reconstructions, reconstruct
from microtome.units.similarity import Similarity, similar, similarities
from microtome.units.specialised import Specialised, specialised
from microtome.units.top_images import TopImages, top_images
from microtome.units.top_patches import top_patches
from microtome.units.tuning import Tuning, tuning, tunings

__all__ = [
    "Ablation",
    "ActivationMaps",
    "Connections",
    "Dissection",
    "EffectiveField",
    "Filters",
    "LayerPatches",
    "Link",
    "Reconstructions",
    "Similarity",
    "Specialised",
    "TopImages",
    "TopPatches",
    "Tuning",
    "ablate",
    "activation_maps",
    "connections",
    "dissect",
    "effective_field",
    "filters",
    "reconstruct",
    "similar",
    "similarities",
    "specialised",
    "stimuli",
    "top_images",
    "top_patches",
    "tuning",
    "tunings",
]
