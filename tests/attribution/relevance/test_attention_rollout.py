"""Does rollout follow attention as the paper says? By hand, in every spelling of attention, and with closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attribution import transformers as made
from microtome import InputError, LayerError, Network, attribution, registry
from microtome.cli.main import run


def weights_by_hand(model: made.Transformer, x: torch.Tensor) -> list[torch.Tensor]:
    """Oracle: softmax(q k / sqrt(d)) of each block with loops over images and heads; shares no code with the engine."""
    tokens: list[torch.Tensor] = []
    handles = [block.norm1.register_forward_hook(lambda module, args, value: tokens.append(value.detach()))
               for block in model.blocks]  # fmt: skip
    model(x)
    for handle in handles:
        handle.remove()
    found = []
    for block, z in zip(model.blocks, tokens, strict=True):
        w, b, d = block.attn.of.in_proj_weight.detach(), block.attn.of.in_proj_bias.detach(), made.WIDTH // made.HEADS
        rows = torch.zeros(len(x), made.HEADS, z.shape[1], z.shape[1], dtype=z.dtype)
        for n in range(len(x)):
            for head in range(made.HEADS):
                at = slice(head * d, (head + 1) * d)
                q = z[n] @ w[: made.WIDTH][at].T + b[: made.WIDTH][at]
                k = z[n] @ w[made.WIDTH : 2 * made.WIDTH][at].T + b[made.WIDTH : 2 * made.WIDTH][at]
                e = torch.exp(q @ k.T / d**0.5)
                rows[n, head] = e / e.sum(1, keepdim=True)
        found.append(rows)
    return found


@pytest.mark.parametrize("spelled", made.ATTENTIONS)
@pytest.mark.parametrize("read", made.HEADS_READ)
def test_rollout_equals_the_paper(spelled, read):
    """Float64, a product of two matrices: 1e-12 expected."""
    model, x = made.transformer(spelled, read), made.pictures(3)
    one, two = (rows.mean(1) for rows in weights_by_hand(model, x))
    identity = torch.eye(one.shape[1], dtype=one.dtype)
    rolled = (0.5 * two + 0.5 * identity) @ (0.5 * one + 0.5 * identity)
    patches = {"class-first": slice(1, 7), "class-last": slice(0, 6), "mean": slice(0, 6), "two": slice(2, 8)}[read]
    rows = {"class-first": [0], "class-last": [6], "mean": list(range(6)), "two": [0, 1]}[read]
    expected = rolled[:, rows].mean(1)[:, patches].reshape(3, 1, 2, 3)
    found = attribution.attention_rollout(Network(model, made.SHAPE), x, batch=2)
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-12)
    assert found.map.shape == (3, 8, 12)


@pytest.mark.parametrize("heads", ["max", "min"])
def test_heads_by_hand(heads):
    model, x = made.transformer(), made.pictures()
    hatted = []
    for rows in weights_by_hand(model, x):
        chosen = rows.amax(1) if heads == "max" else rows.amin(1)
        chosen = chosen / chosen.sum(2, keepdim=True)
        hatted.append(0.8 * chosen + 0.2 * torch.eye(7, dtype=chosen.dtype))
    expected = (hatted[1] @ hatted[0])[:, 0, 1:].reshape(2, 1, 2, 3)
    found = attribution.attention_rollout(Network(model, made.SHAPE), x, heads=heads, residual=0.2)
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-12)


def test_the_class_does_not_matter():
    net, x = Network(made.transformer(), made.SHAPE), made.pictures()
    one, two = (attribution.attention_rollout(net, x, target) for target in (0, 2))
    assert torch.equal(one.values, two.values)
    assert not torch.equal(one.score, two.score)


def test_masks_and_pooling_by_a_query():
    """timm's attention pooling: one row of weights without a residual at the end; shares add to one without a class
    token."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, class_token=False, global_pool="map")
    found = attribution.attention_rollout(Network(model.eval(), (3, 64, 64)), torch.rand(2, 3, 64, 64))
    torch.testing.assert_close(found.values.sum((1, 2, 3)), torch.ones(2))


@pytest.mark.parametrize("fused", [True, False])
def test_timm_fused_and_not(fused):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=3, reg_tokens=2).eval()
    net, x = Network(model, (3, 64, 64)), torch.rand(2, 3, 64, 64)
    expected = attribution.attention_rollout(net, x).values
    for block in model.blocks:
        block.attn.fused_attn = fused
    found = attribution.attention_rollout(Network(model, (3, 64, 64)), x).values
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert found.shape == (2, 1, 4, 4)


def test_torch_encoder_layers():
    """nn.TransformerEncoder, whose fast path would hide everything."""

    class Encoded(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 3)
            self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)

        def forward(self, x):
            return self.head(self.encoder(self.proj(x).flatten(2).transpose(1, 2)).mean(1))

    torch.manual_seed(0)
    net = Network(Encoded().eval(), made.SHAPE)
    found = attribution.attention_rollout(net, made.pictures().float())
    torch.testing.assert_close(found.values.sum((1, 2, 3)), torch.ones(2))
    assert "layers.1" in found.layer


def test_networks_without_attention_over_patches_are_refused():
    layers = nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    plain = Network(nn.Sequential(*layers), made.SHAPE)
    with pytest.raises(LayerError, match="no tokens that stand for patches"):
        attribution.attention_rollout(plain, made.pictures().float())
    net = Network(made.transformer(), made.SHAPE)
    with pytest.raises(InputError, match="mean, max, min"):
        attribution.attention_rollout(net, made.pictures(), heads="median")
    with pytest.raises(InputError, match="below 1"):
        attribution.attention_rollout(net, made.pictures(), residual=1.0)


def test_it_is_known_by_name_beside_the_others():
    assert "attention-rollout" not in registry.methods("attribution")
    net, x = Network(made.transformer(), made.SHAPE), made.pictures()
    both = attribution.compare(net, x, methods=["grad-cam", "attention_rollout"])
    assert list(both.results) == ["grad-cam", "attention-rollout"]
    judged = attribution.evaluate(net, x, ["attention-rollout"], 0, steps=2, samples=2)
    assert "attention-rollout" in judged.names


@pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus"])
@pytest.mark.parametrize("spelled", made.ATTENTIONS)
@pytest.mark.parametrize("read", ["class-first", "mean"])
def test_relevance_is_conserved_and_the_same_in_every_spelling(spelled, read, rules):
    """Input, biases and stabilisers add to the score; float64 leaves no more than the stabilisers' rounding."""
    x = made.pictures()
    found = attribution.lrp(Network(made.transformer(spelled, read), made.SHAPE), x, 1, rules=rules)
    total = found.values.sum((1, 2, 3)) + found.bias_share + found.stabiliser_share
    torch.testing.assert_close(total, found.score, rtol=1e-6, atol=1e-9)
    reference = attribution.lrp(Network(made.transformer("by-hand", read), made.SHAPE), x, 1, rules=rules).values
    torch.testing.assert_close(found.values, reference, rtol=0, atol=1e-3 * float(reference.abs().max()))


def test_the_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "vit.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(made.__file__.rpartition('/attribution/')[0])!r})\n"
        "from attribution.transformers import transformer\n"
        "def build():\n    return transformer().float()\n"
    )
    from PIL import Image

    Image.new("RGB", (12, 8), (200, 40, 90)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    asked = ["explain", "a.png", "--model", "vit:build", "--input-shape", "3,8,12", "--method", "attention-rollout"]
    assert run([*asked, "-o", "out.png"]) == 0, capsys.readouterr().err
    assert (tmp_path / "out.png").stat().st_size > 1000
    assert run([*asked, "--layer", "norm", "-o", "out.png"]) == 2
    assert 'no option "layer"' in capsys.readouterr().err


class Applied(made.Attention):
    """Attention whose softmax is not yet what is applied to the values."""

    def forward(self, x):
        n, t, d = x.shape
        qkv = torch.nn.functional.linear(x, self.of.in_proj_weight, self.of.in_proj_bias)
        q, k, v = qkv.reshape(n, t, 3, made.HEADS, d // made.HEADS).permute(2, 0, 3, 1, 4)
        rows = (q @ k.transpose(-2, -1)).softmax(-1)
        if self.spelled == "mixture":  # ConViT
            places = torch.linspace(-1, 1, t, dtype=x.dtype).expand(1, made.HEADS, t, t).softmax(-1)
            rows = 0.25 * rows + 0.75 * places
        elif self.spelled == "talking":  # CaiT
            rows = torch.stack([rows[:, 0] + rows[:, 1], rows[:, 1] - rows[:, 0]], 1)
        self.rows = rows.detach()
        if self.spelled == "columns":  # values as columns, as attention written with convolutions has them
            y = (v.transpose(-1, -2) @ rows.transpose(-1, -2)).transpose(-1, -2)
        else:
            y = torch.einsum("nhqk,nhkd->nhqd", rows, v)
        return self.of.out_proj(y.transpose(1, 2).reshape(n, t, d))


def applied(spelled):
    model = made.transformer()
    for block in model.blocks:
        given, block.attn = block.attn, Applied(spelled).double()
        block.attn.load_state_dict(given.state_dict())
    return model


@pytest.mark.parametrize("spelled", ["mixture", "columns", "einsum"])
def test_the_weights_are_those_that_are_applied(spelled):
    """Oracle: the model writes down what it multiplies its values by; two softmaxes are one attention."""
    model, x = applied(spelled), made.pictures(3)
    found = attribution.attention_rollout(Network(model, made.SHAPE), x)
    model(x)
    one, two = (block.attn.rows.mean(1) for block in model.blocks)
    identity = torch.eye(7, dtype=x.dtype)
    expected = ((two + identity) @ (one + identity) / 4)[:, 0, 1:].reshape(3, 1, 2, 3)
    torch.testing.assert_close(found.values, expected, rtol=1e-9, atol=1e-12)


def test_weights_that_are_no_shares_are_refused():
    with pytest.raises(LayerError, match="rows do not sum to one"):
        attribution.attention_rollout(Network(applied("talking"), made.SHAPE), made.pictures())
