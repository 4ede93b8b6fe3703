"""How much information do layers hold about the input and the class, and how does it change in training?"""

from microtome.training.information.admission import Admission, admit
from microtome.training.information.binary_task import Patterns, entropy, twelve_bits
from microtome.training.information.binning import Bins, binned_information
from microtome.training.information.comparison import PlaneComparison, compare
from microtome.training.information.estimators import Binning, Kernel
from microtome.training.information.kde import KernelBounds, kernel_bounds
from microtome.training.information.networks import NetworkRuns, train_networks
from microtome.training.information.phases import GradientPhases, gradient_phases
from microtome.training.information.plane import InformationPlane, plane
from microtome.training.information.usable_information import UsableInformation, usable_information

__all__ = [
    "Admission",
    "Binning",
    "Bins",
    "GradientPhases",
    "InformationPlane",
    "Kernel",
    "KernelBounds",
    "NetworkRuns",
    "Patterns",
    "PlaneComparison",
    "UsableInformation",
    "admit",
    "binned_information",
    "compare",
    "entropy",
    "gradient_phases",
    "kernel_bounds",
    "plane",
    "train_networks",
    "twelve_bits",
    "usable_information",
]
