"""What does each layer keep and what does it throw away? Layers as linear maps between signal spaces."""

from microtome.spaces.inversion.ideal_inputs import IdealInputs, ideal_inputs, ideal_outputs
from microtome.spaces.inversion.layerwise_inverse import Invertibility, NetworkInverse, invert_outputs, invertibility
from microtome.spaces.linear_map import LinearMap, jacobian, operator
from microtome.spaces.operators.jacobian import JacobianOperator
from microtome.spaces.operators.operator import Operator
from microtome.spaces.regions.exit_distance import ExitDistance, exit_distance
from microtome.spaces.regions.facet_distance import FacetDistance, facet_distance
from microtome.spaces.regions.facet_path import FacetPath, facets_between
from microtome.spaces.regions.linear_region import LinearRegion, linear_region
from microtome.spaces.singular.spectra import Spectra, spectra
from microtome.spaces.singular.triplets import SingularTriplets, triplets
from microtome.spaces.split.class_residuals import ClassResiduals, class_averages, class_residuals
from microtome.spaces.split.rejection import KeptAndLost, Rejected, kept_and_lost, rejected_energy
from microtome.spaces.split.row_space import SignalPart, signal_part
from microtome.spaces.split.subspaces import Subspaces, subspaces
from microtome.spaces.split.weight_vectors import WeightVectors, weight_vectors

invert = invert_outputs  # the short name; ``synthesis.invert`` inverts a representation by optimisation instead

__all__ = [
    "ClassResiduals",
    "ExitDistance",
    "FacetDistance",
    "FacetPath",
    "IdealInputs",
    "Invertibility",
    "JacobianOperator",
    "KeptAndLost",
    "LinearMap",
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
    "invert_outputs",
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
