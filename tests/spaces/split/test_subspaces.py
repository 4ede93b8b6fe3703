"""Do the four spaces split inputs and outputs exactly, for every shape and rank of a matrix?"""

from __future__ import annotations

import math
import sys

import pytest
import torch
from matplotlib.axes import Axes
from torch import nn

import microtome as mt
from microtome import spaces
from microtome.errors import DataWarning, LayerError

GENERATOR = torch.Generator().manual_seed(0)


def matrix(m, n, rank):
    left = torch.randn(m, rank, generator=GENERATOR, dtype=torch.float64)
    return left @ torch.randn(rank, n, generator=GENERATOR, dtype=torch.float64)


def linear(weight):
    fc = nn.Linear(weight.shape[1], weight.shape[0]).double()
    fc.weight.data.copy_(weight)
    return mt.Network(nn.Sequential(nn.Flatten(), fc), (1, 1, weight.shape[1]))


CASES = {"wide": (5, 12, 5), "tall": (12, 5, 5), "square": (7, 7, 7), "deficient": (8, 10, 3), "rank one": (4, 9, 1)}


@pytest.mark.parametrize("case", [*CASES, "zero"])
def test_bases_are_orthonormal_and_complete(case):
    """Closed form: each pair of bases together is an orthogonal matrix."""
    m, n, rank = CASES.get(case, (4, 6, 0))
    s = spaces.subspaces(linear(matrix(m, n, rank) if rank else torch.zeros(m, n)), "1")
    assert (s.rank, s.shape) == (rank, (m, n))
    for signal, rest, size in ((s.signal, s.rejected, n), (s.signal_output, s.rejected_output, m)):
        whole = torch.cat([signal, rest], 1)
        assert whole.shape == (size, size)
        torch.testing.assert_close(whole.T @ whole, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_split_is_exact(case):
    """Closed form: x = x_s + x_r, W x = W x_s, energies add, W W^+ W = W."""
    weight = matrix(*CASES[case])
    s = spaces.subspaces(linear(weight), "1")
    x = torch.rand(6, weight.shape[1], dtype=torch.float64)
    kept, lost = s.project(x), s.reject(x)
    scale = float(weight.abs().sum())
    torch.testing.assert_close(kept + lost, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(kept @ weight.T, x @ weight.T, rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close(lost @ weight.T, torch.zeros(6, weight.shape[0]).double(), rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close(sum(s.energy(x)), x.square().sum(1), rtol=1e-12, atol=0)
    again = s.pseudo_inverse(weight.T).T  # W^+ W, column by column
    torch.testing.assert_close(weight @ again, weight, rtol=0, atol=1e-11 * scale)
    torch.testing.assert_close(s.matrix, weight, rtol=0, atol=1e-12 * scale)
    assert s.condition_number == pytest.approx(float(s.singular_values[0] / s.singular_values[s.rank - 1]))


def test_the_zero_matrix_has_no_condition_number():
    s = spaces.subspaces(linear(torch.zeros(2, 3)), "1")
    assert math.isnan(s.condition_number)
    assert s.project(torch.ones(3)).abs().max() == 0


def test_the_tolerance_decides_the_rank():
    net = linear(torch.diag(torch.tensor([1.0, 1e-3, 1e-6])))
    assert [spaces.subspaces(net, "1", tolerance=t).rank for t in (None, 1e-5, 1e-2)] == [3, 2, 1]
    with pytest.raises(mt.InputError, match="tolerance"):
        spaces.subspaces(net, "1", tolerance=-1.0)


def test_views_of_a_convolution():
    """Oracle: the kernels laid out by hand, and one patch convolved by torch."""
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, groups=2, bias=False).double()
    net = mt.Network(nn.Sequential(conv), (4, 3, 3))
    kernels = spaces.subspaces(net, "0")
    assert (kernels.view, kernels.shape, kernels.input_shape) == ("kernels", (12, 9), (3, 3))
    rows = torch.stack([conv.weight[o, i].flatten() for o in range(6) for i in range(2)]).detach()
    torch.testing.assert_close(kernels.singular_values, torch.linalg.svdvals(rows), rtol=1e-12, atol=0)
    patches = spaces.subspaces(net, "0", view="patches")
    x = torch.rand(1, 4, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(x.flatten(1) @ patches.matrix.T, conv(x).flatten(1).detach(), rtol=1e-12, atol=1e-12)
    exact = spaces.subspaces(net, "0", view="exact")
    torch.testing.assert_close(exact.singular_values, patches.singular_values, rtol=1e-10, atol=0)
    with pytest.raises(mt.InputError, match="view"):
        spaces.subspaces(net, "0", view="rows")


def test_a_functional_linear_layer_is_read_as_used():
    """Weights as the model makes them: a product of parameter and mask."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.eye(3))

        def forward(self, x):
            mask = torch.tensor([[1.0, 1, 1], [1, 1, 1], [0, 0, 0]])
            return nn.functional.linear(x.flatten(1), self.weight * mask)

    net = mt.Network(Masked(), (1, 1, 3))
    assert spaces.subspaces(net, "/linear").rank == 2


def test_what_cannot_be_split_is_refused():
    few = mt.Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))
    with pytest.warns(DataWarning, match="label 2"), pytest.raises(mt.InputError, match="label"):
        spaces.class_residuals(few, [(torch.rand(1, 2, 2), label) for label in range(3)])
    net = mt.Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (1, 2, 2))
    with pytest.raises(mt.InputError, match="tolerance"):
        spaces.subspaces(net, "1", tolerance=float("nan"))
    with pytest.raises(mt.InputError, match="outputs of 3 values"):
        spaces.subspaces(net, "1").pseudo_inverse(torch.rand(2, 4))
    net.model[1].weight.data[0, 0] = torch.nan
    for split in (spaces.subspaces, spaces.operator):
        with pytest.raises(mt.ModelError, match="NaN"):
            split(net, "1")


def test_a_null_space_too_large_for_a_basis_is_refused(monkeypatch):
    monkeypatch.setattr(sys.modules["microtome.spaces.split.subspaces"], "_BASIS", 15)
    s = spaces.subspaces(mt.Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (1, 2, 2)), "1")
    with pytest.raises(mt.LayerError, match="4 x 1"):
        assert s.rejected.numel()
    assert s.reject(torch.rand(2, 4)).shape == (2, 4)
    assert s.rejected_output.shape == (3, 0)


def test_weight_vectors_split_every_image():
    """Closed form by the definition, in a loop."""
    weight = matrix(3, 8, 3)
    net = linear(weight)
    x = torch.rand(4, 1, 1, 8, dtype=torch.float64)
    found = spaces.weight_vectors(net, x, layer="1")
    for i in range(4):
        for unit in range(3):
            v, w = x[i].flatten(), weight[unit]
            expected = (v @ w) / (w @ w) * w
            torch.testing.assert_close(found.projection(i, unit).flatten(), expected, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(found.residual(i, unit).flatten(), v - expected, rtol=1e-12, atol=1e-14)
            assert float(found.kept[i, unit]) == pytest.approx(float(expected @ expected), rel=1e-12)
            assert float(found.removed[i, unit]) == pytest.approx(float((v - expected) @ (v - expected)), rel=1e-12)
    with pytest.raises(mt.InputError, match="unit below 3"):
        found.residual(0, 3)


def test_weight_vectors_of_a_convolution_sum_over_patches():
    """Oracle: patches cut out by unfold."""
    torch.manual_seed(1)
    conv = nn.Conv2d(2, 3, 3, padding=1, stride=2).double()
    net = mt.Network(nn.Sequential(conv), (2, 6, 6))
    x = torch.rand(2, 2, 6, 6, dtype=torch.float64)
    found = spaces.weight_vectors(net, x, layer="0")
    patches = nn.functional.unfold(x, 3, padding=1, stride=2)
    rows = conv.weight.detach().flatten(1)
    kept = (rows @ patches).square().sum(2) / rows.square().sum(1)
    torch.testing.assert_close(found.kept, kept, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.energy, patches.square().sum((1, 2))[:, None].expand(-1, 3), rtol=1e-12, atol=0)
    with pytest.raises(mt.LayerError, match="patch"):
        found.residual(0, 0)


def test_class_residuals_are_the_paper_s_rows():
    """Oracle: averages and equation 4 by hand."""
    weight = matrix(3, 4, 3)
    net = linear(weight)
    images = torch.rand(9, 1, 1, 4)
    pairs = [(image, index % 3) for index, image in enumerate(images)]
    found = spaces.class_residuals(net, pairs)
    assert found.against == "unit"
    for label in range(3):
        mean = images[label::3].double().mean(0).flatten()
        w = weight[label]
        expected = mean - (mean @ w) / (w @ w) * w
        torch.testing.assert_close(found.residual[label], expected, rtol=1e-6, atol=1e-7)
        assert float(found.removed[label]) == pytest.approx(float(expected @ expected / (mean @ mean)), rel=1e-6)
    with pytest.raises(mt.InputError, match="labels"):
        spaces.class_residuals(net, [image for image in images])  # noqa: C416 - a list without labels


def test_spectra_of_all_layers():
    torch.manual_seed(0)
    net = mt.Network(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5)), (1, 4, 4))
    found = spaces.spectra(net)
    assert list(found.singular_values) == ["0", "3"]
    for name in ("0", "3"):
        one = spaces.subspaces(net, name)
        torch.testing.assert_close(found.singular_values[name], one.singular_values, rtol=1e-12, atol=1e-14)
        assert found.condition_number[name] == pytest.approx(one.condition_number, rel=1e-12)


def test_a_convolution_of_one_position_is_read_by_its_channels():
    """Oracle: its matrix of channels. Its kernels are one number each, so that their view always says rank 1."""
    torch.manual_seed(0)
    net = mt.Network(nn.Sequential(nn.Conv2d(3, 5, 1)), (3, 4, 4))
    expected = torch.linalg.svdvals(net.module("0").weight[:, :, 0, 0].double())
    found = spaces.spectra(net)
    assert found.view["0"] == spaces.subspaces(net, "0").view == "patches"
    torch.testing.assert_close(found.singular_values["0"], expected, rtol=1e-6, atol=1e-7)
    assert spaces.spectra(net, view="kernels").shape["0"] == (15, 1)


def test_the_gram_route_agrees(monkeypatch):
    """Oracle: the direct decomposition; values above 1e-8 of the largest agree to 1e-6."""
    import sys

    net = linear(matrix(6, 9, 4))
    expected = spaces.spectra(net)
    monkeypatch.setattr(sys.modules["microtome.spaces.singular.spectra"], "_DIRECT", 0.0)
    found = spaces.spectra(net)
    torch.testing.assert_close(found.singular_values["1"][:4], expected.singular_values["1"][:4], rtol=1e-6, atol=0)
    assert found.rank["1"] == 4


@pytest.mark.parametrize("result", ["subspaces", "spectra", "weight_vectors", "class_residuals", "triplets"])
def test_results_are_saved_loaded_and_drawn(result, tmp_path):
    net = linear(matrix(3, 4, 3))
    images = torch.rand(6, 1, 1, 4)
    made = {
        "subspaces": lambda: spaces.subspaces(net, "1"),
        "spectra": lambda: spaces.spectra(net),
        "weight_vectors": lambda: spaces.weight_vectors(net, images, layer="1"),
        "class_residuals": lambda: spaces.class_residuals(net, [(image, i % 3) for i, image in enumerate(images)]),
        "triplets": lambda: spaces.operator(net, "1").triplets(2),
    }[result]()
    made.save(tmp_path / "it.safetensors")
    again = mt.load(tmp_path / "it.safetensors")
    assert repr(again) == repr(made)
    assert again.plot().axes


class PaddedFirst(nn.Module):
    """A convolution that pads its input as a step of its own, as EfficientNet-Lite's do."""

    def __init__(self):
        super().__init__()
        self.conv = SamePadded(1, 3, 3, stride=2)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


class SamePadded(nn.Conv2d):
    """Zeros at the right and at the bottom."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


def test_patches_of_many_channels_are_drawn_as_tiles():
    """Each channel of a signal vector is found in the picture where its tile is, the picture being about square."""
    torch.manual_seed(0)
    net = mt.Network(nn.Sequential(nn.Conv2d(1, 10, 1), nn.Conv2d(10, 4, 3)), (1, 5, 5))
    s = spaces.subspaces(net, "1", view="patches")
    drawn = next(axis.images[0].get_array() for axis in s.plot().findobj(Axes) if axis.images)
    assert drawn.shape == (3 * 4 - 1, 4 * 4 - 1)
    vector = s.signal[:, 0].reshape(10, 3, 3)
    for channel in range(10):
        top, left = 4 * (channel // 4), 4 * (channel % 4)
        assert torch.equal(torch.as_tensor(drawn[top : top + 3, left : left + 3]), vector[channel])


def test_padding_inside_a_module_is_read_after_it():
    torch.manual_seed(0)
    net = mt.Network(PaddedFirst(), (1, 8, 8))
    images = torch.rand(4, 1, 8, 8)
    padded = nn.functional.pad(images, (0, 1, 0, 1)).double()
    patches = nn.functional.unfold(padded, 3, stride=2)  # (4, 9, 16)
    heard = spaces.weight_vectors(net, images, layer="conv")
    weight = net.model.conv.weight.detach().double().flatten(1)
    along = torch.einsum("un,bnp->bup", weight, patches).square().sum(2) / weight.square().sum(1)
    assert torch.allclose(heard.kept, along)
    assert torch.allclose(heard.energy[:, 0], patches.square().sum((1, 2)))
    whole = spaces.operator(net, "conv").dense()
    heard_part = torch.linalg.pinv(whole) @ whole
    outside = padded.flatten(1) - padded.flatten(1) @ heard_part
    share = outside.square().sum(1) / padded.flatten(1).square().sum(1)
    assert torch.allclose(spaces.rejected_energy(net, images, ["conv"]).null_share[0], share, atol=1e-8)
    found = spaces.class_residuals(net, [(image, 0) for image in images], threshold=1e-9)
    average = padded.mean(0).flatten()
    assert torch.allclose(found.residual[0], average - heard_part @ average, atol=1e-7)


def test_a_network_without_linear_layers_is_one_clear_error():
    net = mt.Network(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), (3, 4, 4))
    images = torch.rand(4, 3, 4, 4)
    labelled = [(image, 0) for image in images]
    for method, data in (
        (spaces.spectra, ()),
        (spaces.kept_and_lost, (images,)),
        (spaces.rejected_energy, (images,)),
        (spaces.class_residuals, (labelled,)),
    ):
        with pytest.raises(LayerError, match="no Linear layer and no convolution; `microtome layers` lists all layers"):
            method(net, *data)
    with pytest.raises(LayerError, match="no layer was named"):
        spaces.spectra(net, [])
