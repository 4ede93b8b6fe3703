"""Do maps show the layer: PCA by an SVD, t-SNE by openTSNE itself, trust by brute force, the same bytes by seed?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from microtome import InputError, data, load
from microtome.representation import Features, aligned, neighbours, pca, tsne
from microtome.representation.alignment import procrustes
from microtome.representation.map_quality import accuracy, trustworthiness
from microtome.representation.neighbours import nearest
from microtome.representation.t_sne import check_perplexity

DIGITS = data.digits()


def digits(count: int, start: int = 0, layer: str = "pixels") -> Features:
    images, labels = DIGITS.fetch(torch.arange(start, start + count))
    return Features(layer=layer, reduce="flat", values=images.flatten(1), labels=labels)


@pytest.fixture(scope="module")
def mapped():
    return tsne(digits(200), perplexity=15)


def brute(points: np.ndarray, k: int) -> list[set[int]]:
    """Oracle: each point's neighbours by sorting all distances, one point at a time."""
    found = []
    for place, point in enumerate(points):
        away = ((points - point) ** 2).sum(1)
        away[place] = np.inf
        found.append(set(np.argsort(away, kind="stable")[:k].tolist()))
    return found


def test_neighbours_by_brute_force() -> None:
    points = np.random.default_rng(0).normal(size=(90, 5)) + 1000.0
    indices, distances = nearest(points, 7)
    assert [set(row) for row in indices.tolist()] == brute(points, 7)
    by_hand = np.linalg.norm(points[indices] - points[:, None], axis=2)
    np.testing.assert_allclose(distances, by_hand, rtol=1e-12)
    assert (np.diff(distances, axis=1) >= 0).all()
    assert nearest(points, 1, points[4:6])[0].ravel().tolist() == [4, 5]
    assert nearest(np.zeros((4, 2)), 3)[0].tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]


def test_a_tree_finds_the_neighbours_that_all_distances_give() -> None:
    """Oracle: all distances, sorted. With equal points, and with queries."""
    numbers = np.random.default_rng(3)
    points = numbers.normal(size=(1500, 2))
    points[:40] = points[40]  # more equal points than neighbours
    assert len(points) >= neighbours._MANY
    indices, distances = nearest(points, 5)
    expected = np.sqrt(((points[:, None] - points[None]) ** 2).sum(2))
    np.fill_diagonal(expected, np.inf)
    np.testing.assert_allclose(distances, np.sort(expected, 1)[:, :5], rtol=1e-12)
    np.testing.assert_allclose(np.take_along_axis(expected, indices, 1), distances, rtol=1e-12)
    assert not (indices == np.arange(1500)[:, None]).any()
    inside = np.sort(expected, 1)
    clear = inside[:, 5] > inside[:, 4]  # else any of several equal ones may be the last
    assert clear.mean() > 0.9
    assert (indices[clear] == expected.argsort(1, kind="stable")[clear, :5]).all()
    asked = numbers.normal(size=(30, 2))
    by_hand = np.sqrt(((asked[:, None] - points[None]) ** 2).sum(2)).argsort(1, kind="stable")[:, :3]
    assert (nearest(points, 3, asked)[0] == by_hand).all()


@pytest.mark.parametrize("known", [10, 60])
def test_trustworthiness_from_known_neighbours_is_scikit_learns(known) -> None:
    """Few known neighbours leave most ranks to be counted; many give them all but a few."""
    from sklearn.manifold import trustworthiness as expected

    numbers = np.random.default_rng(4)
    values = numbers.normal(size=(300, 6))
    points = values[:, :2] + 0.5 * numbers.normal(size=(300, 2))
    drawn = nearest(points, 10)[0]
    found = trustworthiness(values, drawn, *nearest(values, known))
    assert found == pytest.approx(expected(values, points, n_neighbors=10), abs=1e-12)
    assert 0.5 < found < 0.9


def test_trust_and_trustworthiness(mapped) -> None:
    """Oracles: sets of neighbours by brute force; scikit-learn's trustworthiness."""
    from sklearn.manifold import trustworthiness
    from sklearn.neighbors import NearestNeighbors

    values, points = digits(200).values.double().numpy(), mapped.points.numpy()
    pairs = zip(brute(values, 10), brute(points, 10), strict=True)
    assert mapped.trust.tolist() == pytest.approx([len(a & b) / 10 for a, b in pairs])
    assert mapped.trustworthiness == pytest.approx(trustworthiness(values, points, n_neighbors=10), abs=1e-12)
    labels = digits(200).labels.numpy()
    around = NearestNeighbors(n_neighbors=10).fit(values).kneighbors(return_distance=False)
    voted = np.array([np.bincount(labels[row]).argmax() for row in around])  # ties: the smallest class there
    assert mapped.layer_accuracy == pytest.approx((voted == labels).mean(), abs=0.011)


def test_accuracy_by_votes() -> None:
    """By hand: unlabelled images neither vote nor count; among equals the nearest neighbour decides."""
    neighbours = np.array([[1, 2, 3], [0, 2, 4], [1, 3, 4], [0, 1, 2], [3, 2, 1]])
    assert accuracy(neighbours, torch.tensor([0, 0, 1, -1, 1])) == pytest.approx(2 / 4)
    # 0: 0 1 -> 0 right; 1: 0 1 1 -> 1 wrong; 2: 0 1 -> 0 wrong; 4: 1 0 -> 1 right
    assert accuracy(neighbours, torch.full((5,), -1)) is None
    assert accuracy(neighbours, None) is None


def test_accuracy_is_not_defined_for_one_class() -> None:
    neighbours = np.array([[1, 2], [0, 2], [0, 1]])
    assert accuracy(neighbours, torch.tensor([4, 4, 4])) is None
    assert accuracy(neighbours, torch.tensor([4, 4, -1])) is None
    assert accuracy(neighbours, torch.tensor([4, 4, 3])) == pytest.approx(2 / 3)


def test_classes_may_have_any_numbers() -> None:
    """Identifiers as labels: the memory counts classes, not the largest number."""
    neighbours = np.array([[1, 2, 3], [0, 2, 4], [1, 3, 4], [0, 1, 2], [3, 2, 1]])
    large = torch.tensor([5, 5, 10**15, -1, 10**15])
    assert accuracy(neighbours, large) == accuracy(neighbours, torch.tensor([0, 0, 1, -1, 1]))


def test_pca_is_the_singular_value_decomposition() -> None:
    """Oracle: numpy's SVD of the centred features, for more images than features and for fewer."""
    for count in (200, 30):
        given = digits(count)
        found = pca(given)
        centred = given.values.double().numpy() - given.values.double().numpy().mean(0)
        left, size, _ = np.linalg.svd(centred, full_matrices=False)
        np.testing.assert_allclose(np.abs(found.points.numpy()), np.abs(left[:, :2] * size[:2]), atol=1e-9)
        np.testing.assert_allclose(found.explained.numpy(), (size**2 / (size**2).sum())[:2], rtol=1e-9)
        torch.testing.assert_close(found.place(given), found.points)
    line = pca(Features(layer="one", reduce="mean", values=torch.arange(6.0)[:, None]))
    assert line.points[:, 1].tolist() == [0.0] * 6


@pytest.mark.parametrize("scale", [1e-30, 1e15, 1e30])
@pytest.mark.parametrize("shape", [(30, 5), (5, 30)])
def test_pca_does_not_depend_on_the_scale(scale: float, shape: tuple[int, int]) -> None:
    """Oracle: the map of the same features at scale 1. At 1e15 all points were 0, in silence."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    plain, scaled = (pca(Features(layer="a", reduce="mean", values=v)) for v in (values, scale * values))
    torch.testing.assert_close(scaled.points / scale, plain.points)
    torch.testing.assert_close(scaled.explained, plain.explained)
    assert float(plain.explained.sum()) > 0.4


def test_a_layer_that_varies_by_rounding_only_has_no_map() -> None:
    values = torch.full((20, 3), 1000.0)
    values[::2] += torch.finfo(torch.float32).eps * 1000
    with pytest.raises(InputError, match="same features for all images"):
        pca(Features(layer="a", reduce="mean", values=values))
    coarse = torch.tensor([[1.0, 2.0], [1.0, 2.02], [1.0, 2.0], [1.0, 2.02]]).bfloat16()
    assert pca(Features(layer="a", reduce="mean", values=coarse)).explained[0] == pytest.approx(1)


def test_images_with_equal_features_keep_their_neighbours() -> None:
    """More equal images than neighbours, as in a layer that is dead for them: any of them is a nearest one."""
    values = torch.randn(90, 4, generator=torch.Generator().manual_seed(5))
    values[:40] = 0
    found = tsne(Features(layer="a", reduce="mean", values=values), perplexity=8)
    assert found.trust[:40].tolist() == [1.0] * 40
    # By hand for the others: sets of neighbours.
    pairs = list(zip(brute(values.double().numpy(), 10), brute(found.points.numpy(), 10), strict=True))
    shares = [len(a & b) / 10 for a, b in pairs if not a & set(range(40))]
    kept = [float(found.trust[place]) for place, (a, _) in enumerate(pairs) if not a & set(range(40))]
    assert kept == pytest.approx(shares)


def test_tsne_is_that_of_opentsne(mapped) -> None:
    """Oracle: openTSNE with exact neighbours. Paths of gradient descent part by rounding; what they reach does not."""
    import openTSNE

    values = digits(200).values.double().numpy()
    other = openTSNE.TSNE(perplexity=15, n_jobs=1, neighbors="exact", random_state=0).fit(values)
    assert mapped.kl == pytest.approx(other.kl_divergence, rel=0.03)
    assert mapped.map_accuracy == pytest.approx(accuracy(nearest(np.array(other), 10)[0], digits(200).labels), abs=0.02)


def test_the_divergence_is_that_of_the_map(mapped) -> None:
    """Oracle: the definition with whole matrices. openTSNE's own number is off by up to 1 %."""
    from openTSNE.affinity import PerplexityBasedNN

    P = PerplexityBasedNN(digits(200).values.double().numpy(), 15, method="exact", n_jobs=1).P.toarray()
    points = mapped.points.numpy()
    Q = 1 / (1 + np.square(points[:, None] - points[None]).sum(2))
    np.fill_diagonal(Q, 0)
    Q /= Q.sum()
    near = P > 0
    assert mapped.kl == pytest.approx(float((P[near] * np.log(P[near] / Q[near])).sum()), rel=1e-9)


def test_similarities_are_those_of_opentsne() -> None:
    import openTSNE
    from openTSNE.affinity import PerplexityBasedNN

    from microtome.representation.t_sne import affinities

    values = digits(200).values.double().numpy()
    ours = affinities(openTSNE, *nearest(values, 45), 15).P
    theirs = PerplexityBasedNN(values, 15, method="exact").P
    assert abs(ours - theirs).max() < 1e-9 * theirs.max()


def test_a_placed_image_lies_where_opentsne_places_it_and_among_its_neighbours(mapped, tmp_path: Path) -> None:
    import openTSNE
    from openTSNE.affinity import PerplexityBasedNN

    given, new = digits(200), digits(60, 200)
    placed = mapped.place(new)
    values, points = given.values.double().numpy(), mapped.points.numpy()
    held = openTSNE.TSNEEmbedding(points.copy(), PerplexityBasedNN(values, 15, method="exact"))
    theirs = np.array(held.transform(new.values.double().numpy())) + (points.max(0) + points.min(0)) / 2
    np.testing.assert_allclose(placed.numpy(), theirs, atol=1e-6)
    in_layer = nearest(values, 10, new.values.double().numpy())[0]
    on_map = nearest(points, 10, placed.numpy())[0]
    kept = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(in_layer.tolist(), on_map.tolist(), strict=True)])
    assert kept > 0.8 * float(mapped.trust.mean())
    assert torch.equal(mapped.points, torch.from_numpy(points))
    mapped.save(tmp_path / "map.safetensors")
    assert torch.equal(load(tmp_path / "map.safetensors").place(new), placed)


def test_equal_bytes_for_a_seed_whatever_the_number_of_threads(tmp_path: Path) -> None:
    script = (
        "import sys, torch; torch.set_num_threads(int(sys.argv[1]))\n"
        "from microtome.representation import Features, pca, tsne\n"
        "draw = torch.randn(160, 300, generator=torch.Generator().manual_seed(0))\n"
        "f = Features(layer='a', reduce='mean', values=draw)\n"
        "t = tsne(f, seed=3)\n"
        "sys.stdout.buffer.write(t.points.numpy().tobytes() + t.place(draw[:9] + .1).numpy().tobytes()"
        " + pca(f).points.numpy().tobytes())\n"
    )
    found = []
    for threads in ("1", "2"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        place = {**os.environ, **dict.fromkeys(names, threads)}
        found.append(
            subprocess.run([sys.executable, "-c", script, threads], env=place, capture_output=True, check=True)
        )
    assert len(found[0].stdout) == (160 + 9 + 160) * 16
    assert found[0].stdout == found[1].stdout


def test_the_seed_counts() -> None:
    given = digits(60)
    first, again, other = (tsne(given, perplexity=5, seed=seed).points for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_turned_maps_agree_again() -> None:
    """A map turned, mirrored and moved is the same map; one that is not leaves what a single SVD leaves."""
    points = np.random.default_rng(0).normal(size=(40, 2))
    mirror = np.array([[0.6, 0.8], [0.8, -0.6]])
    turned, left = procrustes([points, points @ mirror + 5, points @ mirror.T @ mirror - 2])
    assert left < 1e-20
    np.testing.assert_allclose(turned[1], turned[0], atol=1e-9)
    noise = np.random.default_rng(1).normal(size=(40, 2))
    pair, _ = procrustes([points, noise])
    a, b = points - points.mean(0), noise - noise.mean(0)
    u, _, v = np.linalg.svd(b.T @ a)
    assert np.linalg.norm(pair[0] - pair[1]) == pytest.approx(np.linalg.norm(a - b @ u @ v), rel=1e-6)


def test_one_map_through_depth() -> None:
    """Layers that drift: begun from one another, images stay nearer than in maps made apart, at no loss of fit.

    The mean of three seeds. Maps shrunk and exaggerated again were as far apart as maps made apart.
    """
    given = digits(200)
    noise = torch.randn(given.values.shape, generator=torch.Generator().manual_seed(0))
    layers = [
        Features(layer=str(step), reduce="flat", values=given.values + 0.1 * step * noise, labels=given.labels)
        for step in range(3)
    ]
    together = [aligned(layers, perplexity=10, seed=seed) for seed in range(3)]
    found = together[0]
    assert [one.layer for one in found.maps] == ["0", "1", "2"]
    alone = [[tsne(one, perplexity=10, seed=3 * seed + at) for at, one in enumerate(layers)] for seed in range(3)]
    apart = [procrustes([one.points.numpy() for one in maps])[1] for maps in alone]
    assert np.mean([one.disparity for one in together]) < 0.6 * np.mean(apart)
    for place in range(3):
        fit, its = (np.mean([maps[place].kl for maps in each]) for each in ([t.maps for t in together], alone))
        assert fit < 1.06 * its
    by_hand = (found.maps[1].points - found.maps[0].points).square().sum(1).sqrt()
    torch.testing.assert_close(found.moved[0], by_hand)
    placed = found.maps[2].place(layers[2].values[:20])
    assert float((placed - found.maps[2].points[:20]).norm(dim=1).median()) < 1.0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: tsne(digits(60)), r"19\.67 for 60 images; got 30"),
        (lambda: tsne(digits(60), perplexity=0), "from 1 to a third"),
        (lambda: check_perplexity(30, 3), "at least 4 images, got 3"),
        (lambda: tsne(Features(layer="a", reduce="mean", values=torch.ones(99, 4))), "same features for all"),
        (lambda: pca(digits(3)), "at least four images"),
        (lambda: pca(Features(layer="a", reduce="mean", values=torch.full((9, 2), torch.nan))), "image 0 are not"),
        (lambda: pca(digits(9)).place(torch.ones(2, 5)), "from 64 features"),
        (lambda: pca(digits(9)).place(digits(2, layer="fc")), 'of layer "fc"'),
        (lambda: aligned([digits(9)]), "at least two"),
        (lambda: aligned(digits(9)), "at least two"),
        (lambda: pca(digits(9)).plot(classes=["zero", "one"]), "has a class 8, and classes names only 2"),
        (lambda: aligned([digits(9), digits(8)]), "of 8 and 9 images"),
        (lambda: aligned([digits(9), digits(9, 9)]), "different labels"),
    ],
)
def test_bad_input(call, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()
