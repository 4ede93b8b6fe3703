"""A small network with labelled noise, and its loss by torch's own functions, for the tests of loss surfaces."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional

from microtome import Network


def pairs(count: int, shape: tuple[int, int, int] = (1, 6, 6), classes: int = 3, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *shape, generator=generator)
    labels = torch.randint(0, classes, (count,), generator=generator)
    return list(zip(images, labels.tolist(), strict=True))


def small(seed: int = 0, norm: bool = True, dtype: torch.dtype = torch.float32) -> Network:
    torch.manual_seed(seed)
    second = [nn.BatchNorm2d(5)] if norm else []
    body = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), *second, nn.ReLU(), nn.Flatten(), nn.Linear(20, 3))
    model = nn.Sequential(*body).to(dtype)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 2)
    return Network(model, (1, 6, 6))


def loss_by_hand(model: nn.Module, data, state: dict[str, torch.Tensor]) -> tuple[float, float, float]:
    """Mean, standard error and accuracy with given weights, all images at once in torch's own functions."""
    model = copy.deepcopy(model).eval()
    model.load_state_dict(state, strict=False)
    images = torch.stack([image for image, _ in data])
    labels = torch.tensor([label for _, label in data])
    with torch.no_grad():
        scores = model(images)
    losses = functional.cross_entropy(scores, labels, reduction="none").double()
    return (
        float(losses.mean()),
        float(losses.std() / len(data) ** 0.5),
        float((scores.argmax(1) == labels).double().mean()),
    )


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}
