"""Is the matrix-free operator of a layer the layer, with its adjoint, its singular triplets and its edges?"""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

import microtome as mt
from microtome import spaces

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


class Lifted(nn.Module):
    """A layer of any number of dimensions inside a network that takes images."""

    def __init__(self, layer, shape):
        super().__init__()
        self.layer, self.shape = layer, shape

    def forward(self, x):
        return self.layer(x.reshape(len(x), *self.shape)).flatten(1)


LAYERS = {
    "plain": (lambda: nn.Conv2d(2, 3, 3), (2, 6, 8)),
    "padded": (lambda: nn.Conv2d(2, 3, (3, 5), padding=(1, 2)), (2, 6, 8)),
    "strided": (lambda: nn.Conv2d(2, 3, 3, stride=(2, 3), padding=1), (2, 6, 8)),
    "dilated": (lambda: nn.Conv2d(3, 2, 3, dilation=(1, 2), padding=2), (3, 4, 8)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1, stride=2), (4, 4, 6)),
    "depthwise": (lambda: nn.Conv2d(3, 3, 3, groups=3, padding=1), (3, 4, 8)),
    "same, even kernel": (lambda: nn.Conv2d(2, 2, (2, 4), padding="same"), (2, 6, 8)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 6, 8)),
    "circular, strided": (lambda: nn.Conv2d(2, 3, 3, padding=1, stride=2, padding_mode="circular"), (2, 6, 8)),
    "reflected": (lambda: nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="reflect"), (2, 6, 8)),
    "replicated": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate"), (2, 6, 8)),
    "one dimension": (lambda: nn.Conv1d(2, 3, 5, stride=2, padding=3), (2, 48)),
    "three dimensions": (lambda: nn.Conv3d(2, 2, (1, 3, 2), stride=(1, 2, 1), padding=(0, 1, 1)), (2, 3, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 6, 8)),
    "linear": (lambda: nn.Linear(8, 5), (12, 8)),
}


def network(case):
    make, shape = LAYERS[case]
    torch.manual_seed(3)
    return mt.Network(Lifted(make(), shape).double(), (1, 1, math.prod(shape)))


@pytest.mark.parametrize("case", LAYERS)
def test_the_operator_is_the_layer_without_its_bias(case):
    """Oracle: the module itself, less its answer to zeros."""
    net = network(case)
    of = spaces.operator(net, "layer")
    x = torch.rand(2, *of.input_shape, dtype=torch.float64)
    layer = net.model.layer
    expected = layer(x) - layer(torch.zeros_like(x))
    assert of.output_shape == tuple(expected.shape[1:])
    torch.testing.assert_close(of.apply(x), expected.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", LAYERS)
def test_the_adjoint_is_the_transpose(case):
    """Oracle: autograd's gradient of the module; and <A x, y> = <x, A^T y> by definition."""
    net = network(case)
    of = spaces.operator(net, "layer")
    x = torch.rand(1, *of.input_shape, dtype=torch.float64, requires_grad=True)
    y = torch.rand(1, *of.output_shape, dtype=torch.float64)
    expected = torch.autograd.grad(net.model.layer(x), x, y)[0]
    torch.testing.assert_close(of.adjoint(y), expected, rtol=1e-12, atol=1e-13)
    inner = (of.apply(x.detach()) * y).sum(), (x.detach() * of.adjoint(y)).sum()
    assert abs(inner[0] - inner[1]) < 1e-12 * abs(inner[0]) + 1e-13


@pytest.mark.parametrize("case", LAYERS)
def test_the_sparse_matrix_is_the_dense_one(case):
    """Oracle: the operator applied to every unit vector."""
    of = spaces.operator(network(case), "layer")
    if case == "linear":
        with pytest.raises(mt.LayerError, match="not a local map"):
            of.sparse()
        return
    matrix = of.sparse()
    torch.testing.assert_close(torch.from_numpy(matrix.toarray()), of.dense(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_triplets_agree_with_a_dense_decomposition(case, which, monkeypatch):
    """Oracle: NumPy's dense singular values. The dense route inside is switched off."""
    monkeypatch.setattr(sys.modules["microtome.spaces.singular.triplets"], "_SMALL", 1)
    of = spaces.operator(network(case), "layer")
    expected = torch.linalg.svdvals(of.dense())
    if which == "smallest" and expected[0] / expected[-1] > 1e12:  # an even kernel: singular but for rounding
        with pytest.raises(mt.LayerError, match=r"singular|converge"):
            of.triplets(4, which=which)
        return
    found = of.triplets(4, which=which, tolerance=1e-10)
    part = expected[:4] if which == "largest" else expected[-4:]
    torch.testing.assert_close(found.values, part, rtol=1e-8, atol=1e-10)
    assert float(found.residual.max()) < 1e-9
    right = found.right.flatten(1)
    torch.testing.assert_close(right @ right.T, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-7)


STRUCTURED = {
    "zeros": lambda: nn.Conv2d(3, 5, 3, padding=1),
    "stride, no padding, odd size": lambda: nn.Conv2d(4, 3, 3, stride=2),
    "stride and dilation": lambda: nn.Conv2d(3, 4, 3, stride=3, padding=2, dilation=2),
    "reflected": lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
    "circular": lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "groups that widen": lambda: nn.Conv2d(4, 6, 5, padding=2, groups=2, stride=2),
    "points": lambda: nn.Conv2d(4, 3, 1),
    "points of groups, strided": lambda: nn.Conv2d(4, 6, 1, groups=2, stride=2),
    "transposed": lambda: nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1),
}


@pytest.mark.parametrize("case", STRUCTURED)
def test_the_structure_of_a_convolution_gives_its_triplets(case, monkeypatch):
    """Oracle: a dense decomposition. Neither it nor Lanczos is taken inside: both are switched off."""
    module = sys.modules["microtome.spaces.singular.triplets"]
    monkeypatch.setattr(module, "_SMALL", 1)
    monkeypatch.setattr(module, "as_scipy", None)
    torch.manual_seed(1)
    layer = STRUCTURED[case]().double()
    net = mt.Network(nn.Sequential(layer), (layer.in_channels, 15, 14))
    of = spaces.operator(net, "0")
    found = of.triplets(12, tolerance=1e-9)
    torch.testing.assert_close(found.values, torch.linalg.svdvals(of.dense())[:12], rtol=1e-10, atol=0)
    assert float(found.residual.max()) < 1e-9 * float(found.values[0])
    for vectors in (found.left.flatten(1), found.right.flatten(1)):
        torch.testing.assert_close(vectors @ vectors.T, torch.eye(12, dtype=torch.float64), rtol=0, atol=1e-8)


@pytest.mark.parametrize("case", ["zeros", "depthwise", "transposed"])
def test_convolutions_too_wide_for_their_symbol_are_left_to_lanczos(case, monkeypatch):
    """Oracle: a dense decomposition; that Davidson's method is not taken is checked by taking it away."""
    monkeypatch.setattr(sys.modules["microtome.spaces.singular.triplets"], "_SMALL", 1)
    module = sys.modules["microtome.spaces.singular.largest"]
    monkeypatch.setattr(module, "_WORK", 1.0)
    monkeypatch.setattr(module, "davidson", None)
    torch.manual_seed(1)
    layer = STRUCTURED[case]().double()
    of = spaces.operator(mt.Network(nn.Sequential(layer), (layer.in_channels, 15, 14)), "0")
    expected = torch.linalg.svdvals(of.dense())[:5]
    torch.testing.assert_close(of.triplets(5).values, expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("case", ["zeros", "stride, no padding, odd size", "stride and dilation"])
def test_the_bound_of_the_symbol_is_above_the_largest_value_and_near_it(case):
    """Oracle: the norm of the dense matrix; for 3 x 3 taps on 14 positions the bound is a few percent above."""
    from microtome.spaces.operators.fourier import Symbol
    from microtome.spaces.singular.largest import _degree

    torch.manual_seed(1)
    layer = STRUCTURED[case]().double()
    of = spaces.operator(mt.Network(nn.Sequential(layer), (layer.in_channels, 29, 31)), "0").structure
    norm = float(torch.linalg.svdvals(of.dense())[0])
    for inputs in (True, False):
        bound = Symbol(of, inputs=inputs).bound(_degree(of))
        assert norm <= bound < 1.15 * norm


@pytest.mark.parametrize("stride", [1, 2])
def test_on_the_torus_the_preconditioner_belongs_to_the_operator(stride):
    """Circular padding: it is a function of G there, so that the two commute; to single precision."""
    from microtome.spaces.operators.fourier import Symbol

    torch.manual_seed(1)
    layer = nn.Conv2d(2, 3, 3, stride=stride, padding=1, padding_mode="circular").double()
    of = spaces.operator(mt.Network(nn.Sequential(layer), (2, 8, 6)), "0").structure
    x, y = torch.randn(2, *of.input_shape).double(), torch.randn(2, *of.output_shape).double()
    for vectors, gram, inputs in (
        (x, lambda v: of.adjoint(of.apply(v)), True),
        (y, lambda v: of.apply(of.adjoint(v)), False),
    ):
        symbol = Symbol(of, inputs=inputs)
        both = gram(symbol.precondition(vectors)), symbol.precondition(gram(vectors))
        torch.testing.assert_close(both[0], both[1], rtol=0, atol=1e-4 * float(both[0].abs().max()))


def test_groups_that_cannot_be_among_the_largest_are_left_out(monkeypatch):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False).double()
    layer.weight.data *= torch.tensor([1.0, 5, 1, 1, 4, 1, 1, 1]).reshape(-1, 1, 1, 1) / layer.weight.data.abs().sum(
        (1, 2, 3), keepdim=True
    )
    module = sys.modules["microtome.spaces.singular.largest"]
    seen, by_waves = [], module._by_waves
    monkeypatch.setattr(module, "_by_waves", lambda *args: (seen.append(1), by_waves(*args))[1])
    of = spaces.operator(mt.Network(nn.Sequential(layer), (8, 34, 34)), "0")
    found = of.triplets(6)
    assert len(seen) <= 2
    dense = [torch.linalg.svdvals(of.structure.group(g).dense())[:6] for g in (1, 4)]
    torch.testing.assert_close(found.values, torch.cat(dense).sort(descending=True).values[:6], rtol=1e-9, atol=0)


def test_circular_padding_has_all_values_from_the_fourier_transform():
    """Oracle: dense singular values of a 3 x 3 circular convolution whose kernel is wider than one tap."""
    for case in ("circular", "depthwise circular", "wider than the picture"):
        torch.manual_seed(0)
        conv = {
            "circular": lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
            "depthwise circular": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4, padding_mode="circular"),
            "wider than the picture": lambda: nn.Conv2d(1, 2, 5, padding=4, dilation=2, padding_mode="circular"),
        }[case]()
        net = mt.Network(nn.Sequential(conv).double(), (conv.in_channels, 6, 6))
        of = spaces.operator(net, "0")
        values = of.all_singular_values()
        torch.testing.assert_close(values, torch.linalg.svdvals(of.dense()), rtol=1e-10, atol=1e-12)
        assert of.condition_number() == pytest.approx(float(values[0] / values[-1]), rel=1e-12)


def test_zero_padding_is_not_the_fourier_answer():
    """The known pitfall: for zero padding the transform would give another condition number."""
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 2, 3, padding=1).double()
    of = spaces.operator(mt.Network(nn.Sequential(conv), (2, 8, 8)), "0")
    assert of.all_singular_values() is None
    assert of.condition_number() == pytest.approx(float(torch.linalg.cond(of.dense())), rel=1e-9)


def test_a_large_layer_refuses_its_smallest_values_and_a_singular_one_says_so():
    torch.manual_seed(0)
    net = mt.Network(nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)), (3, 96, 96))
    with pytest.raises(mt.LayerError, match="refused"):
        spaces.operator(net, "1").triplets(1, which="smallest")
    dead = nn.Conv2d(2, 2, 3, padding=1)
    dead.weight.data[0] = 0
    net = mt.Network(nn.Sequential(dead), (2, 28, 28))
    with pytest.raises(mt.LayerError, match=r"singular|converge"):
        spaces.operator(net, "0").triplets(1, which="smallest")


@pytest.mark.parametrize("layer", [nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 3, 1), nn.Linear(8, 8)])
def test_a_map_that_gives_nothing_has_singular_values_zero(layer, monkeypatch):
    """By definition; Lanczos, which cannot start on a zero map, must not be left alone with it."""
    monkeypatch.setattr(sys.modules["microtome.spaces.singular.triplets"], "_SMALL", 1)
    nn.init.zeros_(layer.weight)
    shape = (4, 6, 6) if isinstance(layer, nn.Conv2d) else (1, 6, 8)
    found = spaces.operator(mt.Network(nn.Sequential(layer), shape), "0").triplets(3)
    assert found.values.tolist() == [0.0] * 3
    right = found.right.flatten(1)
    assert torch.equal(right @ right.T, torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("k", [1, 3, 26, 50])
@pytest.mark.parametrize("channels", [(4, 3), (3, 5)])
def test_smallest_triplets_of_points_need_no_factorisation(channels, k, monkeypatch):
    """Oracle: a dense decomposition. Neither it nor the factorisation is taken inside: both are switched off."""
    module = sys.modules["microtome.spaces.singular.triplets"]
    monkeypatch.setattr(module, "_SMALL", 1)
    monkeypatch.setattr(module, "smallest_by_factorisation", None)
    torch.manual_seed(1)
    of = spaces.operator(mt.Network(nn.Sequential(nn.Conv2d(*channels, 1).double()), (channels[0], 5, 5)), "0")
    found = of.triplets(k, which="smallest", tolerance=1e-12)
    torch.testing.assert_close(found.values, torch.linalg.svdvals(of.dense())[-k:], rtol=1e-12, atol=0)
    for vectors in (found.left.flatten(1), found.right.flatten(1)):
        torch.testing.assert_close(vectors @ vectors.T, torch.eye(k, dtype=torch.float64), rtol=0, atol=1e-12)


def test_strided_points_of_more_outputs_than_inputs_have_zeros_among_their_smallest(monkeypatch):
    """What no output reads has no value of the kernel: the smallest are zeros, not the kernel's smallest."""
    monkeypatch.setattr(sys.modules["microtome.spaces.singular.triplets"], "_SMALL", 1)
    of = spaces.operator(mt.Network(nn.Sequential(nn.Conv2d(3, 5, 1, stride=2).double()), (3, 5, 5)), "0")
    with pytest.raises(mt.LayerError, match=r"singular|converge"):
        of.triplets(1, which="smallest")


def test_functional_padding_outside_the_layer_belongs_to_what_it_reads():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 1, 3, 3))

        def forward(self, x):
            return functional.conv2d(functional.pad(x, (0, 2, 0, 2)), self.weight, stride=2).flatten(1)

    of = spaces.operator(mt.Network(Own(), (1, 6, 6)), "/conv2d")
    assert of.input_shape == (1, 8, 8)
    assert of.output_shape == (2, 3, 3)


def test_what_is_no_linear_map_is_refused():
    net = mt.Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU()), (1, 2, 2))
    with pytest.raises(mt.LayerError, match="Linear or convolution"):
        spaces.operator(net, "2")
    with pytest.raises(mt.InputError, match="from 1 to 3 triplets"):
        spaces.operator(net, "1").triplets(4)
    with pytest.raises(mt.InputError, match="largest"):
        spaces.operator(net, "1").triplets(1, which="middle")


def test_the_tolerance_is_kept_and_saves_products():
    """A looser residual is met with fewer products."""
    torch.manual_seed(0)
    net = mt.Network(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)), (3, 48, 48))
    counts, residuals = [], []
    for tolerance in (1e-4, 1e-9):
        of, seen = spaces.operator(net, "0"), []
        apply = of.structure.apply
        of.structure.apply = lambda x, apply=apply, seen=seen: (seen.append(1), apply(x))[1]
        found = of.triplets(4, tolerance=tolerance)
        counts.append(len(seen))
        residuals.append(float(found.residual.max() / found.values[0]))
    assert counts[0] < counts[1]
    assert residuals[0] <= 1e-4
    assert residuals[1] <= 1e-9
    with pytest.raises(mt.InputError, match="tolerance"):
        of.triplets(4, tolerance=0.0)


@pytest.mark.parametrize("pixels", [(0.6, 1.0), (-3.0, -1.0), (0, 255)])
def test_a_pixel_range_without_one_half_has_operators(pixels):
    """Oracle: the same network with the usual range: the operator does not depend on the range."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)
    )
    net, usual = mt.Network(model, (1, 4, 4), pixels=pixels), mt.Network(model, (1, 4, 4))
    for layer in ("0", "3"):
        assert torch.equal(spaces.operator(net, layer).dense(), spaces.operator(usual, layer).dense())
    low, high = pixels
    images = low + (high - low) * torch.rand(2, 1, 4, 4)
    shares = [
        spaces.rejected_energy(one, images).share for one in (net, mt.Network(model, (1, 4, 4), pixels=None))
    ]  # not a number where all units of the layer before are silent
    torch.testing.assert_close(*shares, rtol=0, atol=0, equal_nan=True)
    assert spaces.kept_and_lost(net, images, ["3"]).images.shape == images.shape
    assert spaces.invertibility(net).layers
    assert spaces.linear_region(net, images).images.shape == images.shape


def test_a_linear_layer_that_reads_no_image_is_no_linear_map_of_the_image():
    class Made(nn.Module):
        """A layer whose output is the weight of another product."""

        def __init__(self):
            super().__init__()
            self.make, self.code = nn.Linear(2, 16), nn.Parameter(torch.ones(2))

        def forward(self, x):
            return x.flatten(1) @ self.make(self.code).view(4, 4)

    with pytest.raises(mt.LayerError, match='"make" is Linear without fixed weights on values of the image'):
        spaces.subspaces(mt.Network(Made(), (1, 2, 2)), "make")
