"""Noise floor: the response of units to shuffled stimuli, which have the same pixels in no order."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from microtome.network import Network
from microtome.units.stimulus_tuning.stimuli import Stimuli
from microtome.units.stimulus_tuning.stimulus_responses import responses

BLOCKS = (1, 2, 4, 8)  # sides in pixels of the blocks that are shuffled
EACH = 60  # shuffled stimuli of each block size
QUANTILE = 0.98


def shuffled(stimuli: Stimuli, seed: int = 0) -> Tensor:
    """Stimuli (S, C, H, W) cut into square blocks, which are turned and put together in random order.

    Each block size takes ``EACH`` stimuli at even distances. Blocks of several sizes have power at fine and at coarse
    scales, but no line, edge or corner is longer than a block.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = stimuli.images.shape[2:]
    found = []
    for block in BLOCKS:
        if min(height, width) < 3 * block:
            continue
        rows, columns = -(-height // block), -(-width // block)
        for number in range(EACH):
            image = stimuli.images[number * len(stimuli) // EACH]
            padded = torch.nn.functional.pad(
                image[None], (0, columns * block - width, 0, rows * block - height), "replicate"
            )[0]
            tiles = padded.unfold(1, block, block).unfold(2, block, block).flatten(1, 2)  # (C, tiles, block, block)
            order = torch.randperm(rows * columns, generator=generator, device="cpu")
            turns = torch.randint(4, (rows * columns,), generator=generator, device="cpu")
            tiles = torch.stack(
                [
                    torch.rot90(tiles[:, at], int(turn), (1, 2))
                    for at, turn in zip(order.tolist(), turns.tolist(), strict=True)
                ],
                1,
            )
            again = (
                tiles.unflatten(1, (rows, columns))
                .permute(0, 1, 3, 2, 4)
                .reshape(image.shape[0], rows * block, columns * block)
            )
            found.append(again[:, :height, :width])
    return torch.stack(found)


def noise_floor(net: Network, layers: list[str], stimuli: Stimuli, batch: int) -> dict[str, Tensor]:
    """By layer (units,): the response that 2 % of the shuffled stimuli exceed."""
    images = shuffled(stimuli)
    noise = dataclasses.replace(
        stimuli,
        images=images,
        family=("noise",) * len(images),
        **{name: torch.full((len(images),), torch.nan, device="cpu") for name in stimuli.parameters},
    )
    return {name: one.peak.quantile(QUANTILE, dim=1) for name, one in responses(net, layers, noise, batch).items()}
