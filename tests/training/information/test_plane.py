"""The plane of small networks and of a user's own training; what cannot be drawn is said."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from microtome import Network, data, training
from microtome.cli.main import run as command
from microtome.errors import InputError
from microtome.training import information
from microtome.training.information import Binning, binned_information

TASK = information.twelve_bits()


@pytest.fixture(scope="module")
def networks() -> information.NetworkRuns:
    return information.train_networks(TASK, hidden=(6, 3), networks=3, epochs=30, checkpoints=6, lr=0.01)


def test_plane_of_networks(networks: information.NetworkRuns, tmp_path) -> None:
    found = training.information.plane(networks)
    assert tuple(found.i_xt.shape) == tuple(found.i_ty.shape) == (len(found.epochs), 3)
    assert found.layers == ("hidden1", "hidden2", "output")
    states = networks.states(2)[1]
    by_hand = [binned_information(states[network], TASK.labels, Binning(-1, 1))[0] for network in range(3)]
    assert float(found.i_xt[2, 1]) == pytest.approx(float(sum(by_hand)) / 3, abs=1e-12)
    assert found.ceiling == 12.0
    assert found.label_entropy == pytest.approx(0.99916, abs=1e-5)
    assert found.admitted.all()
    assert (found.i_ty <= found.label_entropy + 1e-9).all()
    assert (found.i_xt <= 12 + 1e-9).all()
    rises = (found.i_ty_networks[:, 1:] - found.i_ty_networks[:, :-1]).amax((0, 2))
    assert torch.equal(found.rise_ty, rises)
    found.save(tmp_path / "plane.safetensors")
    again = information.InformationPlane.load(tmp_path / "plane.safetensors")
    assert torch.equal(again.i_xt, found.i_xt)
    assert again.provenance.method == "information-plane"
    assert len(found.table().rows) == 3
    fewer = information.plane(networks, networks=2)
    assert fewer.i_xt_networks.shape[2] == 2


def test_kernels_and_relu() -> None:
    task = information.Patterns(TASK.inputs[::10], TASK.labels[::10])
    run = information.train_networks(
        task, hidden=(4, 2), networks=1, epochs=5, checkpoints=2, activation="relu", lr=0.01
    )
    binned = information.plane(run)
    widest = max(float(run.states(place)[0].max()) for place in range(len(run.epochs)))
    assert f"to {widest:.3g}" in binned.estimators[0]
    kernels = information.plane(run, estimator="kde", trials=2)
    assert (kernels.i_xt_low <= kernels.i_xt_high).all()
    assert "lower bound" in kernels.plot().axes[2].get_title(loc="left")


def test_shares_side_by_side(networks: information.NetworkRuns) -> None:
    small = information.train_networks(TASK, hidden=(6, 3), networks=3, epochs=30, share=0.03, checkpoints=4, lr=0.01)
    found = information.compare({"85 %": networks, "3 %": small})
    assert float(found.planes["3 %"].gap[-1]) > float(found.planes["85 %"].gap[-1])
    assert [axes.get_title(loc="left").split("\n")[0] for axes in found.plot().axes] == ["85 %", "3 %"]


def labelled(count: int = 60) -> data.Images:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    pixels = (torch.rand(count, 1, 4, 4, generator=generator) * 100 + 150 * labels[:, None, None, None]).to(torch.uint8)
    return data.Images(pixels, labels)


def model(activation: type[nn.Module] = nn.Tanh) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3), activation(), nn.Linear(3, 1), activation(), nn.Linear(1, 2))


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> training.Run:
    recipe = training.Recipe(epochs=3, batch=20, lr=0.1)
    return training.fit(model(), labelled(), recipe=recipe, out=tmp_path_factory.mktemp("run"), gradients=True)


def test_plane_of_ones_own_training(own: training.Run) -> None:
    """The values by a plain forward with the kept weights."""
    mine = model()
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    net = Network(mine, (1, 4, 4))
    images = labelled()
    found = information.plane(own, net, images)
    assert found.layers == ("2", "4")
    assert found.epochs.tolist() == [1, 2, 3]
    by_hand = model()
    by_hand.load_state_dict(own.weights(2))
    states = by_hand[:3](images.pixels.float() / 255)
    expected = binned_information(states.detach(), images.labels, Binning(-1, 1))
    assert float(found.i_xt[1, 0]) == pytest.approx(float(expected[0]), abs=1e-12)
    assert float(found.i_ty[1, 0]) == pytest.approx(float(expected[1]), abs=1e-12)
    assert all(torch.equal(value, before[name]) for name, value in mine.state_dict().items())
    later = information.plane(own, net, images, epochs=[1, 3])
    assert torch.equal(later.i_xt, found.i_xt[[0, 2]])
    with pytest.raises(InputError, match="epoch 7 has no stored weights; the run stored those of 1, 2, 3"):
        information.plane(own, net, images, epochs=[7])
    phases = information.gradient_phases(own)
    assert phases.layers == ("1", "3", "5")


def test_phases_are_those_of_matrices_in_the_order_of_the_model(tmp_path) -> None:
    """A log sorts its names; weights of norms have one axis and no phases."""
    torch.manual_seed(0)
    names = ("stem", "bn", "conv10", "conv2")
    parts = (nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1))
    body = nn.Sequential()
    for name, part in zip(names, parts, strict=True):
        body.add_module(name, part)
    recorder = training.Recorder(tmp_path, body)
    for _ in range(2):
        body(torch.rand(4, 1, 4, 4)).square().sum().backward()
        recorder.step(1.0)
    recorder.epoch()
    for run in (recorder.run, training.Run.read(tmp_path)):
        assert information.gradient_phases(run).layers == ("stem", "conv10", "conv2")


def test_what_is_not_admitted_is_hollow_and_says_why(own: training.Run) -> None:
    """60 images, 16 values of a pixel each: every image a state of its own, so that nothing can be known."""
    found = information.plane(own, Network(model(), (1, 4, 4)), labelled(), layers=["1", "4"])
    assert found.admitted.tolist()[0] is False
    figure = found.plot()
    hollow = [item for item in figure.axes[0].collections if len(item.get_offsets()) == 3]
    assert [len(item.get_facecolor()) > 0 for item in hollow] == found.admitted.tolist()
    said = " ".join(text.get_text() for text in figure.texts)
    assert "1 is hollow" in said
    assert f"ceiling log2 {60}" in [text.get_text() for text in figure.axes[0].texts]


def test_errors(own: training.Run) -> None:
    net = Network(model(), (1, 4, 4))
    recorder = training.Recorder(None, net.model)
    with pytest.raises(InputError, match="stored no weights"):
        information.plane(recorder.run, net, labelled())
    one = labelled().subset(range(0, 60, 2))
    with pytest.raises(InputError, match="all 30 images are of class 0"):
        information.plane(own, net, one)
    with pytest.raises(InputError, match=r"plane\(run, net, dataset\)"):
        information.plane(own)
    with pytest.raises(InputError, match='no estimator "bin"'):
        information.plane(own, net, labelled(), estimator="bin")
    with pytest.raises(InputError, match="has no gradients"):
        information.gradient_phases(recorder.run)
    with pytest.raises(InputError, match="the run has 1 network; got networks=2"):
        information.plane(own, net, labelled(), networks=2)
    many = information.train_networks(information.twelve_bits(), hidden=(2,), networks=3, epochs=1, checkpoints=2)
    for wrong in (0, -1, 4):
        with pytest.raises(InputError, match=f"the run has 3 networks; got networks={wrong}"):
            information.plane(many, networks=wrong)


def test_command(tmp_path, capsys) -> None:
    options = "--networks 2 --epochs 3 --checkpoints 3 --hidden 3,2"
    out, gradients = tmp_path / "plane.png", tmp_path / "gradients.png"
    assert command(["information", *options.split(), "-o", str(out), "--gradients", str(gradients)]) == 0
    assert "hidden2" in capsys.readouterr().out
    assert out.stat().st_size > 10_000
    assert gradients.is_file()
    assert command(["information", "--run", "nowhere", "-o", str(out)]) == 2
    assert "all of --run, --model and --data" in capsys.readouterr().err


def test_a_command_refuses_options_that_it_would_not_use(own: training.Run, tmp_path, capsys) -> None:
    mine = ["--run", str(own.folder), "--model", "zoo:fcnn1", "--data", "digits"]
    for options, said in (
        ([*mine, "--networks", "3", "--share", ".5"], "--networks, --share go with the 12-bit task"),
        ([*mine, "--hidden", "3"], "--hidden goes with the 12-bit task"),
        (["--layers", "3"], "--layers goes with --run"),
    ):
        assert command(["information", *options, "-o", str(tmp_path / "plane.png")]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_compression_in_tanh_and_none_in_relu_by_kernels() -> None:
    """What Shwartz-Ziv and Tishby show and Saxe et al. answer; the last hidden layer and the output compress."""
    tanh = information.train_networks(TASK, networks=6, epochs=4000, checkpoints=40)
    found = information.plane(tanh)
    assert (found.compression.mean(1)[4:] > 1).all()
    assert (found.rise_xt <= found.tolerance).all()
    relu = information.train_networks(TASK, networks=6, epochs=2000, checkpoints=8, activation="relu")
    kernels = information.plane(relu, estimator="kde", networks=3, trials=2)
    assert (kernels.compression.mean(1)[:-1] < 0.3).all()
    assert all(a > b for a, b in itertools.pairwise(kernels.widths))
