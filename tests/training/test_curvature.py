"""Are the eigenvalues those of the Hessian?"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from microtome import InputError, ModelError, Network, training
from microtome.results import Provenance
from microtome.training.curvature.lanczos import extreme, quadrature

eigenvalues = training.curvature.eigenvalues

# The oracle differentiates forwards; torch 2.14 scripts its own rules for that and warns of it.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


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
    """All eigenvalues, ascending."""
    return torch.linalg.eigvalsh(dense_matrix(net, data, names))


def dense_matrix(net: Network, data: list, names: list[str]) -> torch.Tensor:
    """Oracle: the whole matrix by torch.func, all images at once; shares no code with products or Lanczos."""
    weights = {n: p.detach() for n, p in net.model.named_parameters()}
    images = torch.stack([i for i, _ in data]).double()
    labels = torch.tensor([label for _, label in data])
    sizes = [weights[n].numel() for n in names]

    def loss(vector):
        parts = {n: part.view(weights[n].shape) for n, part in zip(names, vector.split(sizes), strict=True)}
        return functional.cross_entropy(torch.func.functional_call(net.model, {**weights, **parts}, images), labels)

    net.model.eval()
    return torch.func.hessian(loss)(torch.cat([weights[n].flatten() for n in names]))


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


def _plain_weight_norm(v, g, dim=0):
    axes = [axis for axis in range(v.dim()) if axis != dim]
    return g * v / v.square().sum(axes, keepdim=True).sqrt()


@pytest.mark.parametrize("normed", [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm])
@pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated")
def test_normalised_weights_can_be_differentiated_twice(normed, monkeypatch):
    """Oracle: the definition g v / |v| in place of torch's fused kernel, whose Hessian is not symmetric."""
    torch.manual_seed(0)
    body = (nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    model = nn.Sequential(normed(body[0]), body[1], body[2], normed(body[3])).double()
    net, data = Network(model, (1, 4, 4)), tiny()[1]
    names = [name for name, _ in model.named_parameters()]
    found = eigenvalues(net, data, k=3, tolerance=1e-9)
    monkeypatch.setattr(torch, "_weight_norm", _plain_weight_norm)
    monkeypatch.setattr(nn.utils.weight_norm.__globals__["WeightNorm"], "compute_weight", lambda self, module: (
        _plain_weight_norm(module.weight_v, module.weight_g, self.dim)))  # fmt: skip
    expected = dense(net, data, names)
    torch.testing.assert_close(found.values, expected[-3:].flip(0), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.smallest, expected[:3], rtol=1e-6, atol=1e-8)


def test_an_operator_that_is_not_symmetric_is_refused():
    A = torch.diag(torch.tensor([3.0, -1.0, 0.5, 2.0], dtype=torch.float64))
    A[0, 1] = 0.5
    for method in (
        lambda: extreme(lambda v: A @ v, 4, 1, tolerance=1e-9, most=4),
        lambda: quadrature(lambda v: A @ v, 4, 4),
    ):
        with pytest.raises(ModelError, match="the Hessian is not symmetric"):
            method()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(kind, tmp_path):
    """Oracle: the dense Hessian at the same weights in float64. In half precision it is off by 1e-3 to 1e-2."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).to(kind)
    data = tiny()[1]
    found = eigenvalues(Network(model, (1, 4, 4)), data, k=2, tolerance=1e-6)
    run = run_of(Network(model, (1, 4, 4)), tmp_path, [model.state_dict()])
    history = training.curvature.along_training(Network(model, (1, 4, 4)), run, data, k=2, tolerance=1e-6)
    assert model[0].weight.dtype == kind
    wide = Network(model.double(), (1, 4, 4))
    expected = dense(wide, data, [name for name, _ in model.named_parameters()])
    for values, smallest in ((found.values, found.smallest), (history.values[0], history.smallest[0])):
        torch.testing.assert_close(values, expected[-2:].flip(0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(smallest, expected[:2], rtol=1e-5, atol=1e-6)


def test_a_loss_that_does_not_depend_on_the_weights_has_no_curvature():
    net, data = tiny()
    found = eigenvalues(net, data, loss=lambda scores, labels: labels.double())
    assert (float(found.values), float(found.smallest)) == (0.0, 0.0)


def test_bad_input():
    net, data = tiny()
    with pytest.raises(InputError, match="products must be at least 5, the number of eigenvalues"):
        eigenvalues(net, data, k=3, smallest=2, products=4)
    with pytest.raises(InputError, match="k must be a whole number of at least 1"):
        eigenvalues(net, data, k=0)
    with pytest.raises(InputError, match="a positive tolerance"):
        eigenvalues(net, data, tolerance=0)

    def broken(scores, labels):
        return scores.sum(1) * float("nan")

    with pytest.raises(ModelError, match="the loss at these weights is not finite"):
        eigenvalues(net, data, loss=lambda scores, labels: scores.square().sum(1) * float("nan"))


def test_quadrature_is_exact_for_polynomials_below_twice_the_steps():
    """Oracle: the spectral theorem on a dense matrix; the vector is read off the first application."""
    generator = torch.Generator().manual_seed(3)
    A = torch.randn(9, 9, generator=generator, dtype=torch.float64)
    A = A + A.T
    seen = []

    def apply(v):
        seen.append(v.clone())
        return A @ v

    nodes, weights = quadrature(apply, 9, 4, seed=5)
    v = seen[0]
    assert len(nodes) == len(seen) == 4
    assert bool((weights > 0).all())
    for degree in range(8):
        expected = float(v @ torch.linalg.matrix_power(A, degree) @ v)
        assert float((weights * nodes**degree).sum()) == pytest.approx(expected, rel=1e-10, abs=1e-9)
    assert float((weights * nodes**8).sum()) != pytest.approx(float(v @ torch.linalg.matrix_power(A, 8) @ v), rel=1e-6)
    nodes, weights = quadrature(apply, 9, 20, seed=5)  # the whole space: every function
    values, vectors = torch.linalg.eigh(A)
    assert float((weights * nodes.exp()).sum()) == pytest.approx(float((vectors.T @ v).square() @ values.exp()))


@pytest.mark.parametrize("layer", [None, "0"])
def test_the_density_is_that_of_the_full_spectrum_along_each_random_vector(layer):
    """Oracle: the dense Hessian's eigenvectors, on which the random vectors are projected, all 51 or 20 of them."""
    net, data = tiny()
    names = [name for name, _ in net.model.named_parameters() if layer is None or name.startswith(f"{layer}.")]
    H = dense_matrix(net, data, names)
    spectrum, vectors = torch.linalg.eigh(H)
    found = training.curvature.spectral_density(net, data, layer=layer, probes=3, products=60, seed=7)
    assert (found.size, found.images) == (len(H), 12)
    drawn = [torch.randn(len(H), generator=torch.Generator().manual_seed(7 + p), dtype=torch.float64) for p in range(3)]
    shares = torch.stack([(vectors.T @ (v / v.norm())).square() for v in drawn])
    torch.testing.assert_close(found.weights.sum(1), torch.ones(3, dtype=torch.float64))
    for function in (lambda x: x, torch.square, torch.exp):
        each = shares @ function(spectrum)
        value, error = found.mean(function)
        assert value == pytest.approx(float(each.mean()), rel=1e-6, abs=1e-8)
        assert error == pytest.approx(float(each.std() / 3**0.5), rel=1e-5, abs=1e-8)
    assert found.trace[0] == pytest.approx(len(H) * float((shares @ spectrum).mean()), rel=1e-6, abs=1e-7)
    width = 0.05 * float(spectrum.max())
    at = torch.linspace(float(spectrum.min()), float(spectrum.max()), 40, dtype=torch.float64)
    heights = (-((at[:, None] - spectrum) / width).square() / 2).exp() / (width * (2 * torch.pi) ** 0.5)
    density, _ = found.density(at, width)
    torch.testing.assert_close(density, (heights @ shares.T).mean(1), rtol=1e-5, atol=1e-6)
    below = -1e-3 * float(spectrum.max())
    assert found.share_below(below)[0] == pytest.approx(float((shares * (spectrum < below)).sum(1).mean()), abs=1e-6)


def test_the_mean_over_random_vectors_is_the_mean_over_the_spectrum():
    """Oracle: the eigenvalues themselves. Four standard errors of 400 vectors; few steps, so that it is no identity."""
    A = torch.diag(torch.linspace(-1, 4, 40, dtype=torch.float64) ** 3)
    drawn = [quadrature(lambda v: A @ v, 40, 8, seed=seed) for seed in range(400)]
    nodes, weights = (torch.stack(column) for column in zip(*drawn, strict=True))
    made = training.SpectralDensity(provenance=Provenance(""), nodes=nodes, weights=weights, size=40)
    for function in (lambda x: x, torch.square):
        value, error = made.mean(function)
        expected = float(function(A.diag()).mean())
        assert abs(value - expected) < 4 * error < 0.1 * expected


def run_of(net: Network, folder, states) -> training.Run:
    """A run whose checkpoints are the given weights."""
    recorder = training.Recorder(folder, net.model)
    for state in states:
        net.model.load_state_dict(state)
        recorder.step(0.5)
        recorder.epoch()
    return recorder.run


def test_along_training_finds_the_eigenvalues_of_every_checkpoint(tmp_path):
    net, data = tiny()
    first = {name: value.clone() for name, value in net.model.state_dict().items()}
    second = {name: value * 1.5 if value.is_floating_point() else value for name, value in first.items()}
    run = run_of(net, tmp_path, [first, second])
    net.model.load_state_dict(first)
    found = training.curvature.along_training(net, run, data, k=2, smallest=1, per_layer=True, tolerance=1e-9)
    assert found.epochs.tolist() == [1, 2]
    for place, state in enumerate((first, second)):
        net.model.load_state_dict(state)
        expected = dense(net, data, [name for name, _ in net.model.named_parameters()])
        torch.testing.assert_close(found.values[place], expected[-2:].flip(0), rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(found.smallest[place], expected[:1], rtol=1e-6, atol=1e-8)
        own = dense(net, data, ["4.weight", "4.bias"])
        torch.testing.assert_close(found.layers["4"][place], own[-2:].flip(0), rtol=1e-6, atol=1e-8)
    assert len(found.table().rows) == 4 * 2
    only = training.curvature.along_training(net, run, data, epochs=[2], tolerance=1e-9)
    torch.testing.assert_close(only.values[0], found.values[1, :1], rtol=1e-6, atol=1e-8)
    with pytest.raises(InputError, match="the run stored no weights"):
        training.curvature.along_training(net, training.Run((), {}), data)
    with pytest.raises(InputError, match="no epoch was given; the run stored the weights of 1, 2"):
        training.curvature.along_training(net, run, data, epochs=[])


def test_the_convexity_map_is_the_ratio_of_the_dense_hessians_extremes():
    net, data = tiny()
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    found = training.curvature.convexity_map(net, data, steps=3, extent=0.5, seed=4, tolerance=1e-9)
    assert all(torch.equal(value, before[name]) for name, value in net.model.state_dict().items())
    names = [name for name, _ in net.model.named_parameters()]
    D, E = (training.landscape.random_direction(net, seed=seed) for seed in (8, 9))
    for row, column in ((1, 1), (0, 2), (2, 1)):
        a, b = float(found.alpha[row]), float(found.beta[column])
        moved = {n: v + a * D.get(n, 0) + b * E.get(n, 0) for n, v in before.items()}
        net.model.load_state_dict(moved)
        spectrum = dense(net, data, names)
        net.model.load_state_dict(before)
        expected = float((spectrum[0] / spectrum[-1]).abs()) if spectrum[0] < 0 else 0.0
        assert float(found.ratio[row, column]) == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert float(found.ratio.max()) > 0.01  # not all of it convex
    assert found.plot() is not None


def test_bad_input_of_densities():
    net, data = tiny()
    with pytest.raises(InputError, match='layer "2" has no weights'):
        training.curvature.spectral_density(net, data, layer="2")
    with pytest.raises(InputError, match="probes and products must be at least 1"):
        training.curvature.spectral_density(net, data, probes=0)
    with pytest.raises(InputError, match="an odd number of steps"):
        training.curvature.convexity_map(net, data, steps=4)
    with pytest.raises(InputError, match="smallest must be a whole number of at least 1, got 0"):
        eigenvalues(net, data, smallest=0)
