"""Does a class activation map lie on the picture where the model moves rows and columns? If not, it is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microtome import Network, attribution
from microtome.errors import LayerError

SPOT = slice(3, 5), slice(10, 12)
IN_PLACE = {
    "as it is": lambda y: y,
    "turned back": lambda y: y.flip(3).flip(3),
    "channels last": lambda y: (y.permute(0, 2, 3, 1) * 2).permute(0, 3, 1, 2),
    "rolled there and back": lambda y: (y.roll(5, 3) + 0).roll(-5, 3),
    "channels exchanged": lambda y: y.flip(1),
}
DISPLACED = {
    "flipped": lambda y: y.flip(3),
    "turned": lambda y: torch.rot90(y, 1, (2, 3)),
    "halves exchanged": lambda y: torch.cat([y[..., 8:], y[..., :8]], 3),
    "rolled": lambda y: y.roll(8, 3),
    "one half": lambda y: y.chunk(2, 3)[1],
    "the other half": lambda y: y[..., :8],
}


class Moved(nn.Module):
    """The score is the brightness of the picture; something moves before or behind the only convolution."""

    def __init__(self, move, behind):
        super().__init__()
        self.move, self.behind = move, behind
        self.conv, self.head = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(2, 2)
        with torch.no_grad():
            self.conv.weight.zero_()[:, :, 1, 1] = 1
            self.conv.bias.zero_()
            self.head.weight.fill_(1.0)

    def forward(self, x):
        x = torch.cat([x, x], 1)
        y = self.conv(x if self.behind else self.move(x)).relu()
        return self.head((self.move(y) if self.behind else y).mean((2, 3)))


def spot() -> torch.Tensor:
    image = torch.zeros(1, 1, 16, 16)
    image[0, 0, SPOT[0], SPOT[1]] = 1
    return image


def on_the_spot(found) -> bool:
    place = divmod(int(found.map[0].argmax()), 16)
    return all(part.start - 1 <= at <= part.stop for at, part in zip(place, SPOT, strict=True))


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("move", IN_PLACE)
def test_maps_lie_on_the_spot_where_positions_stay(move, behind):
    net = Network(Moved(IN_PLACE[move], behind).eval(), (1, 16, 16))
    assert on_the_spot(attribution.grad_cam(net, spot(), 0))


@pytest.mark.parametrize("method", [attribution.grad_cam, attribution.cam])
@pytest.mark.parametrize("move", DISPLACED)
def test_a_map_behind_what_moves_is_refused(move, method):
    net = Network(Moved(DISPLACED[move], behind=False).eval(), (1, 16, 16))
    with pytest.raises(LayerError, match="would not lie on the picture"):
        method(net, spot(), 0)


@pytest.mark.parametrize("move", [move for move in DISPLACED if move != "halves exchanged"])
def test_a_map_before_what_moves_lies_on_the_spot(move):
    """Grad-CAM chooses the layer before the move; where halves are joined, the join is a layer of its own."""
    net = Network(Moved(DISPLACED[move], behind=True).eval(), (1, 16, 16))
    assert on_the_spot(attribution.grad_cam(net, spot(), 0))


@pytest.mark.parametrize("move", DISPLACED)
def test_the_average_of_moved_maps_has_no_class_activation_map(move):
    net = Network(Moved(DISPLACED[move], behind=True).eval(), (1, 16, 16))
    with pytest.raises(LayerError, match=r"would not lie on the picture|no layer averages"):
        attribution.cam(net, spot(), 0)


def test_a_model_that_takes_one_image_at_a_time_is_measured_too():
    class OneImage(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            y = self.conv(x).permute(0, 2, 3, 1).reshape(1, 14, 14, 4).permute(0, 3, 1, 2)
            return self.head(y.relu().mean((2, 3)))

    net = Network(OneImage().eval(), (1, 16, 16))
    assert attribution.grad_cam(net, spot(), 0, layer="/relu").values.shape == (1, 1, 14, 14)
