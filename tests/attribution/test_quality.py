"""Are the measures of maps what their papers say? Against slow replicas, captum and scikit-image."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from microtome import InputError, Network, attribution, load
from microtome.attribution.quality import likeness
from microtome.attribution.quality.sensitivity import nearby


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 3)
    ).double()
    return Network(model, (2, 8, 8))


def pictures(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("insert", [False, True])
@pytest.mark.parametrize("fill", ["mean", "blur", 0.3])
def test_curves_equal_a_loop_over_single_pixels(insert, fill):
    """Oracle: one picture at a time, pixels exchanged one by one in a sorted list; trapezoids summed by hand."""
    net, images = network(), pictures(2)
    maps = attribution.gradient(net, images, 1).map
    trial = attribution.insertion if insert else attribution.deletion
    found = trial(net, images, maps, 1, fill=fill, steps=5, batch=4)
    bare = attribution.baseline(net, images, fill)
    for n in range(2):
        order = sorted(range(64), key=lambda p: -float(maps[n].flatten()[p]))
        levels = []
        for step in range(6):
            x = (bare if insert else images)[n].clone()
            for p in order[: round(step / 5 * 64)]:
                x[:, p // 8, p % 8] = (images if insert else bare)[n][:, p // 8, p % 8]
            levels.append(net.model(x[None]).softmax(1)[0, 1].item())
        np.testing.assert_allclose(found.probability[n], levels, rtol=1e-9)
        area = sum((a + b) / 2 / 5 for a, b in itertools.pairwise(levels))
        assert float(found.area[n]) == pytest.approx(area, rel=1e-9)


def test_infidelity_equals_captum_and_its_definition():
    from captum.metrics import infidelity

    net, images = network(), pictures()
    made = attribution.gradient_x_input(net, images, 2)
    found = attribution.infidelity(net, images, made, deviation=0.2, samples=7, seed=3)
    generator = torch.Generator().manual_seed(3)
    noises = [torch.randn(images.shape[1:], generator=generator, dtype=torch.float64) * 0.2 for _ in range(7)]
    for scaled, ours in ((False, found.values), (True, found.scaled)):
        queue = iter(noises)

        def perturb(x, queue=queue):
            noise = next(queue).expand_as(x)
            return noise, x - noise

        theirs = infidelity(net.model, perturb, images, made.values, target=2, n_perturb_samples=7,
                            max_examples_per_batch=len(images), normalize=scaled)  # fmt: skip
        torch.testing.assert_close(ours, theirs.double(), rtol=1e-6, atol=0)


def test_max_sensitivity_equals_its_definition():
    """Oracle: one image and one draw at a time, the gradient by autograd."""
    net, images = network(), pictures()
    found = attribution.max_sensitivity(net, images, "gradient-x-input", 1, radius=0.05, samples=4, seed=2)
    generator = torch.Generator().manual_seed(2)
    draws = [nearby(net, images, 0.05, generator) for _ in range(4)]
    assert all(0 < float((draw - images).abs().max()) <= 0.05 for draw in draws)
    assert all(float(draw.min()) >= 0 and float(draw.max()) <= 1 for draw in draws)

    def explain(one):
        x = one[None].clone().requires_grad_()
        return (x * torch.autograd.grad(net.model(x)[0, 1], x)[0]).detach()

    for n in range(3):
        first = explain(images[n])
        largest = max(float((explain(draw[n]) - first).norm() / first.norm()) for draw in draws)
        assert float(found.values[n]) == pytest.approx(largest, rel=1e-9)


def test_max_sensitivity_equals_captum():
    """The same definition (largest L2 change over L2 length) on the same draws; the map is captum's own.

    Where the whole map is zero the two part by intent: captum divides by one, here it is NaN.
    """
    pytest.importorskip("captum")
    from captum.attr import InputXGradient
    from captum.metrics import sensitivity_max

    net, images = network(), pictures()
    found = attribution.max_sensitivity(net, images, "gradient-x-input", 2, radius=0.05, samples=6, seed=4)
    generator = torch.Generator().manual_seed(4)
    queue = iter([nearby(net, images, 0.05, generator) for _ in range(6)])
    theirs = sensitivity_max(InputXGradient(net.model).attribute, images, perturb_func=lambda x: next(queue),
                             n_perturb_samples=6, max_examples_per_batch=len(images), target=2)  # fmt: skip
    torch.testing.assert_close(found.values, theirs.double(), rtol=1e-9, atol=0)


def test_likeness_equals_scipy_and_scikit_image():
    stats, metrics = pytest.importorskip("scipy.stats"), pytest.importorskip("skimage.metrics")
    a, b = (
        torch.randn(2, 12, 15, generator=torch.Generator().manual_seed(s)).double().round(decimals=1) for s in (0, 1)
    )
    b = b + a
    for n in range(2):
        spearman = stats.spearmanr(a[n].flatten(), b[n].flatten()).statistic
        assert float(likeness.rank_correlation(a, b)[n]) == pytest.approx(spearman, abs=1e-12)
        x, y = ((m[n] / m[n].abs().max()).numpy() for m in (a, b))
        theirs = metrics.structural_similarity(x, y, data_range=2)
        assert float(likeness.structural_similarity(a, b)[n]) == pytest.approx(theirs, abs=1e-9)


def test_randomisation_loses_the_gradient_and_leaves_the_model():
    net, images = network(), pictures()
    before = copy.deepcopy(net.model.state_dict())
    state = torch.get_rng_state()
    found = attribution.randomisation(net, images, "gradient", 0)
    assert found.layers == ["5", "2", "0"]
    assert all(torch.equal(value, before[name]) for name, value in net.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert float(found.correlation[-1].abs().mean()) < 0.4
    again = attribution.randomisation(net, images, "gradient", 0, steps=1)
    assert (again.layers, again.reached) == (["5 to 0"], ["0"])
    assert [tick.get_text() for tick in again.plot().axes[0].get_xticklabels()] == ["0"]
    torch.testing.assert_close(again.maps[-1], found.maps[-1], rtol=0, atol=0)  # the same draws in the same order


def test_pointing_and_energy():
    maps = torch.zeros(2, 4, 4)
    maps[0, 1, 1], maps[0, 3, 3], maps[0, 0, 0] = 2.0, 1.0, -9.0
    mask = torch.zeros(4, 4)
    mask[:2, :2] = 1
    assert attribution.pointing_game(maps, mask).tolist() == [True, False]
    energy = attribution.energy_in_mask(maps, mask)
    assert float(energy[0]) == pytest.approx(2 / 3)
    assert bool(energy[1].isnan())
    with pytest.raises(InputError, match="0 and 1"):
        attribution.energy_in_mask(maps, mask * 0.5)
    with pytest.raises(InputError, match="masks of shape"):
        attribution.energy_in_mask(maps, torch.ones(3, 4))


def test_evaluate_takes_names_results_and_maps(tmp_path):
    net, images = network(), pictures()
    made = attribution.grad_cam(net, images, 1, layer="3")
    listed = {"saliency": {}, "mine": made, "theirs": made.map}
    mask = torch.zeros(8, 8)
    mask[2:6, 2:6] = 1
    found = attribution.evaluate(net, images, listed, 1, masks=mask, steps=4, samples=4)
    rows = {row["method"]: row for row in found.table()}
    assert list(rows) == ["saliency", "mine", "theirs", "random"]
    assert rows["mine"] == rows["theirs"] | {"method": "mine", "max-sensitivity": pytest.approx(np.nan, nan_ok=True)}
    area = attribution.deletion(net, images, made, fill="mean", steps=4).area
    assert rows["mine"]["deletion (mean)"] == pytest.approx(float(area.mean()))
    assert rows["saliency"]["max-sensitivity"] > 0
    found.save(tmp_path / "e.safetensors")
    assert load(tmp_path / "e.safetensors").table()[0] == found.table()[0]
    for result in (found, found.curves["mine: deletion (mean)"], attribution.randomisation(net, images, "saliency")):
        assert result.plot().axes
    with pytest.raises(InputError, match="explain classes"):
        attribution.evaluate(net, images, made, 2)
    with pytest.raises(InputError, match="maps of shape"):
        attribution.evaluate(net, images, torch.ones(3, 4, 4), 1)


class AttentionOnPatches(nn.Module):
    """Patches, attention whose projections are parameters of two modules, a head with a parametrised weight."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = weight_norm(nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) * self.scale
        return self.head(self.attention(x, x, x, need_weights=False)[0].mean(1))


def test_weights_are_randomised_with_the_layer_that_they_belong_to():
    """Also where another module holds them: an output projection, the parametrisation of a weight."""
    torch.manual_seed(0)
    net = Network(AttentionOnPatches(), (1, 8, 8))
    found = attribution.randomisation(net, torch.rand(2, 1, 8, 8), "gradient", 0)
    assert found.layers == ["head", "attention", "patches", "scale"]
    line = Network(nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(64, 2))), (1, 8, 8))
    assert attribution.randomisation(line, torch.rand(1, 1, 8, 8), "gradient", 0).layers == ["1"]


def test_the_sensitivity_of_a_map_of_zeros_is_undefined():
    """Also where it becomes another map nearby: the change has no scale."""
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), (1, 4, 4))
    images = torch.full((1, 1, 4, 4), 0.5)
    for method in (lambda net, x, target: 0 * x[:, 0], lambda net, x, target: x[:, 0] - 0.5):
        assert attribution.max_sensitivity(net, images, method, 0).values.isnan().all()
