"""A data set is read once by every layer's reader, also where the memory of a GPU runs out on the way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from microtome import LayerError, Network, units
from microtome.units.streaming import streaming_pass


class Hungry(nn.Module):
    """Its second half runs out of memory for more than some images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.first, self.second, self.most = nn.Linear(4, 3), nn.Linear(3, 2), most

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1))
        if len(x) > self.most:
            raise torch.cuda.OutOfMemoryError("no memory left")
        return self.second(x)


@pytest.mark.parametrize("most", [5, 3, 1])
def test_every_image_is_read_once_by_every_layer(most):
    torch.manual_seed(0)
    net, images = Network(Hungry(10**6), (1, 2, 2)), torch.rand(13, 1, 2, 2)
    net.model.most = most
    seen: dict[str, list[Tensor]] = {"first": [], "second": []}
    order: dict[str, list[int]] = {"first": [], "second": []}

    def reader(name):
        def read(value, batch):
            seen[name].append(value.clone())
            order[name] += batch.indices.tolist()

        return read

    count = streaming_pass.read(net, images, {name: reader(name) for name in seen}, batch=8)
    assert count == 13
    assert order["first"] == order["second"] == list(range(13))
    expected = net.model.first(images.flatten(1))
    assert torch.allclose(torch.cat(seen["first"]), expected, atol=1e-6)
    assert torch.allclose(torch.cat(seen["second"]), net.model.second(expected), atol=1e-6)


def test_a_reader_that_runs_out_of_memory_is_not_asked_again():
    """It may have added a part of the batch."""
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), (1, 2, 2))
    calls = []

    def read(value, batch):
        calls.append(len(value))
        raise torch.cuda.OutOfMemoryError("no memory left")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        streaming_pass.read(net, torch.rand(4, 1, 2, 2), {"1": read}, batch=4)
    assert calls == [4]


def test_an_empty_list_of_layers_is_not_blamed_on_the_network():
    net = Network(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), (1, 4, 4))
    with pytest.raises(LayerError, match="no layer was named"):
        units.top_patches(net, [torch.rand(1, 4, 4)], [])
