"""Are images, targets and models that cannot be used refused with the right advice, and usual spellings understood?"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from microtome import InputError, ModelError, Network, attribution, batch_sizes, data, spaces, units, zoo
from microtome.data.adapters.hugging_face import HuggingFace
from microtome.loading import RunConfig

SHAPE = (3, 5, 4)


def network(**options: Any) -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 4))
    return Network(model, SHAPE, **{"classes": list("abcd"), **options})


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_bounds_and_masks_may_be_infinite_weights_and_statistics_may_not() -> None:
    class Bounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.head = nn.BatchNorm2d(3), nn.Linear(3, 2)
            self.register_buffer("low", torch.tensor(float("-inf")))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(x).clamp(min=self.low).mean((2, 3)))

    model = Bounded().eval()
    x = torch.rand(1, 3, 4, 4)
    torch.testing.assert_close(Network(model, (3, 4, 4)).logits(x), model(x).detach())
    for name, value in (("low", "nan"), ("norm.running_var", "inf"), ("head.bias", "-inf")):
        broken = Bounded().eval()
        broken.get_submodule(name.rpartition(".")[0]).__getattr__(name.rpartition(".")[2]).data.fill_(float(value))
        with pytest.raises(ModelError, match=f"NaN or infinity, first {name}"):
            Network(broken, (3, 4, 4))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.rand(2, 5, 4, 3), r"channels are last.*images\.permute\(0, 3, 1, 2\)"),
        (torch.rand(5, 4, 3), r"channels are last.*images\.permute\(2, 0, 1\)"),
        (np.random.default_rng(0).random((5, 4, 3)), r"got \(5, 4, 3\).*images\.transpose\(2, 0, 1\)"),
        (np.zeros((5, 4, 3), np.uint8), "channels are last"),
        (torch.rand(2, 1, 5, 4), "3 channels were expected, not 1"),
        (torch.rand(2, 3, 6, 6), "resize or crop"),
        (torch.rand(5, 4), r"got \(5, 4\)\."),
        ([torch.rand(2, *SHAPE), torch.tensor([1, 2])], r"list of \(2, 3, 5, 4\), \(2,\).*the first part of a batch"),
        ((torch.rand(*SHAPE), 3), "the first part of a batch"),
        ({"image": torch.rand(*SHAPE), "label": 3}, "got a dict.*entries: image, label"),
        ("cat.png", r"microtome\.data\.folder"),
        (Path("cat.png"), r"microtome\.data\.folder"),
        (None, "got a NoneType"),
        (torch.utils.data.TensorDataset(torch.rand(2, *SHAPE)), r"microtome\.data\.hugging_face"),
        (np.array(["a", "b"]), "one tensor or array"),
        (torch.zeros(2, *SHAPE, dtype=torch.uint8), "divide by 255"),
    ],
)
def test_what_is_no_batch_of_images_is_refused_with_the_right_advice(given: Any, words: str) -> None:
    net = network()
    for method in (net.logits, lambda x: attribution.saliency(net, x), lambda x: net.logits(x, check=False)):
        with pytest.raises(InputError, match=words) as caught:
            method(given)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spelling", ["list", "array", "read-only", "reversed", "other byte order", "one"])
def test_images_are_understood_in_every_usual_spelling(spelling: str) -> None:
    """Oracle: the same numbers as a tensor."""
    net, x = network(), images()
    array, frozen = x.numpy().copy(), x.numpy().copy()
    frozen.setflags(write=False)
    given: Any = {
        "list": list(x),
        "array": array,
        "read-only": frozen,
        "reversed": array[:, ::-1],
        "other byte order": array.astype(array.dtype.newbyteorder()),
        "one": array[0],
    }[spelling]
    expected = {"reversed": x.flip(1), "one": x[:1]}.get(spelling, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(net.logits(given), net.logits(expected))


ONE_HOT = torch.tensor([[0, 0, 1, 0], [1, 0, 0, 0]])


@pytest.mark.parametrize(
    "target",
    [
        [2, 0],
        (2, 0),
        ["c", "a"],
        torch.tensor([2, 0]),
        torch.tensor([[2], [0]]),
        torch.tensor([2.0, 0.0]),
        np.array([2, 0]),
        np.array([[2], [0]], dtype=np.uint8),
        np.array(["c", "a"]),
        ONE_HOT,
        ONE_HOT.float(),
        ONE_HOT.bool(),
        ONE_HOT.numpy(),
        ONE_HOT.tolist(),
        [torch.tensor(2), np.int64(0)],
        range(2, -1, -2),
    ],
)
@pytest.mark.parametrize("method", ["gradient", "occlusion", "integrated_gradients", "smooth_grad"])
def test_targets_are_understood_in_every_usual_spelling(target: Any, method: str) -> None:
    options = {"occlusion": {"window": 2, "stride": 2}, "smooth_grad": {"samples": 2}}.get(method, {})
    result = getattr(attribution, method)(network(), images(), target, **options)
    assert result.target.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (torch.tensor([[0.5, 0.5, 0, 0], [1, 0, 0, 0]]), "one-hot"),
        (torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0]]), "one-hot"),
        (torch.tensor([[0, 1], [1, 0]]), "one-hot: 4 numbers"),
        ([["a", "b"], ["a", "b"]], "one-hot"),
        ([0.7, 1], "an integer or a name, got 0.7"),
        (float("nan"), "an integer or a name"),
        (True, "an integer or a name"),
        ({"a": 1}, "an integer or a name"),
        ([None, 1], "an integer or a name, got None"),
        ({1, 2}, "an integer or a name"),
        ([0, 1, 2], "2 targets were expected"),
        (4, "class 4 does not exist"),
        ("e", "Nearest"),
    ],
)
def test_what_is_no_target_is_one_clear_error(target: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        attribution.gradient(network(), images(), target)
    assert "\n" not in str(caught.value)


def test_lazy_layers_are_asked_to_run_once() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(ModelError, match=r"lazy layers 0, 2 have no weights yet; run the model once"):
        Network(model, SHAPE)
    model(images())
    assert Network(model, SHAPE).output_shape == (3,)


@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (-1.0, 1.0), (1.0, 2.0), (0.0, 1e4)])
def test_the_probe_lies_in_the_pixel_range(low: float, high: float) -> None:
    """Every use of a probe goes through the range check; layers are read by ``spaces`` with a probe of their own."""
    net = network(pixels=(low, high))
    assert (float(net.probe.min()), float(net.probe.max())) == ((low + high) / 2,) * 2
    assert net.images(net.probe).shape == (1, *SHAPE)
    assert spaces.operator(net, "3").input_shape == (24,)
    assert spaces.operator(net, "0").output_shape == (4, 3, 2)
    assert units.dissect(net, images(1)[0] * (high - low) + low, "0", 0).source == "input"


def test_deep_taylor_takes_the_range_of_each_image() -> None:
    """Oracle: each image alone. Without a pixel range the box of the first layer is the image's own."""
    net = network(pixels=None)
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    x[2] *= 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = attribution.deep_taylor(net, x, 1).values
    alone = torch.cat([attribution.deep_taylor(net, x[i : i + 1], 1).values for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)


def test_images_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spy: how many times a method looks at the images' values."""
    net, looks = network(), []
    whole = torch.aminmax
    monkeypatch.setattr(torch, "aminmax", lambda *args, **kwargs: looks.append(1) or whole(*args, **kwargs))
    for run in (
        lambda: attribution.gradient(net, images(), batch=1),
        lambda: attribution.occlusion(net, images(), window=2, stride=2),
        lambda: attribution.integrated_gradients(net, images(), steps=2),
        lambda: attribution.smooth_grad(net, images(), samples=2),
        lambda: attribution.grad_cam(net, images(), layer="0"),
        lambda: attribution.lrp(net, images()),
        lambda: attribution.deletion(net, images(), torch.rand(2, 5, 4), steps=2),
        lambda: attribution.infidelity(net, images(), torch.rand(2, 5, 4), samples=2),
    ):
        looks.clear()
        run()
        assert len(looks) == 1


def test_classes_of_a_mapping_are_in_the_order_of_their_numbers() -> None:
    """A mapping of numbers to names as Hugging Face's id2label, of names to numbers as torchvision's class_to_idx."""
    for classes in (
        {2: "cow", 0: "ant", 1: "bee", 3: "dog"},
        {"0": "ant", "1": "bee", "3": "dog", "2": "cow"},
        {"dog": 3, "bee": 1, "ant": 0, "cow": 2},
    ):
        assert network(classes=classes).classes == ["ant", "bee", "cow", "dog"]
    for wrong in ("abcd", {"a": 1, "b": 2, "c": 3, "d": 4}, 4):
        with pytest.raises(InputError, match="classes are a list of names"):
            network(classes=wrong)


@pytest.mark.parametrize("pixels", [(1, 0), (0, 0), 255, (0, float("nan")), (0, 1, 2)])
def test_a_pixel_range_that_is_none_is_refused(pixels: Any) -> None:
    with pytest.raises(InputError, match="pixels are the lowest and the highest value"):
        network(pixels=pixels)


@pytest.mark.parametrize(
    ("options", "words"), [({"mean": "imagenet"}, "mean must be one finite number"), ({"std": None}, "std must be")]
)
def test_a_normalisation_that_is_no_number_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        network(**options)


@pytest.mark.parametrize(
    "use",
    [
        lambda shape: Network(nn.Flatten(), shape),
        lambda shape: zoo.network("fcnn1", input_shape=shape),
        lambda shape: RunConfig("no.module:of_this_name", input_shape=shape).network(),
        lambda shape: data.digits().fit(shape),
        lambda shape: HuggingFace([], shape, "image", None, None),
    ],
)
def test_images_that_memory_cannot_hold_are_refused_before_anything_is_made(
    use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 64 times an image of 1 x 4 x 4 a larger one is refused; the smallest size that fits is not."""
    monkeypatch.setattr(batch_sizes, "machine_memory", lambda: 64 * 16)
    Network(nn.Flatten(), (1, 4, 4))
    with pytest.raises(InputError, match=r"input_shape \(1, 4, 5\) is too large: .* memory"):
        use((1, 4, 5))


def test_a_machine_that_does_not_tell_its_memory_sets_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    assert batch_sizes.machine_memory() is None
    assert Network(nn.Flatten(), (1, 2, 2)).input_shape == (1, 2, 2)


@pytest.mark.parametrize("shape", [16, "3,5,4", None, (3, 5), (3, 0, 4)])
def test_an_input_shape_that_is_none_is_refused(shape: Any) -> None:
    with pytest.raises(InputError, match="input_shape is"):
        Network(nn.Flatten(), shape)


def test_images_without_dense_numbers_are_refused() -> None:
    for given, words in (
        (images().to_sparse(), "of layout torch.sparse_coo"),
        (images().to("meta"), "without numbers"),
        (images() > 0.5, "torch.bool; convert them to float first"),
        ((255 * images()).byte(), "divide by 255 first"),
    ):
        with pytest.raises(InputError, match=words):
            attribution.gradient(network(), given)
