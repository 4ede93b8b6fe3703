"""The parts of an image that layers keep and lose, and the local maps between layers."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

import microtome as mt
from microtome import spaces


def small(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(3, 4, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    return mt.Network(model, (1, 8, 8), mean=0.3, std=0.5)


def double(net):
    return mt.Network(net.model.double(), net.input_shape, net.mean, net.std)


@pytest.mark.parametrize("layer", ["0", "2", "6"])
@pytest.mark.parametrize("since", ["input", "0", "1"])
def test_the_jacobian_is_autograd_s(layer, since):
    """Oracle: torch.autograd.functional.jacobian through the plain module in float64."""
    net = double(small())
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    if layer == since or (layer == "0" and since != "input"):
        return
    first, last = (0 if since == "input" else int(since) + 1), int(layer) + 1
    start = image if since == "input" else net.model[:first]((image - 0.3) / 0.5).detach()

    def tail(x):
        x = (x - 0.3) / 0.5 if since == "input" else x
        for module in net.model[first:last]:
            x = nn.functional.relu(x) if isinstance(module, nn.ReLU) else module(x)
        return x

    expected = torch.autograd.functional.jacobian(tail, start.clone())
    of = spaces.jacobian(net, image, layer=layer, since=since)
    m, n = of.shape
    torch.testing.assert_close(of.dense(), expected.reshape(m, n), rtol=1e-12, atol=1e-13)
    x = torch.rand(1, *of.input_shape, dtype=torch.float64)
    torch.testing.assert_close(of.apply(x).flatten(), of.dense() @ x.flatten(), rtol=1e-11, atol=1e-12)


def test_layers_of_few_values_are_split_exactly():
    """Oracle: NumPy's pseudo-inverse of autograd's Jacobian, for the share in the null space."""
    net = double(small())
    net.model[6].weight.data[4] = net.model[6].weight.data[:2].sum(0)  # of rank 4
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64)
    found = spaces.kept_and_lost(net, x, ["6"], iterations=1)
    for i in range(3):
        matrix = spaces.jacobian(net, x[i : i + 1], layer="6").dense().numpy()
        flat = x[i].flatten().numpy()
        null = flat - np.linalg.pinv(matrix, rcond=1e-12) @ (matrix @ flat)
        assert float(found.null_share[0, i]) == pytest.approx((null**2).sum() / (flat**2).sum(), rel=1e-10)
        assert np.linalg.norm(matrix @ found.lost[0, i].flatten().numpy()) == pytest.approx(
            0.01 * np.linalg.norm(matrix @ flat), rel=1e-9
        )
    assert float(found.error.max()) < 1e-6
    assert bool(found.known.all())


def test_the_four_spaces_of_what_lies_between_two_layers():
    """Oracle: NumPy's decomposition of autograd's Jacobian; dead units make the map rank deficient."""
    net = double(small())
    net.model[2].bias.data[1] = -9.0
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    start = net.activations(image, ["1"])["1"]

    def between(x):
        return nn.functional.relu(nn.functional.max_pool2d(net.model[2](x), 2))

    matrix = torch.autograd.functional.jacobian(between, start).reshape(16, 48).numpy()
    s = spaces.jacobian(net, image, layer="4", since="1").subspaces()
    assert s.rank == np.linalg.matrix_rank(matrix) < 16
    np.testing.assert_allclose(s.singular_values, np.linalg.svd(matrix, compute_uv=False), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(s.matrix, matrix, rtol=0, atol=1e-13)
    for one, other in ((s.signal, s.rejected), (s.signal_output, s.rejected_output)):
        whole = torch.cat([one, other], 1)
        torch.testing.assert_close(whole.T @ whole, torch.eye(len(whole), dtype=whole.dtype), rtol=0, atol=1e-12)
    np.testing.assert_allclose(matrix @ s.rejected.numpy(), 0, atol=1e-13)
    kept, lost = s.energy(start)
    torch.testing.assert_close(kept + lost, start.square().sum().reshape(1), rtol=1e-12, atol=0)
    torch.testing.assert_close(s.project(start) + s.reject(start), start, rtol=1e-12, atol=1e-14)
    assert s.plot().axes
    with pytest.raises(mt.InputError, match="one each"):
        spaces.jacobian(net, image.expand(2, -1, -1, -1)).subspaces()


def test_triplets_of_a_local_map_too_large_to_write_out(monkeypatch):
    """Oracle: the dense decomposition, which is switched off inside: Lanczos applies the map to several vectors."""
    monkeypatch.setattr(sys.modules["microtome.spaces.singular.triplets"], "_SMALL", 1)
    of = spaces.jacobian(double(small()), torch.rand(1, 1, 8, 8, dtype=torch.float64), layer="2", since="0")
    found = of.triplets(3)
    torch.testing.assert_close(found.values, torch.linalg.svdvals(of.dense())[:3], rtol=1e-9, atol=0)
    x = torch.rand(4, *of.input_shape, dtype=torch.float64)
    torch.testing.assert_close(of.apply(x).flatten(1), x.flatten(1) @ of.dense().T, rtol=1e-11, atol=1e-12)
    assert of.apply(x[:0]).shape == (0, *of.output_shape)


def test_kept_and_lost_parts_of_an_image():
    """Properties: they add up, and the lost part changes the layer by the threshold, to first order."""
    net = small()
    x = torch.rand(4, 1, 8, 8)
    found = spaces.kept_and_lost(net, x, ["0", "2", "6"])
    torch.testing.assert_close(found.kept + found.lost, x.double().expand(3, -1, -1, -1, -1), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        found.share, found.lost.square().sum((2, 3, 4)) / x.double().square().sum((1, 2, 3)), rtol=1e-12, atol=0
    )
    for place, name in enumerate(found.layers):
        local = spaces.jacobian(net, x, layer=name)
        ratio = local.apply(found.lost[place]).flatten(1).norm(dim=1) / local.apply(x).flatten(1).norm(dim=1)
        torch.testing.assert_close(ratio, torch.full_like(ratio, 0.01), rtol=1e-6, atol=0)
    # a layer cannot depend on more of an image than the one before it
    assert bool((found.null_share[2] >= found.null_share[1] - 1e-12).all())
    assert bool((found.null_share[1] >= found.null_share[0] - 1e-12).all())


def test_rejected_energy_agrees_with_dense_projections():
    """Oracle: dense projections of each layer's own input, for the exact null space."""
    net = small()
    x = torch.rand(3, 1, 8, 8)
    found = spaces.rejected_energy(net, x)
    assert found.layers == ["0", "2", "6"]
    reads = net.activations(x, [f"{name}@input" for name in found.layers])
    for place, name in enumerate(found.layers):
        matrix = spaces.operator(net, name).dense()
        _, s, v = torch.linalg.svd(matrix, full_matrices=False)
        v = v[s > 1e-12 * s[0]]
        value = reads[f"{name}@input"].double().flatten(1)
        lost = (value - value @ v.T @ v).square().sum(1) / value.square().sum(1)
        torch.testing.assert_close(found.null_share[place], lost, rtol=1e-9, atol=1e-14)
        assert bool((found.share[place] >= lost).all())
    again = spaces.rejected_energy(net, [image for image in x])  # noqa: C416 - a data set without labels
    assert torch.equal(again.share, found.share)


def test_the_model_is_left_as_found():
    net = small()
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    net.model.train()
    spaces.kept_and_lost(net, torch.rand(2, 1, 8, 8), ["2"])
    assert net.model.training
    assert all(torch.equal(value, before[name]) for name, value in net.model.state_dict().items())
    assert net.dtype == torch.float32
    assert all(parameter.grad is None for parameter in net.model.parameters())


def test_a_layer_that_does_not_follow_is_refused():
    with pytest.raises(mt.OpaqueError, match="depend"):
        spaces.jacobian(small(), torch.rand(1, 1, 8, 8), layer="0", since="2")
    with pytest.raises(mt.LayerError, match="no layer was named"):
        spaces.kept_and_lost(small(), torch.rand(1, 1, 8, 8), [])
    with pytest.raises(mt.LayerError, match="no layer was named"):
        spaces.rejected_energy(small(), torch.rand(1, 1, 8, 8), [])
    with pytest.raises(mt.LayerError, match="no Linear layer"):
        spaces.kept_and_lost(mt.Network(nn.Flatten(), (1, 2, 2)), torch.rand(1, 1, 2, 2))
    for wrong in ({"threshold": float("nan")}, {"threshold": 0.0}, {"threshold": 1.0}, {"iterations": 0}):
        with pytest.raises(mt.InputError, match="threshold"):
            spaces.kept_and_lost(small(), torch.rand(1, 1, 8, 8), ["0"], **wrong)
    with pytest.raises(mt.InputError, match="one each"):
        spaces.jacobian(small(), torch.rand(2, 1, 8, 8)).triplets(1)


def test_a_layer_named_twice_counts_once():
    net, x = small(), torch.rand(3, 1, 8, 8)
    found = spaces.rejected_energy(net, x, ["6", "0", "6"])
    assert found.layers == ["6", "0"]
    torch.testing.assert_close(found.share, spaces.rejected_energy(net, x, ["6", "0"]).share)
    assert spaces.kept_and_lost(net, x, ["6", "6"]).layers == ["6"]


def test_a_network_that_takes_images_one_by_one_is_split_image_by_image():
    """Oracle: the same network for the whole batch at once."""

    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = small().model

        def forward(self, x):
            return torch.cat([self.body(image[None]) for image in x])

    x = torch.rand(2, 1, 8, 8)
    looped = spaces.kept_and_lost(mt.Network(Loop(), (1, 8, 8), mean=0.3, std=0.5), x, ["body.0", "body.6"])
    at_once = spaces.kept_and_lost(small(), x, ["0", "6"])
    torch.testing.assert_close(looped.kept, at_once.kept)


def test_a_share_of_no_energy_is_not_defined():
    """A black image has no energy: its share is no number, is left out of means, and is told in the table."""
    net = small()
    images = torch.rand(3, 1, 8, 8)
    images[1] = 0
    found, without = (spaces.kept_and_lost(net, some, ["0", "6"]) for some in (images, images[[0, 2]]))
    for value in (found.share, found.error, found.null_share):
        assert bool(value[:, 1].isnan().all())
    assert found.defined.tolist() == [[True, False, True]] * 2
    torch.testing.assert_close(found.mean, without.mean)
    assert found.proof(1).endswith(", without 1 image of zero energy")
    assert found.null_space(1) == without.null_space(1)
    black = spaces.kept_and_lost(net, images[1:2], ["0", "6"])
    assert black.table().rows[0][3:] == ("not defined: the energy is zero", "not defined")
    assert not bool(black.known.any())
    for result in (found, black):
        assert result.plot(image=0) is not None
    net = mt.Network(net.model, (1, 8, 8))  # without normalisation the first layer reads zeros of the black image
    read = spaces.rejected_energy(net, images, ["0"])
    assert read.defined.tolist() == [[True, False, True]]
    torch.testing.assert_close(read.mean, spaces.rejected_energy(net, images[[0, 2]], ["0"]).mean)
    assert read.plot() is not None
    silent = spaces.rejected_energy(net, images[1:2], ["0"]).plot()
    assert [text.get_text() for text in silent.axes[0].texts] == ["not defined: the energy is zero"]
