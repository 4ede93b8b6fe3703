"""What does each layer keep and what does it throw away? Layers as maps between signal spaces."""

from microtome.spaces.class_residuals import ClassResiduals, class_averages, class_residuals
from microtome.spaces.operator import Operator, operator
from microtome.spaces.spectra import Spectra, spectra
from microtome.spaces.subspaces import Subspaces, subspaces
from microtome.spaces.triplets import SingularTriplets, triplets
from microtome.spaces.weight_vectors import WeightVectors, weight_vectors

__all__ = [
    "ClassResiduals",
    "Operator",
    "SingularTriplets",
    "Spectra",
    "Subspaces",
    "WeightVectors",
    "class_averages",
    "class_residuals",
    "operator",
    "spectra",
    "subspaces",
    "triplets",
    "weight_vectors",
]
