"""Is the surface that of the network: exact at its points, invariant where it must be, honest about its error?"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from microtome import InputError, ModelError, Network, StoreError, training
from microtome.errors import DataWarning
from microtome.training.image_losses import ImageLosses, PreparedImages
from microtome.training.landscape import directions
from microtome.training.landscape.evaluation import Evaluation
from training.landscape.small_networks import loss_by_hand, pairs, small, snapshot

landscape = training.landscape


def test_a_quadratic_loss_is_the_exact_paraboloid():
    """Oracle: the closed form. A linear network without bias and the loss |W x|^2: L = mean |(W + aD + bE) x|^2."""
    torch.manual_seed(0)
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(9, 4, bias=False).double()), (1, 3, 3), output="value")
    data = [(image, 0) for image, _ in pairs(7, (1, 3, 3))]
    found = landscape.surface(net, data, steps=5, extent=2.0, loss=lambda scores, labels: scores.square().sum(1))
    D, E = (directions.random_direction(net, seed=seed)["1.weight"] for seed in (0, 1))
    X = torch.stack([image.double().flatten() for image, _ in data])
    W = net.model[1].weight.detach()
    expected = torch.stack(
        [torch.stack([(X @ (W + a * D + b * E).T).square().sum(1).mean() for b in found.beta]) for a in found.alpha]
    )
    torch.testing.assert_close(found.loss, expected, rtol=1e-6, atol=0)  # images are float32
    assert found.alpha[2] == found.beta[2] == 0
    # Second differences of a paraboloid are exact: the Hessian is that of the closed form at every point.
    aa, bb, ab = (2 * ((X @ P.T) * (X @ Q.T)).sum(1).mean() for P, Q in ((D, D), (E, E), (D, E)))
    eigenvalues = torch.linalg.eigvalsh(torch.stack([torch.stack([aa, ab]), torch.stack([ab, bb])]))
    torch.testing.assert_close(found.curvature, eigenvalues.expand(3, 3, 2), rtol=1e-5, atol=1e-5)
    assert found.negative_curvature == 0
    saddle = copy.copy(found)
    object.__setattr__(saddle, "loss", found.alpha[:, None] ** 2 - found.beta[None] ** 2)
    assert saddle.negative_curvature == 1
    torch.testing.assert_close(saddle.convexity, torch.ones(3, 3, dtype=torch.float64))


def test_points_are_the_network_s_losses_and_the_centre_is_the_network():
    net, data = small(), pairs(50)
    found = landscape.surface(net, data, steps=3, extent=0.5, batch=7, biases="random", norms="random")
    draws = [directions.random_direction(net, seed=seed, biases="random", norms="random") for seed in (0, 1)]
    assert set(draws[0]) == {name for name, _ in net.model.named_parameters()}
    for i, a in enumerate(found.alpha):
        for j, b in enumerate(found.beta):
            moved = {
                n: (v.double() + a * draws[0][n] + b * draws[1][n]).float() for n, v in net.model.named_parameters()
            }
            loss, error, accuracy = loss_by_hand(net.model, data, moved)
            assert float(found.loss[i, j]) == pytest.approx(loss, rel=1e-5)
            assert float(found.error[i, j]) == pytest.approx(error, rel=1e-4)
            assert float(found.accuracy[i, j]) == pytest.approx(accuracy)
    centre = landscape.line(net, data, steps=3).loss[1]
    assert float(centre) == pytest.approx(loss_by_hand(net.model, data, {})[0], rel=1e-6)
    assert bool((found.images == 50).all())


def test_running_statistics_are_estimated_anew_where_asked():
    """Oracle: torch's batch norm in training mode on all images, whose statistics are then the batch's own."""
    net, data = small(), pairs(60)
    found = landscape.line(net, data, steps=3, statistics="reestimated", batch=60)
    model = copy.deepcopy(net.model).eval()
    model[3].train()
    model[3].momentum = 1.0
    with torch.no_grad():
        model(torch.stack([image for image, _ in data]))
    assert float(found.loss[1]) == pytest.approx(loss_by_hand(model, data, {})[0], rel=1e-5)
    assert found.treatment["running statistics"] == "re-estimated at each point on 60 images"
    frozen = landscape.line(net, data, steps=3)
    assert frozen.treatment["running statistics"] == "frozen"
    assert abs(float(frozen.loss[1] - found.loss[1])) > 1e-3


@pytest.mark.parametrize("batch", [50, 59])
def test_running_statistics_weigh_batches_by_their_images(batch):
    """Oracle: means and variances of the batches, by hand. A last batch of 1 in 60 counted as much as the 59 others."""
    net, data = small(), pairs(60)
    found = landscape.line(net, data, steps=3, statistics="reestimated", batch=batch)
    model = copy.deepcopy(net.model).eval()
    with torch.no_grad():
        values = model[:3](torch.stack([image for image, _ in data]))
        parts = [part for part in values.split(batch) if len(part) > 1]  # a single image has no variance
        share = torch.tensor([len(part) for part in parts], dtype=torch.float32)[:, None] / sum(map(len, parts))
        model[3].running_mean = (share * torch.stack([part.mean((0, 2, 3)) for part in parts])).sum(0)
        model[3].running_var = (share * torch.stack([part.var((0, 2, 3)) for part in parts])).sum(0)
    assert float(found.loss[1]) == pytest.approx(loss_by_hand(model, data, {})[0], rel=1e-5)


def test_a_single_last_image_is_left_out_of_statistics():
    """A batch norm without positions has no variance for it."""
    torch.manual_seed(0)
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), (1, 6, 6))
    found = landscape.line(net, pairs(21), steps=3, statistics="reestimated", batch=20)
    assert found.loss.isfinite().all()
    assert found.images.tolist() == [21] * 3


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_found_also_when_we_raise(fails):
    net, other, data = small(), small(4), pairs(20)
    net.model.train()
    net.model[0].weight.requires_grad_(False)
    before, state = snapshot(net.model), torch.get_rng_state()
    calls = iter(range(10))

    def loss(scores, labels):
        if fails and next(calls) == 3:
            raise RuntimeError("stop")
        return functional.cross_entropy(scores, labels, reduction="none")

    jobs = (
        lambda: landscape.surface(net, data, steps=3, statistics="reestimated", loss=loss),
        lambda: landscape.between(net, other, data, steps=5, loss=loss),
        lambda: training.curvature.eigenvalues(net, data, batch=5, products=4, loss=loss),
    )
    for job in jobs:
        if fails:
            calls = iter(range(10))
            with pytest.raises(RuntimeError, match="stop"):
                job()
        else:
            job()
        assert all(torch.equal(value, before[name]) for name, value in net.model.state_dict().items())
        assert all(part.training for part in net.model.modules())
        assert [p.requires_grad for p in net.model.parameters()].count(False) == 1
        assert all(p.grad is None for p in net.model.parameters())
        assert torch.equal(torch.get_rng_state(), state)


def test_broken_off_work_goes_on_and_ends_the_same(tmp_path):
    net, data = small(), pairs(20)
    seen = []

    def stop(at):
        seen.append(at.done)
        if at.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        landscape.surface(net, data, steps=3, folder=tmp_path, progress=stop)
    assert seen == [1, 2, 3, 4]
    again = landscape.surface(net, data, steps=3, folder=tmp_path, progress=lambda at: seen.append(at.done))
    assert seen == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert torch.equal(again.loss, landscape.surface(net, data, steps=3).loss)
    for other in ({"extent": 2.0}, {"seed": 1}, {"statistics": "reestimated"}):
        with pytest.raises(StoreError, match="points of other settings"):
            landscape.surface(net, data, steps=3, folder=tmp_path, **other)
    with pytest.raises(StoreError, match="network"):
        landscape.surface(small(1), data, steps=3, folder=tmp_path)


def test_points_of_other_images_or_labels_are_not_taken_for_these(tmp_path):
    """The first of three batches is the same."""
    net = small()
    landscape.line(net, pairs(20), steps=3, batch=8, folder=tmp_path)
    other_end, other_label = pairs(20), pairs(20)
    other_end[-1] = (other_end[-1][0] * 0.5, other_end[-1][1])
    other_label[10] = (other_label[10][0], (other_label[10][1] + 1) % 3)
    for changed in (other_end, other_label):
        with pytest.raises(StoreError, match="other settings \\(data set\\)"):
            landscape.line(net, changed, steps=3, batch=8, folder=tmp_path)
    other_middle = pairs(20)
    other_middle[10] = (1 - other_middle[10][0], other_middle[10][1])
    with pytest.raises(StoreError, match="points of other images or of another loss"):
        landscape.line(net, other_middle, steps=3, batch=8, folder=tmp_path)


def test_points_of_another_loss_are_not_taken_for_these(tmp_path):
    """Two functions without a name; and one that is not finite."""
    net, data = small(), pairs(20)
    first, *others = (
        lambda s, y, by=by: by * functional.cross_entropy(s, y, reduction="none") for by in (1, 3, torch.nan)
    )
    found = landscape.line(net, data, steps=3, loss=first, folder=tmp_path)
    for other in others:
        with pytest.raises(StoreError, match="of another loss"):
            landscape.line(net, data, steps=3, loss=other, folder=tmp_path)
    assert torch.equal(landscape.line(net, data, steps=3, loss=first, folder=tmp_path).loss, found.loss)


def test_a_loss_that_is_nan_stays_in_the_grid():
    class Edge(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3, 4))

        def forward(self, x):
            return (x.flatten(1) @ self.w.T) * (0.6 - (self.w[0, 0] - 1)).sqrt()

    net, data = Network(Edge(), (1, 2, 2)), pairs(10, (1, 2, 2))
    way = {"w": torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)}
    found = landscape.line(net, data, steps=5, direction=way)
    assert found.loss.isnan().tolist() == [False, False, False, False, True]
    assert found.curvature.isnan().tolist() == [False, False, True]
    assert found.width(10.0) == 1.5  # up to the last finite point


def test_sequential_sampling_reaches_its_tolerance_and_its_bands_cover():
    """Oracle: a loss with known distribution. The network gives x + w, the images are the draws, and the loss is
    exp(x + w), whose mean over ten thousand images is known. 1.96 standard errors cover it in about 95 % of trials.
    """
    torch.manual_seed(0)
    values = torch.randn(10_000).clamp(-3, 3)

    class Draws:
        def __len__(self):
            return len(values)

        def __getitem__(self, index):
            return values[index].view(1, 1, 1)

        def fetch(self, indices):
            return values[indices].view(-1, 1, 1, 1), None

    data = Draws()
    scale = nn.Sequential(nn.Flatten(), nn.Linear(1, 1))
    with torch.no_grad():
        scale[1].weight.fill_(1)
        scale[1].bias.fill_(0)
    net = Network(scale, (1, 1, 1), pixels=None, output="value")
    exact = float(values.double().exp().mean())
    covered, trials = 0, 200

    def exponential(scores, labels):
        return scores[:, 0].exp()

    images = []
    for trial in range(trials):
        made = Evaluation(net, data, [], loss=exponential, tolerance=0.05, batch=64, seed=trial).at(torch.zeros(1, 0))
        assert float(made.error[0]) <= 0.05 * float(made.loss[0])
        images.append(int(made.images[0]))
        covered += abs(float(made.loss[0]) - exact) <= 1.96 * float(made.error[0])
    assert 256 <= min(images) < max(images) < 2000
    assert 0.90 <= covered / trials <= 0.99


def test_common_images_make_differences_more_exact_than_points():
    net, data = small(), pairs(400)
    exact = landscape.line(net, data, steps=5, extent=0.1).loss
    away = {}
    for common in (True, False):
        found = landscape.line(net, data, steps=5, extent=0.1, tolerance=10.0, common=common, batch=32)
        assert found.images.tolist() == [256] * 5
        away[common] = float(((found.loss - found.loss[2]) - (exact - exact[2])).abs().mean())
    assert away[True] < 0.3 * away[False]


def test_widths_by_hand():
    alpha = torch.arange(-4, 5, dtype=torch.float64) / 2
    nothing = torch.zeros(9)
    line = training.LossLine(alpha=alpha, loss=alpha.abs(), error=nothing, accuracy=nothing, images=nothing)
    assert line.width(0.75) == pytest.approx(1.5)
    assert line.width(9.0) == 4
    grid = torch.zeros(9, 9)
    bowl = (alpha[:, None] ** 2 + alpha[None] ** 2).clone()
    bowl[0, 0] = 0  # below the level, but not joined
    surface = training.LossSurface(alpha=alpha, beta=alpha, loss=bowl, error=grid, accuracy=grid, images=grid)
    assert surface.width(1.0) == pytest.approx(2 * (13 * 0.25 / torch.pi) ** 0.5)


def test_bad_input():
    net, data = small(), pairs(6)
    for options, message in (
        ({"steps": 4}, "an odd number of steps"),
        ({"extent": 0.0}, "a positive extent"),
        ({"normalization": "filters"}, "normalization must be one of"),
        ({"biases": "none"}, "biases must be one of"),
        ({"statistics": "batch"}, "statistics must be one of"),
        ({"tolerance": 0.0}, "tolerance must be a positive share"),
        ({"images": 0}, "at least one image"),
        ({"directions": [{}]}, "two directions were expected"),
        ({"directions": [{"x": torch.zeros(1)}, {}]}, 'holds "x"'),
        ({"directions": 5}, "directions: expected a list of directions.* got 5"),
        ({"directions": [1, 2]}, "directions: expected a list of directions"),
        ({"steps": 2001}, "at most 4,000,000 points can be evaluated, and steps=2001 gives 4,004,001"),
        ({"loss": 5}, "loss: expected a function or None, got 5"),
        ({"images": 2.5}, "images: expected a whole number"),
        ({"common": "no"}, "common: expected True or False"),
        ({"folder": 5}, "folder: expected a path"),
        ({"loss": functional.cross_entropy}, "one number per image"),
    ):
        with pytest.raises(InputError, match=message):
            landscape.surface(net, data, **{"steps": 3, **options})
    with pytest.raises(InputError, match="no labelled image"):
        landscape.line(net, [image for image, _ in data], steps=3)
    with (
        pytest.warns(DataWarning, match="label 7"),
        pytest.raises(InputError, match="item 0 of the data set has label 7"),
    ):
        landscape.line(net, [(data[0][0], 7)], steps=3)
    value = Network(nn.Sequential(nn.Flatten(), nn.Linear(36, 1)), (1, 6, 6), output="value")
    with pytest.raises(InputError, match="give loss="):
        landscape.line(value, data, steps=3)
    for options, message in (
        ({"margin": 1e30}, "at most 4,000,000 points can be evaluated, and steps=51 with margin=1e\\+30"),
        ({"steps": 10**12}, "at most 4,000,000 points"),
    ):
        with pytest.raises(InputError, match=message):
            landscape.between(net, net, data, **options)


@pytest.mark.parametrize(
    ("direction", "message"),
    [
        (5, "direction: expected a direction"),
        ([{}], "direction: expected a direction"),
        ({}, "without tensors"),
        ({"0.weight": 5}, 'of shape .* was expected for "0.weight" in a direction, got an object of type int'),
        ({"0.weight": torch.ones(1)}, 'of shape .* was expected for "0.weight" in a direction, got \\(1,\\)'),
        ({"0.wieght": torch.ones(1)}, "no such tensor. Nearest: 0.weight"),
    ],
)
def test_a_direction_fits_the_weights_or_is_an_error(direction, message):
    """A tensor of another shape would be broadcast: the line would be along a direction that no one gave."""
    net = small()
    with pytest.raises(InputError, match=message):
        landscape.line(net, pairs(6), steps=3, direction=direction)
    infinite = {"0.weight": torch.full_like(net.model[0].weight, torch.inf)}
    with pytest.raises(InputError, match="must be real and finite"):
        landscape.line(net, pairs(6), steps=3, direction=infinite)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "probabilities"])
def test_the_loss_follows_the_head(kind):
    """A closing softmax is looked behind; sigmoids have a loss for each class; probabilities their logarithm."""
    net, data = small(), pairs(30)
    images, labels = torch.stack([i for i, _ in data]), torch.tensor([label for _, label in data])

    class Average(nn.Module):
        def forward(self, x):
            return (x.softmax(1) + (2 * x).softmax(1)) / 2

    closing = {"softmax": nn.Softmax(1), "sigmoid": nn.Sigmoid(), "probabilities": Average()}[kind]
    closed = Network(nn.Sequential(net.model, closing), (1, 6, 6))
    assert closed.output == {"softmax": "logits"}.get(kind, kind)
    logits = net.model.eval()(images).detach()
    expected = functional.cross_entropy(logits, labels)
    if kind == "probabilities":
        expected = functional.nll_loss(((logits.softmax(1) + (2 * logits).softmax(1)) / 2).log(), labels)
    if kind == "sigmoid":
        hot = functional.one_hot(labels, 3).float()
        expected = functional.binary_cross_entropy_with_logits(logits, hot, reduction="none").sum(1).mean()
    losses, _ = ImageLosses(closed)(*next(PreparedImages(closed, data, labelled=True).batches()))
    assert float(losses.detach().mean()) == pytest.approx(float(expected), rel=1e-5)


def test_a_model_that_cannot_be_copied_is_one_clear_error():
    net = small()
    net.model.lock = (part for part in ())
    with pytest.raises(ModelError, match=r"copy\.deepcopy fails"):
        landscape.line(net, pairs(4), steps=3)


def test_bfloat16_states_how_far_it_is_off(tmp_path):
    """Oracle: the same points in torch's own autocast and in float32, by hand."""
    net, data = small(), pairs(300)
    exact = landscape.line(net, data, steps=9, extent=0.5)
    rough = landscape.line(net, data, steps=9, extent=0.5, precision="bfloat16", folder=tmp_path)
    off = (rough.loss - exact.loss).abs()
    assert 0 < float(off.max()) < 0.02  # bfloat16 has 8 bits
    assert rough.precision_error == pytest.approx(float(off.max()), rel=1e-6)  # at most 9 points: all of them
    assert exact.precision_error is None
    assert f"{rough.precision_error:.2g} off float32" in rough.treatment["precision"]
    model = copy.deepcopy(net.model).eval()
    images, labels = torch.stack([image for image, _ in data]), torch.tensor([label for _, label in data])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = model(net.normalise(images)).float()
    by_hand = float(functional.cross_entropy(scores, labels))
    assert abs(float(rough.loss[4]) - by_hand) < 0.3 * float(off.max()) + 1e-4  # another order of the sums
    with pytest.raises(StoreError, match="other settings \\(precision\\)"):
        landscape.line(net, data, steps=9, extent=0.5, folder=tmp_path)
    text = rough.plot().get_supxlabel()
    assert "bfloat16" in text
    found = landscape.surface(net, data, steps=3, precision="bfloat16")
    assert found.precision_error > 0
    found.save(tmp_path / "s.safetensors")
    assert training.LossSurface.load(tmp_path / "s.safetensors").precision_error == found.precision_error


def test_bfloat16_refused():
    with pytest.raises(InputError, match="is for a network in float32"):
        landscape.line(small(dtype=torch.float64), pairs(5), steps=3, precision="bfloat16")
    with pytest.raises(InputError, match="precision must be one of float32, bfloat16"):
        landscape.line(small(), pairs(5), steps=3, precision="half")
