"""Are features those of the layer, and is a folder of them taken up where it was left?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from microtome import InputError, LayerError, Network, StoreError, load
from microtome.representation import Features, features

IMAGES = torch.rand(23, 1, 6, 6, generator=torch.Generator().manual_seed(1))
DATA = torch.utils.data.TensorDataset(IMAGES, torch.arange(23) % 3)


@pytest.fixture
def net() -> Network:
    torch.manual_seed(0)
    body = (nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    return Network(nn.Sequential(*body), (1, 6, 6), mean=0.4, std=0.3)


def by_hand(net: Network, reduce: str) -> torch.Tensor:
    """Oracle: the model's modules, called directly on all images at once."""
    maps = net.model[1](net.model[0]((IMAGES - 0.4) / 0.3)).detach()
    return {"mean": maps.mean((2, 3)), "max": maps.amax((2, 3)), "flat": maps.flatten(1)}[reduce]


@pytest.mark.parametrize("reduce", ["mean", "max", "flat"])
@pytest.mark.parametrize("shard", [5, 1024])
def test_features_are_those_of_the_model(net: Network, reduce: str, shard: int, tmp_path: Path) -> None:
    for folder in (None, tmp_path / "kept", tmp_path / "kept"):  # the last time from disk alone
        found = features(net, DATA, "1", reduce=reduce, folder=folder, shard=shard, batch=4)
        torch.testing.assert_close(found.values, by_hand(net, reduce), rtol=1e-5, atol=1e-6)
        assert found.labels is not None
        assert found.labels.tolist() == [place % 3 for place in range(23)]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["features.safetensors"]
    found.save(tmp_path / "one.safetensors")
    assert torch.equal(Features.load(tmp_path / "one.safetensors").values, found.values)
    assert load(tmp_path / "one.safetensors").provenance.parameters["reduce"] == reduce


def test_tokens_and_scores(net: Network) -> None:
    """Tokens (N, positions, units) are reduced over positions by the layer's axes; scores are taken as they are."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = nn.Linear(6, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.mix(x[:, 0]).mean(1))

    torch.manual_seed(0)
    model = Tokens()
    tokens = Network(model, (1, 6, 6))
    found = features(tokens, DATA, "mix", reduce="max").values
    torch.testing.assert_close(found, model.mix(IMAGES[:, 0]).detach().amax(1))
    torch.testing.assert_close(features(tokens, DATA, "logits").values, model(IMAGES).detach())


def test_an_interrupted_pass_goes_on(net: Network, tmp_path: Path) -> None:
    """Stopped after two of five shards: the second call runs the other 13 images only."""
    seen: list[int] = []

    class Counted(torch.utils.data.Dataset):
        stop = 10

        def __len__(self) -> int:
            return 23

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            if index >= self.stop:
                raise KeyboardInterrupt
            seen.append(index)
            return IMAGES[index], index % 3

    data = Counted()
    with pytest.raises(KeyboardInterrupt):
        features(net, data, "1", folder=tmp_path, shard=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "shard-000000000.safetensors",
        "shard-000000005.safetensors",
    ]
    seen.clear()
    data.stop = 23
    told: list[int] = []
    found = features(net, data, "1", folder=tmp_path, shard=5, progress=lambda now: told.append(now.done))
    assert set(range(10)) & set(seen) == {0, 5}  # the first image of each shard, to see that it is the same
    assert told == [1, 2, 3, 4, 5]
    torch.testing.assert_close(found.values, by_hand(net, "mean"), rtol=1e-5, atol=1e-6)


def test_a_folder_of_something_else_is_an_error(net: Network, tmp_path: Path) -> None:
    features(net, DATA, "1", folder=tmp_path)
    with pytest.raises(StoreError, match="another network, layer"):
        features(net, DATA, "1", reduce="max", folder=tmp_path)
    with pytest.raises(StoreError, match="image 0 of the data set differs"):
        features(net, list(IMAGES.flip(0)), "1", folder=tmp_path)
    (tmp_path / "features.safetensors").write_bytes(b"broken")
    with pytest.raises(StoreError, match="not a readable file"):
        features(net, DATA, "1", folder=tmp_path)


def test_stored_features_have_the_present_labels(net: Network, tmp_path: Path) -> None:
    """Labels are no part of the features: a folder of an earlier call must not bring back the former ones."""
    labels = torch.arange(23) % 3
    features(net, DATA, "1", folder=tmp_path, shard=5)
    for others in (2 - labels, labels.roll(1)):
        for data in (torch.utils.data.TensorDataset(IMAGES, others), list(zip(IMAGES, others, strict=True))):
            assert features(net, data, "1", folder=tmp_path, shard=5).labels.tolist() == others.tolist()
    assert features(net, list(IMAGES), "1", folder=tmp_path, shard=5).labels is None


@pytest.mark.parametrize("labels", [torch.arange(3), torch.arange(4) / 2, torch.zeros(4, 2, dtype=torch.int64)])
def test_labels_are_one_class_index_for_each_image(labels: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"class indices of shape \(4,\) were expected"):
        Features(layer="a", reduce="mean", values=torch.ones(4, 2), labels=labels)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"layer": "9"}, LayerError, "Nearest"),
        ({"reduce": "sum"}, InputError, "mean, max, flat"),
        ({"shard": 0}, InputError, "at least one image"),
        ({"dataset": []}, InputError, "empty"),
    ],
)
def test_bad_input(net: Network, options: dict, error: type[Exception], said: str) -> None:
    before = json.dumps({name: value.tolist() for name, value in net.model.state_dict().items()})
    with pytest.raises(error, match=said):
        features(net, **{"dataset": DATA, "layer": "1", **options})
    assert before == json.dumps({name: value.tolist() for name, value in net.model.state_dict().items()})


def test_features_that_are_not_finite_are_an_error() -> None:
    class Log(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x.log()).clamp(min=-9).flatten(1)

    dark = IMAGES.clone()
    dark[7, 0, 2, 2] = 0
    net = Network(Log(), (1, 6, 6))
    features(net, list(IMAGES), "inner")
    with pytest.raises(InputError, match="not finite"):
        features(net, list(dark), "inner")
