"""Layers that read transposed values multiply them in one product, with the same numbers, names and hooks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from microtome import ModelError, Network, attribution

IMAGES = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))


class Operations(TorchDispatchMode):
    """The operations that torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


class Attending(nn.Module):
    """Self-attention and cross-attention over the rows of an image."""

    def __init__(self, *, batch_first: bool) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.one = nn.MultiheadAttention(16, 2, batch_first=batch_first)
        self.other = nn.MultiheadAttention(16, 2, batch_first=batch_first)
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).reshape(len(x), 8, 16)
        if not self.batch_first:
            tokens = tokens.transpose(0, 1)
        mixed = self.one(tokens, tokens, tokens, need_weights=False)[0]
        rest = tokens[:, 2:] if self.batch_first else tokens[2:]
        mixed = self.other(query=mixed, key=rest, value=rest, need_weights=False)[0]
        return self.fc(mixed.mean(1 if self.batch_first else 0))


class Mixer(nn.Module):
    """A linear layer over positions, as in MLP-Mixer."""

    def __init__(self, mix: nn.Module | None = None) -> None:
        super().__init__()
        self.mix, self.fc = mix or nn.Linear(8, 5), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).reshape(len(x), 8, 16)
        return self.fc(self.mix(tokens.transpose(1, 2)).relu().transpose(1, 2).mean(1))


MODELS = {
    "attention": lambda: Attending(batch_first=True),
    "attention, positions first": lambda: Attending(batch_first=False),
    "mixer": Mixer,
}


@pytest.fixture(params=MODELS)
def net(request) -> Network:
    """A network whose layers read transposed values."""
    torch.manual_seed(0)
    return Network(MODELS[request.param]().eval(), (2, 8, 8))


def products(run) -> int:
    """How many products row by row a call computes; the attention itself is one operation."""
    run()  # the first result of a network computes its fingerprint
    with Operations() as seen:
        run()
    return seen.names.count("bmm")


def test_transposed_values_are_multiplied_in_one_product(net):
    """In passes with and without gradients; the plain model, whose weights are frozen, multiplies row by row."""
    assert products(lambda: net.logits(IMAGES)) == 0
    assert products(lambda: attribution.gradient(net, IMAGES, 1)) == 0
    net.model.requires_grad_(False)
    with torch.no_grad():
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            assert products(lambda: net.model(IMAGES)) > 0
        finally:
            torch.backends.mha.set_fastpath_enabled(True)


def test_numbers_are_those_of_the_model(net):
    """Scores, gradients, what a layer reads and returns, and the names of the layers."""
    leaf = IMAGES.clone().requires_grad_()
    scores = net.model(leaf)
    (slope,) = torch.autograd.grad(scores[:, 1].sum(), leaf)
    assert torch.allclose(net.logits(IMAGES), scores, atol=1e-6)
    assert torch.allclose(attribution.gradient(net, IMAGES, 1).values, slope, atol=1e-6)
    read: dict[str, Tensor] = {}
    name = "one" if hasattr(net.model, "one") else "mix"
    hook = net.module(name).register_forward_hook(lambda module, args, value: read.update(args=args[0], value=value))
    net.model(IMAGES)
    hook.remove()
    values = net.activations(IMAGES, [f"{name}@input", name, *net.layers])
    result = read["value"][0] if isinstance(read["value"], tuple) else read["value"]
    assert torch.equal(values[f"{name}@input"], read["args"])
    assert torch.allclose(values[name], result, atol=1e-6)
    relevance = attribution.lrp(net, IMAGES, 1, rules="epsilon")
    assert torch.allclose(
        relevance.values.flatten(1).sum(1) + relevance.bias_share + relevance.stabiliser_share,
        relevance.score,
        atol=1e-4,
    )


def test_no_hook_stays(net):
    """Also after an error."""
    net.logits(IMAGES)
    with pytest.raises(Exception, match="channel"):
        net.logits(torch.rand(1, 3, 8, 8))
    assert not any(module._forward_pre_hooks for module in net.model.modules())


def test_a_network_that_is_read_again_is_the_same(net):
    """Copies of what is read are no layers and no part of the fingerprint."""
    net.logits(IMAGES)
    again = Network(net.model, (2, 8, 8))
    assert [*again.graph.layers] == [*net.graph.layers]
    assert again.fingerprint == net.fingerprint


def test_equal_inputs_of_an_attention_stay_equal():
    """So their queries, keys and values are still computed in one product."""
    net = Network(Attending(batch_first=True).eval(), (2, 8, 8))
    with Operations() as seen:
        net.activations(IMAGES, "one")
    assert seen.names.count("addmm") == 2


class Scaling(nn.Linear):
    """A layer that writes on what it reads."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2))


class ReadsTwice(Mixer):
    """Reads the positions again after they were mixed."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).reshape(len(x), 8, 16).clone()
        mixed = self.mix(tokens.transpose(1, 2)).mean(2)
        return self.fc(mixed + tokens.mean(1))


def test_code_of_the_user_gets_the_model_s_own_tensor():
    """A layer of the user's, or a hook, may write on what it reads."""
    net = Network(ReadsTwice(Scaling(8, 5)).eval(), (2, 8, 8))
    assert torch.equal(net.logits(IMAGES), net.model(IMAGES).detach())
    hooked = Mixer().eval()
    places: list[int] = []
    hooked.mix.register_forward_hook(lambda module, args, value: places.append(args[0].stride()))
    Network(hooked, (2, 8, 8)).logits(IMAGES)
    assert set(places) == {(128, 1, 16)}


class OnlyForwards(Attending):
    """Raises where gradients are taken."""

    def forward(self, x: Tensor) -> Tensor:
        scores = super().forward(x)
        if torch.is_grad_enabled():
            raise RuntimeError("no gradients, please")
        return scores


def test_a_pass_that_fails_is_repeated_without_its_hooks():
    """The message says that the model itself runs: after an error the hooks that are still there do nothing."""
    net = Network(OnlyForwards(batch_first=True).eval(), (2, 8, 8))
    with pytest.raises(ModelError, match="runs forwards but cannot be differentiated"):
        attribution.gradient(net, IMAGES, 1)
