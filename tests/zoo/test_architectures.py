"""Each network of the zoo computes what torchvision's or the package's does, for any channels and classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microtome import zoo
from microtome.errors import InputError, ModelError


@pytest.mark.parametrize(("name", "size"), [("resnet18", 64), ("vgg16", 32), ("mobilenet-v2", 64)])
def test_torchvision_state_dicts_load_unchanged_and_give_its_logits(name, size):
    """Oracle: torchvision's own code. Independent: only the key names are shared. Same operations, so bitwise equal."""
    models = pytest.importorskip("torchvision.models")
    theirs = getattr(models, name.replace("-", "_"))(num_classes=7).eval()
    for module in theirs.modules():  # batch norm that does something
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    state = theirs.state_dict()
    with torch.device("meta"):
        ours = zoo.build(name, classes=7)
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state, assign=True)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


# 0.27, 0.85 and 1.7 million in table 6 of the paper. By hand: stem, 2 n convolutions of each stage less the narrower
# first one, two numbers a channel for each norm, the head; shortcuts have no weights, so plain networks count the same.
CIFAR = {
    6 * n + 2: 3 * 144 + 9 * (2 * n * (16**2 + 32**2 + 64**2) - 16 * 32 - 32 * 64) + 2 * 16 + 4 * n * 112 + 650
    for n in (3, 9, 18)
}
# By hand: stem, two numbers for each channel that a norm reads, nine weights for each channel that a layer reads and
# each it adds, the 1 x 1 convolutions, the head; the paper says 1.0 million.
_WIDTHS = [16 + 12 * layer for layer in range(37)]
DENSE = 9 * 3 * 16 + sum((2 + 9 * 12) * width for width in _WIDTHS[:36]) + sum(
    2 * width + width**2 for width in (_WIDTHS[12], _WIDTHS[24])
) + 2 * _WIDTHS[36] + 10 * (_WIDTHS[36] + 1)  # fmt: skip
# Counted by hand from the layers' sizes; the last four are the papers' figures (11.7, 138, 3.5, 4.7 million).
PARAMETERS = {
    "fcnn1": 784 * 10 + 10,
    "fcnn5": 785 * 256 + 257 * 256 + 257 * 128 + 129 * 32 + 33 * 10,
    "simple-convnet": 26 * 32 + 801 * 64 + 1601 * 64 + (9 * 64 + 1) * 128 + 129 * 10,
    "hand-net": 8 * 6 + 53 * 6 + 39 + 1 + 39 * 10 + 10,
    "resnet18": 11_689_512,
    **{f"resnet{depth}{kind}": count for depth, count in CIFAR.items() for kind in ("", "-plain")},
    "densenet40": DENSE,
    "vgg16": 138_357_544,
    "mobilenet-v2": 3_504_872,
    "efficientnet-lite0": 4_652_008,
}


@pytest.mark.parametrize("name", zoo.names())
def test_parameters(name):
    with torch.device("meta"):  # counted without being drawn
        model = zoo.build(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", [name for name in zoo.names() if name not in ("vgg16", "hand-net")])
def test_any_channels_sizes_and_classes_and_a_seed_that_is_all(name):
    shape = (2, 40, 48)
    before = torch.get_rng_state()
    model, same, other = (zoo.build(name, input_shape=shape, classes=5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert model(images).shape == (3, 5)
        assert torch.equal(model(images), same(images))
        assert not torch.equal(model(images), other(images))
    assert not model.training


def test_cifar_resnets_have_the_paper_s_size_and_skips():
    """0.27, 0.85 and 1.7 million weights. A block of zero kernels passes its input with skips, and nothing without."""
    assert [round(CIFAR[depth] / 1e6, 2) for depth in (20, 56, 110)] == [0.27, 0.85, 1.73]
    for name, passes in (("resnet20", True), ("resnet20-plain", False)):
        model = zoo.build(name, input_shape=(1, 8, 8))
        x = torch.rand(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
        block, narrower = model.layer1[0], model.layer2[0]
        for norm in (block.bn2, narrower.bn2):
            nn.init.zeros_(norm.weight)
        with torch.no_grad():
            assert torch.equal(block(x), x if passes else torch.zeros_like(x))
            expected = torch.cat([x[:, :, ::2, ::2], torch.zeros(2, 16, 4, 4)], 1)
            assert torch.equal(narrower(x), expected if passes else torch.zeros_like(expected))
    assert zoo.resnet20((1, 16, 16), width=4).fc.in_features == 16
    with pytest.raises(InputError, match=r"6 n \+ 2"):
        zoo.CifarResNet(1, 10, 21, width=16, skip=True)


def test_simple_conv_net_is_the_article_s():
    """(conv 5 x 5, ReLU, pooling) x 3, flatten, fc4, fc5, log-softmax, written out again without the class."""
    net = zoo.simple_conv_net(seed=3)
    x = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        value, seen = x, []
        for layer in (net.conv1, net.conv2, net.conv3):
            seen.append(tuple(value.shape[1:]))
            padded = nn.functional.pad(value, (2, 2, 2, 2))
            value = nn.functional.conv2d(padded, layer.weight, layer.bias).clamp(min=0)
            even = value[..., : value.shape[-2] // 2 * 2, : value.shape[-1] // 2 * 2]
            value = even.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).amax((-1, -3))
        logits = (value.flatten(1) @ net.fc4.weight.T + net.fc4.bias) @ net.fc5.weight.T + net.fc5.bias
        assert seen == [(1, 28, 28), (32, 14, 14), (64, 7, 7)]
        # Sums of up to 1,601 terms in another order: a few float32 ulps.
        torch.testing.assert_close(net(x), logits.log_softmax(1), rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="8 x 8 pixels, got 7 x 28"):
        zoo.simple_conv_net((1, 7, 28))


def test_fcnn5_starts_self_normalizing():
    """SELU's fixed point: mean 0 and variance 1 stay so through the layers; wide layers, so within a tenth."""
    net = zoo.fcnn5((1, 40, 40), seed=0)
    x = torch.randn(500, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        value = net[:7](x)  # through selu3
    assert abs(float(value.mean())) < 0.1
    assert abs(float(value.var()) - 1) < 0.1


def test_pretrained_weights_of_packages_and_their_classes():
    names = zoo.imagenet_classes()
    assert (len(names), names[0], names[207], names[999]) == (1000, "tench", "golden retriever", "toilet tissue")
    for name in ("efficientnet-lite0", "mobilenet-v2"):
        assert zoo.architecture(name).pretrained is not None
        model = zoo.build(name, weights="pretrained")
        assert not torch.equal(next(model.parameters()), next(zoo.build(name).parameters()))
    with pytest.raises(ModelError, match="no package brings trained weights of vgg16"):
        zoo.build("vgg16", weights="pretrained")


def test_other_names_for_the_usual_classes_keep_the_trained_weights():
    named = zoo.network("mobilenet-v2", classes=[f"class {index}" for index in range(1000)])
    trained = zoo.build("mobilenet-v2", weights="pretrained")
    assert torch.equal(named.model.classifier[1].weight, trained.classifier[1].weight)
    fewer = zoo.network("mobilenet-v2", classes=["cat", "dog"])
    assert fewer.output_shape == (2,)


def test_class_names_without_torchvision_come_from_timm(monkeypatch):
    from microtome.zoo import imagenet

    monkeypatch.setattr(imagenet, "_from_torchvision", tuple)
    assert zoo.imagenet_classes()[207] == "golden retriever"
    monkeypatch.setattr(imagenet, "_from_timm", tuple)
    with pytest.raises(InputError, match=r"microtome\[hub\]"):
        zoo.imagenet_classes()
    assert zoo.architecture("resnet18").class_names() is None


def test_network_comes_with_its_input_normalisation_and_classes():
    net = zoo.network("mobilenet-v2")
    assert net.input_shape == (3, 224, 224)
    assert net.mean == pytest.approx((0.485, 0.456, 0.406))
    assert net.classes[207] == "golden retriever"
    expected = zoo.build("mobilenet-v2", weights="pretrained").state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in net.model.state_dict().items())
    small = zoo.network("resnet18", input_shape=(1, 32, 48), classes=("a", "b"))
    assert small.logits(torch.rand(1, 1, 32, 48)).shape == (1, 2)
    assert small.classes == ["a", "b"]


def test_a_misspelt_name():
    with pytest.raises(InputError, match=r'no network "resnet81". Nearest: resnet18'):
        zoo.build("resnet81")
    assert zoo.architecture("Simple_ConvNet").name == "simple-convnet"


@pytest.mark.parametrize("scheme", zoo.models.initial_weights.SCHEMES)
def test_weights_are_drawn_anew_with_the_variance_of_the_scheme(scheme):
    """Of a layer with 144 inputs and 288 outputs a filter (32 channels of 3 x 3)."""
    model = nn.Sequential(nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.Linear(64, 500))
    zoo.redraw(model, scheme, seed=3)
    weight = model[0].weight.detach().flatten(1)
    if scheme == "orthogonal":
        assert torch.allclose(weight @ weight.T, torch.eye(32), atol=1e-5)
    else:
        variance = {"he": 2 / 144, "glorot": 2 / (144 + 288), "small": 1e-4}[scheme]
        assert abs(float(weight.var()) / variance - 1) < 0.1
    assert not model[0].bias.any()
    assert model[1].weight.eq(1).all()
    other = nn.Sequential(nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.Linear(64, 500))
    zoo.redraw(other, scheme, seed=3)
    assert torch.equal(model[2].weight, other[2].weight)


def test_an_unknown_scheme_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match='scheme "xavier"; known: he, glorot, orthogonal, small'):
        zoo.redraw(nn.Linear(2, 2), "xavier")


def test_dense_networks_of_impossible_sizes_are_refused():
    with pytest.raises(InputError, match=r"depth of 3 n \+ 4 is expected, such as 22, 40 or 100; got 41"):
        zoo.CifarDenseNet(3, 10, 41, growth=12)
    with pytest.raises(InputError, match="growth of at least one channel"):
        zoo.densenet40(growth=0)
