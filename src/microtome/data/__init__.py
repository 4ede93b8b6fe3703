"""Where do the images come from? Data sets by name, folders of pictures, and any map-style data set of torch."""

from microtome.data.adapters.adapter import Adapter, Dataset, Expected, adapt
from microtome.data.adapters.hugging_face import HuggingFace, hugging_face
from microtome.data.batches import batches, fetch, labels
from microtome.data.folder import Folder, folder
from microtome.data.images import Images
from microtome.data.named.digits import digits, mnist_5000
from microtome.data.named.fashion_mnist import fashion_mnist
from microtome.data.named.mnist import mnist
from microtome.data.picture import decode
from microtome.data.planted_shortcut import Shortcut, with_shortcut
from microtome.data.sources import NAMES, open_data, open_picture

__all__ = [
    "NAMES",
    "Adapter",
    "Dataset",
    "Expected",
    "Folder",
    "HuggingFace",
    "Images",
    "Shortcut",
    "adapt",
    "batches",
    "decode",
    "digits",
    "fashion_mnist",
    "fetch",
    "folder",
    "hugging_face",
    "labels",
    "mnist",
    "mnist_5000",
    "open_data",
    "open_picture",
    "with_shortcut",
]
