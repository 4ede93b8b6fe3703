"""Does each statement of the article get its finding, its figure and its place on the page?"""

from __future__ import annotations

import pytest
import torch

from microtome import InputError, data, load
from microtome.reproduce.dissecting.dissecting_a_convnet import dissecting_a_convnet
from microtome.reproduce.dissecting.omitted_layers import omitted_layers
from microtome.reproduce.dissecting.settling_layers import settling


@pytest.fixture(scope="module")
def digits() -> tuple[data.Images, data.Images]:
    found = data.mnist_5000()
    return found.subset(range(0, 5000, 10)), found.subset(range(5, 5000, 50))


def test_omitted_layers_are_measured_for_each_seed(digits, tmp_path):
    found = omitted_layers(*digits, seeds=[0, 1], epochs=1, out=tmp_path)
    assert found.before.shape == (2,)
    assert set(found.without) == {"conv2: copies", "conv3: copies", "conv3: identity"}
    row = found.table()[0]
    case = row["layer: adapter"]
    assert row["loss"] == pytest.approx(float(100 * (found.before - found.retrained[case]).mean()))
    assert ("can be omitted" in found.verdict()[case]) == (row["loss"] < 0.5)
    assert torch.equal(load(tmp_path / "omitted-layers.safetensors").before, found.before)
    assert (tmp_path / "omitted-layers.png").is_file()
    with pytest.raises(InputError, match="one seed"):
        omitted_layers(*digits, seeds=[])


def test_settling_starts_far_and_ends_at_zero(digits):
    found = settling(*digits, seeds=[0], epochs=2, steps=2)
    assert found.epochs == [0.0, 1.0, 2.0]
    assert float(found.median[:, :, -1].abs().max()) < 1e-9
    assert float(found.median[:, :, 0].min()) > 0
    assert len(found.plot().axes[0].get_legend().get_texts()) == len(found.layers)


@pytest.mark.slow
def test_every_statement_of_the_article_gets_a_finding_and_a_figure(tmp_path):
    found = dissecting_a_convnet(quick=True, out=tmp_path)
    assert len(found.findings) == 10
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for one in found.findings:
        assert one["holds"] in ("yes", "partly", "no")
    pictures = [path.name for path in tmp_path.glob("*.png")]
    assert len(pictures) >= 14
    assert all(name in page for name in pictures)
