"""Small vision transformers: one function, written with every kind of attention, so that methods can be compared."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, CLASSES, PATCH = 8, 2, 3, 4
SHAPE = (3, 8, 12)  # 2 x 3 patches
GRID = (2, 3)
HEADS_READ = ("class-first", "class-last", "mean", "two")  # where the class score is read from
ATTENTIONS = ("by-hand", "joined-heads", "fused", "module", "module-tokens-first")


class Attention(nn.Module):
    """Self-attention over (N, T, D), spelled in one of ATTENTIONS."""

    def __init__(self, spelled: str) -> None:
        super().__init__()
        self.spelled = spelled
        self.of = nn.MultiheadAttention(WIDTH, HEADS, batch_first=spelled != "module-tokens-first")
        nn.init.normal_(self.of.in_proj_weight, std=0.8)
        nn.init.normal_(self.of.in_proj_bias, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        if self.spelled == "module":
            return self.of(x, x, x, need_weights=False)[0]
        if self.spelled == "module-tokens-first":
            x = x.transpose(0, 1)
            return self.of(x, x, x)[0].transpose(0, 1)
        n, t, d = x.shape
        qkv = F.linear(x, self.of.in_proj_weight, self.of.in_proj_bias)
        q, k, v = qkv.reshape(n, t, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4)
        scale = (d // HEADS) ** -0.5
        if self.spelled == "fused":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.spelled == "by-hand":
            y = (q @ k.transpose(-2, -1) * scale).softmax(-1) @ v
        else:
            q, k, v = (part.reshape(n * HEADS, t, -1) for part in (q, k, v))
            y = torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)) * scale, dim=2), v).view(n, HEADS, t, -1)
        return self.of.out_proj(y.transpose(1, 2).reshape(n, t, d))


class Block(nn.Module):
    """Attention and a small perceptron, norms first."""

    def __init__(self, spelled: str) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = Attention(spelled)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Patches, class and register tokens, two blocks, norm, linear head."""

    def __init__(self, spelled: str = "fused", read: str = "class-first", unfold: bool = False) -> None:
        super().__init__()
        self.read, self.unfold = read, unfold
        self.proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.extra = nn.Parameter(torch.randn(1, 2 if read == "two" else 1, WIDTH))
        self.place = nn.Parameter(torch.randn(1, 6, WIDTH) * 0.3)
        self.blocks = nn.Sequential(Block(spelled), Block(spelled))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        if self.unfold:  # no convolution shows the grid
            n = len(x)
            cut = x.reshape(n, 3, 2, PATCH, 3, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(n, 6, -1)
            x = F.linear(cut, self.proj.weight.flatten(1), self.proj.bias)
        else:
            x = self.proj(x).flatten(2).transpose(1, 2)
        x = x + self.place
        extra = self.extra.expand(len(x), -1, -1)
        if self.read == "class-last":
            x = torch.cat([x, extra], 1)
        elif self.read != "mean":
            x = torch.cat([extra, x], 1)
        x = self.norm(self.blocks(x))
        if self.read == "mean":
            return self.head(x.mean(1))
        return self.head(x[:, -1] if self.read == "class-last" else x[:, : self.extra.shape[1]].mean(1))


def transformer(spelled: str = "fused", read: str = "class-first", *, unfold: bool = False) -> Transformer:
    """The same weights whatever the spelling, in float64."""
    torch.manual_seed(3)
    return Transformer(spelled, read, unfold).double().eval()


def pictures(count: int = 2) -> Tensor:
    """Pictures that fit."""
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
