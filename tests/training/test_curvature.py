"""Are the eigenvalues those of the Hessian?"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from microtome import InputError, ModelError, Network, training
from microtome.training.lanczos import extreme

eigenvalues = training.curvature.eigenvalues


def tiny() -> tuple[Network, list]:
    torch.manual_seed(0)
    body = (nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    model = nn.Sequential(*body).double()
    model[1].running_var.uniform_(0.5, 2)
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(12, 1, 4, 4, generator=generator)
    labels = torch.randint(0, 3, (12,), generator=generator).tolist()
    return Network(model, (1, 4, 4)), list(zip(images, labels, strict=True))


def dense(net: Network, data: list, names: list[str]) -> torch.Tensor:
    """Oracle: the whole matrix by torch.func, all images at once; shares no code with products or Lanczos."""
    weights = {n: p.detach() for n, p in net.model.named_parameters()}
    images = torch.stack([i for i, _ in data]).double()
    labels = torch.tensor([label for _, label in data])
    sizes = [weights[n].numel() for n in names]

    def loss(vector):
        parts = {n: part.view(weights[n].shape) for n, part in zip(names, vector.split(sizes), strict=True)}
        return functional.cross_entropy(torch.func.functional_call(net.model, {**weights, **parts}, images), labels)

    net.model.eval()
    return torch.linalg.eigvalsh(torch.func.hessian(loss)(torch.cat([weights[n].flatten() for n in names])))


@pytest.mark.parametrize("batch", [5, 12])  # with the gradient's graph built for each product, and kept
def test_eigenvalues_are_those_of_the_dense_hessian(batch):
    net, data = tiny()
    names = [name for name, _ in net.model.named_parameters()]
    found = eigenvalues(net, data, k=4, per_layer=True, batch=batch, tolerance=1e-9)
    expected = dense(net, data, names)
    # Images are prepared in float32 and then widened, as in the oracle; residuals of 1e-9.
    torch.testing.assert_close(found.values, expected[-4:].flip(0), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.smallest, expected[:4], rtol=1e-6, atol=1e-8)
    assert set(found.layers) == {"0", "1", "4"}
    for layer in found.layers:
        own = dense(net, data, [n for n in names if n.startswith(f"{layer}.")])
        torch.testing.assert_close(found.layers[layer], own[-4:].flip(0), rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(found.layers_smallest[layer], own[:4], rtol=1e-6, atol=1e-8)
    assert found.convexity == pytest.approx(float(abs(expected[0] / expected[-1])), rel=1e-6)
    assert float(found.values[0]) >= max(float(value[0]) for value in found.layers.values())  # Cauchy's interlacing


def test_residuals_bound_the_error_of_unfinished_eigenvalues():
    net, data = tiny()
    expected = dense(net, data, [name for name, _ in net.model.named_parameters()])
    found = eigenvalues(net, data, k=2, products=6)
    assert found.steps == 6
    for value, bound in zip(found.values, found.residual, strict=True):
        assert float(bound) > 1e-6
        assert float((expected - value).abs().min()) <= float(bound) * (1 + 1e-9)


def test_lanczos_finds_repeated_eigenvalues_and_all_of_a_small_matrix():
    A = torch.diag(torch.tensor([5.0, 5.0, 5.0, 1.0, -2.0, -2.0], dtype=torch.float64))
    found = extreme(lambda v: A @ v, 6, 6, tolerance=1e-12, most=50)
    torch.testing.assert_close(found.top, torch.tensor([5.0, 5, 5, 1, -2, -2], dtype=torch.float64))
    torch.testing.assert_close(found.bottom, torch.tensor([-2.0, -2, 1, 5, 5, 5], dtype=torch.float64))


def test_attention_can_be_differentiated_twice():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.fc = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            tokens = self.q(x.flatten(1).view(-1, 2, 2, 4))
            return self.fc(functional.scaled_dot_product_attention(tokens, tokens, tokens).mean((1, 2)))

    torch.manual_seed(0)
    net, data = Network(Reader().double(), (1, 4, 4)), tiny()[1]
    names = [name for name, _ in net.model.named_parameters()]
    found = eigenvalues(net, data, k=2, tolerance=1e-9)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = dense(net, data, names)
    torch.testing.assert_close(found.values, expected[-2:].flip(0), rtol=1e-6, atol=1e-8)


def test_bad_input():
    net, data = tiny()
    with pytest.raises(InputError, match="k and products are at least 1"):
        eigenvalues(net, data, k=0)
    with pytest.raises(InputError, match="a positive tolerance"):
        eigenvalues(net, data, tolerance=0)

    def broken(scores, labels):
        return scores.sum(1) * float("nan")

    with pytest.raises(ModelError, match="the loss at these weights is not finite"):
        eigenvalues(net, data, loss=lambda scores, labels: scores.square().sum(1) * float("nan"))
