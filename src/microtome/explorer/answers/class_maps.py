"""Attribution maps for a class: by any method, and by occlusion, which is shown while it is computed."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor

from microtome import registry
from microtome.attribution import Attribution, occlusion
from microtome.attribution.occlusion import OcclusionProgress
from microtome.errors import InputError
from microtome.explorer.frames import Frame, quantised
from microtome.network import Network
from microtome.progress import Progress

__all__ = ["covered", "explained"]

_WINDOWS = 16  # occluded pictures in one pass: few, so that a click is answered soon


def explained(net: Network, image: Tensor, method: str, target: int | None) -> Frame:
    """The map of an attribution method; blocks ``map`` (1, H, W) with ``limits`` (1, 2)."""
    known = registry.method(method, registry.EXPLAINING)
    needed = [name for name, option in signature(known.function).parameters.items()
              if option.kind is Parameter.KEYWORD_ONLY and option.default is Parameter.empty]  # fmt: skip
    if needed:
        raise InputError(f'"{known.name}" needs {" and ".join(needed)}; use the question of that method.')
    return _shown(known, known.function(net, image, target))


def _shown(method: registry.Method, result: Attribution) -> Frame:
    values, limits = quantised(result.map, signed=method.signed)
    header: dict[str, Any] = {
        "method": method.name,
        "signed": method.signed,
        "quantity": method.quantity,
        "target": int(result.target[0]),
        "score": float(result.score[0]),
        "layer": getattr(result, "layer", ""),
        "checks": _checks(result),
        "notes": result.notes,
    }
    return Frame(header, {"map": values, "limits": limits})


def _checks(result: Attribution) -> list[list[Any]]:
    """Certificates: the quantity, the number, whether it is within its tolerance."""
    found: list[list[Any]] = []
    gap = getattr(result, "completeness_gap", None)
    if isinstance(gap, Tensor):
        size = abs(float(result.score[0])) or 1.0
        found.append(["completeness gap, logit", float(gap[0]), abs(float(gap[0])) <= 0.05 * size])
    kept = getattr(result, "conservation", None)
    if isinstance(kept, Tensor):
        number = float(kept[0])
        found.append(["relevance and biases over the score", number, abs(number - 1) <= 0.05])
    return [[name, number if abs(number) < 1e30 else None, good] for name, number, good in found]


def covered(
    net: Network,
    image: Tensor,
    target: int | None,
    window: tuple[int, int],
    tell: Callable[[Frame], None],
) -> Frame:
    """The mean drop of the probability over the windows that cover a pixel.

    ``tell`` gets frames with the ``boxes`` (m, 4) just computed and the ``probability`` (m,) under them;
    the answer has ``map`` (1, H, W) with ``limits``.
    """
    side, step = window

    def listen(progress: Progress) -> None:
        if isinstance(progress, OcclusionProgress):
            header = {
                "done": progress.done,
                "total": progress.total,
                "remaining": progress.remaining,
                "unoccluded": progress.unoccluded,
            }
            blocks = {"boxes": progress.boxes.to(torch.int32), "probability": progress.probability.float()}
            tell(Frame(header, blocks))

    occluded = occlusion(net, image, target, window=side, stride=step, batch=_WINDOWS, progress=listen)
    frame = _shown(registry.method("occlusion"), occluded)
    frame.header.update(window=side, stride=step, unoccluded=float(occluded.unoccluded[0]), named=occluded.quantity)
    return frame
