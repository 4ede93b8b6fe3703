"""What does each layer keep and what does it throw away? Layers as maps between signal spaces."""

from microtome.spaces.class_residuals import ClassResiduals, class_averages, class_residuals
from microtome.spaces.exit_distance import ExitDistance, exit_distance
from microtome.spaces.facet_distance import FacetDistance, facet_distance
from microtome.spaces.ideal import IdealInputs, ideal_inputs, ideal_outputs
from microtome.spaces.inverse import Invertibility, NetworkInverse, invert, invertibility
from microtome.spaces.jacobian import JacobianOperator, jacobian
from microtome.spaces.operator import Operator, operator
from microtome.spaces.path import FacetPath, facets_between
from microtome.spaces.region import LinearRegion, linear_region
from microtome.spaces.signal_part import SignalPart, signal_part
from microtome.spaces.spectra import Spectra, spectra
from microtome.spaces.subspaces import Subspaces, subspaces
from microtome.spaces.through import KeptAndLost, Rejected, kept_and_lost, rejected_energy
from microtome.spaces.triplets import SingularTriplets, triplets
from microtome.spaces.weight_vectors import WeightVectors, weight_vectors

__all__ = [
    "ClassResiduals",
    "ExitDistance",
    "FacetDistance",
    "FacetPath",
    "IdealInputs",
    "Invertibility",
    "JacobianOperator",
    "KeptAndLost",
    "LinearRegion",
    "NetworkInverse",
    "Operator",
    "Rejected",
    "SignalPart",
    "SingularTriplets",
    "Spectra",
    "Subspaces",
    "WeightVectors",
    "class_averages",
    "class_residuals",
    "exit_distance",
    "facet_distance",
    "facets_between",
    "ideal_inputs",
    "ideal_outputs",
    "invert",
    "invertibility",
    "jacobian",
    "kept_and_lost",
    "linear_region",
    "operator",
    "rejected_energy",
    "signal_part",
    "spectra",
    "subspaces",
    "triplets",
    "weight_vectors",
]
