"""Models of timm, torchvision and transformers by name: random weights and local files, since no hub is asked."""

from __future__ import annotations

import pytest
import torch

from microtome.errors import InputError, ModelError
from microtome.loading import RunConfig


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_timm_brings_input_and_normalisation():
    timm = pytest.importorskip("timm")
    net = RunConfig("timm:mobilenetv3_small_050", weights="random").network()
    expected = timm.data.resolve_model_data_config(timm.create_model("mobilenetv3_small_050"))
    assert net.input_shape == tuple(expected["input_size"])
    assert net.mean == pytest.approx(expected["mean"])
    assert net.output_shape == (1000,)
    assert net.classes is not None
    assert net.classes[0].startswith("tench")


def test_timm_reads_a_file_with_other_classes_and_channels(tmp_path):
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet10t", num_classes=7, in_chans=1)
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in model.state_dict().items()}}, tmp_path / "w.pt"
    )
    net = RunConfig("timm:resnet10t", weights=str(tmp_path / "w.pt"), input_shape=(1, 64, 48)).network()
    images = torch.rand(2, 1, 64, 48)
    normalised = (images - net.mean[0]) / net.std[0]
    assert net.output_shape == (7,)
    torch.testing.assert_close(net.logits(images), model.eval()(normalised), rtol=1e-5, atol=1e-5)


def test_timm_transformers_take_the_size_that_is_asked_for():
    pytest.importorskip("timm")
    net = RunConfig(
        "timm:vit_tiny_patch16_224", weights="random", input_shape=(3, 64, 64), classes=("a", "b")
    ).network()
    assert (net.input_shape, net.output_shape, net.classes) == ((3, 64, 64), (2,), ["a", "b"])


def test_torchvision_brings_its_categories(tmp_path):
    models = pytest.importorskip("torchvision.models")
    net = RunConfig("torchvision:squeezenet1_1", weights="random").network()
    assert net.input_shape == (3, 224, 224)
    assert net.mean == pytest.approx((0.485, 0.456, 0.406))
    assert net.classes is not None
    assert net.classes[:2] == ["tench", "goldfish"]
    model = models.mobilenet_v3_small(num_classes=5)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    net = RunConfig("torchvision:mobilenet_v3_small", weights=str(tmp_path / "w.pt"), input_shape=(3, 64, 64)).network()
    assert (net.output_shape, net.classes) == ((5,), None)


def hugging_face_folder(path, processor=True, labels=True):
    transformers = pytest.importorskip("transformers")
    names = (
        {"id2label": {0: "healthy", 1: "ill"}, "label2id": {"healthy": 0, "ill": 1}} if labels else {"num_labels": 2}
    )
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        **names,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    model.save_pretrained(path)
    if processor:
        (path / "preprocessor_config.json").write_text(
            '{"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.2], "size": {"height": 32, "width": 32}, '
            '"do_normalize": true, "image_processor_type": "ViTImageProcessor"}'
        )
    return model.eval()


def test_hugging_face_reads_a_folder_with_its_processor_and_labels(tmp_path):
    model = hugging_face_folder(tmp_path)
    net = RunConfig(f"hf:{tmp_path}").network()
    assert (net.input_shape, net.mean, net.classes) == ((3, 32, 32), (0.5, 0.4, 0.3), ["healthy", "ill"])
    images = torch.rand(2, 3, 32, 32)
    normalised = (images - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / 0.2
    torch.testing.assert_close(net.logits(images), model(normalised).logits, rtol=1e-5, atol=1e-6)


def test_hugging_face_without_processor_says_that_normalisation_is_not_known(tmp_path, caplog):
    hugging_face_folder(tmp_path, processor=False, labels=False)
    net = RunConfig(f"hf:{tmp_path}", weights="random").network()
    assert "does not say how images were normalised" in caplog.text
    assert (net.mean, net.classes) == ((0.0, 0.0, 0.0), None)


@pytest.mark.parametrize(
    ("name", "package", "message"),
    [
        ("timm:resnet81", "timm", 'timm has no model "resnet81". Nearest: resnet'),
        ("torchvision:resnet81", "torchvision", "no classification model .*Nearest: resnet"),
        ("timm:", "timm", "has no model name"),
    ],
)
def test_unknown_names_are_answered_with_the_nearest(name, package, message):
    pytest.importorskip(package)
    with pytest.raises(InputError, match=message):
        RunConfig(name, weights="random").network()


def test_weights_that_cannot_be_fetched_are_one_error(monkeypatch):
    pytest.importorskip("transformers")
    with pytest.raises(ModelError, match=r"hf:no/such-model cannot be built .*--weights random"):
        RunConfig("hf:no/such-model").network()


def test_the_same_name_gives_the_same_random_network():
    pytest.importorskip("timm")
    config = RunConfig("timm:resnet10t", weights="random", input_shape=(3, 32, 32))
    assert config.network().fingerprint == config.network().fingerprint
    assert config.random_weights
