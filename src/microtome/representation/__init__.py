"""How do a layer's features place the images, and how alike are two layers? Features, maps, similarity."""

from microtome.representation.alignment import AlignedMaps, aligned
from microtome.representation.features import Features, features
from microtome.representation.image_map import ImageMap
from microtome.representation.kernel_alignment import KernelAlignment, cka
from microtome.representation.layer_repeats import LayerRepeats, repeats
from microtome.representation.principal_components import PrincipalMap, pca
from microtome.representation.t_sne import NeighbourMap, tsne

__all__ = [
    "AlignedMaps",
    "Features",
    "ImageMap",
    "KernelAlignment",
    "LayerRepeats",
    "NeighbourMap",
    "PrincipalMap",
    "aligned",
    "cka",
    "features",
    "pca",
    "repeats",
    "tsne",
]
