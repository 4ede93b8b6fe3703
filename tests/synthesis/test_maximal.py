"""Do made images excite units as they should? Closed forms, a trained network, and what each option does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome import InputError, LayerError, Network, load
from microtome.synthesis import PRIORS, Prior, maximize, maximize_class, objectives

PIXELS = Prior(canvas="pixels", lr=0.05, noise=0.05)


def linear_net(weight: Tensor, shape: tuple[int, int, int], **options: object) -> Network:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data.copy_(weight)
    layer.bias.data.zero_()
    return Network(nn.Sequential(nn.Flatten(), layer), shape, **options)  # type: ignore[arg-type]


class Small(nn.Module):
    """Two convolutions and a head, functional ReLUs."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 8, 5, padding=2)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.relu(self.conv2(x))
        return self.head(x.mean((2, 3)))


def small_net(size: int = 16, channels: int = 1, **options: object) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Network(Small(channels), (channels, size, size), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained() -> tuple[Network, Tensor]:
    """A network that tells horizontal from vertical bars and from noise, and its 300 images."""
    generator = torch.Generator().manual_seed(0)
    images = 0.1 * torch.rand(300, 1, 16, 16, generator=generator)
    labels = torch.arange(300) % 3
    for index in range(300):
        at = int(torch.randint(2, 13, (1,), generator=generator))
        if labels[index] == 0:
            images[index, 0, at : at + 2] += 0.8
        elif labels[index] == 1:
            images[index, 0, :, at : at + 2] += 0.8
    net = small_net(mean=0.1, std=0.3)
    optimiser = torch.optim.Adam(net.model.parameters(), 1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        functional.cross_entropy(net.model((images - 0.1) / 0.3), labels).backward()
        optimiser.step()
    assert (net.logits(images).argmax(1) == labels).float().mean() > 0.95
    return Network(net.model, (1, 16, 16), mean=0.1, std=0.3), images


# -- closed forms ------------------------------------------------------------------------------------------------


def test_a_linear_unit_in_the_box_likes_the_sign_pattern() -> None:
    """Oracle: the maximum of a linear function over a box is at the corner of the weights' signs."""
    weight = torch.randn(5, 36, generator=torch.Generator().manual_seed(1))
    made = maximize(linear_net(weight, (1, 6, 6)), "1", prior=PIXELS, steps=100)
    assert torch.equal(made.images.flatten(1), (weight > 0).float())
    torch.testing.assert_close(made.activation, weight.clamp(min=0).sum(1), rtol=1e-5, atol=0)
    torch.testing.assert_close(made.peak, made.activation)


def test_the_lowest_image_of_a_linear_unit_is_the_opposite_corner() -> None:
    weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    made = maximize(linear_net(weight, (1, 4, 4)), "1", prior=PIXELS, steps=100, sign=-1)
    assert torch.equal(made.images.flatten(1), (weight < 0).float())
    torch.testing.assert_close(made.activation, weight.clamp(max=0).sum(1), rtol=1e-5, atol=0)


def test_equation_12_of_a_linear_score_has_its_closed_form() -> None:
    """Oracle: d/dx (w x - l |x - m|^2 / P) = 0 at x = m + P w / 2 l; Adam's last steps are below 1e-3."""
    weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(2))
    net = linear_net(weight, (1, 4, 4), mean=0.25, std=1.0, pixels=None)
    made = maximize_class(net, prior=Prior(canvas="pixels", l2=40.0, relative=False), steps=400)
    expected = 0.25 + 16 * weight / (2 * 40.0)
    torch.testing.assert_close(made.images.flatten(1), expected, rtol=0, atol=2e-3)
    direction = functional.normalize(made.images.flatten(1) - 0.25)
    torch.testing.assert_close(direction, functional.normalize(weight), rtol=0, atol=5e-3)
    torch.testing.assert_close(made.activation, ((expected - 0.25) * weight).sum(1), rtol=1e-2, atol=0)


def test_a_convolution_s_neuron_likes_the_signs_of_its_kernel() -> None:
    """Oracle: the canvas is the field and the unit linear in it; shares no code with the ascent."""
    net = small_net()
    made = maximize(net, "conv1", prior=PIXELS, steps=100)
    kernel = net.model.conv1.weight.detach()
    assert made.images.shape == (6, 1, 5, 5)
    assert torch.equal(made.images, (kernel > 0).float())
    assert made.box == (6, 6, 11, 11)
    torch.testing.assert_close(
        made.activation, kernel.clamp(min=0).sum((1, 2, 3)) + net.model.conv1.bias.detach(), rtol=1e-5, atol=1e-6
    )


def test_a_direction_adds_its_channels() -> None:
    """Oracle: the signs of the mixed kernel."""
    net = small_net()
    vector = torch.tensor([[1.0, -1.0, 0.5, 0.0, 0.0, 2.0]])
    made = maximize(net, "conv1", directions=vector, prior=PIXELS, steps=100)
    mixed = torch.einsum("nc,cijk->nijk", vector, net.model.conv1.weight.detach())
    assert torch.equal(made.images, (mixed > 0).float())
    again = maximize(net, "conv1", directions=7 * vector, prior=PIXELS, steps=100)
    torch.testing.assert_close(made.activation, again.activation)


def test_one_neuron_at_the_border_sees_only_what_is_in_the_picture() -> None:
    net = small_net()
    made = maximize(net, "conv1", channels=2, position=(0, 15), prior=PIXELS, steps=100)
    assert made.box == (0, 13, 3, 16)
    assert torch.equal(made.images[0, 0], (net.model.conv1.weight[2, 0, 2:, :3] > 0).float())
    value = net.activations(made.on_picture(net), "conv1")["conv1"][0, 2, 0, 15]
    torch.testing.assert_close(made.activation[0], value)


# -- what is reported is what the network says ---------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "positive", "max", "center"])
def test_activation_is_the_value_of_the_image_without_augmentation(reduction: str) -> None:
    """Oracle: a plain pass of the network over the pictures, reduced by hand."""
    net = small_net()
    made = maximize(net, "conv2", channels=[1, 4], reduction=reduction, steps=12, size=16)
    values = net.activations(made.on_picture(net), "conv2")["conv2"]
    own = torch.stack([values[0, 1], values[1, 4]])
    by_hand = {
        "mean": own.mean((1, 2)),
        "positive": own.clamp(min=0).mean((1, 2)),
        "max": own.amax((1, 2)),
        "center": own[:, 4, 4],
    }
    torch.testing.assert_close(made.activation, by_hand[reduction])
    torch.testing.assert_close(made.peak, own.amax((1, 2)))
    torch.testing.assert_close(made.mean, own.mean((1, 2)))
    assert made.history.shape == (12, 2)


def test_a_small_canvas_is_measured_in_the_whole_picture() -> None:
    """Oracle: a plain pass over the picture; the canvas covers the middle, so the peak lies there."""
    net = small_net(size=80, channels=3, mean=0.4, std=0.2)
    made = maximize(net, "conv1", channels=[0, 3], size=24, steps=8)
    assert made.images.shape == (2, 3, 24, 24)
    pictures = made.on_picture(net)
    assert pictures.shape == (2, 3, 80, 80)
    torch.testing.assert_close(pictures[:, :, 0, 0], torch.full((2, 3), 0.4))
    top, left, bottom, right = made.box
    assert torch.equal(pictures[:, :, top:bottom, left:right], made.images)
    values = net.activations(pictures, "conv1")["conv1"][:, :, top:bottom, left:right]
    own = torch.stack([values[0, 0], values[1, 3]])
    torch.testing.assert_close(made.peak, own.amax((1, 2)))
    torch.testing.assert_close(made.activation, own.clamp(min=0).mean((1, 2)))


def test_made_images_beat_the_best_of_the_data(trained: tuple[Network, Tensor]) -> None:
    net, images = trained
    for layer in ("conv1", "conv2"):
        best = net.activations(images, layer)[layer].amax((0, 2, 3))
        made = maximize(net, layer, steps=96)
        assert bool((made.peak > best).all()), layer
    assert bool((maximize_class(net, steps=96).activation > net.logits(images).amax(0)).all())


def test_a_score_that_nothing_supports_is_told_apart_by_its_sign(trained: tuple[Network, Tensor]) -> None:
    net, _ = trained
    high, low = (maximize(net, "conv2", channels=range(4), steps=32, sign=sign) for sign in (1, -1))
    flat = net.activations(torch.full((1, 1, 16, 16), 0.1), "conv2")["conv2"][0, :4, 4, 4]
    assert bool((high.activation > flat).all())
    assert bool((low.activation < flat).all())
    assert bool((low.peak <= low.mean).all())


# -- units without a gradient ----------------------------------------------------------------------------------------


class Blocked(nn.Module):
    """Behind two ReLUs that are off everywhere for gray images and noise."""

    def __init__(self, clip: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.clip = clip

    def forward(self, x: Tensor) -> Tensor:
        step = functional.relu6 if self.clip else functional.relu
        x = step(self.conv1(x) - 1.2)
        return step(self.conv2(x) - 0.05).amax((2, 3))


@pytest.mark.parametrize("clip", [False, True])
def test_a_unit_that_no_gradient_reaches_comes_alive(clip: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Blocked(clip)
    model.conv1.weight.data.mul_(3)
    net = Network(model, (1, 12, 12))
    layer = "/relu6.1" if clip else "/relu.1"
    start = torch.full((1, 1, 12, 12), 0.0) + PIXELS.noise * torch.randn(1, 1, 12, 12).clamp(min=0)
    leaf = start.requires_grad_()
    slope = torch.autograd.grad(net.forward(leaf, layer)[layer].sum(), leaf)[0]
    assert not bool(slope.any())  # plain ascent would stay where it is
    made = maximize(net, layer, prior=PIXELS, steps=64)
    assert bool((made.peak > 0).any())
    assert int((made.peak > 0).sum()) >= 3


# -- seeds, batches, options -------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_images_and_leaves_the_global_state() -> None:
    net = small_net()
    before = torch.get_rng_state()
    first = maximize(net, "conv2", channels=[0, 1], steps=10, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(first.images, maximize(net, "conv2", channels=[0, 1], steps=10, seed=5).images)
    torch.set_rng_state(before)


@pytest.mark.parametrize("prior", ["natural", "strokes"])
def test_a_unit_s_image_does_not_depend_on_the_others(prior: str) -> None:
    """Bound: sums in another order differ by 1e-7, which 24 steps of Adam raise to below 1e-3."""
    net = small_net()
    alone = maximize(net, "conv2", channels=[5], steps=24, prior=prior)
    among = maximize(net, "conv2", channels=range(8), steps=24, prior=prior)
    torch.testing.assert_close(alone.images, among.of(5), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "option",
    [
        {"steps": 20},
        {"seed": 1},
        {"reduction": "mean"},
        {"reduction": "max"},
        {"position": (1, 2)},
        {"sign": -1},
        {"prior": "natural"},
        {"prior": replace(PIXELS, lr=0.1)},
        {"prior": replace(PIXELS, noise=0.2)},
        {"prior": replace(PIXELS, l2=1.0)},
        {"prior": replace(PIXELS, l2=1.0, relative=False)},
        {"prior": replace(PIXELS, tv=1.0)},
        {"prior": replace(PIXELS, alpha=1.0)},
        {"prior": replace(PIXELS, blur=1.0)},
        {"prior": replace(PIXELS, blur=1.0, blur_every=2)},
        {"prior": replace(PIXELS, small_norm=30)},
        {"prior": replace(PIXELS, small_contribution=30)},
        {"prior": replace(PIXELS, jitter=2)},
        {"prior": replace(PIXELS, rotate=20)},
        {"prior": replace(PIXELS, scale=0.2)},
    ],
    ids=str,
)
def test_every_option_changes_the_image(option: dict[str, object]) -> None:
    net = small_net(mean=0.3, std=0.3)
    plain: dict[str, object] = {"steps": 10, "prior": PIXELS, "size": 16, "seed": 0}
    first = maximize(net, "conv2", channels=[1], **plain)  # type: ignore[arg-type]
    other = maximize(net, "conv2", channels=[1], **{**plain, **option})  # type: ignore[arg-type]
    assert not torch.equal(first.images, other.images)
    if isinstance(option.get("prior"), Prior) and option["prior"].blur_every == 2:  # type: ignore[attr-defined]
        rarer = maximize(net, "conv2", channels=[1], **{**plain, "prior": replace(PIXELS, blur=1.0)})  # type: ignore[arg-type]
        assert not torch.equal(rarer.images, other.images)


def test_more_starts_never_reach_less() -> None:
    net = small_net()
    one, five = (maximize(net, "conv2", steps=10, starts=starts, size=16) for starts in (1, 5))
    assert bool((five.activation >= one.activation).all())
    assert bool((five.activation > one.activation).any())


def test_diverse_images_differ_and_the_penalty_makes_them_differ_more() -> None:
    from microtome.synthesis.optimisation.diversity import similarity

    net = small_net(size=24)
    alike = []
    for diversity in (0.0, 2.0):
        made = maximize(
            net, "conv2", channels=[0, 1, 2], diverse=3, diversity=diversity, reduction="mean", size=24, steps=60
        )
        assert made.images.shape == (9, 1, 24, 24)
        assert made.channel.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert made.variant.tolist() == [0, 1, 2] * 3
        alike.append(similarity(net.activations(made.on_picture(net), "conv2")["conv2"], 3).mean())
    assert alike[1] < alike[0] - 0.01


def test_images_stay_in_the_box_and_can_be_saved(tmp_path: object) -> None:
    net = small_net(channels=3)
    made = maximize(net, "conv2", channels=[0], steps=6, prior="natural")
    assert 0 <= float(made.images.min()) <= float(made.images.max()) <= 1
    made.save(f"{tmp_path}/made.safetensors")
    back = load(f"{tmp_path}/made.safetensors")
    assert torch.equal(back.images, made.images)  # type: ignore[attr-defined]
    assert back.provenance == made.provenance


def test_the_model_is_left_as_it_was_found() -> None:
    net = small_net()
    net.model.train()
    before = {key: value.clone() for key, value in net.model.state_dict().items()}
    maximize(net, "conv2", steps=3)
    with pytest.raises(InputError):
        maximize(net, "conv2", channels=[99])
    assert net.model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.model.state_dict().items())


# -- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": [8]}, "0 to 7"),
        ({"channels": []}, "at least one"),
        ({"channels": [0], "directions": torch.ones(8)}, "not both"),
        ({"directions": torch.ones(7)}, r"\(n, 8\)"),
        ({"directions": torch.zeros(8)}, "non-zero"),
        ({"directions": torch.full((8,), torch.inf)}, "finite, non-zero"),
        ({"diversity": -1.0}, "diversity must be finite and not negative"),
        ({"diversity": float("inf")}, "diversity must be finite and not negative"),
        ({"seed": -1}, "seed: expected a whole number from 0 to 4,294,967,295, got -1"),
        ({"sign": 2}, "1 or -1"),
        ({"steps": 0}, "steps is at least 1"),
        ({"diverse": 0}, "diverse is at least 1"),
        ({"starts": 0}, "starts is at least 1"),
        ({"reduction": "median"}, "mean, positive, max, center"),
        ({"reduction": "max", "position": (0, 0)}, "not both"),
        ({"position": (0, 8)}, "position inside"),
        ({"position": (0,)}, "position inside"),
        ({"size": 17}, "at most 16 x 16"),
        ({"prior": "nice"}, "Known: natural"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_one_clear_error(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        maximize(small_net(), "conv2", **{"steps": 1, **options})  # type: ignore[arg-type]


def test_an_unknown_layer_or_class_names_the_nearest() -> None:
    with pytest.raises(LayerError, match="conv2"):
        maximize(small_net(), "conv3")
    with pytest.raises(InputError, match="0 to 2"):
        maximize_class(small_net(), [3])
    with pytest.raises(InputError, match="Nearest: dog"):
        maximize_class(small_net(classes=["cat", "dog", "cow"]), "dgo")


def test_classes_go_by_name() -> None:
    made = maximize_class(small_net(classes=["cat", "dog", "cow"]), ["cow"], steps=2)
    assert made.names == ["cow"]
    assert made.channel.tolist() == [2]
    assert made.layer == "logits"


@pytest.mark.parametrize("values", [{"canvas": "oil"}, {"lr": 0.0}, {"tv": -1.0}, {"canvas": "fourier", "blur": 1.0}])
def test_a_prior_that_cannot_be_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Prior(**values)  # type: ignore[arg-type]


def test_every_named_prior_makes_images() -> None:
    net = small_net()
    made = [maximize(net, "conv2", channels=[0], prior=name, steps=4, size=16).images for name in PRIORS]
    assert all(bool(image.isfinite().all()) for image in made)
    assert all(not torch.equal(a, b) for i, a in enumerate(made) for b in made[:i])


def test_objectives_add_and_multiply() -> None:
    values = {"a": torch.arange(8.0).reshape(2, 2, 1, 2), "logits": torch.tensor([[1.0, 2.0], [3.0, 5.0]])}
    rows = torch.arange(2)
    both = 2 * objectives.channel("a", [0, 1]) - objectives.logit([1, 0]) * objectives.logit(0) + 1
    assert both.layers == ("a", "logits")
    assert both.score(values, rows).tolist() == [2 * 0.5 - 2 * 1 + 1, 2 * 6.5 - 3 * 3 + 1]
    with pytest.raises(InputError, match="2 and 3 rows"):
        objectives.channel("a", [0, 1]) + objectives.logit([0, 1, 0])
