"""Do figures of maps and of CKA show the numbers: places, opacity by trust, thumbnails, intervals, dead cells?"""

from __future__ import annotations

import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.offsetbox import AnnotationBbox
from torch import nn

from microtome import InputError, Network
from microtome.representation import AlignedMaps, Features, NeighbourMap, cka, pca
from microtome.representation.map_quality import quality

VALUES = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(40) % 3


@pytest.fixture
def mapped():
    return pca(Features(layer="fc", reduce="mean", values=VALUES, labels=LABELS))


def test_points_lie_at_their_places_and_fade_with_their_trust(mapped) -> None:
    drawn = [
        one for one in mapped.plot().axes[0].collections if isinstance(one, PathCollection) and len(one.get_offsets())
    ]
    for label, one in enumerate(part for part in drawn if len(part.get_offsets()) > 1):
        chosen = label == LABELS
        assert one.get_offsets().tolist() == mapped.points[chosen].tolist()
        assert one.get_facecolors()[:, 3] == pytest.approx((0.08 + 0.92 * mapped.trust[chosen]).numpy())
    said = mapped.plot(classes=["cat", "dog", "cow"]).axes[0]
    assert [text.get_text() for text in said.get_legend().get_texts()] == ["cat", "dog", "cow"]
    assert f"{mapped.map_accuracy:.1%} here" in said.get_title()


def test_thumbnails(mapped) -> None:
    images = torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    axes = mapped.plot(images=images, limit=20).axes[0]
    boxes = [one for one in axes.artists if isinstance(one, AnnotationBbox)]
    assert [list(box.xy) for box in boxes] == mapped.points[::2].tolist()
    assert len({box.patch.get_edgecolor() for box in boxes}) == 3
    with pytest.raises(InputError, match="40 images"):
        mapped.plot(images=images[:3])


def test_aligned_maps_share_their_axes(mapped) -> None:
    found = quality(VALUES.double().numpy(), mapped.points.numpy(), None)
    one = NeighbourMap(
        layer="fc", points=mapped.points, labels=None, kl=1.0, perplexity=5.0, values=VALUES, **vars(found)
    )
    figure = AlignedMaps(maps=(one, one), moved=torch.zeros(1, 40), disparity=0.25).plot()
    figure.draw_without_rendering()
    assert [axes.get_title().split("\n")[0] for axes in figure.axes] == ["fc", "fc"]
    assert "25%" in figure.get_supxlabel()


def test_cells_of_cka_say_value_interval_and_what_is_dead() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 2))
    model[1].bias.data.fill_(-100)  # nothing passes the ReLU
    images = list(torch.rand(20, 1, 3, 3, generator=torch.Generator().manual_seed(1)))
    found = cka(Network(model, (1, 3, 3)), None, images, ["1", "2"])
    texts = [text.get_text() for text in found.plot().axes[0].texts]
    assert texts[0] == "1.00\n1.00 to 1.00"
    assert texts[1:] == ["dead"] * 3


def test_features_in_the_order_of_their_means(mapped) -> None:
    line = Features(layer="fc", reduce="mean", values=VALUES).plot().axes[0].lines[0]
    assert line.get_ydata() == pytest.approx(VALUES.double().mean(0).sort(descending=True).values.numpy())
