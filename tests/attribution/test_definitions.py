"""Do the options, certificates and maps of the attribution methods mean what their pages say?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from conformance.spellings import SPELLINGS, weights
from microtome import InputError, Network, attribution
from microtome.attribution.gradients.baselines import NAMES, baseline

SHAPE = (3, 12, 9)


@pytest.fixture(scope="module")
def net() -> Network:
    return Network(SPELLINGS["ReluModules"].build(weights("plain", 3)), SHAPE, mean=0.3, std=0.5)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def test_grad_cam_is_the_positive_part_of_cam_divided_by_the_positions(net, images):
    """The identity of Selvaraju et al., section 3.1, on a network with global average pooling."""
    plain = attribution.cam(net, images, 2)
    h, w = plain.values.shape[2:]
    torch.testing.assert_close(attribution.grad_cam(net, images, 2).values, plain.values.clamp(min=0) / (h * w))


def test_counterfactual_is_the_other_part(net, images):
    plain = attribution.cam(net, images, 2)
    h, w = plain.values.shape[2:]
    against = attribution.grad_cam(net, images, 2, counterfactual=True).values
    torch.testing.assert_close(against, (-plain.values).clamp(min=0) / (h * w))
    assert float(against.max()) > 0


def test_cam_adds_up_to_the_score(net, images):
    plain = attribution.cam(net, images, 2)
    torch.testing.assert_close(plain.values.mean((1, 2, 3)) + net.model.fc.bias[2], plain.score)


@pytest.mark.parametrize("rule", ["gauss-legendre", "midpoint", "cosine"])
def test_integrated_gradients_are_complete(net, images, rule):
    """The gap closes with the steps, and is what is missing to the rise of the score."""
    coarse, fine = (attribution.integrated_gradients(net, images, 2, steps=n, rule=rule) for n in (3, 300))
    rise = fine.score - fine.baseline_score
    torch.testing.assert_close(fine.values.sum((1, 2, 3)) - fine.completeness_gap, rise)
    assert float(fine.completeness_gap.abs().max()) < 0.2 * float(coarse.completeness_gap.abs().max())
    assert float(fine.completeness_gap.abs().max()) < 3e-3 * float(rise.abs().max())


@pytest.mark.parametrize("rule", ["gauss-legendre", "midpoint", "cosine"])
def test_refined_integrated_gradients_are_those_of_all_points_at_once(net, images, rule):
    found = attribution.integrated_gradients(net, images, 2, steps=4, rule=rule, within=1e-9, max_steps=40)
    direct = attribution.integrated_gradients(net, images, 2, steps=36, rule=rule)
    assert found.steps.tolist() == [36] * len(images)
    torch.testing.assert_close(found.values, direct.values, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.completeness_gap, direct.completeness_gap, rtol=1e-4, atol=1e-6)


def test_only_images_with_a_larger_gap_get_more_points(net, images):
    coarse = attribution.integrated_gradients(net, images, 2, steps=5, rule="cosine")
    share = (coarse.completeness_gap / (coarse.score - coarse.baseline_score)).abs()
    within = float(share.sort().values[:2].mean())  # one image is within
    found = attribution.integrated_gradients(net, images, 2, steps=5, rule="cosine", within=within, max_steps=5000)
    sure = int(share.argmin())
    assert len(images) > 1
    assert [steps > 5 for steps in found.steps.tolist()] == [index != sure for index in range(len(images))]
    torch.testing.assert_close(found.values[sure], coarse.values[sure])
    assert bool((found.completeness_gap.abs() <= within * (found.score - found.baseline_score).abs()).all())


@pytest.mark.parametrize("within", [0.0, -0.1])
def test_a_gap_that_nothing_reaches_is_refused(net, images, within):
    with pytest.raises(InputError, match="above 0"):
        attribution.integrated_gradients(net, images, 2, within=within)


@pytest.mark.parametrize("name", NAMES)
def test_every_baseline_changes_the_answer(net, images, name):
    pictures = baseline(net, images, name)
    assert pictures.shape == images.shape
    other = attribution.occlusion(net, images, 2, window=4, stride=4, fill=name)
    zero = attribution.occlusion(net, images, 2, window=4, stride=4, fill=0.123)
    assert not torch.allclose(other.probability, zero.probability)
    slopes = attribution.integrated_gradients(net, images, 2, baseline=name, steps=2)
    assert float(slopes.completeness_gap.abs().max()) < float("inf")


def test_baselines_by_definition(net, images):
    assert baseline(net, images, "mean").unique().tolist() == [0.3]
    colours = images.mean((2, 3), keepdim=True).expand_as(images)
    assert torch.equal(baseline(net, images, "image-mean"), colours)
    flat = torch.full_like(images, 0.7)
    torch.testing.assert_close(baseline(net, flat, "blur"), flat)  # nothing to blur; edges keep their value
    assert float(baseline(net, images, "blur").std()) < float(images.std())
    assert not torch.equal(baseline(net, images, "noise", seed=0), baseline(net, images, "noise", seed=1))
    per_channel = baseline(net, images, [0.1, 0.2, 0.3])[0, :, 0, 0]
    torch.testing.assert_close(per_channel, torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    with pytest.raises(InputError, match="one for each of 3"):
        baseline(net, images, [0.1, 0.2])


def test_occlusion_covers_the_edges_and_maps_back(net, images):
    result = attribution.occlusion(net, images, 2, window=(5, 4), stride=(3, 2))
    covered = torch.zeros(SHAPE[1:])
    for top, left, bottom, right in result.boxes.reshape(-1, 4).tolist():
        assert (bottom - top, right - left) == (5, 4)
        covered[top:bottom, left:right] = 1
    assert bool(covered.all())
    torch.testing.assert_close(result.values[:, 0], result.unoccluded[:, None, None] - result.probability)
    torch.testing.assert_close(result.map[:, 0, 0], result.values[:, 0, 0, 0])  # the corner lies in one window
    whole = attribution.occlusion(net, images, 2, window=(12, 9), stride=1)
    torch.testing.assert_close(whole.map, whole.values[:, 0].expand(-1, 12, 9))


def test_smooth_grad_draws_by_its_seed_and_settles(net, images):
    a, b = (attribution.smooth_grad(net, images, 2, samples=4, seed=s).values for s in (0, 1))
    assert not torch.allclose(a, b)
    plain = attribution.gradient(net, images, 2).values
    torch.testing.assert_close(attribution.smooth_grad(net, images, 2, noise=0.0, samples=2).values, plain)
    errors = [attribution.smooth_grad(net, images, 2, samples=n).standard_error.mean() for n in (10, 160)]
    assert 2.5 < float(errors[0] / errors[1]) < 6.5  # falls as the root of the samples: 4


def test_smooth_grad_draws_its_noise_once_for_calls_in_a_row(net, images, monkeypatch):
    drawn = []
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, **options: drawn.append(size) or randn(*size, **options))
    with torch.inference_mode():  # the noise serves later calls that are not in inference mode
        first = attribution.smooth_grad(net, images, 2, samples=3, seed=5)
    again = attribution.smooth_grad(net, images, 2, samples=3, seed=5)
    assert len(drawn) == 1
    assert torch.equal(first.values, again.values)
    wide = attribution.smooth_grad(net, images, 2, samples=3, seed=5, noise=0.3)  # other noise from the same draws
    assert len(drawn) == 1
    assert not torch.allclose(wide.values, first.values)
    attribution.smooth_grad(net, images, 2, samples=3, seed=6)
    monkeypatch.setattr("microtome.attribution.gradients.smooth_grad._MOST_KEPT", 0)
    large = attribution.smooth_grad(net, images, 2, samples=3, seed=5)
    assert torch.equal(large.values, first.values)
    assert len(drawn) == 3


def test_maps_are_at_image_size_and_signed_as_stated(net, images):
    assert torch.equal(attribution.saliency(net, images).map, attribution.saliency(net, images).values.amax(1))
    signed = attribution.gradient(net, images)
    torch.testing.assert_close(signed.map, signed.values.sum(1))
    assert bool((signed.map < 0).any())
    assert bool((attribution.grad_cam(net, images).map >= 0).all())


def test_compare_puts_methods_side_by_side(net, images):
    result = attribution.compare(net, images, 2, methods=["saliency", "guided_backprop", "grad_cam", "occlusion"])
    assert list(result.results) == ["saliency", "guided-backprop", "grad-cam", "occlusion"]
    torch.testing.assert_close(result.agreement.diagonal(), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(result.agreement, result.agreement.T)
    for row in result.table():
        assert 0 < row["half"] <= 0.5
    expected = attribution.saliency(net, images, 2).values
    torch.testing.assert_close(result["saliency"].values, expected)


def test_every_result_draws_itself(net, images):
    """A figure with one row per image and something on each of its axes."""
    for result in (
        attribution.gradient(net, images),
        attribution.grad_cam(net, images),
        attribution.integrated_gradients(net, images, steps=2),
        attribution.occlusion(net, images, window=4, stride=4),
        attribution.compare(net, images, methods=["saliency", "grad_cam"]),
    ):
        figure = result.plot(limit=2)
        pictures = [axes for axes in figure.axes if axes.images]
        assert len(pictures) >= 6
        assert "<svg" in result._repr_html_()
    with pytest.raises(InputError, match='no option "colour"'):
        attribution.gradient(net, images).plot(colour="red")


def test_a_listener_of_occlusion_is_told_every_window_and_may_end_the_work():
    """The numbers told are those of the result; what the listener raises comes out."""
    torch.manual_seed(0)
    net = Network(nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4)), (1, 8, 8))
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    told = []
    made = attribution.occlusion(net, images, 1, window=3, stride=2, batch=4, progress=told.append)
    boxes = torch.cat([one.boxes for one in told])
    torch.testing.assert_close(boxes, made.boxes.reshape(-1, 4).repeat(2, 1))
    torch.testing.assert_close(torch.cat([one.probability for one in told]), made.probability.flatten())
    assert told[-1].done == told[-1].total == 32
    torch.testing.assert_close(
        made.values, attribution.occlusion(net, images, 1, window=3, stride=2).values, rtol=1e-5, atol=1e-6
    )

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attribution.occlusion(net, images, 1, window=3, stride=2, progress=stop)
