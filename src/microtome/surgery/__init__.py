"""What can be cut out of a network, or put in its place? Operations on a copy; the user's model stays as it is."""

from microtome.surgery.cam_conversion import CamConversion, CamNetwork, convert_to_cam
from microtome.surgery.compress import Compression, compress
from microtome.surgery.lossless import Cut, Lossless, lossless

__all__ = ["CamConversion", "CamNetwork", "Compression", "Cut", "Lossless", "compress", "convert_to_cam", "lossless"]
