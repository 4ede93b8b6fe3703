"""Sprites: many small pictures in one file, coloured with zero neutral, the same bytes each time."""

from __future__ import annotations

import io
import math
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from microtome.atlas.engine import available_cores
from microtome.atlas.store import Store
from microtome.atlas.widgets import Colours, Sprite

__all__ = ["SpriteWriter", "bounds", "coloured", "gridded"]

_SIDE = 8192  # pixels a side that every browser and phone decodes
_WAITING = 64  # pictures that wait for an encoder at most, which bounds the memory
_SQUARE = 32  # pixels a side up to which every pixel is shown as a square: filters, patches, small maps


def gridded(cells: Tensor, columns: int) -> Tensor:
    """Cells (n, C, h, w) row by row in one picture (C, rows * h, columns * w), white where there is no cell.

    Examples
    --------
    >>> import torch
    >>> gridded(torch.zeros(3, 1, 2, 2), 2).shape
    torch.Size([1, 4, 4])
    """
    n, channels, height, width = cells.shape
    rows = math.ceil(n / columns)
    filled = cells.new_ones((rows * columns, channels, height, width))
    filled[:n] = cells
    arranged = filled.view(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return arranged.reshape(channels, rows * height, columns * width)


def coloured(values: Tensor, colours: Colours, limits: tuple[float, float]) -> Tensor:
    """Values (n, h, w) as RGB in [0, 1]: diverging maps have white at zero, sequential ones begin dark.

    Examples
    --------
    >>> import torch
    >>> coloured(torch.tensor([[[0.0]]]), "diverging", (-1.0, 1.0)).mul(255).round().flatten().tolist()
    [247.0, 247.0, 247.0]
    """
    low, high = limits
    span = high - low if high > low else 1.0
    scaled = ((values.to(torch.float32) - low) / span).nan_to_num(0.5).clamp(0, 1)
    table = torch.from_numpy(_table("RdBu_r" if colours == "diverging" else "magma")).to(values.device)
    # Rounded to the table's middle entry, so that zero is exactly neutral.
    index = (scaled * (len(table) - 1)).round().to(torch.int64)
    return table[index].permute(0, 3, 1, 2)


_TABLES: dict[str, NDArray[np.float32]] = {}


def _table(name: str) -> NDArray[np.float32]:
    """A colour map of matplotlib in 255 steps: an odd number, so that there is a middle."""
    if name not in _TABLES:
        import matplotlib

        table = matplotlib.colormaps[name](np.linspace(0, 1, 255))[:, :3].astype(np.float32)
        if name == "RdBu_r":
            table[127] = np.float32(247 / 255)
        _TABLES[name] = table
    return _TABLES[name]


def bounds(values: Tensor, colours: Colours) -> tuple[float, float]:
    """The range of a colour scale: symmetric about zero if values are signed, otherwise from zero."""
    finite = values[torch.isfinite(values)]
    if not finite.numel():
        return (-1.0, 1.0) if colours == "diverging" else (0.0, 1.0)
    if colours == "diverging":
        size = float(finite.abs().max()) or 1.0
        return -size, size
    low, high = float(finite.min()), float(finite.max())
    return min(low, 0.0), high if high > min(low, 0.0) else min(low, 0.0) + 1.0


class SpriteWriter:
    """Writes the sprites of one run into the folder of the site; a file with the same bytes is left alone.

    In a ``with`` block several threads encode the pictures, while the pages are made; at its end all are written.
    """

    def __init__(self, store: Store, *, pixelated: bool) -> None:
        self.store = store
        self.pixelated = pixelated
        self._written: set[str] = set()
        self._encoders: ThreadPoolExecutor | None = None
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> SpriteWriter:
        if self.store.local:  # other stores are written one file at a time
            self._encoders = ThreadPoolExecutor(available_cores())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        encoders, self._encoders = self._encoders, None
        if encoders is None:
            return
        try:
            self._wait(0 if kind is None else len(self._waiting))
        finally:
            encoders.shutdown(cancel_futures=True)
            self._waiting.clear()

    def _wait(self, most: int) -> None:
        """Wait until at most ``most`` pictures are not yet written; raise the error of a picture."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def remove_others(self) -> None:
        """Remove picture files of earlier runs that no page of this run shows."""
        folder = Path(self.store.path("sprites"))
        for file in folder.iterdir() if folder.is_dir() else ():
            if f"sprites/{file.name}" not in self._written and file.suffix in (".png", ".webp"):
                file.unlink()

    def natural(self, name: str, cells: Tensor, columns: int | None = None) -> Sprite:
        """Pictures (n, C, h, w) in [0, 1]: gray, RGB, or the mean over other numbers of channels."""
        if cells.shape[1] not in (1, 3):
            cells = cells.mean(1, keepdim=True)
        return self._write(name, cells.clamp(0, 1), columns, "natural", None, "")

    def scaled(
        self,
        name: str,
        values: Tensor,
        colours: Colours,
        quantity: str,
        *,
        columns: int | None = None,
        limits: tuple[float, float] | None = None,
        own: bool = False,
        square: bool = False,
    ) -> Sprite:
        """Values (n, h, w) on one scale.

        With ``own`` a second file has each cell on its own scale; with ``square`` pixels stay square when
        enlarged, whatever the network.
        """
        shared = limits or bounds(values, colours)
        alone = None
        if own:
            parts = [coloured(cell[None], colours, bounds(cell, colours)) for cell in values]
            alone = self._write(f"{name}-own", torch.cat(parts), columns, colours, None, quantity).file
        sprite = self._write(name, coloured(values, colours, shared), columns, colours, shared, quantity)
        return Sprite(
            sprite.file,
            sprite.cell,
            sprite.columns,
            sprite.count,
            colours,
            shared,
            quantity,
            sprite.pixelated or square,
            alone,
        )

    def classes(self, name: str, winner: Tensor, colours: dict[int, str]) -> Sprite:
        """Maps of classes (n, h, w), each class in its colour ``"#rrggbb"``."""
        cells = torch.zeros((len(winner), 3, *winner.shape[1:]), dtype=torch.float32, device=winner.device)
        for index, colour in colours.items():
            rgb = torch.tensor(
                [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)], dtype=torch.float32, device=winner.device
            )
            cells = torch.where((winner == index)[:, None], rgb[None, :, None, None], cells)
        return self._write(name, cells, None, "classes", None, "class")

    def _write(
        self,
        name: str,
        cells: Tensor,
        columns: int | None,
        colours: Colours,
        limits: tuple[float, float] | None,
        quantity: str,
    ) -> Sprite:
        n, _, height, width = cells.shape
        across = max(1, min(columns or math.ceil(math.sqrt(n)), n, _SIDE // width))
        lossless = self.pixelated or max(height, width) <= _SQUARE or colours == "classes"
        grid = gridded(cells, across)
        file = f"sprites/{name}.{'png' if lossless and max(grid.shape[1:]) <= 64 else 'webp'}"
        if file in self._written:
            self._wait(0)  # the later picture of a name stays
        self._written.add(file)
        image = _image(grid)
        if self._encoders is None:
            self._encode(image, file, lossless)
        else:
            self._waiting.append(self._encoders.submit(self._encode, image, file, lossless))
            self._wait(_WAITING)
        pixelated = self.pixelated or max(height, width) <= _SQUARE
        return Sprite(file, (height, width), across, n, colours, limits, quantity, pixelated)

    def _encode(self, image: Image.Image, file: str, lossless: bool) -> None:
        self.store.write_if_changed(file, _encoded(image, file, lossless=lossless))


def encoded(picture: Tensor, file: str, *, lossless: bool) -> bytes:
    """A picture (C, H, W) in [0, 1] as PNG or WebP; the encoders are deterministic."""
    return _encoded(_image(picture), file, lossless=lossless)


def _image(picture: Tensor) -> Image.Image:
    pixels = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def _encoded(image: Image.Image, file: str, *, lossless: bool) -> bytes:
    content = io.BytesIO()
    if file.endswith(".png"):
        image.save(content, "PNG", optimize=False)
    else:
        effort = 20 if lossless else 78  # lossless: what more effort saves is a few percent, at thrice the time
        image.save(content, "WEBP", lossless=lossless, quality=effort, method=1 if lossless else 3, exact=True)
    return content.getvalue()
