"""Patches and statistics of a pass against all activations stored, sorted and counted in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import microtome as mt
from conformance.spellings import SPELLINGS, weights
from microtome import InputError, LayerError, ModelError, Network, units
from microtome.units.streaming import streaming_pass
from microtome.units.streaming.crops import cut
from units.streaming.stored_activations import BINS, IMAGES, LAYERS, K, stored


@pytest.mark.parametrize("layer", LAYERS)
def test_top_and_low_equal_a_full_sort(net: Network, data: Any, top: units.TopPatches, layer: str) -> None:
    """Oracle: the maximum of every image and Python's stable sort, in float64."""
    found, every = top[layer], stored(net, data, layer)
    columns = found.grid[1]
    for unit in range(every.shape[1]):
        for sign, image, position, activation in (
            (-1, found.image, found.position, found.activation),
            (1, found.low_image, found.low_position, found.low_activation),
        ):
            best = [(sign * row[unit]).min() for row in every]
            order = sorted(range(IMAGES), key=lambda index, best=best: best[index])[:K]
            assert image[unit].tolist() == order
            for rank, index in enumerate(order):
                at = int((sign * every[index, unit]).argmin())
                assert position[unit, rank].tolist() == [at // columns, at % columns]
                np.testing.assert_allclose(float(activation[unit, rank]), every[index, unit, at], rtol=1e-12)


@pytest.mark.parametrize("batch", [1, 13, 40])
def test_the_batch_changes_nothing(net: Network, data: Any, top: units.TopPatches, batch: int) -> None:
    again = units.top_patches(net, data, k=K, bins=BINS, batch=batch)
    for name, one in top.items():
        for field in ("image", "position", "low_image", "binned_image", "histogram", "groups"):
            assert torch.equal(getattr(one, field), getattr(again[name], field)), (name, field)
        torch.testing.assert_close(one.mean, again[name].mean, rtol=1e-12, atol=1e-14)


def test_every_position_competes_when_asked(net: Network, data: Any) -> None:
    found, every = (
        units.top_patches(net, data, "second", k=12, one_per_image=False, batch=7)["second"],
        stored(net, data, "second"),
    )
    for unit in range(every.shape[1]):
        flat = every[:, unit].ravel()
        order = np.argsort(-flat, kind="stable")[:12]
        np.testing.assert_allclose(found.activation[unit], flat[order], rtol=1e-9)
        assert found.image[unit].tolist() == (order // every.shape[2]).tolist()
        lowest = np.argsort(flat, kind="stable")[:12]
        np.testing.assert_allclose(found.low_activation[unit], flat[lowest], rtol=1e-9)
    assert any(len(set(row)) < 12 for row in found.image.tolist())


def test_among_equals_the_first_image_and_position_win() -> None:
    net = Network(nn.Sequential(nn.ReLU(), nn.Flatten()), (1, 2, 2), mean=1.0)
    found = units.top_patches(net, [torch.rand(1, 2, 2) for _ in range(70)], "0", k=3)["0"]
    assert (found.image.tolist(), found.position.tolist()) == ([[0, 1, 2]], [[[0, 0]] * 3])
    assert found.dead.tolist() == [True]


def test_crops_are_the_field_with_gray_outside(net: Network, data: Any, top: units.TopPatches) -> None:
    """Field of ``first`` by hand: 3 x 3, step 2, one row of padding above and two columns on the right."""
    found = top["first"]
    for unit in range(5):
        for rank in range(K):
            row, column = found.position[unit, rank].tolist()
            assert found.box(unit, rank) == (2 * row - 1, 2 * column, 2 * row + 2, 2 * column + 3)
            padded = F.pad(data[int(found.image[unit, rank])][0], (0, 2, 1, 2), value=0.5)
            expected = padded[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
            assert torch.equal(found.crop(unit, rank), expected)
    assert found.crops(0).shape == (K, 2, 3, 3)
    assert top["head"].crop(0, 0).shape == (2, 13, 17)


def test_a_crop_alone_gives_the_activation_back(net: Network, data: Any, top: units.TopPatches) -> None:
    """All that a unit sees is in its crop: noise elsewhere in the picture leaves the activation as it is."""
    found = top["second"]
    for unit in range(5):
        image, position, activation = found.entry(unit, 0)
        noise = torch.rand(2, 13, 17)
        box, picture = found.box(unit, 0), data[image][0]
        rows = slice(max(box[0], 0), min(box[2], 13))
        columns = slice(max(box[1], 0), min(box[3], 17))
        noise[:, rows, columns] = picture[:, rows, columns]
        value = net.activations(noise, "second")["second"][0, unit, position[0], position[1]]
        assert float(value) == pytest.approx(activation, abs=1e-12)


def test_fewer_images_than_asked(net: Network, data: Any) -> None:
    found = units.top_patches(net, data[:2], "second", k=4)["second"]
    assert found.image[0, 2:].tolist() == [-1, -1]
    assert bool(torch.isnan(found.activation[0, 2:]).all())
    assert bool((found.crop(0, 3) == 0.5).all())
    assert units.reconstruct(net, found, k=4, units=0).values.shape[:2] == (1, 4)


def test_without_labels(net: Network, data: Any) -> None:
    found = units.top_patches(net, [image for image, _ in data], "second")["second"]
    assert found.groups.tolist() == [[-1]] * 5
    assert (int(found.histogram[0].sum()), float(found.selectivity.max())) == (IMAGES, 0.0)


def test_a_file_holds_everything_but_the_images(top: units.TopPatches, data: Any, tmp_path: Path) -> None:
    top.save(tmp_path / "top.safetensors")
    again = mt.load(tmp_path / "top.safetensors")
    assert isinstance(again, units.TopPatches)
    assert again.keys() == top.keys()
    assert again["first"].box(1, 1) == top["first"].box(1, 1)
    with pytest.raises(InputError, match="with_images"):
        again["first"].crop(0, 0)
    assert torch.equal(again.with_images(data)["first"].crop(0, 0), top["first"].crop(0, 0))


@pytest.mark.parametrize(
    "name", [name for name, one in SPELLINGS.items() if one.family == "plain" and one.pool == "max"]
)
def test_every_spelling_gives_the_same_patches(name: str) -> None:
    spelling = SPELLINGS[name]
    torch.manual_seed(0)
    data = [torch.rand(1, 16, 16) for _ in range(12)]
    tables = []
    for one in (spelling, next(other for other in SPELLINGS.values() if other.family == "plain")):
        net = Network(one.build(weights("plain", 1)), (1, 16, 16))
        tables.append(units.top_patches(net, data, one.layer, k=3)[one.layer])
    assert torch.equal(tables[0].image, tables[1].image)
    assert torch.equal(tables[0].position, tables[1].position)
    torch.testing.assert_close(tables[0].activation, tables[1].activation, rtol=1e-6, atol=1e-9)


def test_default_layers_compute(net: Network) -> None:
    names = streaming_pass.computing_layers(net)
    assert [name for name in names if name in LAYERS] == LAYERS
    assert not any("pad" in name for name in names)


def test_tokens_have_their_width_as_units() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.embed(x.flatten(2).transpose(1, 2).reshape(len(x), -1, 4)).mean(1)

    torch.manual_seed(0)
    net = Network(Tokens(), (1, 4, 4))
    data = [torch.rand(1, 4, 4) for _ in range(5)]
    found = units.top_patches(net, data, "embed", k=2)["embed"]
    every = net.activations(torch.stack(data), "embed")["embed"]
    assert found.grid == (4, 1)
    torch.testing.assert_close(found.activation, every.amax(1).T.topk(2).values)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"layers": "scond"}, LayerError, "second"),
        ({"k": 0}, InputError, "at least 1"),
        ({"dataset": []}, InputError, "empty"),
        ({"dataset": iter([1])}, InputError, "length"),
        ({"dataset": [torch.rand(2, 9, 9)]}, InputError, "13, 17"),
    ],
)
def test_bad_input_is_one_clear_error(net: Network, data: Any, options: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        units.top_patches(net, **({"dataset": data} | options))


def test_a_layer_that_gives_nan_is_named() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sqrt(x - 0.5).flatten(1)

    net = Network(Root(), (1, 1, 1))
    with pytest.raises(ModelError, match="sqrt"):
        units.top_patches(net, [torch.zeros(1, 1, 1)])


def test_unit_rank_and_kind_are_checked(top: units.TopPatches) -> None:
    with pytest.raises(InputError, match="units 0 to 4"):
        top["second"].crop(5, 0)
    with pytest.raises(InputError, match="patches 0 to 4"):
        top["second"].crop(0, K)
    with pytest.raises(InputError, match="binned"):
        top["second"].box(0, 0, selection="best")
    with pytest.raises(LayerError, match="second"):
        top["secnd"]


def test_cut_far_outside_is_all_gray() -> None:
    assert bool((cut(torch.ones(1, 4, 4), (-9, -9, -5, -5)) == 0.5).all())


def test_top_images_ranks_one_neuron(net: Network, data: Any) -> None:
    found = units.top_images(net, data, "second", channel=2, position=(1, 3), k=96)
    values = net.activations(torch.stack([image for image, _ in data]), "second")["second"][:, 2, 1, 3]
    assert found.image.tolist() == values.argsort(descending=True).tolist()
    assert torch.equal(found.crop(0), cut(data[int(found.image[0])][0], net.layer("second").field.box(1, 3)))
    with pytest.raises(InputError, match="rows"):
        units.top_images(net, data, "second", channel=2, position=(99, 0))


def test_effective_field_of_a_gated_network_is_smaller_than_the_picture(net: Network, top: units.TopPatches) -> None:
    """Without a gate the effective field lies in the receptive field, and all of it at share 1."""
    found = units.effective_field(net, top["second"], 1, share=1.0)
    for rank in range(K):
        box, real = top["second"].box(1, rank), found.box(rank)
        assert real[0] >= box[0]
        assert real[3] <= box[3]
        assert float(found.weight[rank].sum()) == pytest.approx(1)
    narrow = units.effective_field(net, top["second"], 1, share=0.5)
    assert bool(((narrow.boxes[:, 2] - narrow.boxes[:, 0]) <= (found.boxes[:, 2] - found.boxes[:, 0])).all())
    assert not torch.equal(narrow.boxes, found.boxes)


class _Cropped(torch.utils.data.Dataset):
    """A training set with random crops, or none; ``reads`` counts items."""

    def __init__(self, shift):
        self.pictures = torch.rand(12, 3, 12, 12, generator=torch.Generator().manual_seed(0))
        self.shift, self.reads = shift, 0

    def __len__(self):
        return 12

    def __getitem__(self, index):
        self.reads += 1
        at = self.reads % 4 if self.shift else 0
        return self.pictures[index, :, at : at + 8, at : at + 8], index % 2


def _one_conv(pixels=(0.0, 1.0)):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return Network(model, (3, 8, 8), pixels=pixels)


def test_the_crop_shown_is_the_one_measured_or_augmentation_is_named():
    """Oracle: the convolution of the crop by hand."""
    net = _one_conv()
    conv = net.module("0")
    still = _Cropped(shift=False)
    top = units.top_patches(net, still, "0", k=2)["0"]
    assert still.reads == 12  # labels are noted as images are read
    for unit in range(4):
        made = (conv.weight[unit] * top.crop(unit, 0)).sum() + conv.bias[unit]
        torch.testing.assert_close(made.detach(), top.activation[unit, 0], rtol=1e-5, atol=1e-6)
    moving = units.top_patches(net, _Cropped(shift=True), "0", k=2)["0"]
    with pytest.raises(InputError, match="differs between two reads"):
        [moving.crop(unit, rank) for unit in range(4) for rank in range(2)]
    with pytest.raises(InputError, match="differs between two reads"):
        units.reconstruct(net, moving, method="gradient")


def test_images_in_another_range_of_pixels():
    net, wide = _one_conv(), _one_conv((0.0, 1000.0))
    pictures = _Cropped(shift=False)
    small = units.top_patches(net, [pictures[i][0] for i in range(12)], "0", k=3)["0"]
    large = units.top_patches(wide, [pictures[i][0] * 1000 for i in range(12)], "0", k=3)["0"]
    assert torch.equal(small.image, large.image)  # the bias does not change the order
    torch.testing.assert_close(large.crop(0, 0), small.crop(0, 0) * 1000)
