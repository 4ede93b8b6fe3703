"""Do spectral norms divide random weights by the norms of these weights, not of the learned ones?"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from microtome import Network, attribution
from microtome.attribution.quality.norm_estimates import estimate_anew


def hooked(layer: nn.Module, **options: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older form warns of itself
        return nn.utils.spectral_norm(layer, **options)


NORMS: dict[str, Callable[..., nn.Module]] = {
    "hook": hooked,
    "parametrisation": parametrizations.spectral_norm,
    "after another": lambda layer, **options: parametrizations.spectral_norm(
        parametrizations.weight_norm(layer), **options
    ),
}


def trained(norm: Callable[..., nn.Module]) -> nn.Module:
    """A network whose weights have one large direction, as learned ones do, with norms that follow them."""
    torch.manual_seed(0)
    layers = (norm(nn.Conv2d(1, 6, 3)), norm(nn.ConvTranspose2d(6, 4, 2), dim=1), norm(nn.Linear(144, 3)))
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.AdaptiveAvgPool2d(6), nn.Flatten(), layers[2])
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and not name.endswith("original0"):
                weight.add_(3)
        for _ in range(200):
            model(torch.rand(2, 1, 8, 8))
    return model.eval()


def norms(model: nn.Module) -> list[float]:
    """The largest singular values of the weights that the layers use."""
    with torch.no_grad():
        model(torch.rand(1, 1, 8, 8))
    found = []
    for place, axis in ((0, 0), (2, 1), (5, 0)):
        weight = model[place].weight.detach().movedim(axis, 0).flatten(1)  # type: ignore[union-attr,operator]
        found.append(float(torch.linalg.matrix_norm(weight.double(), 2)))
    return found


@pytest.mark.parametrize("norm", NORMS)
def test_random_weights_have_the_norm_that_learned_ones_had(norm: str) -> None:
    """A spectral norm gives weights whose largest singular value is 1. Oracle: torch's singular values."""
    model = trained(NORMS[norm])
    seen: list[list[float]] = []

    def gradient(net: Network, images: Tensor, target: Tensor) -> Tensor:
        seen.append(norms(net.model))
        x = images.clone().requires_grad_()
        return torch.autograd.grad(net.model(x).gather(1, target[:, None]).sum(), x)[0]

    before = {name: value.clone() for name, value in model.state_dict().items()}
    attribution.randomisation(Network(model, (1, 8, 8)), torch.rand(2, 1, 8, 8), gradient, 0)
    assert seen[-4:] == [pytest.approx([1, 1, 1], rel=1e-4)] * 4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("norm", NORMS)
def test_norms_of_other_layers_keep_their_estimates(norm: str) -> None:
    model = trained(NORMS[norm])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    estimate_anew(model, list(model[5].parameters()))  # type: ignore[union-attr]
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= {"5"}
