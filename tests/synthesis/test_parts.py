"""Parts of gradient ascent: penalties, canvases, augmentation, clipping, ReLU override, placement."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome import InputError, Network
from microtome.synthesis import placement
from microtome.synthesis.optimisation import clipping, penalties
from microtome.synthesis.optimisation.augment import Moves
from microtome.synthesis.optimisation.canvas import Fourier, Pixels
from microtome.synthesis.optimisation.diversity import similarity
from microtome.synthesis.optimisation.relu_override import RedirectedReLU


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- penalties ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "penalty",
    [
        penalties.l2,
        lambda x: penalties.l2(x, 0.3),
        penalties.total_variation,
        lambda x: penalties.total_variation(x, 1.0),
        penalties.alpha_norm,
        lambda x: penalties.alpha_norm(x, 0.2, 3.0),
    ],
)
def test_penalties_have_the_slope_of_their_finite_differences(penalty: object) -> None:
    """Oracle: central differences in float64; their error is of order h^2 = 1e-10."""
    images = draw(2, 2, 4, 5).requires_grad_()
    assert torch.autograd.gradcheck(penalty, images, eps=1e-5, atol=1e-6)  # type: ignore[arg-type]
    assert penalty(images).shape == (2,)  # type: ignore[operator]


def test_total_variation_is_the_sum_over_neighbours() -> None:
    """Oracle: the definition as a loop over pixels."""
    image = draw(1, 2, 4, 3)
    for beta in (1.0, 2.0, 3.0):
        total = 0.0
        for c in range(2):
            for i in range(4):
                for j in range(3):
                    right = float(image[0, c, i, j + 1] - image[0, c, i, j]) if j < 2 else 0.0
                    down = float(image[0, c, i + 1, j] - image[0, c, i, j]) if i < 3 else 0.0
                    total += (right**2 + down**2) ** (beta / 2)
        assert float(penalties.total_variation(image, beta)) == pytest.approx(total, rel=1e-5)


def test_norms_by_hand() -> None:
    image = draw(1, 1, 3, 3)
    assert float(penalties.l2(image, 0.5)) == pytest.approx(float(((image - 0.5) ** 2).sum()))
    assert float(penalties.alpha_norm(image, 0.5)) == pytest.approx(float(((image - 0.5) ** 6).sum()))


# -- clipping ------------------------------------------------------------------------------------------------------


def test_blur_keeps_the_mean_and_is_a_gaussian() -> None:
    """Oracle: the impulse answer is the normalised Gaussian, by the formula."""
    image = torch.zeros(1, 1, 21, 21)
    image[0, 0, 10, 10] = 1
    blurred = clipping.blurred(image, 1.5)
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-6)
    assert float(blurred[0, 0, 10, 12] / blurred[0, 0, 10, 10]) == pytest.approx(
        torch.exp(torch.tensor(-0.5 * 4 / 2.25)).item(), rel=1e-5
    )
    assert torch.equal(clipping.blurred(image, 0.0), image)


def test_clipping_sets_the_least_pixels_to_the_centre() -> None:
    images, centre = draw(2, 3, 6, 6).float(), torch.full((3, 1, 1), 0.25)
    norm = clipping.pixel_norm(images, centre)
    torch.testing.assert_close(norm, (images - 0.25).norm(dim=1))
    clipped = clipping.without_small(images, centre, norm, 25)
    gone = (clipped == 0.25).all(1)
    assert gone.flatten(1).sum(1).tolist() == [9, 9]
    assert float(norm[gone].max()) < float(norm[~gone].min()) or not torch.equal(norm[0], norm[1])
    assert torch.equal(clipped.movedim(1, -1)[~gone], images.movedim(1, -1)[~gone])
    gradient = draw(2, 3, 6, 6, seed=1).float()
    share = clipping.pixel_contribution(images, centre, gradient)
    torch.testing.assert_close(share, ((images - 0.25) * gradient).sum(1).abs())
    with pytest.raises(InputError):
        clipping.without_small(images, centre, norm, 120)


# -- canvases --------------------------------------------------------------------------------------------------------


def test_a_flat_spectrum_is_the_middle_of_the_box() -> None:
    canvas = Fourier((2, 3, 8, 10), torch.zeros(1, 3, 8, 6, 2), low=-1.0, high=3.0)
    torch.testing.assert_close(canvas.images(), torch.full((2, 3, 8, 10), 1.0))


def test_one_frequency_is_one_wave_of_weight_one_over_f() -> None:
    """Oracle: the inverse Fourier sum of one coefficient, written as a cosine; amplitudes fall as 1/f."""
    peaks = []
    for k in (1, 2):
        coordinates = torch.zeros(1, 1, 16, 9, 2)
        coordinates[0, 0, 0, k, 0] = 1.0
        wave = torch.logit(Fourier((1, 1, 16, 16), coordinates).images())[0, 0]
        position = torch.arange(16) * 2 * torch.pi * k / 16
        expected = 0.25 * 16 / (k / 16) * 2 / 256 * position.cos()
        torch.testing.assert_close(wave, expected.expand(16, 16), rtol=1e-3, atol=1e-5)
        peaks.append(float(wave.detach().max()))
    assert peaks[0] == pytest.approx(2 * peaks[1], rel=1e-3)


def test_colours_go_together_as_in_photographs() -> None:
    noise = draw(8, 3, 16, 9, 2).float()
    image = torch.logit(Fourier((8, 3, 16, 16), 0.05 * noise).images()).detach()
    assert float(torch.corrcoef(image.movedim(1, 0).flatten(1))[0, 1]) > 0.7
    gray = torch.logit(Fourier((8, 2, 16, 16), 0.05 * noise[:, :2]).images()).detach()
    assert abs(float(torch.corrcoef(gray.movedim(1, 0).flatten(1))[0, 1])) < 0.3


def test_pixels_are_projected_onto_the_box() -> None:
    canvas = Pixels(torch.tensor([[[[-0.5, 0.5, 1.5]]]]))
    assert canvas.images().tolist() == [[[[0.0, 0.5, 1.0]]]]
    assert Pixels(torch.tensor([[[[-0.5]]]]), None, None).images().item() == -0.5


# -- motion ------------------------------------------------------------------------------------------------------------


def transformed(
    images: torch.Tensor, generator: torch.Generator, *, background: torch.Tensor, **options: float
) -> torch.Tensor:
    """The first move of a generator, applied to images."""
    moves = Moves(generator, 1, (images.shape[2], images.shape[3]), like=images, **options)
    return moves.apply(images, moves[0], background)


def test_augmentation_is_one_similarity_for_all_images_and_fills_with_background() -> None:
    images, background = torch.rand(3, 2, 20, 20), torch.tensor([0.2, 0.7])[:, None, None]
    options = {"jitter": 3.0, "rotate": 10.0, "scale": 0.1, "background": background}
    first = transformed(images, torch.Generator().manual_seed(1), **options)  # type: ignore[arg-type]
    alone = transformed(images[1:2], torch.Generator().manual_seed(1), **options)  # type: ignore[arg-type]
    torch.testing.assert_close(first[1:2], alone)
    flat = background.expand(1, 2, 20, 20)
    torch.testing.assert_close(transformed(flat, torch.Generator(), **options), flat)  # type: ignore[arg-type]


def test_a_shift_is_exact_and_never_beyond_the_jitter() -> None:
    """Oracle: where a single bright pixel lands."""
    image = torch.zeros(1, 1, 15, 15)
    image[0, 0, 7, 7] = 1
    background, seen = torch.zeros(1, 1, 1), set()
    for seed in range(40):
        out = transformed(
            image, torch.Generator().manual_seed(seed), jitter=2, rotate=0, scale=0, background=background
        )
        assert float(out.sum()) == 1.0
        seen.add(tuple((out[0, 0].nonzero()[0] - 7).tolist()))
    assert max(abs(step) for pair in seen for step in pair) == 2
    assert len(seen) > 10


def test_a_turn_moves_a_pixel_along_its_circle() -> None:
    """Oracle: the mass centre of a blob turned by the drawn angle, with pixels off the centre by a half."""
    image = torch.zeros(1, 1, 41, 41)
    image[0, 0, 19:22, 34:37] = 1
    generator = torch.Generator().manual_seed(3)
    angle = (2 * torch.rand(4, generator=torch.Generator().manual_seed(3)) - 1)[2] * 30
    out = transformed(image, generator, jitter=0, rotate=30, scale=0, background=torch.zeros(1, 1, 1))[0, 0]
    rows, columns = torch.meshgrid(torch.arange(41.0) - 20, torch.arange(41.0) - 20, indexing="ij")
    y, x = (out * rows).sum() / out.sum(), (out * columns).sum() / out.sum()
    assert float((x.square() + y.square()).sqrt()) == pytest.approx(15, abs=0.1)
    assert abs(float(torch.atan2(y, x).rad2deg())) == pytest.approx(abs(float(angle)), abs=0.5)


# -- likeness, opened ReLUs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6, 5, 2, 2), (6, 3, 4, 4)])
def test_similarity_is_the_cosine_of_gram_matrices(shape: tuple[int, ...]) -> None:
    """Oracle: Gram matrices and cosines written out; both ways of multiplying are used."""
    value = draw(*shape)
    found = similarity(value, 3)
    for n in range(6):
        group = [m for m in range(n // 3 * 3, n // 3 * 3 + 3) if m != n]
        grams = [(value[m].flatten(1) @ value[m].flatten(1).T).flatten() for m in (n, *group)]
        expected = sum(float(functional.cosine_similarity(grams[0], other, dim=0)) for other in grams[1:]) / 2
        assert float(found[n]) == pytest.approx(expected, rel=1e-6)


def test_a_blocked_image_gets_the_opening_part_and_others_their_gradient() -> None:
    """Oracle: the rule written out for two images, one with a live position."""
    net = Network(nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(3, 1, bias=False)), (1, 1, 3), pixels=None)
    net.model[2].weight.data.copy_(torch.tensor([[1.0, -2.0, 3.0]]))
    images = torch.tensor([[[[-1.0, -1.0, -1.0]]], [[[1.0, -1.0, -1.0]]]]).requires_grad_()
    score = net.forward(images, "2", rules=RedirectedReLU())["2"].sum()
    slope = torch.autograd.grad(score, images)[0]
    assert slope.flatten(1).tolist() == [[1.0, 0.0, 3.0], [1.0, 0.0, 0.0]]


def test_relu6_opens_at_both_ends() -> None:
    net = Network(nn.Sequential(nn.ReLU6(), nn.Flatten(), nn.Linear(4, 1, bias=False)), (1, 1, 4), pixels=None)
    net.model[2].weight.data.copy_(torch.tensor([[1.0, -1.0, 1.0, -1.0]]))
    images = torch.tensor([[[[-1.0, -1.0, 7.0, 7.0]]]]).requires_grad_()
    slope = torch.autograd.grad(net.forward(images, "2", rules=RedirectedReLU())["2"].sum(), images)[0]
    assert slope.flatten().tolist() == [1.0, 0.0, 0.0, -1.0]


# -- placement ---------------------------------------------------------------------------------------------------


def deep_net(size: int = 96) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, padding=1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
        )  # fmt: skip
    return Network(model, (3, size, size))


def test_the_recommended_canvas_is_twice_the_field() -> None:
    net = deep_net()
    assert placement.recommended_size(net, "0") == 16
    assert placement.recommended_size(net, "2") == 16
    assert placement.recommended_size(net, "5") is None
    assert placement.recommended_size(deep_net(48), "2") is None


def test_a_neuron_s_window_computes_what_the_picture_computes() -> None:
    """Oracle: the network on the picture, at the neuron; the window is on the grid of the strides."""
    net = deep_net()
    place, local = placement.around(net, "2", (12, 7))
    assert place.size == (7, 7)
    assert place.window != (0, 0, 96, 96)
    images = torch.rand(2, 3, *place.size)
    here = net.forward(place.in_window(images, net), "2")["2"][:, :, local[0], local[1]]
    there = net.forward(place.in_picture(images, net), "2")["2"][:, :, 12, 7]
    torch.testing.assert_close(here, there)


def test_the_chunk_is_bounded_by_memory() -> None:
    net = deep_net()
    whole = placement.images_per_pass(net, ("2",), (0, 0, 96, 96))
    assert 1 <= whole <= 64
    wide = Network(nn.Sequential(nn.Conv2d(3, 600, 3, padding=1)), (3, 200, 200))
    assert placement.images_per_pass(wide, ("0",), (0, 0, 200, 200)) == 2
    assert placement.images_per_pass(wide, ("0",), (0, 0, 50, 50)) > 30
