"""How curved is the loss at the weights? Eigenvalues of its Hessian, their density, along training, on a plane."""

from microtome.training.curvature.along_training import CurvatureHistory, along_training
from microtome.training.curvature.convexity_map import ConvexityMap, convexity_map
from microtome.training.curvature.eigenvalues import HessianEigenvalues, eigenvalues
from microtome.training.curvature.spectral_density import SpectralDensity, spectral_density

__all__ = [
    "ConvexityMap",
    "CurvatureHistory",
    "HessianEigenvalues",
    "SpectralDensity",
    "along_training",
    "convexity_map",
    "eigenvalues",
    "spectral_density",
]
