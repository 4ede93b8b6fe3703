"""Noise floor: the response of units to shuffled stimuli, and how selective the units of random networks are."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from microtome.network import Network
from microtome.units.stimulus_tuning.stimuli import Stimuli
from microtome.units.stimulus_tuning.stimulus_responses import boxes, responses

BLOCKS = (1, 2, 4, 8)  # sides in pixels of the blocks that are shuffled
EACH = 60  # shuffled stimuli of each block size
QUANTILE = 0.98
MANY = 64  # positions

# Selectivity that a share of the units of random networks does not reach: 24 networks of four convolutions with the
# usual random weights, first kernels of 3 to 7 pixels, 1 or 3 channels, with pooling, strides and batch norm.
RANDOM_UNITS = (
    (0.0, 0.0), (0.5, 0.27), (0.8, 0.44), (0.9, 0.55), (0.95, 0.66), (0.97, 0.72), (0.98, 0.8), (0.99, 0.98),
    (0.999, 1.7), (1.0, 3.0),
)  # fmt: skip


# The same for layers of one position: fully connected networks of three layers on 17 x 17 and 28 x 28 pixels.
RANDOM_NEURONS = ((0.0, 0.0), (0.5, 0.42), (0.9, 0.85), (0.95, 1.0), (0.98, 1.1), (0.99, 1.3), (1.0, 4.0))


def shuffled(stimuli: Stimuli, seed: int = 0) -> Tensor:
    """Stimuli (n, C, H, W) cut into square blocks, which are turned and put together in random order.

    Each block size takes ``EACH`` stimuli at even distances. Blocks of several sizes have power at fine and at coarse
    scales, but no line, edge or corner is longer than a block.
    """
    generator = torch.Generator().manual_seed(seed)
    short = min(stimuli.images.shape[2:])
    sides = [side for side in BLOCKS if side * 3 <= short]
    return torch.stack(
        [
            _shuffled(stimuli.images[number * len(stimuli) // EACH], side, generator)
            for side in sides
            for number in range(EACH)
        ]
    )


def noise_floors(net: Network, layers: list[str], stimuli: Stimuli, batch: int) -> dict[str, Tensor]:
    """By layer (units,): the response that 2 % of the shuffled stimuli exceed; none for layers of few positions.

    Where a layer has many positions, the largest response over them is already one of many draws.
    """
    images = shuffled(stimuli)
    nothing = torch.full((len(images),), torch.nan, dtype=torch.float32, device="cpu")
    unknown: dict[str, Any] = dict.fromkeys(stimuli.parameters, nothing)
    noise = dataclasses.replace(stimuli, images=images, family=("noise",) * len(images), **unknown)
    size = stimuli.images.shape[2:]
    levels = {name: QUANTILE if int(boxes(net.layer(name), *size)[2].sum()) >= MANY else 1.0 for name in layers}
    return {name: one.peak.quantile(levels[name], dim=1) for name, one in responses(net, layers, noise, batch).items()}


def share_of_random_units(selectivity: Tensor, table: tuple[tuple[float, float], ...] = RANDOM_UNITS) -> Tensor:
    """The share of the units of random networks that are less selective, by linear interpolation in a table."""
    shares, values = (torch.tensor(column, dtype=torch.float32, device="cpu") for column in zip(*table, strict=True))
    after = torch.searchsorted(values, selectivity.contiguous()).clamp(1, len(values) - 1)
    low, high = values[after - 1], values[after]
    part = ((selectivity - low) / (high - low)).clamp(0, 1)
    share: Tensor = shares[after - 1] + part * (shares[after] - shares[after - 1])
    return share


def _shuffled(image: Tensor, side: int, generator: torch.Generator) -> Tensor:
    channels, height, width = image.shape
    rows, columns = -(-height // side), -(-width // side)
    padding = (0, columns * side - width, 0, rows * side - height)
    padded = torch.nn.functional.pad(image[None], padding, "replicate")[0]
    tiles = padded.unfold(1, side, side).unfold(2, side, side).reshape(channels, rows * columns, side, side)
    tiles = tiles[:, torch.randperm(rows * columns, generator=generator, device="cpu")]
    turns = torch.randint(4, (rows * columns,), generator=generator, device="cpu")
    turned = torch.stack([torch.rot90(tiles, turn, (2, 3)) for turn in range(4)])
    tiles = turned[turns, :, torch.arange(rows * columns, device="cpu")].transpose(0, 1)
    whole = tiles.unflatten(1, (rows, columns)).permute(0, 1, 3, 2, 4).reshape(channels, rows * side, columns * side)
    image_again: Tensor = whole[:, :height, :width]
    return image_again
