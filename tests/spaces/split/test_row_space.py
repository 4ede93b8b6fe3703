"""The part of a vector that a map loses by a threshold, against dense singular value decompositions.

The oracle solves the definition by other means: SciPy's root finder on the singular values of the matrix that autograd
or unit vectors give. It shares no code with the iteration, the certificate or the structured routes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn
from torch.nn import functional

import microtome as mt
from microtome import spaces
from microtome.spaces.split import row_space, singular_coordinates


class Residual(nn.Module):
    """A residual block with pooling behind it."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        x = self.first(x)
        return functional.max_pool2d(x + torch.relu(self.second(x)), 2)


LAYERS = {
    "strided": (lambda: nn.Conv2d(2, 3, 3, stride=2), (2, 9, 8)),
    "padded": (lambda: nn.Conv2d(2, 3, 3, padding=1), (2, 7, 6)),
    "padded, square": (lambda: nn.Conv2d(3, 3, 3, padding=1), (3, 7, 6)),
    "reflected": (lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), (2, 7, 6)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 7, 6)),
    "dilated": (lambda: nn.Conv2d(2, 3, 3, padding=2, dilation=2), (2, 7, 6)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2, stride=2), (4, 7, 6)),
    "depthwise": (lambda: nn.Conv2d(3, 3, 3, padding=1, groups=3), (3, 7, 6)),
    "1x1": (lambda: nn.Conv2d(4, 3, 1), (4, 5, 4)),
    "1x1, widening, grouped, strided": (lambda: nn.Conv2d(4, 8, 1, groups=2, stride=2), (4, 5, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1), (3, 4, 4)),
    "linear": (lambda: nn.Linear(6, 4), (5, 6)),
    "one dimension": (lambda: nn.Conv1d(3, 4, 5, stride=2, padding=2), (3, 21)),
}
LOCAL = {
    "pooling in between": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3)), "3"),
    "residual": (lambda: nn.Sequential(Residual(), nn.Conv2d(4, 9, 3, padding=1)), "1"),
    "smooth": (lambda: nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.GELU(), nn.AvgPool2d(2)), "2"),
    "first": (lambda: nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU()), "0"),
}  # fmt: skip


class Lifted(nn.Module):
    """A layer of any number of dimensions inside a network that takes images."""

    def __init__(self, layer, shape):
        super().__init__()
        self.layer, self.shape = layer, shape

    def forward(self, x):
        return self.layer(x.reshape(len(x), *self.shape)).flatten(1)


def by_definition(matrix, x, threshold):
    """Share lost, share in the null space and the kept part, from NumPy's decomposition and SciPy's root finder."""
    _, s, v = np.linalg.svd(matrix)
    s = np.concatenate([s, np.zeros(len(v) - len(s))])
    s[s <= max(matrix.shape) * np.finfo(float).eps * s[0]] = 0
    c = v @ x
    output = np.linalg.norm(s * c)

    def over(log):
        strength = np.exp(log)
        return np.linalg.norm(strength / (s**2 + strength) * s * c) - threshold * output

    strength = np.exp(brentq(over, -80, 40, xtol=1e-13))
    lost = strength / (s**2 + strength) * c
    energy = (x**2).sum()
    return (lost**2).sum() / energy, (c[s == 0] ** 2).sum() / energy, x - v.T @ lost


def operator_of(case):
    make, shape = LAYERS[case]
    torch.manual_seed(5)
    net = mt.Network(Lifted(make(), shape).double(), (1, 1, int(np.prod(shape))))
    return spaces.operator(net, "layer")


def local_map(case):
    make, layer = LOCAL[case]
    torch.manual_seed(5)
    net = mt.Network(make().double(), (1, 8, 8), mean=0.3, std=0.5)
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    return spaces.jacobian(net, x, layer=layer), [spaces.jacobian(net, one, layer=layer) for one in x.split(1)], x


@pytest.fixture(params=["matrix", "steps"])
def route(request, monkeypatch):
    """Both routes: the map written out, and the iteration alone."""
    if request.param == "steps":
        monkeypatch.setattr(row_space, "singular_coordinates", lambda *_, **__: None)
    return request.param


@pytest.mark.parametrize("threshold", [0.2, 0.01])
@pytest.mark.parametrize("case", [*LAYERS, *LOCAL])
def test_the_lost_share_is_that_of_the_definition(case, threshold, route):
    """The certificate holds, too: the true share is within ``error``, and ``error`` is as small as asked for."""
    if case in LAYERS:
        of = operator_of(case)
        x = torch.rand(2, *of.input_shape, dtype=torch.float64)
        matrices = [of.dense().numpy()] * 2
    else:
        of, single, x = local_map(case)
        matrices = [one.dense().numpy() for one in single]
    part = spaces.signal_part(of, x, threshold=threshold, accuracy=1e-3)
    for i, matrix in enumerate(matrices):
        share, null, kept = by_definition(matrix, x[i].flatten().numpy(), threshold)
        assert abs(float(part.lost_share[i]) - share) <= float(part.error[i]) + 1e-10
        assert float(part.error[i]) <= max(0.005 * share, 1e-6)
        np.testing.assert_allclose(part.kept[i].flatten(), kept, rtol=0, atol=2e-3 * np.linalg.norm(x[i]))
        if route == "matrix":
            assert float(part.null_share[i]) == pytest.approx(null, rel=1e-8, abs=1e-14)
        else:
            assert bool(part.null_share[i].isnan()) or float(part.null_share[i]) == pytest.approx(null, abs=1e-14)
    assert bool((part.output_change <= threshold * (1 + 1e-12)).all())
    torch.testing.assert_close(part.kept + part.lost, x, rtol=0, atol=1e-14)


@pytest.mark.parametrize("case", ["strided", "padded, square", "pooling in between"])
def test_the_share_depends_on_the_threshold_and_on_nothing_else(case, monkeypatch):
    """Independent of the solver: accuracies from .1 to 1e-4 and both routes agree; monotone in the threshold."""
    of, x = (operator_of(case), None) if case in LAYERS else local_map(case)[::2]
    x = torch.rand(2, *of.input_shape, dtype=torch.float64) if x is None else x
    exact = spaces.signal_part(of, x)
    monkeypatch.setattr(row_space, "singular_coordinates", lambda *_, **__: None)
    for accuracy in (0.1, 0.01, 1e-3, 1e-4):
        part = spaces.signal_part(of, x, accuracy=accuracy)
        assert bool(((part.lost_share - exact.lost_share).abs() <= part.error + 1e-12).all())
        assert bool((part.lost_share - exact.lost_share).abs().max() <= 2.1 * accuracy * exact.lost_share.max())
    shares = torch.stack([spaces.signal_part(of, x, threshold=t).lost_share for t in (0.3, 0.1, 0.03, 0.01, 1e-3)])
    assert bool((shares[:-1] > shares[1:]).all())


def test_what_a_short_iteration_tells_is_an_upper_bound_and_says_for_which_threshold(monkeypatch):
    """Oracle: the definition, at the threshold that was reached and at the one asked for."""
    of = operator_of("padded, square")
    x = torch.rand(1, *of.input_shape, dtype=torch.float64)
    matrix, flat = of.dense().numpy(), x.flatten().numpy()
    monkeypatch.setattr(row_space, "singular_coordinates", lambda *_, **__: None)
    bounds = []
    for steps in (2, 4, 8):
        part = spaces.signal_part(of, x, threshold=1e-3, iterations=steps)
        reached = float(part.threshold[0])
        assert reached > 1e-3
        assert abs(by_definition(matrix, flat, reached)[0] - float(part.lost_share)) <= float(part.error)
        bounds.append(float(part.lost_share))
    assert bounds[0] > bounds[1] > bounds[2] > by_definition(matrix, flat, 1e-3)[0]


def test_a_basis_that_does_not_fit_is_made_twice(monkeypatch):
    """Oracle: the answer with the basis held."""
    of = operator_of("padded, square")
    x = torch.rand(2, *of.input_shape, dtype=torch.float64)
    monkeypatch.setattr(row_space, "singular_coordinates", lambda *_, **__: None)
    held = spaces.signal_part(of, x)
    monkeypatch.setattr("microtome.spaces.split.bidiagonalisation._HELD", 0)
    twice = spaces.signal_part(of, x)
    torch.testing.assert_close(twice.lost, held.lost, rtol=0, atol=1e-2 * float(held.lost.norm()))
    assert float(twice.error.max()) <= 0.02 * float(twice.lost_share.max())


def test_a_share_of_a_zero_vector_is_not_defined_and_a_zero_map_loses_everything(route):
    """By definition; the other vector of the batch is split as it would be alone."""
    of = operator_of("strided")
    x = torch.rand(2, *of.input_shape, dtype=torch.float64)
    x[0] = 0
    part = spaces.signal_part(of, x)
    assert bool(torch.stack([part.lost_share[0], part.error[0], part.null_share[0]]).isnan().all())
    assert not bool(part.kept[0].any())
    assert float(part.lost_share[1]) == pytest.approx(float(spaces.signal_part(of, x[1:]).lost_share), rel=1e-6)
    of.structure.weight.zero_()
    part = spaces.signal_part(of, x[1:])
    assert float(part.lost_share) == pytest.approx(1.0, rel=1e-14)
    assert float(part.null_share) == 1.0
    assert float(part.error) == 0.0


@pytest.mark.parametrize("case", LAYERS)
def test_injective_is_what_the_rank_of_the_matrix_says(case):
    """Oracle: NumPy's rank of the dense matrix. Structure alone may leave it open, but is never wrong."""
    from microtome.spaces.singular.injective import injective

    of = operator_of(case)
    true = np.linalg.matrix_rank(of.dense().numpy()) == of.shape[1]
    assert injective(of, measure=False) in (bool(true), None)
    assert injective(of) in ((True,) if true else (False, None))


@pytest.mark.parametrize(
    "case",
    [
        (1, 16, {"kernel_size": 5, "padding": 2}),
        (3, 32, {"kernel_size": 3, "stride": 2}),
        (3, 64, {"kernel_size": 7, "stride": 2, "padding": 3}),
        (4, 16, {"kernel_size": 2, "stride": 1}),
        (2, 8, {"kernel_size": 3, "dilation": 2, "padding": 2}),
        (1, 2, {"kernel_size": 1, "stride": 2}),
        (1, 6, {"kernel_size": 2, "stride": 3}),
    ],
)
def test_first_layers_are_injective_by_their_structure(case):
    """Oracle: NumPy's rank; and the kernel with two equal channels in is not injective."""
    from microtome.spaces.singular.injective import injective

    inputs, outputs, options = case
    torch.manual_seed(2)
    conv = nn.Conv2d(inputs, outputs, **options).double()
    of = spaces.operator(mt.Network(nn.Sequential(conv), (inputs, 9, 9)), "0")
    true = bool(np.linalg.matrix_rank(of.dense().numpy()) == of.shape[1])
    assert injective(of, measure=False) is (of.shape[0] >= of.shape[1] and true)
    assert true or options.get("stride", 1) > options["kernel_size"] or of.shape[0] < of.shape[1]
    if inputs > 1:
        conv.weight.data[:, 1] = conv.weight.data[:, 0]
        of = spaces.operator(mt.Network(nn.Sequential(conv), (inputs, 9, 9)), "0")
        assert not injective(of)


def test_the_first_layer_of_a_network_loses_nothing_and_it_is_said():
    """Padding before the first layer keeps it injective; a slice of the image does not."""

    class Own(nn.Module):
        def __init__(self, cut):
            super().__init__()
            self.conv, self.cut = nn.Conv2d(1, 16, 3, stride=2), cut

        def forward(self, x):
            x = x[:, :, 2:, 2:] if self.cut else functional.pad(x, (1, 2, 1, 2))
            return self.conv(x).flatten(1)

    torch.manual_seed(0)
    x = torch.rand(2, 1, 40, 40)  # more than 1,024 pixels: no matrix is written out
    found = spaces.kept_and_lost(mt.Network(Own(cut=False), (1, 40, 40), std=0.5), x, ["conv"])
    assert found.null_share.tolist() == [[0.0, 0.0]]
    assert "injective" in found.null_space(0)
    cut = spaces.kept_and_lost(mt.Network(Own(cut=True), (1, 40, 40)), x, ["conv"])
    assert "not measured" in cut.null_space(0)
    assert float(cut.share.min()) > 0.05  # two rows and two columns of forty
    assert singular_coordinates.SMALL < 1600
