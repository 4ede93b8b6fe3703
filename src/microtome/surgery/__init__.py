"""What can be cut out of a network, or put in its place? Operations on a copy; the user's model stays as it is."""

from microtome.surgery.cam_conversion import CamConversion, CamNetwork, convert_to_cam
from microtome.surgery.compression.compress import Compression, compress
from microtome.surgery.held_out import sampled
from microtome.surgery.lossless_cuts.lossless import Cut, Lossless, lossless
from microtome.surgery.pruning.prune import Pruning, PruningRound, prune
from microtome.surgery.smaller import Latency, latency
from microtome.surgery.without import Without, without

__all__ = [
    "CamConversion",
    "CamNetwork",
    "Compression",
    "Cut",
    "Latency",
    "Lossless",
    "Pruning",
    "PruningRound",
    "Without",
    "compress",
    "convert_to_cam",
    "latency",
    "lossless",
    "prune",
    "sampled",
    "without",
]
