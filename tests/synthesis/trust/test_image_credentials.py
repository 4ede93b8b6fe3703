"""Credentials of superstimuli: planted fooling circuits are told from honest units, each measurement is right."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome import InputError, Network, synthesis, units
from microtome.synthesis.trust import contribution_paths
from synthesis.trust import fooling_circuits
from synthesis.trust.fooling_circuits import Planting, planting

LAYER = "8"


def _checked(seed: int, *, steps: int, restarts: int) -> tuple[Planting, synthesis.Superstimuli, Tensor]:
    """A planting, its superstimuli with credentials, and whether each image is driven by the unit's decoy."""
    planted = planting(seed)
    patches = units.top_patches(planted.net, list(planted.photos), LAYER)[LAYER]
    made = synthesis.maximize(planted.net, LAYER, steps=steps)
    middle = torch.tensor([[2, 2]] * len(planted.kinds))
    share = fooling_circuits.decoyed(planted, made.on_picture(planted.net), made.channel, middle)
    checked = synthesis.credentials(planted.net, made, patches, restarts=restarts, retry=False)
    return planted, checked, share > 0.5


def _area(margin: Tensor, fooled: Tensor) -> float:
    """Area under the ROC curve: the share of pairs in which the honest image has the larger margin."""
    honest, wrong = margin[~fooled][:, None], margin[fooled][None]
    return float(((honest > wrong).double() + 0.5 * (honest == wrong).double()).mean())


def test_planted_fooling_circuits_are_found() -> None:
    """Planted truth: a decoy drives the superstimulus, and the photos do not have it. A sample of the slow test."""
    checked = [_checked(seed, steps=48, restarts=1) for seed in (1, 2)]
    fooled = torch.cat([one[2] for one in checked])
    margin = torch.cat([one[1].margin for one in checked])
    assert int(fooled.sum()) == 6
    assert _area(margin, fooled) >= 0.95
    assert bool((margin[fooled] < 1).all())
    assert bool((margin[~fooled] >= 1).all())
    for _, one, truth in checked:
        assert one.trusted.tolist() == (~truth).tolist()
        for wrong, reason in zip(truth.tolist(), one.reasons, strict=True):
            assert ("its path differs" in reason) == wrong


@pytest.mark.slow
def test_the_flag_on_many_fooling_circuits() -> None:
    """120 fooled and 160 honest units: the area under the ROC curve of the margin is at least .95."""
    checked = [_checked(seed, steps=64, restarts=2) for seed in range(40)]
    fooled = torch.cat([one[2] for one in checked])
    margin = torch.cat([one[1].margin for one in checked])
    assert int(fooled.sum()) >= 100
    assert _area(margin, fooled) >= 0.95
    assert float((margin[fooled] < 1).double().mean()) >= 0.95
    assert float((margin[~fooled] >= 1).double().mean()) >= 0.95


def test_a_fooled_unit_is_made_again_from_a_patch() -> None:
    """The image that starts from a photo stays on the path of photos."""
    planted = planting(1)
    patches = units.top_patches(planted.net, list(planted.photos), LAYER)[LAYER]
    fooled = planted.kinds.index("gate")
    made = synthesis.maximize(planted.net, LAYER, channels=[fooled], steps=48)
    found = synthesis.credentials(planted.net, made, patches, restarts=1)
    assert found.origin == ["a patch of the data"]
    assert bool(found.trusted.all())
    assert found.reasons == [""]
    layer = planted.net.activations(found.on_picture(planted.net), LAYER)[LAYER][0, fooled]
    assert float(layer.max()) == pytest.approx(float(found.peak[0]), rel=1e-5)
    at = torch.tensor([divmod(int(layer.argmax()), 4)])
    share = fooling_circuits.decoyed(planted, found.on_picture(planted.net), torch.tensor([fooled]), at)
    assert float(share) < 0.1


# -- the measurements --------------------------------------------------------------------------------------------------


def _small(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    )  # fmt: skip
    return Network(model, (1, 12, 12))


@pytest.fixture(scope="module")
def small() -> tuple[Network, Tensor, units.LayerPatches, synthesis.Superstimuli]:
    net = _small()
    images = torch.rand(40, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    patches = units.top_patches(net, list(images), "2", k=5)["2"]
    return net, images, patches, synthesis.maximize(net, "2", steps=12)


def test_paths_are_weights_times_inputs(small) -> None:
    """Oracle: for a convolution, the contribution of an input channel is the kernel times the window, by hand."""
    net, images, _, _ = small
    assert contribution_paths.layers_below(net, "2") == ["1", "0"]
    entry = (3, (4, 2))
    path = contribution_paths.paths(net, "2", images[:1], [entry], ["1"])[0][0]
    window = functional.relu(net.model[0](images[:1]))[0, :, 4:7, 2:5]
    by_hand = (window * net.model[2].weight[3]).sum((1, 2)).double()
    assert torch.allclose(path, by_hand / by_hand.norm(), atol=1e-6)


def test_similarity_of_paths_by_hand() -> None:
    """Closed form: patches at cosine .8 to each other, an image at cosine .4 to the nearer one; two layers' mean."""
    patches = torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0]], dtype=torch.float64)
    image = torch.tensor([[0.4, 0.0, (1 - 0.16) ** 0.5]], dtype=torch.float64)
    same = contribution_paths.path_similarity([image], [patches], 1)
    assert float(same) == pytest.approx(0.4 / 0.8)
    both = contribution_paths.path_similarity([image, patches[:1]], [patches, patches], 1)
    assert float(both) == pytest.approx((0.5 + 1) / 2)
    assert float(contribution_paths.path_similarity([-patches[:1]], [patches], 1)) == 0
    assert contribution_paths.path_similarity([image], [patches[:1]], 1).isnan().all()


def test_percentile_and_agreement_against_the_definition(small) -> None:
    """Oracle: the share of images with a lower maximum, counted; cosines of restarts with public functions."""
    net, images, patches, made = small
    found = synthesis.credentials(net, made, patches, restarts=1, retry=False)
    highest = net.activations(images, "2")["2"].flatten(2).amax(2)
    for unit in range(4):
        share = 100 * float((highest[:, unit] <= float(made.peak[unit])).double().mean())
        assert float(found.percentile[unit]) == pytest.approx(share, abs=3)  # interpolated between quantiles
    assert torch.equal(found.images, made.images)
    assert found.agreement.shape == (4,)
    assert bool(((found.agreement >= 0) & (found.agreement <= 1)).all())
    assert bool(synthesis.credentials(net, made, patches, restarts=0).agreement.isnan().all())


def test_a_low_image_fails_by_its_percentile(small) -> None:
    net, _, patches, made = small
    low = dataclasses.replace(made, images=synthesis.maximize(net, "2", sign=-1, steps=12).images)
    found = synthesis.credentials(net, low, patches, restarts=0, retry=False)
    assert not bool(found.trusted.any())
    assert int((found.percentile < 95).sum()) == 3
    for percentile, reason in zip(found.percentile.tolist(), found.reasons, strict=True):
        assert (f"only {percentile:.0f} % of the images in the data" in reason) == (percentile < 95)
    better = synthesis.credentials(net, low, patches, restarts=1)
    assert bool((better.margin >= found.margin).all())
    assert set(better.origin) != {"first start"}


def test_a_second_network_counts(small) -> None:
    """The same network responds alike; one with the layer's sign turned does not."""
    net, _, patches, made = small
    alike = synthesis.credentials(net, made, patches, restarts=0, retry=False, second=_small())
    assert float(alike.second.min()) >= 95
    other = _small(7)
    apart = synthesis.credentials(net, made, patches, restarts=0, retry=False, second=other)
    assert bool(alike.second.ne(apart.second).any())
    assert bool(synthesis.credentials(net, made, patches, restarts=0, retry=False).second.isnan().all())


def test_nothing_depends_on_the_other_units_or_their_order(small) -> None:
    """Bound: sums in another order differ by 1e-7, which 12 steps of Adam raise to below 1e-3."""
    net, _, patches, made = small
    every = synthesis.credentials(net, made, patches, restarts=1)
    turned = synthesis.credentials(net, synthesis.maximize(net, "2", channels=[3, 1], steps=12), patches, restarts=1)
    for row, unit in enumerate((3, 1)):
        assert torch.allclose(turned.images[row], every.images[unit], atol=1e-3)
        for name in ("percentile", "agreement", "path_similarity", "margin"):
            value, same = float(getattr(turned, name)[row]), float(getattr(every, name)[unit])
            assert value == pytest.approx(same, rel=1e-2, abs=1e-2), name
        assert turned.origin[row] == every.origin[unit]


def test_a_dead_unit_is_never_trusted(small) -> None:
    net = _small()
    with torch.no_grad():
        net.model[2].bias[1] = -100.0
    images = torch.rand(20, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    patches = units.top_patches(net, list(images), "3")["3"]
    found = synthesis.credentials(net, synthesis.maximize(net, "3", steps=4), patches, restarts=0)
    assert not bool(found.trusted[1])
    assert found.reasons[1] == "no image of the data drives the unit"


def test_first_layers_have_no_path(small) -> None:
    net, images, _, _ = small
    patches = units.top_patches(net, list(images), "0")["0"]
    found = synthesis.credentials(net, synthesis.maximize(net, "0", steps=8), patches, restarts=1)
    assert bool(found.path_similarity.isnan().all())
    assert bool((found.trusted | patches.dead).all())


def test_lowering_images_classes_and_diverse_ones(small, tmp_path) -> None:
    net, images, patches, _ = small
    low = synthesis.credentials(net, synthesis.maximize(net, "2", sign=-1, steps=12), patches, restarts=1)
    assert bool((low.percentile >= 95).all())
    diverse = synthesis.credentials(net, synthesis.maximize(net, "2", diverse=2, steps=4), patches)
    assert diverse.margin.shape == (8,)
    assert bool(diverse.agreement.isnan().all())
    scores = units.top_patches(net, list(images), "6")["6"]
    classes = synthesis.credentials(net, synthesis.maximize_class(net, steps=8), scores, restarts=1)
    assert classes.names == ["class 0", "class 1", "class 2"]
    classes.save(tmp_path / "classes.safetensors")
    again = synthesis.Superstimuli.load(tmp_path / "classes.safetensors")
    assert again.reasons == classes.reasons
    assert torch.equal(again.trusted, classes.trusted)
    low.plot()
    low.plot(channel=2)


def test_what_does_not_fit_is_one_clear_error(small) -> None:
    net, _, patches, made = small
    with pytest.raises(InputError, match="the patches to"):
        synthesis.credentials(net, synthesis.maximize(net, "0", steps=1), patches)
    with pytest.raises(InputError, match="directions"):
        synthesis.credentials(net, synthesis.maximize(net, "2", directions=torch.ones(4), steps=1), patches)
    with pytest.raises(InputError, match="restarts"):
        synthesis.credentials(net, made, patches, restarts=-1)
    with pytest.raises(InputError, match="begin is one image"):
        synthesis.maximize(net, "2", begin=torch.zeros(1, 4, 4))
