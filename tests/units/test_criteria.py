"""Does each criterion measure what its formula says, and tell structure from noise?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from microtome import InputError, Network, load, units
from microtome.units.kernel_structure import spatial_correlation


def network(kernels: torch.Tensor) -> Network:
    conv = nn.Conv2d(1, len(kernels), 5, padding=2, bias=False)
    conv.weight.data.copy_(kernels)
    return Network(nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(len(kernels) * 144, 3)), (1, 12, 12))


def labelled(count: int = 60) -> list[tuple[torch.Tensor, int]]:
    """Class 0 dark, 1 with a bright left, 2 with a bright right half."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(count):
        image, label = 0.2 * torch.rand(1, 12, 12, generator=generator), number % 3
        if label:
            image[..., slice(0, 6) if label == 1 else slice(6, 12)] += 0.7
        found.append((image, label))
    return found


def kernels() -> torch.Tensor:
    x = torch.linspace(-1, 1, 5)
    edge = x.expand(5, 5)
    noise = torch.randn(6, 5, 5, generator=torch.Generator().manual_seed(4))
    return torch.stack([edge, edge.T, *noise, torch.zeros(5, 5)])[:, None]


def test_morans_i_by_its_definition():
    """Oracle: the double sum over neighbours with NumPy loops."""
    picture = torch.randn(3, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for index in range(3):
        top = bottom = 0.0
        for plane in picture[index].numpy():
            centred = plane - plane.mean()
            bottom += (centred**2).sum()
            for i in range(4):
                for j in range(5):
                    for a, b in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                        if 0 <= a < 4 and 0 <= b < 5:
                            top += centred[i, j] * centred[a, b]
        expected = 20 / (2 * (4 * 4 + 3 * 5)) * top / bottom
        assert float(spatial_correlation(picture)[index]) == pytest.approx(expected, rel=1e-12)


def test_structure_is_told_from_noise_and_p_values_are_uniform_under_noise():
    noise = torch.randn(200, 1, 5, 5, generator=torch.Generator().manual_seed(7))
    found = units.criteria(network(noise), labelled(6), ["0"], columns=["kernel"])
    share = float((found.p_value["0"] <= 0.1).double().mean())
    assert 0.04 < share < 0.17  # 0.1 expected, three standard errors
    table = units.criteria(network(kernels()), labelled(6), "0", columns=["kernel"])
    assert float(table.p_value["0"][:2].max()) < 0.01
    assert table.value["0"][8].isnan()  # a kernel without variation has no structure to speak of


def test_variation_and_class_selectivity_against_numpy():
    net, data = network(kernels()), labelled()
    found = units.criteria(net, data, ["1"], columns=["variation", "class_selectivity"])
    x = torch.stack([image for image, _ in data])
    with torch.no_grad():
        value = net.model[1](net.model[0](x)).double().numpy()
    labels = np.array([label for _, label in data])
    np.testing.assert_allclose(found.column("variation", "1"), value.std((0, 2, 3)), rtol=1e-5)
    means = value.mean((2, 3))
    between = sum((labels == k).sum() * (means[labels == k].mean(0) - means.mean(0)) ** 2 for k in range(3))
    eta = between[:8] / ((means - means.mean(0)) ** 2).sum(0)[:8]
    np.testing.assert_allclose(found.column("class_selectivity", "1")[:8], eta, rtol=1e-5)
    assert float(found.p_value["1"][0, 1]) < 0.01  # the edge sees which half is bright
    assert found.column("class_selectivity", "1")[8].isnan()  # it never fires


def test_selectivity_to_classes_of_one_image_each_is_not_defined():
    data = [(image, number) for number, (image, _) in enumerate(labelled(3))]
    found = units.criteria(network(kernels()), data, ["1"], columns=["variation", "class_selectivity"])
    assert found.column("class_selectivity", "1").isnan().all()
    assert found.p_value["1"].isnan().all()
    two = [(image, number // 2) for number, (image, _) in enumerate(labelled(6))]
    assert (
        not units.criteria(network(kernels()), two, ["1"], columns=["class_selectivity"]).value["1"][:8].isnan().any()
    )


def test_the_error_of_the_variation_is_the_spread_over_data_sets():
    """The jackknife's error against the spread of the statistic over 40 fresh data sets."""
    net = network(kernels()[:2])
    runs = []
    for seed in range(40):
        data = list(torch.rand(50, 1, 12, 12, generator=torch.Generator().manual_seed(seed)))
        runs.append(units.criteria(net, data, ["1"], columns=["variation"]))
    spread = torch.stack([run.value["1"][:, 0] for run in runs]).std(0)
    stated = torch.stack([run.error["1"][:, 0] for run in runs]).mean(0)
    assert torch.all((stated / spread - 1).abs() < 0.5)


def test_stimuli_and_superstimuli():
    net = network(kernels()[:3])
    found = units.criteria(net, labelled(6), ["1"], columns=["stimulus_selectivity"])
    assert torch.all((found.value["1"] > 0) & (found.value["1"] <= 1))

    class Made:
        images = torch.stack([torch.full((1, 8, 8), 0.5), torch.linspace(0, 1, 8).expand(1, 8, 8)])
        channel = torch.tensor([0, 1])

    shown = units.criteria(net, labelled(6), ["1"], columns=["superstimulus"], superstimuli={"1": Made})
    plain, edge, missing = shown.column("superstimulus", "1").nan_to_num(nan=-1).tolist()
    assert plain == -1 or plain == 0
    assert edge > 0.2
    assert missing == -1


def test_the_order_of_units_and_batches_does_not_matter():
    net, data = network(kernels()), labelled(30)
    turned = network(kernels().flip(0))
    one = units.criteria(net, data, ["1"], columns=["variation", "class_selectivity"], batch=7)
    two = units.criteria(turned, data, ["1"], columns=["variation", "class_selectivity"], batch=30)
    torch.testing.assert_close(one.value["1"].flip(0), two.value["1"], equal_nan=True, rtol=1e-6, atol=1e-9)


def test_table_file_figure_and_bad_input(tmp_path):
    net = network(kernels()[:3])
    found = units.criteria(net, labelled(12))
    assert len(found.table().rows) == sum(len(found.value[layer]) for layer in found.layers)
    found.save(tmp_path / "c.safetensors")
    assert str(load(tmp_path / "c.safetensors").table()) == str(found.table())
    found.plot()
    with pytest.raises(InputError, match="Nearest: variation"):
        units.criteria(net, labelled(6), columns=["variatoin"])
    with pytest.raises(InputError, match="there are"):
        found.column("magnitude", "1")


def test_images_without_a_label_belong_to_no_class():
    """Oracle: the same data without these images."""
    net, data = network(kernels()), labelled()
    some = [(image, label if number % 4 else -1) for number, (image, label) in enumerate(data)]
    known = [(image, label) for image, label in some if label >= 0]
    mixed, plain = (units.criteria(net, one, ["1"], columns=["class_selectivity"]) for one in (some, known))
    for field in ("value", "error", "p_value"):
        torch.testing.assert_close(getattr(mixed, field), getattr(plain, field), equal_nan=True)
    none = [(image, -1 if number else 0) for number, (image, _) in enumerate(data)]
    assert units.criteria(net, none, ["1"], columns=["class_selectivity"]).value["1"].isnan().all()


def test_errors_do_not_depend_on_the_order_of_the_classes():
    """Images in turn from ten classes, as many data sets have them, or at random: the error is that of a random sample.

    Oracle: the deviation of the statistic over 300 new samples from the same ten classes.
    """
    generator = torch.Generator().manual_seed(3)

    def sample(labels: torch.Tensor) -> torch.Tensor:
        return (0.05 + 0.9 * labels / 9)[:, None, None, None] + 0.02 * torch.rand(
            len(labels), 1, 3, 3, generator=generator
        )

    net = Network(nn.Sequential(nn.AvgPool2d(3), nn.Flatten()), (1, 3, 3))
    expected = torch.stack(
        [sample(torch.randint(10, (200,), generator=generator)).mean((2, 3)).std(correction=0) for _ in range(300)]
    ).std()
    in_turn = torch.arange(200) % 10
    for labels in (in_turn, in_turn[torch.randperm(200, generator=generator)]):
        errors = [
            units.criteria(net, list(sample(labels)), "0", columns=["variation"], seed=seed).error["0"][0, 0]
            for seed in range(8)
        ]
        assert float(torch.stack(errors).mean()) == pytest.approx(float(expected), rel=0.35)


def test_images_too_small_for_stimuli_have_the_other_criteria():
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(2, 3)), (2, 1, 1))
    data = [(image, number % 2) for number, image in enumerate(torch.rand(8, 2, 1, 1))]
    found = units.criteria(net, data, "1", columns=["variation", "class_selectivity"])
    assert found.value["1"].isfinite().all()
