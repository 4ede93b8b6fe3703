"""What does the atlas show? One file for each topic: its tasks, jobs, stored results and parts of pages.

A new topic is one file and one line of ``TOPICS``; ``docs/howto/atlas_topic.md`` shows a complete one. The order of
topics is the order of their parts within a section and of numbers at the head of a page.
"""

from collections.abc import Sequence

from microtome.atlas.topic import Topic
from microtome.atlas.topics.images.activation_maps import ACTIVATION_MAPS
from microtome.atlas.topics.images.attribution_maps import ATTRIBUTION_MAPS
from microtome.atlas.topics.images.kept_and_lost import KEPT_AND_LOST
from microtome.atlas.topics.images.map_checks import MAP_CHECKS
from microtome.atlas.topics.images.occlusion_maps import OCCLUSION_MAPS
from microtome.atlas.topics.images.score_decomposition import SCORE_DECOMPOSITION
from microtome.atlas.topics.network.image_features import IMAGE_FEATURES
from microtome.atlas.topics.network.image_positions import IMAGE_POSITIONS
from microtome.atlas.topics.network.map_of_images import MAP_OF_IMAGES
from microtome.atlas.topics.network.predictions import PREDICTIONS
from microtome.atlas.topics.network.repeating_layers import REPEATING_LAYERS
from microtome.atlas.topics.network.singular_values import SINGULAR_VALUES
from microtome.atlas.topics.training.curvature_in_training import CURVATURE_IN_TRAINING
from microtome.atlas.topics.training.features_in_training import FEATURES_IN_TRAINING
from microtome.atlas.topics.training.information_in_training import INFORMATION_IN_TRAINING
from microtome.atlas.topics.training.loss_around_weights import LOSS_AROUND_WEIGHTS
from microtome.atlas.topics.training.readable_class import READABLE_CLASS
from microtome.atlas.topics.training.training_curves import TRAINING_CURVES
from microtome.atlas.topics.units.ablations import ABLATIONS
from microtome.atlas.topics.units.dissections import DISSECTIONS
from microtome.atlas.topics.units.filters_without_labels import FILTERS_WITHOUT_LABELS
from microtome.atlas.topics.units.firing_places import FIRING_PLACES
from microtome.atlas.topics.units.strongest_patches import STRONGEST_PATCHES
from microtome.atlas.topics.units.unit_criteria import UNIT_CRITERIA
from microtome.atlas.topics.units.unit_similarity import UNIT_SIMILARITY
from microtome.atlas.topics.units.unit_superstimuli import SUPERSTIMULI
from microtome.atlas.topics.units.unit_tuning import UNIT_TUNING
from microtome.atlas.topics.units.unit_weights import UNIT_WEIGHTS
from microtome.atlas.topics.units.what_and_place import WHAT_AND_PLACE

__all__ = ["TOPICS"]

TOPICS: Sequence[Topic] = (
    PREDICTIONS,
    SUPERSTIMULI,
    FIRING_PLACES,
    STRONGEST_PATCHES,
    UNIT_TUNING,
    WHAT_AND_PLACE,
    FILTERS_WITHOUT_LABELS,
    UNIT_WEIGHTS,
    SINGULAR_VALUES,
    UNIT_CRITERIA,
    UNIT_SIMILARITY,
    REPEATING_LAYERS,
    ABLATIONS,
    IMAGE_FEATURES,
    IMAGE_POSITIONS,
    MAP_OF_IMAGES,
    MAP_CHECKS,
    ATTRIBUTION_MAPS,
    OCCLUSION_MAPS,
    SCORE_DECOMPOSITION,
    DISSECTIONS,
    ACTIVATION_MAPS,
    KEPT_AND_LOST,
    TRAINING_CURVES,
    FEATURES_IN_TRAINING,
    LOSS_AROUND_WEIGHTS,
    CURVATURE_IN_TRAINING,
    INFORMATION_IN_TRAINING,
    READABLE_CLASS,
)
