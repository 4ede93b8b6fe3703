"""Is CKA the papers', exact over all images, never NaN, and are its interval and null what they say?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from microtome import InputError, LayerError, Network
from microtome.representation import cka, features, hsic
from microtome.representation.feature_table import FeatureTable

IMAGES = torch.rand(37, 1, 5, 5, generator=torch.Generator().manual_seed(1))


def by_hand(x: np.ndarray, y: np.ndarray, debiased: bool) -> float:
    """Oracle: float64 with whole Gram matrices, written from the papers; shares no code with the library.

    Debiased: Song et al. 2012, equation 5, with diagonals of zero. Else Gretton's tr(K H L H) / (n - 1)^2.
    """
    n, one = len(x), np.ones(len(x))

    def hsic_of(a: np.ndarray, b: np.ndarray) -> float:
        k, l = a @ a.T, b @ b.T  # noqa: E741 - as in the paper
        if not debiased:
            h = np.eye(n) - np.ones((n, n)) / n
            return float(np.trace(k @ h @ l @ h)) / (n - 1) ** 2
        np.fill_diagonal(k, 0)
        np.fill_diagonal(l, 0)
        middle = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
        return float(np.trace(k @ l) + middle - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))

    return hsic_of(x, y) / np.sqrt(hsic_of(x, x) * hsic_of(y, y))


def network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    body = (nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 40), nn.Tanh(), nn.Linear(40, 2))
    return Network(nn.Sequential(*body), (1, 5, 5), mean=0.5, std=0.3)


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("reduce", ["mean", "flat"])
def test_cka_is_that_of_the_papers(debiased: bool, reduce: str) -> None:
    """37 images in batches of 8, so that the last holds 5; layers narrower and wider than the images are many."""
    net, other, names = network(), network(1), ["1", "4", "5"]
    found = cka(net, other, list(IMAGES), names, reduce=reduce, debiased=debiased, batch=8)
    rows = [
        [features(one, list(IMAGES), name, reduce=reduce).values.double().numpy() for name in names]
        for one in (net, other)
    ]
    expected = torch.tensor([[by_hand(x, y, debiased) for y in rows[1]] for x in rows[0]], dtype=torch.float64)
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=1e-6)
    for a, x in enumerate(rows[0]):  # the jackknife and the images left out, each time anew
        for b, y in enumerate(rows[1]):
            each = np.array([by_hand(np.delete(x, i, 0), np.delete(y, i, 0), debiased) for i in range(37)])
            error = np.sqrt(36 / 37 * ((each - each.mean()) ** 2).sum())
            value = float(expected[a, b])
            assert float(found.low[a, b]) == pytest.approx(max(-1, value - 1.959964 * error), abs=1e-5)
            assert float(found.high[a, b]) == pytest.approx(min(1, value + 1.959964 * error), abs=1e-5)
            assert int(found.influential[a, b, 0]) == int(each.argmin())
            assert float(found.without[a, b]) == pytest.approx(each.min(), abs=1e-5)
            assert float(found.influence[a, b]) == pytest.approx(value - each.min(), abs=1e-5)


@pytest.mark.parametrize("debiased", [True, False])
def test_both_ways_give_the_same_sums(debiased: bool) -> None:
    """The covariance and the blocks of Gram matrices; each width chooses one of them."""
    draw = torch.Generator().manual_seed(0)
    x, y = (torch.randn(30, width, generator=draw, dtype=torch.float64) for width in (6, 9))
    wide = [torch.cat([one / 10] * 100, 1) for one in (x, y)]  # the same Gram matrix from a hundred times the features
    for narrow, broad in zip(
        *(hsic.hsic(hsic.sums(*(hsic.normalised(o) for o in p)), debiased) for p in ((x, y), wide)), strict=True
    ):
        torch.testing.assert_close(narrow, broad, rtol=1e-10, atol=1e-12)


def test_u_centred_products_are_the_debiased_hsic() -> None:
    draw = torch.Generator().manual_seed(0)
    x, y = (hsic.normalised(torch.randn(20, 4, generator=draw, dtype=torch.float64)) for _ in range(2))
    product = (hsic.u_centred(x) * hsic.u_centred(y)).sum() / (20 * 17)
    torch.testing.assert_close(product, hsic.hsic(hsic.sums(x, y), True)[0])


class Turned(nn.Module):
    """A layer beside the same one turned, beside a hundred thousand times it, beside one that is dead."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(25, 6)
        self.turn = nn.Linear(6, 6, bias=True)
        self.turn.weight.data = torch.linalg.qr(torch.randn(6, 6))[0]
        self.large, self.tiny, self.dead = nn.Identity(), nn.Identity(), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = self.first(x.flatten(1))
        dead = self.dead(one - 1e3)
        return self.turn(one) + self.large(1e15 * one) + self.tiny(1e-18 * one) + dead


def test_closed_forms_and_a_dead_layer() -> None:
    """1 for the same features, turned, and at scales whose squares leave single precision; a dead layer says so."""
    torch.manual_seed(0)
    net = Network(Turned(), (1, 5, 5))
    names = ["first", "turn", "large", "tiny"]
    for debiased in (True, False):
        found = cka(net, None, list(IMAGES), [*names, "dead"], debiased=debiased)
        torch.testing.assert_close(found.values[:4, :4], torch.ones(4, 4, dtype=torch.float64), rtol=0, atol=1e-5)
        assert float(found.low[:4, :4].min()) > 1 - 1e-5
        assert float(found.p[:4, :4].max()) == pytest.approx(1 / 201)
        for field in (found.values, found.low, found.high, found.p, found.without, found.influence):
            assert bool(torch.isfinite(field).all())
        assert found.defined[:4, :4].all()
        assert not found.defined[4].any()
        assert not found.defined[:, 4].any()
        assert found.dead == {"dead": "does not vary over the images"} == found.other_dead
        assert found.p[4].tolist() == [1.0] * 5
        assert [row["note"] for row in found.table()][-2:] == [
            "dead does not vary over the images",
            "dead does not vary over the images",
        ]


def test_a_large_constant_unit_does_not_hide_the_others() -> None:
    """Oracle: the same layer without the constant unit, which CKA does not see."""
    values = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    beside = torch.cat([values, torch.full((20, 1), 1e8)], 1)
    found, expected = hsic.normalised(beside), hsic.normalised(values)
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found[:, :3], expected)
    assert found[:, 3].tolist() == [0.0] * 20


def test_a_layer_that_varies_for_one_image_only() -> None:
    images = torch.zeros(9, 1, 5, 5)
    images[4] = 1
    found = cka(network(), None, list(images), ["1"])
    assert found.dead == {"1": "varies for single images only"}
    assert not found.defined.any()


def test_one_image_that_carries_it_all_is_found() -> None:
    """Davari et al. 2022: two unrelated sets of features and one image far away in both have a CKA near 1."""
    draw = torch.Generator().manual_seed(3)

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Identity(), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            flat = x.flatten(1)
            return torch.cat([self.left(flat[:, :12]), self.right(flat[:, 12:24])], 1)

    images = torch.randn(60, 1, 5, 5, generator=draw)
    net = Network(Halves(), (1, 5, 5), pixels=None)
    plain = cka(net, None, list(images), ["left", "right"], debiased=False)
    images[17] = 30
    images[18] = -30
    found = cka(net, None, list(images), ["left", "right"], debiased=False, influential=0.04)
    assert float(found.values[0, 1]) > 0.95
    assert set(found.influential[0, 1].tolist()) == {17, 18}
    assert float(found.without[0, 1]) == pytest.approx(float(plain.values[0, 1]), abs=0.05)
    assert float(found.influence[0, 1]) > 0.6


def test_unrelated_features_are_unbiased_and_the_null_is_uniform() -> None:
    """400 draws without a relation: the debiased value is 0 on average, p below .05 in about one of 20."""
    draw = torch.Generator().manual_seed(0)
    values, low = [], 0
    for _trial in range(400):
        x, y = (hsic.normalised(torch.randn(20, 30, generator=draw, dtype=torch.float64)) for _ in range(2))
        parts = [hsic.hsic(hsic.sums(*pair), True)[0] for pair in ((x, y), (x, x), (y, y))]
        values.append(float(hsic.ratio(*parts, 1e-10)))
        a, b = hsic.u_centred(x), hsic.u_centred(y)
        orders = [torch.randperm(20, generator=draw) for _ in range(39)]
        low += (1 + sum(float((a * b[o][:, o]).sum()) >= float((a * b).sum()) for o in orders)) / 40 <= 0.05
    mean, error = np.mean(values), np.std(values) / 20
    assert abs(mean) < 4 * error < 0.05
    assert 5 <= low <= 38  # 20 expected, standard deviation 4.4


def test_the_interval_holds_the_value_of_the_whole_population() -> None:
    """Gaussian features with known CKA, 100 images: 95 % intervals hold it in at least 88 % of 300 draws."""
    draw = torch.Generator().manual_seed(0)
    mix = torch.randn(5, 8, generator=draw, dtype=torch.float64)
    noise = 1.5
    # Y = X M + e: HSIC of the population is the squared Frobenius norm of the covariance.
    across = mix.square().sum()
    own = (mix.T @ mix + noise**2 * torch.eye(8)).square().sum()
    truth = float(across / (torch.tensor(5.0) * own).sqrt())
    held = 0
    for _ in range(300):
        x = torch.randn(100, 5, generator=draw, dtype=torch.float64)
        y = x @ mix + noise * torch.randn(100, 8, generator=draw, dtype=torch.float64)
        a, b = hsic.normalised(x), hsic.normalised(y)
        parts = [hsic.hsic(hsic.sums(*pair), True) for pair in ((a, b), (a, a), (b, b))]
        value = float(hsic.ratio(*(part[0] for part in parts), 1e-10))
        each = hsic.ratio(*(part[1] for part in parts), 1e-10)
        error = float((99 / 100 * (each - each.mean()).square().sum()).sqrt())
        held += abs(value - truth) <= 1.96 * error
    assert 0.88 <= held / 300 <= 0.99


def test_a_table_that_goes_to_disk_holds_the_same() -> None:
    rows = torch.rand(10, 7)
    with FeatureTable(10, memory=300) as table:
        for start in (0, 6):
            for layer in ("memory", "disk"):
                table.put(layer, start, rows[start : start + 6])
        assert torch.equal(table["memory"], rows)
        assert torch.equal(table["disk"], rows)


def test_a_network_beside_itself_is_symmetric() -> None:
    found = cka(network(), None, list(IMAGES))
    assert found.layers == found.other_layers
    torch.testing.assert_close(found.values, found.values.T)
    torch.testing.assert_close(found.low, found.low.T)
    torch.testing.assert_close(found.values.diagonal(), torch.ones(len(found.layers), dtype=torch.float64))
    twice = cka(network(), network(), list(IMAGES))
    torch.testing.assert_close(found.values, twice.values)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"dataset": list(IMAGES[:4])}, InputError, "at least five images"),
        ({"permutations": 0}, InputError, "permutations=1"),
        ({"influential": 0.5}, InputError, "below 0.5"),
        ({"layers": "9"}, LayerError, "Nearest"),
        ({"layers": []}, InputError, "no layer"),
    ],
)
def test_bad_input(options: dict, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        cka(network(), None, **{"dataset": list(IMAGES), **options})
