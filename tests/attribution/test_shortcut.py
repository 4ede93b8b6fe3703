"""Is the share what the definition says, for networks whose shortcut is known, and does the experiment find it?"""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from microtome import InputError, Network, attribution, data, load
from microtome.cli.main import run
from microtome.reproduce.spotting_bias import spotting_bias

SIDE = 6


def reader(weights: torch.Tensor) -> Network:
    """A network whose one score is a weighted sum of pixels."""
    line = nn.Linear(SIDE * SIDE, 2, bias=False)
    with torch.no_grad():
        line.weight.copy_(torch.stack([weights.flatten(), -weights.flatten()]))
    return Network(nn.Sequential(nn.Flatten(), line), (1, SIDE, SIDE))


def corner() -> torch.Tensor:
    mask = torch.zeros(SIDE, SIDE)
    mask[:2, :2] = 1
    return mask


def test_shares_by_hand():
    """Gradient times input of a weighted sum is x w: its positive part by loops, on the mask and in all."""
    x = torch.rand(5, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    w = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    nets = {"all": reader(w), "corner": reader(w.abs() * corner())}
    found = attribution.shortcut_share(nets, x, corner(), 0, methods=["gradient-x-input"])
    for n in range(5):
        on = total = 0.0
        for i in range(SIDE):
            for j in range(SIDE):
                value = max(float(x[n, 0, i, j] * w[i, j]), 0.0)
                total += value
                on += value if i < 2 and j < 2 else 0.0
        assert float(found.share["all: gradient-x-input"][n]) == pytest.approx(on / total, rel=1e-5)
    assert found.mean("corner", "gradient-x-input") == pytest.approx(1.0)
    (row,) = found.table()
    known = found.share["all: gradient-x-input"]
    assert row["all, standard error"] == pytest.approx(float(known.std()) / 5**0.5)
    assert row["area"] == pytest.approx(4 / 36)


def test_a_mask_for_each_image_and_options_of_methods():
    x, masks = torch.rand(2, 1, SIDE, SIDE), torch.stack([corner(), 1 - corner()])
    found = attribution.shortcut_share(
        reader(corner()), x, masks, 0, methods={"occlusion": {"window": 2, "stride": 2, "fill": 0.0}}
    )
    assert found.share["network: occlusion"].tolist() == pytest.approx([1.0, 0.0])
    assert found.area.tolist() == pytest.approx([4 / 36, 32 / 36])


def test_a_map_without_a_positive_part_does_not_count():
    found = attribution.shortcut_share(reader(-corner()), torch.rand(2, 1, SIDE, SIDE), corner(), 0, methods=["lrp"])
    assert bool(found.share["network: lrp"].isnan().all())


def test_nothing_to_measure_is_refused():
    with pytest.raises(InputError, match="at least one network"):
        attribution.shortcut_share({}, torch.rand(1, 1, SIDE, SIDE), corner())
    with pytest.raises(InputError, match="masks of shape"):
        attribution.shortcut_share(reader(corner()), torch.rand(2, 1, SIDE, SIDE), torch.zeros(3, SIDE, SIDE))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The experiment on four of scikit-learn's digits: 8 x 8 pixels, tags of two by two."""
    four = data.digits()
    four = four.subset((four.labels < 4).nonzero()[:, 0])
    four = data.Images(four.pixels, four.labels, ["0", "1", "2", "3"])
    out = tmp_path_factory.mktemp("bias")
    train, test = four.subset(range(500)), four.subset(range(500, len(four)))
    return spotting_bias(train, test, agreement=1.0, epochs=8, explained=8, size=2, tell="place", out=out), out


def test_the_biased_network_takes_the_shortcut_and_the_maps_show_it(small):
    found, _ = small
    assert found.accuracy["biased: right tag"] > 0.95
    assert found.accuracy["biased: wrong tag"] < found.accuracy["biased: right tag"] - 0.3
    assert found.follows["biased"] > found.follows["unbiased"] + 0.2
    assert abs(found.accuracy["unbiased: right tag"] - found.accuracy["unbiased: wrong tag"]) < 0.1
    for method in ("saliency", "gradient-x-input", "integrated-gradients", "guided-backprop"):
        assert found.shares.mean("biased", method) > 1.5 * found.shares.mean("unbiased", method)


def test_it_is_written_drawn_and_read_again(small):
    found, out = small
    again = load(out / "spotting-bias.safetensors")
    assert again.report() == found.report()
    read = f"import microtome; print(microtome.load({str(out / 'spotting-bias.safetensors')!r}).report())"
    done = subprocess.run([sys.executable, "-c", read], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found.report().strip()
    assert (out / "spotting-bias.png").stat().st_size > 10_000
    page = (out / "spotting-bias.html").read_text()
    assert "spotting-bias.png" in page
    assert "answers the wrong tag" in page
    heights = [bar.get_height() for bar in found.plot().axes[0].patches]
    expected = [100 * found.accuracy[f"{name}: {tag}"] for name in ("biased", "unbiased")
                for tag in ("right tag", "no tag", "wrong tag")]  # fmt: skip
    assert heights == pytest.approx(expected)


def test_the_head_may_be_an_average():
    """Then Grad-CAM is CAM, and the new head decides the scores."""
    few = data.digits()
    few = data.Images(few.pixels[:40], few.labels[:40])
    dense, average = (
        spotting_bias(few, few, epochs=1, explained=2, size=3, head=head) for head in ("dense", "average")
    )
    assert dense.provenance.fingerprint != average.provenance.fingerprint
    assert average.provenance.parameters["head"] == "average"
    with pytest.raises(InputError, match="dense or average"):
        spotting_bias(few, few, head="tall")


def test_own_masks_from_the_shell(tmp_path, capsys, monkeypatch):
    (tmp_path / "leaning.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def build():\n    line = nn.Linear(36, 2, bias=False)\n    w = torch.zeros(6, 6)\n    w[:2, :2] = 1\n"
        "    line.weight.data.copy_(torch.stack([w.flatten(), -w.flatten()]))\n"
        "    return nn.Sequential(nn.Flatten(), line)\n"
    )
    (tmp_path / "masks").mkdir()
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(50, 255, (6, 6), dtype=np.uint8)).save(tmp_path / "a.png")
    Image.fromarray((corner().numpy() * 255).astype(np.uint8)).save(tmp_path / "masks" / "a.png")
    monkeypatch.chdir(tmp_path)
    asked = ["shortcut-share", "a.png", "--masks", "masks", "--model", "leaning:build", "--input-shape", "1,6,6",
             "--methods", "gradient-x-input,lrp", "-o", "share.png"]  # fmt: skip
    assert run(asked) == 0
    assert "100.0 % on the masks, 11.1 % of the pictures" in capsys.readouterr().out
    (tmp_path / "masks" / "a.png").unlink()
    assert run(asked) == 2
    assert "no mask for a.png" in capsys.readouterr().err
    assert run(["spotting-bias", "--data", "digits"]) == 2
    assert "mnist or fashion-mnist" in capsys.readouterr().err
