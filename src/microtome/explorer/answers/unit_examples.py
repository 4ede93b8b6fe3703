"""What drives a unit: patches of the data and superstimuli, from an atlas or computed on request."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from microtome import synthesis, units
from microtome.atlas.pictures.downscaling import downscaled
from microtome.errors import OpaqueError
from microtome.explorer.atlas_results import AtlasResults
from microtome.explorer.frames import Frame, quantised
from microtome.explorer.live_network import LiveNetwork, watched
from microtome.figures.strongest_signal import strongest_signal
from microtome.network import Network
from microtome.synthesis import Superstimuli
from microtome.units import LayerPatches

__all__ = ["UnitExamples", "picture_bytes"]

_PIXELS = 2000 * 224 * 224  # of the images that are searched for patches on request: a minute or two
_SEARCHED = 5000  # maximum number of images
_PATCHES = 9
_SIDE = 96  # side of a picture in pixels
_STEPS = 96  # of a superstimulus that is computed on request


class UnitExamples:
    """Examples of the units of one network, cached by layer.

    Parameters
    ----------
    live : LiveNetwork
        Network and images.
    atlas : AtlasResults or None
        Stored results of the same network.
    """

    def __init__(self, live: LiveNetwork, atlas: AtlasResults | None = None) -> None:
        self._live, self._atlas = live, atlas
        self._tables: dict[str, LayerPatches] = {}
        self._stimuli: dict[tuple[str, int], Superstimuli] = {}
        self._lock = threading.Lock()

    def answer(
        self, layer: str, unit: int, compute: str, pause: Callable[[], None], tell: Callable[[Frame], None]
    ) -> Frame:
        """Pictures of what drives a unit: ``patches``, ``reconstructions`` and ``stimuli``, as far as they exist."""
        net = self._live.net
        layer = net.layer(layer).name
        if compute == "patches":
            self._search(layer, pause, tell)
        if compute == "superstimulus":
            best = synthesis.maximize(watched(net, pause), layer, channels=unit, steps=_STEPS)
            self._stimuli[layer, unit] = best
        header: dict[str, Any] = {"layer": layer, "unit": unit, "page": self._page(layer, unit)}
        blocks: dict[str, Tensor] = {}
        self._patches(layer, unit, pause, header, blocks)
        self._superstimuli(layer, unit, header, blocks)
        return Frame(header, blocks)

    def _search(self, layer: str, pause: Callable[[], None], tell: Callable[[Frame], None]) -> None:
        """Search a part of the data set for the patches that drive each unit of a layer."""
        if self._table(layer) is not None:
            return
        images, net = self._live.subject.images, self._live.net
        count = min(len(images), _SEARCHED, max(64, _PIXELS // (net.input_shape[1] * net.input_shape[2])))
        chosen = [place * len(images) // count for place in range(count)]
        batch, passes = 16, [0]
        total = -(-count // batch)

        def counted() -> None:
            pause()
            passes[0] += 1
            tell(Frame({"done": min(passes[0] - 1, total), "total": total, "stage": f"searching {count:,} images"}))

        subset = self._live.subject.subset(chosen)
        found = units.top_patches(watched(net, counted), subset, [layer], k=_PATCHES, bins=1, batch=batch)[layer]
        places = torch.tensor([*chosen, -1], device="cpu")
        object.__setattr__(found, "found_in", places[found.image])  # numbers in the whole data set
        with self._lock:
            self._tables[layer] = found

    def _table(self, layer: str) -> LayerPatches | None:
        stored = self._atlas.patches(layer) if self._atlas is not None else None
        return stored if stored is not None else self._tables.get(layer)

    def _patches(
        self, layer: str, unit: int, pause: Callable[[], None], header: dict[str, Any], blocks: dict[str, Tensor]
    ) -> None:
        table = self._table(layer)
        if table is None or unit >= table.units:
            return
        ranks = [rank for rank in range(table.count()) if table.entry(unit, rank)[0] >= 0]
        if not ranks:
            return
        numbers = getattr(table, "found_in", table.image)
        blocks["patches"] = picture_bytes(
            torch.stack([table.crop(unit, rank) for rank in ranks]), self._live.net, _SIDE
        )
        header["patch_images"] = [int(numbers[unit, rank]) for rank in ranks]
        header["patch_activations"] = [float(table.activation[unit, rank]) for rank in ranks]
        header["searched"] = table.images
        header["stored"] = layer not in self._tables
        with contextlib.suppress(OpaqueError):  # an operation without a backward rule: patches alone
            reconstructed = units.reconstruct(
                watched(self._live.net, pause), table, method="guided", k=len(ranks), units=unit, batch=4
            )
            signal = strongest_signal(reconstructed.values[0].sum(1, keepdim=True), _SIDE)[:, 0]
            blocks["reconstructions"], blocks["reconstruction_limits"] = quantised(signal, signed=True)

    def _superstimuli(self, layer: str, unit: int, header: dict[str, Any], blocks: dict[str, Tensor]) -> None:
        own = self._stimuli.get((layer, unit))
        pairs = [(own, 0)] if own is not None else self._atlas.superstimuli(layer, unit) if self._atlas else []
        if not pairs:
            return
        blocks["stimuli"] = picture_bytes(
            torch.stack([superstimuli.images[place] for superstimuli, place in pairs]), self._live.net, _SIDE
        )
        header["stimulus_activations"] = [float(superstimuli.peak[place]) for superstimuli, place in pairs]

    def _page(self, layer: str, unit: int) -> str:
        """The unit's page in the atlas."""
        return self._atlas.page(layer, unit) if self._atlas is not None else ""


def picture_bytes(pictures: Tensor, net: Network, side: int) -> Tensor:
    """Pictures (n, C, h, w) in the network's range as bytes (n, h, w, 3), at most ``side`` pixels high and wide."""
    low, high = net.pixels or (float(pictures.min()), float(pictures.max()))
    shown = ((pictures.float() - low) / max(high - low, 1e-12)).clamp(0, 1)
    if shown.shape[1] not in (1, 3):
        shown = shown.mean(1, keepdim=True)
    shown = downscaled(shown, side).expand(-1, 3, -1, -1)
    return (shown * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()
