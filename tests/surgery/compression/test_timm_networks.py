"""Compression of networks from timm whose layers split and reshape channels: DeiT and FasterNet, random weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from microtome import Network, surgery

timm = pytest.importorskip("timm")

IMAGES = torch.rand(40, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def _deit() -> tuple[nn.Module, int]:
    return timm.create_model(
        "deit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=3, num_classes=5
    ), 32


def _fasternet() -> tuple[nn.Module, int]:
    fasternet = pytest.importorskip("timm.models.fasternet")
    return fasternet.FasterNet(num_classes=5, embed_dim=16, depths=(1, 1, 2, 1), feature_dim=64), 64


NETWORKS: dict[str, Callable[[], tuple[nn.Module, int]]] = {"deit": _deit, "fasternet": _fasternet}


def _opened(name: str) -> tuple[Network, list[torch.Tensor]]:
    torch.manual_seed(0)
    model, side = NETWORKS[name]()
    return Network(model.eval(), (3, side, side)), list(IMAGES[:, :, :side, :side])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_thousandth_keeps_every_answer(name: str) -> None:
    net, data = _opened(name)
    small = surgery.compress(net, data, multiply_adds=0.999, batch=20)
    assert 0.98 < small.share <= 0.999
    images = torch.stack(data)
    before, after = net.logits(images), small.network.logits(images)
    assert torch.equal(before.argmax(1), after.argmax(1))
    assert float((before - after).abs().max()) <= 0.05 * float(before.abs().max())


@pytest.mark.parametrize("name", NETWORKS)
def test_half_of_a_network_runs_at_every_batch_size(name: str) -> None:
    """The smaller network is an ordinary module; its weights are as wide as the table says."""
    net, data = _opened(name)
    small = surgery.compress(net, data, multiply_adds=0.6, batch=20)
    assert small.share <= 0.6
    assert any(now < was for was, now in small.widths.values())
    for layer, (_, now) in small.widths.items():
        assert small.network.model.get_submodule(layer).weight.shape[0] == now
    whole = small.network.logits(torch.stack(data[:3]))
    alone = small.network.logits(data[0][None])
    assert torch.allclose(whole[:1], alone, atol=1e-5)
    assert sum(p.numel() for p in small.network.model.parameters()) < sum(p.numel() for p in net.model.parameters())
