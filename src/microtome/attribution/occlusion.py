"""Occlusion: how the probability of a class changes when a window covers each position of the image."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from microtome.attribution.batching import scored
from microtome.attribution.gradients.baselines import Fill, baseline
from microtome.attribution.result import Attribution, wide
from microtome.batch_sizes import check_count, fitting, in_passes
from microtome.errors import InputError
from microtome.inputs import Target
from microtome.network import Network
from microtome.progress import Clock, Listener, Progress
from microtome.registry import register
from microtome.results import keep_on_device, stated
from microtome.trace.delta.cost import share_within_reach
from microtome.trace.delta.propagate import covered, logits_under

_WHOLE_FROM = 0.85  # plain passes are as fast if a window reaches this share of the work
_TRIED = 64  # windows on which both implementations are timed

Size = int | tuple[int, int]

# (network, image (1, C, H, W), boxes (n, 4), fill (1, C, H, W), boxes in one pass) -> class scores (n, K)
Evaluator = Callable[[Network, Tensor, Tensor, Tensor, int | None], Tensor]

# By network and size of the windows: the faster implementation.
_FASTER: WeakKeyDictionary[Network, dict[tuple[int, ...], Evaluator]] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False, kw_only=True)
class Occlusion(Attribution, drawing="attribution.attribution_figures:occlusion"):
    """The output of the network for every position of the covering window.

    ``values`` (N, 1, h, w) is the drop of the class's probability, ``unoccluded`` - ``probability``.

    Attributes
    ----------
    probability : Tensor
        (N, h, w), of the target class, as the network's output means it: softmax, sigmoid, or the
        number itself; of a network with ``output="value"`` the value.
    winner : Tensor
        (N, h, w), the class with the highest score.
    logit : Tensor
        (N, h, w), the score of the target class.
    unoccluded : Tensor
        (N,), probability of the target class for the image without a window.
    quantity : str
        ``"probability"``, or ``"value"`` where the output is a value.
    boxes : Tensor
        (h, w, 4): top, left, bottom, right of each window, half open, in pixels.
    window, stride : tuple of int
        Height and width of the window, and its step.
    """

    probability: Tensor
    winner: Tensor
    logit: Tensor
    unoccluded: Tensor
    boxes: Tensor
    window: tuple[int, int]
    stride: tuple[int, int]
    quantity: str = "probability"

    def __post_init__(self) -> None:
        keep_on_device(self, self.images.device)

    @property
    def map(self) -> Tensor:
        """Mean drop of the probability over the windows that cover a pixel, (N, H, W).

        Pixels that no window covers (a stride wider than the window) are zero.
        """
        _, _, height, width = self.images.shape
        drop = self.values.flatten(1)
        total = drop.new_zeros(len(drop), height, width)
        count = drop.new_zeros(height, width)
        for index, (top, left, bottom, right) in enumerate(self.boxes.reshape(-1, 4).tolist()):
            total[:, top:bottom, left:right] += drop[:, index, None, None]
            count[top:bottom, left:right] += 1
        return total / count.clamp(min=1)

    @property
    def classes_that_appear(self) -> list[list[int]]:
        """The classes that win at some position, for each image, the most frequent first."""
        found = []
        for grid in self.winner:
            indices, counts = grid.unique(return_counts=True)
            found.append(indices[counts.argsort(descending=True, stable=True)].tolist())
        return found


@dataclass(frozen=True)
class OcclusionProgress(Progress):
    """The progress of an occlusion, with the results of the last windows.

    Attributes
    ----------
    boxes : Tensor
        (m, 4), the last windows.
    probability : Tensor
        (m,), of the target class under them.
    unoccluded : float
        Probability of the target class without a window.
    """

    boxes: Tensor = field(default_factory=lambda: torch.empty(0, 4, dtype=torch.float32, device="cpu"))
    probability: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float32, device="cpu"))
    unoccluded: float = 0.0


# The cost depends on window and stride; this is that of windows of 16 at a stride of 8 on 224 x 224.
@register("occlusion", rows=("C2",), paper="zeiler2014visualizing", quantity="probability lost", cost=150.0)
def occlusion(
    net: Network,
    images: Any,
    target: Target = None,
    *,
    window: Size,
    stride: Size,
    fill: Fill = "gray",
    seed: int = 0,
    batch: int | None = None,
    progress: Listener | None = None,
) -> Occlusion:
    r"""Slide a covering window over the image and record the probability of the class and the winning class.

    .. math:: P(u, v) = p_c\big(S(x^{uv})\big), \qquad
              L(u, v) = \arg\max_k S_k(x^{uv}), \qquad
              x^{uv} = \begin{cases} z & \text{inside the window at } (u, v)\\ x & \text{elsewhere}\end{cases}

    for windows at multiples of the stride, and at the far edges, so that every pixel is covered [1]_.
    The probability p follows from the scores S as the network's output means them (``net.output``):
    softmax, sigmoid, or the numbers themselves.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    target : int, str, sequence, Tensor or None
        The class that is explained; None for the predicted one.
    window, stride : int or (int, int)
        Height and width of the window and of its step, in pixels.
    fill : float, sequence of float, str or Tensor
        What covers (z): a value, a picture, or ``"black"``, ``"gray"`` (as in the paper), ``"white"``,
        ``"mean"`` (the network's), ``"image-mean"``, ``"blur"``, ``"noise"``.
    seed : int
        For the noise.
    batch : int, optional
        Covered images in one pass, which bounds the memory; default 32 of 224 x 224 pixels, more if smaller.
    progress : callable, optional
        Called with an ``OcclusionProgress`` after every few rows of windows; an exception from it ends the work.

    Returns
    -------
    Occlusion
        ``probability``, ``winner`` (N, h, w) and ``unoccluded`` (N,); ``map`` is the mean drop of
        the probability over the windows that cover a pixel.

    Raises
    ------
    InputError
        When images, targets, window, stride or fill do not fit.
    ModelError
        When the model raises.

    Notes
    -----
    Cost: one forward pass per image and, per window, the part of the network that the window can reach.
    All windows share the activations of the image without a window. Windows of 16 at a stride of 8 on
    224 x 224 take an eighth of the time of h x w plain passes on VGG-16, a third on ResNet-18,
    DenseNet-121 and EfficientNet-Lite0; the scores are equal to 1e-6. Operators without a rule for
    patches are computed in full. Where a window reaches nearly all of the work (large windows, small
    images, squeeze-excite gates, attention), plain passes are run. No gradients.

    One window at a time shows necessary evidence. It does not show evidence that is present twice,
    and a covered image is unlike those of the training.

    References
    ----------
    .. [1] Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014.

    Examples
    --------
    Two classes scored by two pixels; covering the winner's pixel lets the other win.

    >>> from torch import nn
    >>> net = Network(nn.Flatten(), input_shape=(1, 1, 2))
    >>> result = occlusion(net, torch.tensor([[[[0.9, 0.3]]]]), window=1, stride=1, fill=0.0)
    >>> result.winner, result.classes_that_appear
    (tensor([[[1, 0]]]), [[0, 1]])
    """
    height, width = net.input_shape[1:]
    size, step = _pair(window, "window"), _pair(stride, "stride")
    boxes = windows((height, width), size, step)
    uncovered = scored(net, images, target, batch)
    checked = uncovered.images
    filling = baseline(net, checked, fill, seed=seed)
    quick = net.quick(checked, uncovered.logits, len(checked) * boxes[..., 0].numel(), backwards=False)
    listed = boxes.reshape(-1, 4)
    evaluator: Evaluator = evaluate
    if share_within_reach(net.graph, size) < _WHOLE_FROM:
        evaluator = faster(quick, checked[:1], listed, filling[:1], batch)
    before = net.head.readout(wide(uncovered.logits)).gather(1, uncovered.target[:, None])[:, 0]
    tell = (
        None
        if progress is None
        else _Teller(net, uncovered.target, before, len(checked) * boxes[..., 0].numel(), progress)
    )
    scores = _covered(quick, checked, listed, filling, batch, evaluator, tell, boxes.shape[1])
    grid = (len(checked), *boxes.shape[:2])
    chosen = uncovered.target[:, None].expand(scores.shape[:2])[..., None]
    probability = net.head.readout(scores).gather(2, chosen).reshape(grid)
    return Occlusion(
        provenance=stated(window=size, stride=step),
        values=(before[:, None, None] - probability)[:, None],
        target=uncovered.target,
        score=uncovered.score,
        images=checked,
        classes=net.classes,
        probability=probability,
        winner=scores.argmax(2).reshape(grid),
        logit=scores.gather(2, chosen).reshape(grid),
        unoccluded=before,
        boxes=boxes,
        window=size,
        stride=step,
        quantity=net.head.quantity,
    )


def windows(size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]) -> Tensor:
    """Boxes (h, w, 4) of all places of a window, the far edges covered.

    Raises
    ------
    InputError
        When the window is larger than the image.

    Examples
    --------
    >>> windows((1, 5), (1, 2), (1, 2))[0, :, [1, 3]]
    tensor([[0, 2],
            [2, 4],
            [3, 5]])
    """
    if window[0] > size[0] or window[1] > size[1]:
        raise InputError(f"the window {window} is larger than the image {size}; choose one that fits inside.")
    rows, columns = (_places(size[axis], window[axis], stride[axis]) for axis in (0, 1))
    top, left = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([top, left, top + window[0], left + window[1]], -1)


@torch.no_grad()
def evaluate(net: Network, image: Tensor, boxes: Tensor, fill: Tensor, batch: int | None = None) -> Tensor:
    """Class scores with each box covered, by plain passes.

    Parameters
    ----------
    net : Network
        The network.
    image, fill : Tensor
        (1, C, H, W), the image and what covers it.
    boxes : Tensor
        (n, 4).
    batch : int, optional
        Covered images per pass; for the default see ``batch_sizes.in_passes``.

    Returns
    -------
    Tensor
        Logits, (n, K).
    """

    def part(start: int, stop: int) -> Tensor:
        return wide(net.logits(covered(image, boxes[start:stop], fill), batch=stop - start, check=False))

    return torch.cat(in_passes(net, len(boxes), part, batch))


def patched(net: Network, image: Tensor, boxes: Tensor, fill: Tensor, batch: int | None = None) -> Tensor:
    """The same scores by patches over one pass of the image; by plain passes if patches do not fit into memory."""
    at_once = 4 * fitting(net, None) if batch is None else batch
    try:
        return logits_under(net, image, boxes, fill, at_once)
    except torch.cuda.OutOfMemoryError:
        pass  # the handler would keep the failed pass's tensors alive
    return evaluate(net, image, boxes, fill, batch)


def faster(net: Network, image: Tensor, boxes: Tensor, fill: Tensor, batch: int | None) -> Evaluator:
    """The faster implementation if a window reaches part of the work: patches, or plain passes.

    On a CPU that is patches, by the count of operations. On other devices a call costs more than the work of a small
    patch: both are timed on some windows, once for each network and window size.
    """
    if net.device.type == "cpu":
        return patched
    size = tuple((boxes[0, 2:] - boxes[0, :2]).tolist())
    known = _FASTER.setdefault(net, {})
    if size not in known:
        some = boxes[
            torch.linspace(0, len(boxes) - 1, min(len(boxes), _TRIED), dtype=torch.float32, device="cpu").long()
        ]
        times = {way: _least_seconds(net, way, (image, some, fill, batch)) for way in (evaluate, patched)}
        known[size] = min(times, key=times.__getitem__)
    return known[size]


def _least_seconds(net: Network, way: Evaluator, arguments: tuple[Any, ...]) -> float:
    """The time of the second of two runs."""
    took = 0.0
    for _ in range(2):
        began = time.perf_counter()
        way(net, *arguments).sum().item()  # waits for the result
        took = time.perf_counter() - began
    return took


class _Teller:
    """Reports the results of each part of the windows to a listener."""

    def __init__(self, net: Network, target: Tensor, unoccluded: Tensor, total: int, listener: Listener) -> None:
        self._net, self._target, self._unoccluded, self._listener = net, target, unoccluded, listener
        self._done, self._total, self._began = 0, total, time.monotonic()

    def __call__(self, image: int, boxes: Tensor, logits: Tensor) -> None:
        """Report some windows of an image."""
        self._done += len(boxes)
        elapsed = time.monotonic() - self._began
        probability = self._net.head.readout(logits)[:, self._target[image]]
        self._listener(
            OcclusionProgress(
                "occlusion",
                self._done,
                self._total,
                elapsed,
                elapsed / self._done * (self._total - self._done),
                boxes=boxes.to(probability.device),
                probability=probability,
                unoccluded=float(self._unoccluded[image]),
            )
        )


def _covered(
    net: Network,
    images: Tensor,
    boxes: Tensor,
    filling: Tensor,
    batch: int | None,
    evaluator: Evaluator,
    tell: _Teller | None,
    columns: int,
) -> Tensor:
    """Logits (N, n, K) of each image under each box; with a listener, a few rows of boxes at a time."""
    at_once = fitting(net, batch) * (4 if batch is None and evaluator is patched else 1)
    clock = Clock(None, len(images) * len(boxes))
    heard = clock.heard or tell is not None
    parts = boxes.split(columns * max(1, at_once // columns)) if heard else [boxes]
    found: list[Tensor] = []
    for i in range(len(images)):
        for part in parts:
            found.append(evaluator(net, images[i : i + 1], part, filling[i : i + 1], batch))
            clock.step("windows", sum(map(len, found)))
            if tell is not None:
                tell(i, part, found[-1])
    return torch.cat(found).reshape(len(images), len(boxes), -1)


def _places(size: int, window: int, stride: int) -> Tensor:
    starts = list(range(0, size - window + 1, stride))
    if starts[-1] + window < size:
        starts.append(size - window)
    return torch.tensor(starts, device="cpu")


def _pair(value: Any, what: str) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise InputError(f"{what} is one number or (height, width), got {value}.")
    return check_count(pair[0], what), check_count(pair[1], what)
