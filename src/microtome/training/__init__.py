"""How did the network learn? Training, the record of a run, and the loss around the weights."""

from microtome.training import curvature, information, landscape
from microtome.training.curvature import ConvexityMap, CurvatureHistory, HessianEigenvalues, SpectralDensity
from microtome.training.feature_history import FeatureHistory, feature_history
from microtome.training.fit import Recipe, evaluate, fit
from microtome.training.landscape import LossLine, LossSurface
from microtome.training.named import RECIPES, Trained, train_network
from microtome.training.recorder import Recorder
from microtome.training.training_run import Run

__all__ = [
    "RECIPES",
    "ConvexityMap",
    "CurvatureHistory",
    "FeatureHistory",
    "HessianEigenvalues",
    "LossLine",
    "LossSurface",
    "Recipe",
    "Recorder",
    "Run",
    "SpectralDensity",
    "Trained",
    "curvature",
    "evaluate",
    "feature_history",
    "fit",
    "information",
    "landscape",
    "train_network",
]
