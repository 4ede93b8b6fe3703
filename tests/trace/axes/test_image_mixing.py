"""Are images that influence each other noticed: in a whole batch, in twos, by halves or by their position?

The oracle is the model itself: the scores of an image beside others, held against those that it has alone or in a pair.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network, attribution, units

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Mixing(nn.Module):
    """A convolution, whose maps ``mix`` changes, and a linear layer."""

    def __init__(self, mix) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head, self.mix = nn.Conv2d(3, 6, 3), nn.Linear(6, 4), mix

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.stem(x)).mean((2, 3)))


MIXING = {
    "batch statistics": lambda y: F.batch_norm(y, None, None, training=True),
    "by hand": lambda y: (y - y.mean((0, 2, 3), keepdim=True)) / y.std((0, 2, 3), keepdim=True),
    "largest of the batch": lambda y: y / y.abs().max(),
    "a Python number": lambda y: y / float(y.abs().mean()),
    "attention among images": lambda y: ((y.flatten(1) @ y.flatten(1).T).softmax(1) @ y.flatten(1)).view_as(y),
    "one behind the other": lambda y: y.cumsum(0),
    "the image before": lambda y: torch.cat([y[:1], y[1:] + y[:-1]]),
    "in place, and written over": lambda y: y.sub_(y.mean(0)).relu_(),
    "sorted": lambda y: y.sort(0)[0],
}  # fmt: skip


@pytest.mark.parametrize("side", [8, 128])  # read at its own size, and with smaller images
@pytest.mark.parametrize("mix", MIXING)
def test_images_that_influence_each_other_are_said(mix, side):
    net = Network(Mixing(MIXING[mix]), (3, side, side))
    assert net.graph.mixes
    assert "influence each other" in repr(net)
    made = units.activation_maps(net, torch.rand(4, 3, side, side), "stem")
    assert "influence each other" in made.provenance.notes[0]
    assert not net.layer("stem").axes.mixed
    assert net.layer("head").axes.mixed


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(6), nn.InstanceNorm2d(6), nn.GroupNorm(2, 6), nn.Identity()])
def test_norms_of_single_images_do_not_mix(norm):
    net = Network(Mixing(norm).eval(), (3, 8, 8))
    assert net.graph.mixes == ""
    assert net.notes == []


@pytest.mark.parametrize(("side", "passes"), [(8, [(1, 8), (2, 8)]), (128, [(1, 128), (1, 64), (4, 64)])])
def test_no_image_is_changed_where_each_is_as_it_is_alone(side, passes):
    """Two more passes are needed only if an image in a batch differs from the image alone."""
    seen: list[tuple[int, int]] = []

    class Counted(Mixing):
        def forward(self, x: Tensor) -> Tensor:
            seen.append((len(x), x.shape[2]))
            return super().forward(x)

    Network(Counted(lambda y: y.relu_().permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)), (3, side, side))
    assert seen == passes
    seen.clear()
    Network(Counted(lambda y: y + 1e-3 * y.mean(0)), (3, side, side))
    assert len(seen) == len(passes) + 2


def every_second(y: Tensor) -> Tensor:
    first, second = y[0::2], y[1::2]
    return torch.stack([first + second, first - second], 1).flatten(0, 1)


def by_view(y: Tensor) -> Tensor:
    pairs = y.view(len(y) // 2, 2, *y.shape[1:])
    return (pairs + pairs.mean(1, keepdim=True)).view_as(y)


def first_of_a_pair(y: Tensor) -> Tensor:
    """Only the second image of a pair takes from the other."""
    pairs = y.view(len(y) // 2, 2, *y.shape[1:])
    return torch.stack([pairs[:, 0], pairs[:, 1] + pairs[:, 0].abs()], 1).view_as(y)


NEEDS_TWO = {"every second": every_second, "by view": by_view, "first of a pair": first_of_a_pair}


@pytest.mark.parametrize("side", [8, 128])
@pytest.mark.parametrize("name", NEEDS_TWO)
def test_a_model_of_pairs_is_read_in_pairs_and_said(name, side):
    net = Network(Mixing(NEEDS_TWO[name]), (3, side, side))
    assert net.graph.mixes
    assert net.graph.batch == net.admitted(64) == 2
    assert any("influence each other" in note for note in net.notes)
    assert any("2 images, but not 3" in note for note in net.notes)
    assert not net.layer("stem").axes.mixed
    assert net.layer("head").axes.mixed
    assert (str(net.layer("stem").axes), net.layer("stem").axes.measured) == (f"N C {side - 2} {side - 2}", True)
    images = torch.rand(4, 3, side, side)
    expected = torch.cat([net.model(pair) for pair in images.split(2)])
    torch.testing.assert_close(net.logits(images), expected.detach())
    assert any("influence" in note for note in attribution.saliency(net, images).provenance.notes)


BY_POSITION = {
    "the image after": lambda y: torch.cat([y[:-1] + y[1:], y[-1:]]),
    "the last from the first": lambda y: torch.cat([y[:-1], y[-1:] + y[:1]]) if len(y) > 1 else torch.cat([y[:0], y]),
    "turned round": lambda y: y + y.flip(0),
    "halves": lambda y: y + torch.cat([y[len(y) // 2 :], y[: len(y) // 2]]),
    "written on": lambda y: y.index_copy(0, torch.tensor([len(y) - 1]), y[:1]),
}


@pytest.mark.parametrize("side", [8, 128])
@pytest.mark.parametrize("name", BY_POSITION)
def test_images_that_take_from_others_by_position_are_said(name, side):
    assert images_are_kept_apart(Network(Mixing(BY_POSITION[name]), (3, side, side)), side)


WHERE_EVEN = {name: lambda y, mix=mix: mix(y) if len(y) % 2 == 0 else y for name, mix in NEEDS_TWO.items()}


@pytest.mark.parametrize("side", [8, 128])
@pytest.mark.parametrize("name", WHERE_EVEN)
def test_images_that_mix_in_even_batches_only_are_said(name, side):
    assert images_are_kept_apart(Network(Mixing(WHERE_EVEN[name]), (3, side, side)), side)


def by_windows(y: Tensor) -> Tensor:
    """The left and the right half of each image, folded into the batch and back."""
    halves = y.unflatten(3, (2, -1)).movedim(3, 1).flatten(0, 1).relu()
    return halves.unflatten(0, (-1, 2)).movedim(1, 3).flatten(3)


PLAIN = {
    "in a row": lambda y: y,
    "tokens": lambda y: y.flatten(2).permute(2, 0, 1).relu().permute(1, 2, 0).view_as(y),
    "windows": by_windows,
    "all of them": lambda y: y[:],
}


@pytest.mark.parametrize("name", PLAIN)
def test_no_more_images_go_through_where_all_lie_in_a_row(name):
    counts: list[int] = []

    class Counted(Mixing):
        def forward(self, x: Tensor) -> Tensor:
            counts.append(len(x))
            return super().forward(x)

    net = Network(Counted(PLAIN[name]), (3, 8, 8))
    assert (net.graph.mixes, net.notes) == ("", [])
    assert counts == [1, 2]


def penalised(y: Tensor) -> Tensor:
    """Keeps a loss of the whole batch beside the scores and checks the values of all images."""
    assert y.isfinite().all()
    y.penalty = (y**2).mean() + y.abs().max()
    return y


def descended(y: Tensor) -> Tensor:
    """A step down an energy: that of all images is summed, and its gradient is each image's own."""
    with torch.enable_grad():
        y = y if y.requires_grad else y.detach().requires_grad_()
        return y - torch.autograd.grad((y.tanh() ** 2).sum(), y, create_graph=True)[0]


@pytest.mark.parametrize("side", [8, 128])
@pytest.mark.parametrize("mix", [penalised, descended])
def test_a_number_of_the_whole_batch_mixes_no_images_if_none_depends_on_it(mix, side):
    assert Network(Mixing(mix), (3, side, side)).notes == []


@pytest.mark.filterwarnings("error")
def test_a_model_that_differentiates_itself_is_read_without_a_warning():
    """Its values carry a graph, and beside others they differ by rounding."""
    torch.set_warn_always(True)

    class Slopes(Mixing):
        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                energy = (self.stem(x).tanh() ** 2).flatten(1) @ torch.linspace(-1, 1, 216)
                slope = torch.autograd.grad(energy.sum(), x, create_graph=True)[0]
                return self.head(self.stem(slope).mean((2, 3)) + slope.sum((1, 2, 3))[:, None])

    try:
        net = Network(Slopes(None), (3, 8, 8))
    finally:
        torch.set_warn_always(False)
    assert net.graph.note == ""  # an error while it is read would have left its axes unmeasured


def images_are_kept_apart(net: Network, side: int) -> bool:
    """Whether it is said that images mix, or each goes through alone and has the scores that it has alone."""
    images = torch.rand(4, 3, side, side)
    if net.graph.mixes:
        return any("influence each other" in note for note in net.notes)
    torch.testing.assert_close(net.logits(images), torch.cat([net.model(image[None]) for image in images]).detach())
    return any("one image goes through at a time" in note for note in net.notes)
