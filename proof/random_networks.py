"""Builds random small networks from the steps of published networks, each step written in one of several ways."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE, CLASSES = 16, 4


class Step(nn.Module):
    """A function of a map (N, C, H, W) with its own layers and weights."""

    def __init__(self, run: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


class RandomNetwork(nn.Module):
    """A sequence of steps, a pooling and a linear head; ``names`` lists the drawn steps."""

    def __init__(self, steps: list[tuple[str, nn.Module]], channels: int, dice: random.Random) -> None:
        super().__init__()
        self.names = [name for name, _ in steps]
        self.steps = nn.ModuleList(step for _, step in steps)
        self.head = nn.Linear(channels, CLASSES)
        self.pool, self.output = dice.randrange(4), dice.choice(("tensor", "tensor", "dict", "tuple"))
        self.names.append(f"pool {self.pool}, {self.output}")

    def forward(self, x: Tensor) -> Any:
        for step in self.steps:
            x = step(x)
        pooled = (
            lambda: x.mean((2, 3)),
            lambda: F.adaptive_avg_pool2d(x, 1).flatten(1),
            lambda: x.flatten(2).transpose(1, 2).mean(1),
            lambda: x.amax((-1, -2)),
        )[self.pool]()
        scores = self.head(pooled)
        return {"tensor": scores, "dict": {"logits": scores}, "tuple": (scores, pooled)}[self.output]


def draw(seed: int) -> RandomNetwork:
    """The network of a seed, in double precision, with every weight random."""
    dice = random.Random(seed)
    torch.manual_seed(seed)
    channels, side = dice.choice((4, 8)), SIDE
    steps: list[tuple[str, nn.Module]] = [("conv", nn.Conv2d(3, channels, 3, padding=1))]
    for _ in range(dice.randint(3, 7)):
        name = dice.choice(list(KINDS))
        if side <= 4 and name in _SHRINKING:
            continue
        step, width, side = KINDS[name](channels, side, dice)
        channels = width
        steps.append((name, step))
    model = RandomNetwork(steps, channels, dice)
    normal = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            scale = 0.2 if weight.dim() < 2 else weight[0].numel() ** -0.5
            noise = scale * torch.randn(weight.shape, generator=normal)
            constant = bool((weight == weight.flatten()[0]).all())
            weight.copy_(noise + (1.0 if constant and float(weight.flatten()[0]) == 1 else 0.0))
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.copy_(0.1 * torch.randn(part.num_features, generator=normal))
                part.running_var.copy_(0.5 + torch.rand(part.num_features, generator=normal))
    return model.double().eval()


Kind = Callable[[int, int, random.Random], tuple[nn.Module, int, int]]
KINDS: dict[str, Kind] = {}
_SHRINKING = {"max pool", "average pool", "strided", "unshuffle"}


def kind(name: str) -> Callable[[Kind], Kind]:
    """Add a kind of step to the table."""

    def enter(make: Kind) -> Kind:
        KINDS[name] = make
        return make

    return enter


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def maps(t: Tensor, like: Tensor) -> Tensor:
    return t.transpose(1, 2).reshape(len(like), -1, *like.shape[2:])


RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "relu in place": lambda x: F.relu(x, inplace=True), "clamp": lambda x: x.clamp(min=0),
    "where": lambda x: torch.where(x > 0, x, torch.zeros_like(x)), "mask": lambda x: x * (x > 0),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)), "half": lambda x: (x + x.abs()) / 2,
    "relu6": F.relu6, "leaky": lambda x: F.leaky_relu(x, 0.1), "gelu": F.gelu, "silu": F.silu,
    "silu by hand": lambda x: x * x.sigmoid(), "silu in place": lambda x: x.clone().mul_(torch.sigmoid(x)),
    "gelu by hand": lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), "elu": F.elu, "mish": F.mish,
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x), "hard swish": F.hardswish,
    "hard swish by hand": lambda x: x * F.relu6(x + 3) / 6, "squared": lambda x: F.relu(x) ** 2,
}  # fmt: skip


@kind("rectifier")
def _rectifier(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    name = dice.choice(list(RECTIFIERS))
    return Step(lambda _, x: RECTIFIERS[name](x)), c, side


@kind("convolution and rectifier")
def _conv(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    name, out, size, groups = (
        dice.choice(list(RECTIFIERS)),
        dice.choice((4, 8)),
        dice.choice((1, 3)),
        dice.choice((1, 2)),
    )
    conv = nn.Conv2d(c, out, size, padding=size // 2, groups=groups)
    norm = nn.BatchNorm2d(out) if dice.random() < 0.6 else nn.Identity()
    return Step(lambda s, x: RECTIFIERS[name](s.norm(s.conv(x))), conv=conv, norm=norm), out, side


@kind("strided")
def _strided(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    return nn.Conv2d(c, c, 3, stride=2, padding=1, padding_mode=dice.choice(("zeros", "reflect"))), c, side // 2


@kind("max pool")
def _max_pool(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    by_hand = Step(lambda _, x: x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2)))
    return dice.choice((nn.MaxPool2d(2), by_hand, nn.AdaptiveMaxPool2d(side // 2))), c, side // 2


@kind("average pool")
def _average_pool(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    by_hand = Step(lambda _, x: x.reshape(*x.shape[:2], side // 2, 2, side // 2, 2).mean((3, 5)))
    return dice.choice((nn.AvgPool2d(2), by_hand)), c, side // 2


@kind("residual")
def _residual(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    body = nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c, 1))
    runs: tuple[Callable[..., Tensor], ...] = (
        lambda s, x: x + s.body(x),
        lambda s, x: s.body(x).add_(x),
        lambda s, x: F.relu(x + s.scale[:, None, None] * s.body(x), inplace=True),
    )
    return Step(dice.choice(runs), body=body, scale=nn.Parameter(torch.ones(c))), c, side


@kind("squeeze-excite")
def _gate(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    def run(s: Any, x: Tensor) -> Tensor:
        made = s.up(F.relu(s.down(x.mean((2, 3), keepdim=True))))
        gate = made.sigmoid() if s.soft else F.hardsigmoid(made)
        return (
            lambda: x * gate,
            lambda: gate.expand_as(x) * x,
            lambda: x * F.interpolate(gate, x.shape[2:]),
            lambda: x + x * gate,
            lambda: x * gate.flatten(1)[:, :, None, None],
        )[s.spelling]()

    parts = {"down": nn.Conv2d(c, 2, 1), "up": nn.Conv2d(2, c, 1)}
    return Step(run, soft=dice.random() < 0.6, spelling=dice.randrange(5), **parts), c, side


@kind("channel attention by convolution")
def _eca(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    def run(s: Any, x: Tensor) -> Tensor:
        gate = s.conv(x.mean((2, 3))[:, None]).sigmoid()
        return x * gate.view(len(x), -1, 1, 1).expand_as(x)

    return Step(run, conv=nn.Conv1d(1, 1, 3, padding=1, bias=False)), c, side


@kind("spatial gate")
def _spatial(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    def run(s: Any, x: Tensor) -> Tensor:
        both = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        return x * torch.sigmoid(s.conv(both))

    return Step(run, conv=nn.Conv2d(2, 1, 3, padding=1)), c, side


@kind("selective kernel")
def _selective(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    def run(s: Any, x: Tensor) -> Tensor:
        both = torch.stack((s.first(x), s.second(x)), 1)
        weights = s.attend(both.sum(1).mean((2, 3))).view(len(x), 2, -1, 1, 1).softmax(1)
        return (both * weights).sum(1)

    parts = {"first": nn.Conv2d(c, c, 3, padding=1), "second": nn.Conv2d(c, c, 3, padding=2, dilation=2)}
    return Step(run, attend=nn.Linear(c, 2 * c), **parts), c, side


@kind("channels last")
def _channels_last(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    def run(s: Any, x: Tensor) -> Tensor:
        y = s.norm(s.conv(x).permute(0, 2, 3, 1))
        return x + (s.out(F.gelu(s.into(y))) * s.scale).permute(0, 3, 1, 2)

    conv = nn.Conv2d(c, c, 3, padding=1, groups=c)
    parts = {"norm": nn.LayerNorm(c), "into": nn.Linear(c, 2 * c), "out": nn.Linear(2 * c, c)}
    return Step(run, conv=conv, scale=nn.Parameter(torch.ones(c)), **parts), c, side


@kind("attention by hand")
def _attention(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    def run(s: Any, x: Tensor) -> Tensor:
        t = s.norm(tokens(x))
        q, k, v = s.qkv(t).reshape(len(x), t.shape[1], 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        if s.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q * (c // 2) ** -0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
        return x + maps(s.out(mixed.transpose(1, 2).reshape(t.shape)), x)

    parts = {"norm": nn.LayerNorm(c), "qkv": nn.Linear(c, 3 * c, bias=dice.random() < 0.5), "out": nn.Linear(c, c)}
    return Step(run, fused=dice.random() < 0.5, **parts), c, side


@kind("windows")
def _windows(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    w, shift = 2, dice.choice((0, 1))

    def run(s: Any, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        y = torch.roll(x, (-shift, -shift), (2, 3)).permute(0, 2, 3, 1)
        y = y.reshape(n, height // w, w, width // w, w, c).transpose(2, 3).reshape(-1, w * w, c)
        q, k, v = s.qkv(s.norm(y)).chunk(3, -1)
        y = s.out((q @ k.transpose(1, 2) + s.bias).softmax(-1) @ v)
        y = y.reshape(n, height // w, width // w, w, w, c).transpose(2, 3).reshape(n, height, width, c)
        return x + torch.roll(y.permute(0, 3, 1, 2), (shift, shift), (2, 3))

    parts = {"norm": nn.LayerNorm(c), "qkv": nn.Linear(c, 3 * c), "out": nn.Linear(c, c)}
    return Step(run, bias=nn.Parameter(torch.zeros(w * w, w * w)), **parts), c, side


@kind("encoder layer")
def _encoder(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    first = dice.random() < 0.5
    layer = nn.TransformerEncoderLayer(c, 2, 2 * c, 0.1, batch_first=first, norm_first=dice.random() < 0.5)

    def run(s: Any, x: Tensor) -> Tensor:
        t = tokens(x) if first else tokens(x).transpose(0, 1)
        y = s.layer(t)
        return maps(y if first else y.transpose(0, 1), x)

    return Step(run, layer=layer), c, side


@kind("multi-head attention")
def _multi_head(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    def run(s: Any, x: Tensor) -> Tensor:
        t = tokens(x)
        return x + maps(s.attend(t, t, t, need_weights=False)[0], x)

    return Step(run, attend=nn.MultiheadAttention(c, 2, batch_first=True)), c, side


@kind("class token")
def _class_token(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    def run(s: Any, x: Tensor) -> Tensor:
        t = torch.cat((s.token.expand(len(x), -1, -1), tokens(x)), 1)
        t = t + F.scaled_dot_product_attention(t, t, s.value(t))
        return maps(t[:, 1:] + t[:, :1], x)

    return Step(run, token=nn.Parameter(torch.zeros(1, 1, c)), value=nn.Linear(c, c)), c, side


@kind("norm")
def _norm(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    def by_hand(s: Any, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        return centred * torch.rsqrt(centred.pow(2).mean(1, keepdim=True) + 1e-5) * s.weight[:, None, None]

    made = (nn.GroupNorm(2, c), nn.InstanceNorm2d(c, affine=True), nn.BatchNorm2d(c),
            Step(by_hand, weight=nn.Parameter(torch.ones(c))))  # fmt: skip
    return dice.choice(made), c, side


@kind("shuffle")
def _shuffle(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    by_hand = Step(lambda _, x: x.view(len(x), 2, -1, *x.shape[2:]).transpose(1, 2).reshape(x.shape))
    return dice.choice((nn.ChannelShuffle(2), by_hand)), c, side


@kind("unshuffle")
def _unshuffle(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * c, c, 1)), c, side // 2


@kind("split")
def _split(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    def run(s: Any, x: Tensor) -> Tensor:
        a, b = x.chunk(2, 1)
        b = F.relu(s.conv(b))
        return torch.cat((a, b), 1) if s.order else torch.cat((b + a, a), 1)

    return Step(run, conv=nn.Conv2d(c // 2, c // 2, 3, padding=1), order=dice.random() < 0.5), c, side


@kind("gated unit")
def _glu(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    runs: tuple[Callable[..., Tensor], ...] = (
        lambda s, x: F.glu(s.conv(x), 1),
        lambda s, x: (lambda a, b: a * b.sigmoid())(*s.conv(x).chunk(2, 1)),
        lambda s, x: (lambda a, b: F.silu(a) * b)(*s.conv(x).chunk(2, 1)),
    )
    return Step(dice.choice(runs), conv=nn.Conv2d(c, 2 * c, 1)), c, side


@kind("two scales")
def _scales(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    mode = dice.choice(("nearest", "bilinear"))

    def run(s: Any, x: Tensor) -> Tensor:
        return x + F.interpolate(s.conv(F.avg_pool2d(x, 2)), x.shape[2:], mode=mode)

    return Step(run, conv=nn.Conv2d(c, c, 3, padding=1)), c, side


@kind("linear by einsum")
def _einsum(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    runs: tuple[Callable[..., Tensor], ...] = (
        lambda s, x: torch.einsum("nchw,dc->ndhw", x, s.weight),
        lambda s, x: (x.permute(0, 2, 3, 1) @ s.weight.T).permute(0, 3, 1, 2),
        lambda s, x: torch.baddbmm(s.bias[None, :, None], s.weight.expand(len(x), -1, -1), x.flatten(2)).view(x.shape),
    )
    parts = {"weight": nn.Parameter(torch.randn(c, c)), "bias": nn.Parameter(torch.zeros(c))}
    return Step(dice.choice(runs), **parts), c, side


@kind("mixer")
def _mixer(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    mix = nn.Sequential(nn.Linear(side * side, 8), nn.GELU(), nn.Linear(8, side * side))
    return (
        Step(lambda s, x: x + s.mix(s.norm(tokens(x)).transpose(1, 2)).view(x.shape), mix=mix, norm=nn.LayerNorm(c)),
        c,
        side,
    )


@kind("larger of two")
def _larger(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    return (
        Step(lambda s, x: torch.maximum(s.first(x), s.second(x)), first=nn.Conv2d(c, c, 1), second=nn.Conv2d(c, c, 1)),
        c,
        side,
    )


@kind("product of two")
def _star(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    return Step(lambda s, x: s.first(x) * s.second(x), first=nn.Conv2d(c, c, 1), second=nn.Conv2d(c, c, 1)), c, side


@kind("linear attention")
def _linear_attention(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    def run(s: Any, x: Tensor) -> Tensor:
        q, k, v = s.qkv(x).flatten(2).chunk(3, 1)
        q, k = F.relu(q), F.relu(k)
        mixed = (v @ k.transpose(1, 2)) @ q
        return x + (mixed / (k.sum(2)[:, None] @ q + 1e-2)).view(x.shape)

    return Step(run, qkv=nn.Conv2d(c, 3 * c, 1)), c, side


@kind("global response")
def _response(c: int, side: int, dice: random.Random) -> tuple[nn.Module, int, int]:
    def run(s: Any, x: Tensor) -> Tensor:
        size = x.norm(p=2, dim=(2, 3), keepdim=True)
        return x + s.weight[:, None, None] * (x * (size / (size.mean(1, keepdim=True) + 1e-6)))

    return Step(run, weight=nn.Parameter(torch.ones(c))), c, side
