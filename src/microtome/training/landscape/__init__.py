"""What does the loss look like around a network's weights? On lines and planes, between networks, along a training."""

from microtome.training.landscape.between import between
from microtome.training.landscape.directions import principal, random_direction, toward
from microtome.training.landscape.evaluation_options import EvaluationOptions
from microtome.training.landscape.line import line
from microtome.training.landscape.loss_grids import LossLine, LossSurface, band
from microtome.training.landscape.surface import surface

__all__ = [
    "EvaluationOptions",
    "LossLine",
    "LossSurface",
    "band",
    "between",
    "line",
    "principal",
    "random_direction",
    "surface",
    "toward",
]
