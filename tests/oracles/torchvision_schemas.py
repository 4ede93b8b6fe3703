"""Where torch is a CPU build and torchvision's compiled operators do not load, what do peers need to be imported?

torchvision's wheel on the registry is compiled for another build of torch. Its Python part then stops at
``operator torchvision::nms does not exist``, and with it timm, grad-cam and torchcam, none of which calls the
operator on the classification networks that serve as oracles here. Declaring the schemas is enough.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

_SCHEMAS = (  # the two for which torchvision registers a shape function whether or not it has the operator
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[torch.library.Library] = []  # a Library's definitions live as long as the object


def define() -> None:
    """Declare torchvision's operators where its compiled library does not load; otherwise do nothing."""
    if _kept or importlib.util.find_spec("torchvision") is None or _loads():
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    _kept.append(library)


def _loads() -> bool:
    """Tell whether torchvision's compiled operators fit this build of torch."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    try:
        for library in Path(spec.submodule_search_locations[0]).glob("_C*.so"):
            torch.ops.load_library(library)
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")
