"""Does Grad-CAM know where tokens lie? On transformers in every spelling, by hand and against pytorch-grad-cam."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attribution import transformers as made
from microtome import LayerError, Network, attribution
from microtome.attribution.class_activation.arrangement import arrangement
from microtome.attribution.class_activation.default_layer import map_layer


def network(spelled: str = "fused", read: str = "class-first", *, unfold: bool = False) -> Network:
    return Network(made.transformer(spelled, read, unfold=unfold), made.SHAPE)


def by_hand(model: made.Transformer, x: torch.Tensor, target: int, first: int) -> torch.Tensor:
    """Oracle: the forward pass cut at what the last attention reads, autograd by hand, Selvaraju's equations."""
    seen: list[torch.Tensor] = []
    last = model.blocks[1]
    handle = last.norm1.register_forward_hook(lambda module, args, value: seen.append(value))
    score = model(x)[:, target].sum()
    handle.remove()
    slope = torch.autograd.grad(score, seen[0])[0][:, first : first + 6]
    alpha = slope.mean(1, keepdim=True)
    return (alpha * seen[0][:, first : first + 6]).sum(2).clamp(min=0).reshape(len(x), 1, 2, 3).detach()


@pytest.mark.parametrize("spelled", made.ATTENTIONS)
@pytest.mark.parametrize("read", made.HEADS_READ)
def test_token_grad_cam_equals_the_definition(spelled, read):
    net, x = network(spelled, read), made.pictures()
    first = {"class-first": 1, "two": 2}.get(read, 0)
    found = attribution.grad_cam(net, x, 1, layer="blocks.1.norm1")
    torch.testing.assert_close(found.values, by_hand(net.model, x, 1, first), rtol=1e-9, atol=1e-12)
    assert float(found.values.max()) > 0
    assert found.map.shape == (2, 8, 12)


@pytest.mark.parametrize("read", made.HEADS_READ)
def test_the_default_layer_has_a_gradient(read):
    net = network(read=read)
    assert map_layer(net, None) == ("norm" if read == "mean" else "blocks.1.norm1")
    assert any(float(attribution.grad_cam(net, made.pictures(), target).values.max()) > 0 for target in (0, 1))
    assert map_layer(net, "blocks.0") == "blocks.0"


@pytest.mark.parametrize("spelled", made.ATTENTIONS)
def test_the_default_layer_is_the_same_in_every_spelling(spelled):
    assert map_layer(network(spelled), None) == "blocks.1.norm1"


def test_a_layer_behind_the_last_attention_is_refused_with_the_reason():
    for layer in ("blocks.1", "norm", "blocks.1.norm2"):
        with pytest.raises(LayerError, match=r"class token of .* alone"):
            attribution.grad_cam(network(), made.pictures(), 1, layer=layer)
    assert attribution.grad_cam(network(read="mean"), made.pictures(), 1, layer="blocks.1").values.shape == (2, 1, 2, 3)


def test_mean_over_tokens_is_cam():
    """The score is the mean of head(token) over the patches: Grad-CAM is its positive part without the bias."""
    net, x = network(read="mean"), made.pictures()
    tokens = net.activations(x, "norm")["norm"]
    for target in (0, 1):
        expected = (tokens @ net.model.head.weight[target]).clamp(min=0).reshape(2, 1, 2, 3) / 6
        torch.testing.assert_close(attribution.grad_cam(net, x, target).values, expected.detach())


@pytest.mark.parametrize(("read", "first"), [("class-first", 1), ("two", 2), ("class-last", 0), ("mean", 0)])
@pytest.mark.parametrize("unfold", [False, True])
def test_the_grid_is_found_by_measurement(read, first, unfold):
    laid = arrangement(network(read=read, unfold=unfold), "blocks.0")
    assert (laid.kind, laid.height, laid.width, laid.first) == ("tokens", 2, 3, first)
    assert laid.tokens == 6 + {"two": 2, "mean": 0}.get(read, 1)


class Shuffled(nn.Module):
    """Tokens in an order that is not the picture's."""

    def __init__(self) -> None:
        super().__init__()
        self.proj, self.block, self.head = nn.Conv2d(3, 8, 4, 4), made.Block("fused"), nn.Linear(8, 3)

    def forward(self, x):
        tokens = self.proj(x).flatten(2).transpose(1, 2)[:, [3, 0, 5, 1, 2, 4]]
        return self.head(self.block(tokens).mean(1))


def test_tokens_out_of_order_are_refused():
    with pytest.raises(LayerError, match="a token for every patch"):
        attribution.grad_cam(Network(Shuffled().double(), made.SHAPE), made.pictures(), 1, layer="block")


def test_heads_have_no_places():
    with pytest.raises(LayerError, match=r"class token|windows or heads|a token for every patch"):
        attribution.grad_cam(network(), made.pictures(), 1, layer="blocks.0.attn/scaled_dot_product_attention")


class ChannelsLast(nn.Module):
    """A ConvNeXt-like block on (N, h, w, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc, self.head = (
            nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 3))  # fmt: skip

    def forward(self, x):
        x = self.conv(x).permute(0, 2, 3, 1)
        x = x + self.fc(self.norm(x)).relu()
        return self.head((x * 2).mean((1, 2)))


def test_channels_last_are_moved():
    torch.manual_seed(0)
    net, x = Network(ChannelsLast().double(), made.SHAPE), made.pictures()
    for layer in ("norm", "fc", "/relu", "/add"):
        record = net.run(x, 1, record=layer, gradient=True)
        value, slope = record.value[layer], record.gradient[layer]
        expected = (slope.mean((1, 2), keepdim=True) * value).sum(3).clamp(min=0)[:, None]
        torch.testing.assert_close(attribution.grad_cam(net, x, 1, layer=layer).values, expected)
    assert map_layer(net, None) == "/mul"
    assert attribution.grad_cam(net, x, 1).values.shape == (2, 1, 2, 3)


def timm_vit(**options):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=7, **options).eval()


def test_equals_pytorch_grad_cam_with_its_reshape():
    """Oracle: another library, told by hand how the tokens lie. Float32: 1e-5 of the largest value."""
    peer = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, x = timm_vit(), torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    cam = peer.GradCAM(
        model=model,
        target_layers=[model.blocks[-1].norm1],
        reshape_transform=lambda value: value[:, 1:].reshape(len(value), 4, 4, -1).permute(0, 3, 1, 2),
    )
    cam(input_tensor=x, targets=[ClassifierOutputTarget(3)])
    kept = cam.activations_and_grads
    values, slopes = (part[0].detach().cpu().numpy() for part in (kept.activations, kept.gradients))
    theirs = torch.from_numpy(cam.get_cam_image(x, None, None, values, slopes, False))
    theirs = theirs.clamp(min=0)
    ours = attribution.grad_cam(Network(model, (3, 64, 64)), x, 3).values[:, 0]
    assert float(ours.max()) > 0
    torch.testing.assert_close(ours, theirs.float(), rtol=0, atol=1e-5 * float(ours.max()))


@pytest.mark.parametrize(
    ("options", "first", "layer"),
    [
        ({}, 1, "blocks.1.norm1"),
        ({"reg_tokens": 4}, 5, "blocks.1.norm1"),
        ({"class_token": False, "global_pool": "avg"}, 0, "blocks.1"),
        ({"class_token": False, "global_pool": "map"}, 0, "norm"),
    ],
)
def test_timm_in_its_variants(options, first, layer):
    net = Network(timm_vit(**options), (3, 64, 64))
    found = attribution.grad_cam(net, torch.rand(2, 3, 64, 64), 1)
    assert (found.layer, arrangement(net, found.layer).first) == (layer, first)
    assert found.values.shape == (2, 1, 4, 4)


def test_torchvision():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.VisionTransformer(image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32,
                                     mlp_dim=64, num_classes=7)  # fmt: skip
    nn.init.normal_(model.heads.head.weight)
    found = attribution.grad_cam(Network(model, (3, 64, 64)), torch.rand(7, 3, 64, 64), list(range(7)))
    assert found.layer == "encoder.layers.encoder_layer_1.ln_1"
    assert float(found.values.max()) > 0
    swin = models.SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4], num_classes=3)
    windows = attribution.grad_cam(Network(swin, (3, 64, 64)), torch.rand(2, 3, 64, 64), 1)
    assert (windows.layer, tuple(windows.values.shape)) == ("norm", (2, 1, 8, 8))
