"""What does a unit detect, and from which inputs is it computed? Tuning, top patches, statistics, dissections."""

from microtome.units.ablation import Ablation, ablate
from microtome.units.activations import ActivationMaps, activation_maps
from microtome.units.criteria import COLUMNS, Criteria, criteria
from microtome.units.effective_field import EffectiveField, effective_field
from microtome.units.interventions import intervene
from microtome.units.placed_stimuli import PlacedStimuli, placed
from microtome.units.projection import Projection, project_back
from microtome.units.reconstruct import Reconstructions, reconstruct
from microtome.units.stimulus_tuning import stimuli
from microtome.units.stimulus_tuning.texture_stimuli import TEXTURES, textures
from microtome.units.stimulus_tuning.tuning_curves import Tuning, tuning
from microtome.units.streaming.patch_tables import LayerPatches, TopPatches
from microtome.units.streaming.similarity import Similarity, similar
from microtome.units.streaming.specialised import Specialised, specialised
from microtome.units.streaming.top_images import TopImages, top_images
from microtome.units.streaming.top_patches import top_patches
from microtome.units.unit_classes import ClassLabels, class_labels
from microtome.units.what_where import WhatWhere, what_where
from microtome.units.wiring.connections import Connections, Link, connections
from microtome.units.wiring.dissect import Dissection, dissect
from microtome.units.wiring.filters import Filters, filters
from microtome.units.wiring.natural_filters import NaturalFilters, natural_filters
from microtome.units.wiring.score_path import ScorePath, explain_path

__all__ = [
    "COLUMNS",
    "TEXTURES",
    "Ablation",
    "ActivationMaps",
    "ClassLabels",
    "Connections",
    "Criteria",
    "Dissection",
    "EffectiveField",
    "Filters",
    "LayerPatches",
    "Link",
    "NaturalFilters",
    "PlacedStimuli",
    "Projection",
    "Reconstructions",
    "ScorePath",
    "Similarity",
    "Specialised",
    "TopImages",
    "TopPatches",
    "Tuning",
    "WhatWhere",
    "ablate",
    "activation_maps",
    "class_labels",
    "connections",
    "criteria",
    "dissect",
    "effective_field",
    "explain_path",
    "filters",
    "intervene",
    "natural_filters",
    "placed",
    "project_back",
    "reconstruct",
    "similar",
    "specialised",
    "stimuli",
    "textures",
    "top_images",
    "top_patches",
    "tuning",
    "what_where",
]
