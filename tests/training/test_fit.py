"""The training loop: it is the plain one, it learns, it can be killed at any epoch, and it says what is wrong."""

from __future__ import annotations

import math
import runpy
import signal
import subprocess
import sys
import textwrap
import time

import pytest
import torch
from torch import nn
from torch.nn import functional

from microtome import data, training, zoo
from microtome.errors import InputError, ModelError, StoreError
from microtome.training import checkpoints


@pytest.fixture(scope="module")
def digits():
    """scikit-learn's digits: 1,500 to train on, 297 to validate."""
    found = data.digits()
    return found.subset(range(1500)), found.subset(range(1500, 1797))


def network(seed=0, dropout=0.0):
    """A small network with everything that carries state: batch norm, dropout, convolution."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False),  # before batch norm a bias has no gradient but rounding
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(96, 10),
        )


def overflowing():
    """A network whose first step with a huge learning rate makes its weights infinite."""
    return nn.Sequential(nn.Flatten(), Scaled(64, 10))


class Scaled(nn.Linear):
    """A linear layer with gradients of 1e20: of one class, since the loss does not see a shift of all."""

    def forward(self, x):
        shift = 1e20 * (self.weight - self.weight.detach()).sum()
        return super().forward(x) + shift * torch.eye(10)[0]


RECIPE = training.Recipe(
    epochs=3, batch=100, lr=0.1, schedule="one-cycle", weight_decay=1e-3, mean=0.3, std=0.4, seed=5
)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_fit_is_the_plain_loop(digits, optimizer):
    """Oracle: the loop written out with the update formulas of the papers, float32, no torch.optim.

    Tolerance: the same operations in another order, 30 steps; 1e-4 of the weights' size.
    """
    train, _ = digits
    recipe = training.Recipe(
        epochs=2, batch=100, lr=0.003, optimizer=optimizer, momentum=0.8, nesterov=True, weight_decay=0.01, seed=5
    )
    model, by_hand = network(), network()
    run = training.fit(model, train, recipe=recipe)
    parameters = list(by_hand.parameters())
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]
    losses, step = [], 0
    by_hand.train()
    for epoch in range(2):
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(5 * 1_000_003 + epoch))
        for batch in order.split(100):
            step += 1
            loss = -by_hand(train.images[batch]).log_softmax(1)[range(100), train.labels[batch]].mean()
            losses.append(float(loss.detach()))
            with torch.no_grad():
                for p, g, m, v in zip(parameters, torch.autograd.grad(loss, parameters), first, second, strict=True):
                    if optimizer == "adamw":
                        p *= 1 - 0.003 * 0.01
                    else:
                        g = g + 0.01 * p
                    if optimizer == "sgd":
                        m.mul_(0.8).add_(g)
                        p -= 0.003 * (g + 0.8 * m)
                    else:
                        m.mul_(0.9).add_(0.1 * g)
                        v.mul_(0.999).add_(0.001 * g * g)
                        p -= 0.003 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    torch.testing.assert_close(run.steps, torch.tensor(losses, dtype=torch.float64), rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(model.state_dict().values(), by_hand.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_it_learns_and_reports(digits):
    seen = []
    model = network()
    run = training.fit(model, *digits, recipe=RECIPE, progress=seen.append)
    assert run.curve("validation_accuracy")[-1] > 0.85
    assert run.curve("loss")[-1] < run.curve("loss")[0] / 2
    assert [(p.numbers["epoch"], p.done) for p in seen] == [(step // 15 + 1, step + 1) for step in range(45)]
    assert seen[-1].remaining == 0
    assert seen[-1].numbers["accuracy"] == run.curve("accuracy")[-1]
    assert not model.training
    loss, accuracy = training.evaluate(model, digits[1], mean=0.3, std=0.4)
    assert (loss, accuracy) == (run.curve("validation_loss")[-1], run.curve("validation_accuracy")[-1])
    logits = model((digits[1].images - 0.3) / 0.4)
    assert accuracy == float((logits.argmax(1) == digits[1].labels).float().mean().double().mul(297).round() / 297)
    assert loss == pytest.approx(float(functional.cross_entropy(logits, digits[1].labels).detach()), rel=1e-5)


def test_the_seed_is_all_that_matters_and_the_random_state_is_left(digits):
    before = torch.get_rng_state()
    models = []
    for seed, noise in ((1, 0), (1, 7), (2, 0)):
        torch.rand(noise)
        model = network(dropout=0.3)
        training.fit(model, digits[0], recipe=training.Recipe(batch=100, seed=seed))
        models.append(model)
    assert same(models[0], models[1])
    assert not same(models[0], models[2])
    torch.set_rng_state(before)
    training.fit(network(dropout=0.3), digits[0], recipe=training.Recipe(batch=500))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("option", [{"channels_last": True}, {"optimizer": "adamw", "lr": 0.003}, {"nesterov": True}])
def test_resumed_after_any_epoch_it_ends_bitwise_the_same(digits, tmp_path, option):
    recipe = training.Recipe(**{"epochs": 3, "batch": 100, "lr": 0.1, "schedule": "one-cycle", "seed": 5, **option})
    whole = network(dropout=0.2)
    undisturbed = training.fit(whole, *digits, recipe=recipe, out=tmp_path / "whole", gradients=True)

    class Killed(Exception):
        pass

    def kill(progress):
        if progress.done in (9, 18, 45) and progress.done not in done:
            done.append(progress.done)
            raise Killed

    done, resumed = [], network(seed=9)
    for _ in range(3):
        with pytest.raises(Killed):
            training.fit(
                network(dropout=0.2), *digits, recipe=recipe, out=tmp_path / "cut", gradients=True, progress=kill
            )
    resumed = network(dropout=0.2)
    run = training.fit(resumed, *digits, recipe=recipe, out=tmp_path / "cut", gradients=True)
    assert len(done) == 3
    assert same(whole, resumed)
    assert torch.equal(run.steps, undisturbed.steps)
    assert torch.equal(run.gradient("0.weight"), undisturbed.gradient("0.weight"))
    for epoch in (1, 2, 3):
        name = f"epoch-{epoch:05d}.safetensors"
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    again = network(seed=3)
    training.fit(again, *digits, recipe=recipe, out=tmp_path / "cut", progress=kill)  # nothing is left to do
    assert same(again, whole)


class Flipped(torch.utils.data.Dataset):
    """Half of the images are flipped, at random at each read."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image, label = self.images[index]
        return (image.flip(2) if torch.rand(()) < 0.5 else image), label


def test_a_run_on_augmented_images_resumes_to_the_same_weights(digits, tmp_path):
    recipe = training.Recipe(epochs=2, batch=100, lr=0.1)
    few = Flipped(digits[0].subset(range(300)))

    def kill(progress):
        if progress.done == 5:
            raise KeyboardInterrupt

    whole = network()
    training.fit(whole, few, recipe=recipe, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        training.fit(network(), few, recipe=recipe, out=tmp_path / "cut", progress=kill)
    resumed = network()
    training.fit(resumed, few, recipe=recipe, out=tmp_path / "cut")
    assert same(whole, resumed)
    others = Flipped(digits[0].subset(range(300, 600)))
    with pytest.raises(StoreError, match="of 300 have another label"):
        training.fit(network(), others, recipe=recipe, out=tmp_path / "cut")


def test_a_run_of_an_earlier_version_resumes(digits, tmp_path):
    """It noted no images."""
    training.fit(network(), digits[0], recipe=RECIPE, out=tmp_path)
    tensors, header = checkpoints.read(tmp_path / "state.safetensors")
    assert {name for name in tensors if name.startswith("images.")} == {"images.checksums", "images.labels"}
    old = {name: value for name, value in tensors.items() if not name.startswith("images.")}
    checkpoints.write(tmp_path / "state.safetensors", old, header)
    training.fit(network(), digits[0], recipe=RECIPE, out=tmp_path)


def test_killed_by_the_system_it_goes_on(tmp_path):
    """SIGKILL of a process of its own at two moments; the last call ends with the bytes of an undisturbed run."""
    script = tmp_path / "job.py"
    script.write_text(
        textwrap.dedent("""
        import sys, torch
        from microtome import data, training, zoo

        def train(out):
            model = zoo.build("fcnn1", input_shape=(1, 8, 8))
            training.fit(model, data.digits(), recipe=training.Recipe(epochs=20, batch=50, lr=0.05), out=out)

        if __name__ == "__main__":
            torch.set_num_threads(1)
            train(sys.argv[1])
        """)
    )
    train = runpy.run_path(str(script))["train"]
    train(tmp_path / "whole")
    for delay in (0.05, 0.1):
        before = set(tmp_path.glob("cut/epoch-*"))
        job = subprocess.Popen([sys.executable, script, tmp_path / "cut"])
        while job.poll() is None and set(tmp_path.glob("cut/epoch-*")) == before:
            time.sleep(0.01)
        time.sleep(delay)
        job.send_signal(signal.SIGKILL)
        job.wait()
    train(tmp_path / "cut")
    for file in (tmp_path / "whole").iterdir():
        if file.name != "log.safetensors":  # which has the seconds that each epoch took
            assert file.read_bytes() == (tmp_path / "cut" / file.name).read_bytes()


def test_only_the_epochs_to_keep_are_written(digits, tmp_path):
    model = network()
    run = training.fit(model, digits[0], recipe=RECIPE, out=tmp_path, keep=[2])
    assert run.checkpoints == (2, 3)
    loaded = network(seed=4)
    run.load(loaded)
    assert same(loaded, model)
    with pytest.raises(InputError, match="weights of epoch 1 are not kept; those of 2, 3 are"):
        run.weights(1)


def test_a_folder_of_another_run_is_refused_and_left(digits, tmp_path):
    training.fit(network(), digits[0], recipe=RECIPE, out=tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(StoreError, match=r"another recipe \(lr, seed\)"):
        training.fit(
            network(), digits[0], recipe=training.Recipe(**{**vars(RECIPE), "lr": 0.2, "seed": 1}), out=tmp_path
        )
    fewer = torch.utils.data.Subset(digits[0], range(len(digits[0]) - 1))
    with pytest.raises(StoreError, match="training images, not"):
        training.fit(network(), fewer, recipe=RECIPE, out=tmp_path)
    turned = data.Images(digits[0].pixels.flip(3), digits[0].labels)
    with pytest.raises(StoreError, match=r"other training images: [\d,]+ of 1,500 differ"):
        training.fit(network(), turned, recipe=RECIPE, out=tmp_path)
    pixels = digits[0].pixels.clone()
    pixels[700] = 255 - pixels[700]
    with pytest.raises(StoreError, match="other training images: 1 of 1,500 differ"):
        training.fit(network(), data.Images(pixels, digits[0].labels), recipe=RECIPE, out=tmp_path)
    order = torch.arange(1500).roll(1)
    with pytest.raises(StoreError, match="other training images"):
        training.fit(network(), digits[0].subset(order), recipe=RECIPE, out=tmp_path)
    labels = digits[0].labels.clone()
    labels[3] = (labels[3] + 1) % 10
    with pytest.raises(StoreError, match="other training images: 1 of 1,500 have another label"):
        training.fit(network(), data.Images(digits[0].pixels, labels), recipe=RECIPE, out=tmp_path)
    with pytest.raises(StoreError, match="another model"):
        training.fit(zoo.fcnn1((1, 8, 8)), digits[0], recipe=RECIPE, out=tmp_path)
    with pytest.raises(StoreError, match="holds a run already"):
        training.fit(network(), digits[0], recipe=RECIPE, out=tmp_path, resume=False)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    (tmp_path / "state.safetensors").write_bytes(b"torn")
    with pytest.raises(StoreError, match="cannot be read"):
        training.fit(network(), digits[0], recipe=RECIPE, out=tmp_path)


def test_a_full_disk_or_a_file_in_the_way(digits, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        training.fit(network(), digits[0], recipe=RECIPE, out=tmp_path / "file" / "run")


def test_what_cannot_be_trained_is_said(digits):
    train, _ = digits
    unlabelled = data.Images(train.pixels)
    with pytest.raises(InputError, match="needs a label"):
        training.fit(network(), unlabelled, recipe=RECIPE)
    with pytest.raises(InputError, match="empty"):
        training.fit(network(), train.subset([]), recipe=RECIPE)
    with pytest.raises(InputError, match="only 5 classes"):
        training.fit(zoo.fcnn1((1, 8, 8), 5), train, recipe=RECIPE)
    with pytest.raises(ModelError, match="lower the learning rate"):
        training.fit(network(), train, recipe=training.Recipe(lr=1e30, epochs=3))
    frozen = network().requires_grad_(False)
    with pytest.raises(ModelError, match="no parameter"):
        training.fit(frozen, train, recipe=RECIPE)
    for wrong in ({"epochs": 0}, {"batch": 0}, {"lr": 0.0}, {"optimizer": "lion"}, {"schedule": "steps"}):
        with pytest.raises(InputError):
            training.Recipe(**wrong)
    for wrong in ({"epochs": 2.5}, {"lr": math.inf}, {"momentum": -0.1}, {"momentum": 1.0}, {"weight_decay": -1.0}):
        with pytest.raises(InputError):
            training.Recipe(**wrong)
    for wrong in ({"nesterov": True, "momentum": 0.0}, {"std": 0.0}, {"mean": math.nan}, {"std": (0.1, -1.0)}):
        with pytest.raises(InputError):
            training.Recipe(**wrong)
    with pytest.raises(InputError, match="one for each of 1 channels"):
        training.fit(network(), train, recipe=training.Recipe(mean=(0.1, 0.2)))
    with pytest.raises(InputError, match="positive std"):
        training.evaluate(network(), train, std=0.0)
    with pytest.raises(InputError, match="only 5 classes"):
        training.evaluate(zoo.fcnn1((1, 8, 8), 5), train)
    last = training.Recipe(lr=1e30, batch=len(train))  # one step: the loss before it is finite, the weights are not
    with pytest.raises(ModelError, match=r"(weights|loss) .*lower the learning rate"):
        training.fit(overflowing(), train, recipe=last)
    with pytest.raises(InputError, match="no recipe for vgg16"):
        training.train_network("vgg16")
    with pytest.raises(InputError, match="Nearest: mnist"):
        training.train_network(dataset="mnsit")
    assert math.isfinite(training.evaluate(network(), train)[0])


@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        ((3, 8, 8), r'layer "0" \(Conv2d\), which expects 1 channel, on images of shape \(3, 8, 8\)'),
        ((1, 12, 8), r'layer "6" \(Linear\), which expects 96 features, on images of shape \(1, 12, 8\)'),
    ],
)
def test_images_of_another_shape_are_refused_before_the_training(digits, tmp_path, shape, layer):
    train, validation = digits
    other = validation.fit(shape)
    for sets in ((other, None), (train, other)):
        model, before = network(), network()
        with pytest.raises(InputError, match=layer):
            training.fit(model, *sets, recipe=RECIPE, out=tmp_path / "run")
        assert same(model, before)
        assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=layer):
        training.evaluate(network(), other)


def test_scores_that_are_no_rows_of_classes_are_refused(digits):
    for model, came in ((nn.Conv2d(1, 10, 3), r"\(100, 10, 6, 6\)"), (nn.LSTM(8, 2), "LSTM|a tuple")):
        with pytest.raises((ModelError, InputError), match=came):
            training.fit(model, digits[0], recipe=RECIPE)


def test_running_out_of_memory_is_no_fault_of_the_images(digits):
    class Large(nn.Linear):
        def forward(self, x):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    with pytest.raises(RuntimeError, match=r"^DefaultCPUAllocator"):
        training.fit(Large(64, 10), digits[0], recipe=RECIPE)


@pytest.mark.parametrize("keep", [5, "12", [2.5], [0], [4], [-1, 2]])
def test_epochs_to_keep_are_epochs_of_the_training(digits, keep):
    with pytest.raises(InputError, match=r"^keep: expected .*, got "):
        training.fit(network(), digits[0], recipe=RECIPE, keep=keep)


def test_evaluate_leaves_the_modes_of_a_half_frozen_model(digits):
    model = network().train()
    model[1].eval()
    training.evaluate(model, digits[1])
    assert [module.training for module in model] == [True, False, True, True, True, True, True]
