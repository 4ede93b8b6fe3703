"""The models of the proof: one size of every family, with random weights from a stored seed and a small input."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 10
SIDES = (64, 96, 128, 160, 192, 224, 256)  # tried in this order; the first that the model accepts is used
_SIZES = """zepto atto femto pico nano xxtiny xtiny test xxxs xxs micro xs xsmall tiny t mini s small sm m medium little
base b big l large xl xlarge xxl xxlarge h huge g giant gigantic e enormous so150m so400m""".split()
_SIZE = re.compile(
    r"(patch|window|p|w|r|d|b|s|m|l|x|t|g|in|cd|lw|n|k|c|f|sz|xl|xs|a|h|e)?\d+[a-z]?(x\d+[a-z]*)*|\d+(mf|gf|w|s|k|ft)"
)
_TORCHVISION = """alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t
mnasnet0_5 mobilenet_v2 mobilenet_v3_small mobilenet_v3_large regnet_x_400mf regnet_y_400mf resnet18 resnet50
resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_0 squeezenet1_1 swin_t swin_v2_t vgg11 vgg11_bn vit_b_32
wide_resnet50_2""".split()
# Models that do not classify images alone, or that need a package that is not installed.
LEFT_OUT = {
    "transformers:imagegpt": "takes tokens of colours, not images",
    "transformers:shieldgemma2": "takes a text beside the image",
    "transformers:siglip2": "takes patches with a mask, not images",
    "transformers:timm_wrapper": "hands on to timm",
    "transformers:dinat": "needs the package natten",
    "timm:vit_5b_patch16_sapiens2": "five billion weights, and its factory takes no other size",
}


class CannotBuild(Exception):
    """No input size was found at which the model runs."""


@dataclass
class Built:
    """A model with weights, ready to be explained."""

    model: nn.Module
    shape: tuple[int, int, int]
    dtype: torch.dtype
    smaller: dict[str, Any]  # settings that make it smaller than the smallest published size


def entries(seed: int = 0) -> list[str]:
    """All models by name (``"timm:resnet18"``), in a random order, so that the first n are a fair sample."""
    found = [*_timm_families(), *(f"torchvision:{name}" for name in _TORCHVISION), *_transformers_types()]
    found = [name for name in found if name not in LEFT_OUT]
    random.Random(seed).shuffle(found)
    return found


def build(name: str, seed: int = 0) -> Built:
    """Build a model with random weights and find a small input that it accepts.

    Raises
    ------
    CannotBuild
        If it runs at no size.
    """
    library, _, bare = name.partition(":")
    reason = "nothing was tried"
    attempts = {"timm": _timm, "torchvision": _torchvision, "transformers": _transformers}[library](bare)
    for make, sides, smaller in attempts:
        torch.manual_seed(seed)
        try:
            model = make().eval()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            continue
        for side in sides:
            images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed))
            try:
                with torch.no_grad():
                    model(images)
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                torch.manual_seed(seed)
                model = make().eval()  # a pass that fails may leave the model changed
                continue
            redraw(model, images, seed)
            return Built(model, (3, side, side), _widest(model, images), smaller)
    raise CannotBuild(reason)


def redraw(model: nn.Module, images: Tensor, seed: int) -> None:
    """Give random values to weights that are initially constant (zeros, ones), and statistics to batch norms.

    Untrained models often multiply branches by zero; a wrong answer there could not be detected.
    """
    dice = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.is_floating_point() and weight.numel() and bool((weight == weight.flatten()[0]).all()):
                noise = torch.randn(weight.shape, generator=dice, dtype=torch.float32).to(weight)
                weight.copy_((1.0 if float(weight.flatten()[0]) >= 0.5 else 0.0) + 0.2 * noise)
        norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        kept = [part.momentum for part in norms]
        for part in norms:
            part.train()
            part.momentum = 0.5
        try:
            model(images)
        except Exception:
            norms_left = True  # a norm of one number per channel has no variance: the statistics stay 0 and 1
        else:
            norms_left = False
        for part, momentum in zip(norms, kept, strict=True):
            part.eval()
            part.momentum = momentum
            if norms_left and part.running_mean is not None:
                part.reset_running_stats()


def _widest(model: nn.Module, images: Tensor) -> torch.dtype:
    """Use double precision if the model runs in it, so that rounding hides no error."""
    try:
        with torch.no_grad():
            model.double()(images.double())
        return torch.float64
    except Exception:
        model.float()
        return torch.float32


Attempt = tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, Any]]


def _timm_families() -> list[str]:
    import timm

    families: dict[tuple[str, str], list[str]] = {}
    for name in timm.list_models():
        module = timm.models._registry._model_to_module[name]
        families.setdefault((module, _without_sizes(name)), []).append(name)
    return [f"timm:{min(names, key=_by_size)}" for names in families.values()]


def _without_sizes(name: str) -> str:
    """A name without its words for sizes; versions (``v2``) stay."""
    words = [word for word in name.split("_") if word not in _SIZES and not _SIZE.fullmatch(word)]
    return "_".join(filter(None, (re.sub(r"(?<![vV])\d+", "", word) for word in words)))


def _by_size(name: str) -> tuple[Any, ...]:
    ranks = [_SIZES.index(word) for word in name.split("_") if word in _SIZES]
    return (ranks[0] if ranks else 12, [int(digits) for digits in re.findall(r"\d+", name)], name)


# Number of parameters above which a timm model is made smaller, and the settings: the first that it accepts.
_LARGE = 10_000_000
_FEWER: tuple[dict[str, Any], ...] = (
    {"depth": 3, "embed_dim": 96, "num_heads": 3},
    {"depths": (2, 2, 2, 2), "embed_dim": 32, "num_heads": (1, 2, 4, 4)},  # every other block shifts its windows
    {"depths": (2, 2, 2, 2), "embed_dim": 32},
    {"depths": (1, 1, 2, 1), "embed_dim": (32, 64, 96, 128)},
    {"depths": (1, 1, 2, 1), "dims": (32, 64, 96, 128)},
    {"depths": (1, 1, 2, 1), "embed_dims": (32, 64, 96, 128)},
    {"depths": (1, 1, 2, 1), "embed_dims": (32, 64, 96, 128), "num_heads": (1, 2, 3, 4)},
    {"layers": (2, 1, 1, 1)},
    {"block_config": (2, 2, 2, 2)},
    {"depth": 3, "embed_dim": 96},
    {"depth": 3},
    {"depths": (1, 1, 2, 1)},
)


def _timm(name: str) -> Iterator[Attempt]:
    import timm

    settings = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    own = (settings.input_size[-1] if settings is not None else 224,)
    free = settings is None or not settings.fixed_input_size
    full = _parameters(name, {})
    for fewer in (*_FEWER, {}) if full > _LARGE else ({},):
        if fewer and _parameters(name, fewer) > 0.9 * full:
            continue
        if free:
            yield partial(timm.create_model, name, num_classes=CLASSES, **fewer), (*SIDES, *own), fewer
        for side in SIDES:
            yield partial(timm.create_model, name, num_classes=CLASSES, img_size=side, **fewer), (side,), fewer
        yield partial(timm.create_model, name, num_classes=CLASSES, **fewer), own, fewer


def _parameters(name: str, settings: dict[str, Any]) -> float:
    """Number of parameters of a model, which is built without memory. Infinite if it does not accept the settings."""
    import timm

    try:
        with torch.device("meta"):
            model = timm.create_model(name, num_classes=CLASSES, **settings)
    except Exception:
        return float("inf")
    return sum(weight.numel() for weight in model.parameters())


def _torchvision(name: str) -> Iterator[Attempt]:
    import torchvision

    if name.startswith("vit"):
        yield lambda: torchvision.models.get_model(name, num_classes=CLASSES, image_size=64), (64,), {}
    elif name == "maxvit_t":
        make = torchvision.models.MaxVit
        options = {"stem_channels": 16, "block_channels": [16, 32], "block_layers": [1, 1], "head_dim": 8}
        yield (
            lambda: make((64, 64), partition_size=4, stochastic_depth_prob=0.0, num_classes=CLASSES, **options),
            (64,),
            {"stem_channels": 16, "block_channels": (16, 32)},
        )
    else:
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        yield lambda: torchvision.models.get_model(name, num_classes=CLASSES, **options), SIDES, {}


def _transformers_types() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    names = [(kind, classes if isinstance(classes, tuple) else (classes,)) for kind, classes in KNOWN.items()]
    return [f"transformers:{kind}" + (f"/{one}" if len(made) > 1 else "") for kind, made in names for one in made]


_SMALLER = {
    "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "patch_size": 8,
    "num_latents": 16, "d_latents": 32, "d_model": 32, "num_blocks": 1, "num_self_attends_per_block": 2,
    "width_coefficient": 1.0, "depth_coefficient": 1.0,
}  # fmt: skip
_FEWER_BLOCKS = {"embed_dim": 48, "width_coefficient": 1.0, "depth_coefficient": 1.0}


def _transformers(name: str) -> Iterator[Attempt]:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as KNOWN

    kind, _, chosen = name.partition("/")
    made = getattr(transformers, chosen or str(KNOWN[kind]))
    for fewer in (_SMALLER, _FEWER_BLOCKS, None):
        for side in (64, 128, 224, None):
            settings = transformers.AutoConfig.for_model(kind)
            changed: dict[str, Any] = {}
            for part in (settings, getattr(settings, "vision_config", None)):
                if part is not None:
                    changed |= {} if fewer is None else _smaller(part, fewer)
                    if side is not None and isinstance(getattr(part, "image_size", None), int):
                        part.image_size = side
            settings.num_labels = CLASSES
            yield partial(made, settings), (side,) if side else SIDES, changed


def _smaller(settings: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """Change those of the wanted settings that exist, keep at most two blocks in a stage, and return the changes."""
    changed = {key: value for key, value in wanted.items() if isinstance(getattr(settings, key, None), int | float)}
    for key in ("depths", "depth", "num_blocks", "layer_depths"):
        known = getattr(settings, key, None)
        if isinstance(known, list | tuple) and all(isinstance(count, int) for count in known) and max(known) > 2:
            changed[key] = type(known)(min(count, 2) for count in known)
    for key, value in changed.items():
        setattr(settings, key, value)
    if "embed_dim" in changed and isinstance(getattr(settings, "depths", None), list):
        settings.hidden_size = settings.embed_dim * 2 ** (len(settings.depths) - 1)
    return changed
