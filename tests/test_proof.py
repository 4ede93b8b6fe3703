"""Does the proof see an error? Its references agree with the library, and disagree as soon as an answer is changed."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
import torch
from proof import catalogue, checks, fuzz, gathered, page, peers, random_networks, runner, unit_checks
from proof.guided_reference import guided
from proof.plain import Plain
from proof.relevance_reference import NoReplica, relevance
from proof.subject import Subject
from proof.verdicts import CRASH, OUT_OF_TIME, REFUSED, RIGHT, WRONG, examine, verdict
from torch import nn

from microtome import Network, attribution


class Small(nn.Module):
    """Convolution, batch norm, rectifier, squeeze-excite, attention and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.gate, self.after = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.gelu(self.norm(self.conv(x)))
        x = x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()
        x = self.after(x).relu_()
        t = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(t).chunk(3, -1)
        return self.head((t + (q @ k.transpose(1, 2)).softmax(-1) @ v).mean(1))


@pytest.fixture
def subject() -> Subject:
    torch.manual_seed(0)
    return Subject(Small().double().eval(), (3, 8, 8), torch.float64)


def test_all_checks_find_the_library_right(subject: Subject) -> None:
    found = examine(subject)
    assert {name: check["verdict"] for name, check in found.items()} == dict.fromkeys(checks.CHECKS, RIGHT), found


@pytest.mark.parametrize(
    ("method", "check"),
    [("gradient", "gradient"), ("guided_backprop", "guided"), ("lrp", "relevance"), ("lrp", "conservation"),
     ("grad_cam", "grad-cam"), ("gradient", "batch"), ("lrp", "batch")],
)  # fmt: skip
def test_an_answer_that_is_a_little_off_is_wrong(
    subject: Subject, method: str, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pixel changed by a thousandth of the largest value."""
    real = getattr(attribution, method)

    def off(net: Network, images: torch.Tensor, *args: object, **options: object) -> object:
        found = real(net, images, *args, **options)
        values = found.values.clone()
        values[0, 0, 0, 0] += 1e-3 * values.abs().max() * len(images)
        return dataclasses.replace(found, values=values)

    monkeypatch.setattr(attribution, method, off)
    assert verdict(checks.CHECKS[check], subject)["verdict"] == WRONG


def test_a_changed_weight_and_an_error_are_seen(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        subject.model.conv.weight[0, 0, 0, 0] += 1
    assert verdict(checks.left_as_found, subject)["verdict"] == WRONG
    monkeypatch.setattr(Network, "_values", lambda *_args, **_options: {}["no layer"])
    assert verdict(checks.activations, subject)["verdict"] == CRASH


def test_the_guided_reference_is_the_formula() -> None:
    """Closed form: two rectifiers in a row, x * sigmoid(x) by hand among them."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        model[0].bias.zero_()

    class Head(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * torch.sigmoid(x)
            return torch.stack((y[:, 0] - y[:, 1], y.sum(1)), 1)

    x = torch.tensor([[0.5, 0.7], [-0.5, 0.7]])
    found = guided(Plain(nn.Sequential(model, Head())), x, [0, 1])
    slope = torch.sigmoid(x) * (1 + x * (1 - torch.sigmoid(x)))
    torch.testing.assert_close(found, slope * torch.tensor([[1.0, 0.0], [0.0, 1.0]]))  # -1 and a dead unit are stopped


def test_the_relevance_reference_is_the_formula() -> None:
    """Closed form: relevance of x w behind a GELU and a gate is x w f(z) / z times the gate; unknown steps stop it."""

    class Gated(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = nn.functional.linear(x, 2 * torch.eye(2, dtype=x.dtype), torch.ones(2, dtype=x.dtype))
            return nn.functional.gelu(z).mul(torch.sigmoid(x.sum(1, keepdim=True)))

    x = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    z = 2 * x + 1
    expected = 2 * x * nn.functional.gelu(z) / z * torch.sigmoid(x.sum())
    expected[0, 1] = 0
    torch.testing.assert_close(relevance(Plain(Gated()), x, [0]), expected)

    class Normalised(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = (2 * (x.reshape(2, 1).T - 0.3)).reshape(1, 2)
            return nn.functional.gelu(y * torch.sigmoid(y.sum(1, keepdim=True)))

    y = 2 * (x - 0.3)  # what the model makes of the pixels gets their relevance
    expected = nn.functional.gelu(y * torch.sigmoid(y.sum()))
    expected[0, 1] = 0
    torch.testing.assert_close(relevance(Plain(Normalised()), x, [0]), expected)

    class Cosine(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.cos()

    with pytest.raises(NoReplica, match="Cos"):
        relevance(Plain(Cosine()), x, [0])


def test_a_run_goes_on_where_it_was(tmp_path) -> None:
    """A file that is there is not made again; a job over its limit loses nothing but itself."""
    done, late, new = (tmp_path / "fuzz" / f"{name}.json" for name in ("done", "late", "new"))
    done.parent.mkdir()
    runner.write(done, {"networks": []})

    def forever(file) -> None:
        while True:
            pass

    told: list[str] = []
    jobs = {
        done: forever,
        late: forever,
        new: lambda file: runner.write(file, {"networks": [{"seed": 3, "network": ["conv"], "checks": {
            "read": {"verdict": WRONG, "detail": "no | line"}}}]}),
    }  # fmt: skip
    runner.run(jobs, processes=2, limit=1, memory=64, seconds=60, report=told.append)
    assert not late.exists()
    assert json.loads(new.read_text())["networks"][0]["seed"] == 3
    assert {line.split()[0] for line in told} == {"late", "new"}
    found = gathered.load(tmp_path, tmp_path / "small.json")
    page.write(*found, tmp_path / "proof.md")
    assert "| seed 3 (conv) | read | wrong | no / line |" in (tmp_path / "proof.md").read_text()


def test_what_is_kept_gives_the_same_page(tmp_path) -> None:
    """The small file alone, without the results, and a later run over it: only what it did better replaces a row."""
    peer = {"gradient": {"captum": "right", "zennit": "wrong: off by 2"}}
    row = {
        "seed": 0,
        "torch": "2",
        "shape": [3, 8, 8],
        "dtype": "float64",
        "parameters": 5,
        "reading": 0.5,
        "pass": 0.1,
    }
    ended = {"gradient": {"verdict": REFUSED, "detail": "it is | scripted"}, "read": {"verdict": RIGHT, "detail": "1"}}
    cut = {"gradient": {"verdict": OUT_OF_TIME, "detail": ""}, "read": {"verdict": RIGHT, "detail": "1"}}
    network = {"seed": 4, "network": ["conv"], "checks": {"read": {"verdict": RIGHT, "detail": "2"}}}
    runner.write(_folder(tmp_path / "models") / "a.json", {"model": "a", **row, "checks": ended, "peers": peer})
    runner.write(_folder(tmp_path / "fuzz") / "0.json", {"torch": "2", "networks": [network]})
    first, second, small = tmp_path / "first.md", tmp_path / "second.md", tmp_path / "small.json"
    found = gathered.load(tmp_path, small)
    gathered.save(*found, small)
    page.write(*found, first)
    runner.write(_folder(tmp_path / "later" / "models") / "a.json", {"model": "a", **row, "checks": cut})
    page.write(*gathered.load(tmp_path / "later", small), second)
    assert first.read_text() == second.read_text()
    assert "2 of 3 answers are right (66.66 %), 1 refused by name, 0 silently wrong" in first.read_text()
    assert "| gradient | zennit | 1 |  | 1 |  |  |" in first.read_text()


def test_a_network_that_was_right_is_not_examined_again(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, asked = tmp_path / "0.json", list[int]()
    rows = [
        {"seed": seed, "network": ["old"], "checks": {"read": {"verdict": verdict, "detail": ""}}}
        for seed, verdict in ((1, RIGHT), (3, WRONG))
    ]
    runner.write(file, {"torch": "1", "commit": "", "sources": "others", "finished": True, "networks": rows})
    monkeypatch.setattr(runner, "examine", lambda _subject: {"read": {"verdict": RIGHT, "detail": ""}})
    monkeypatch.setattr(fuzz, "subject", lambda seed: asked.append(seed) or random_subject())
    runner.examine_random(range(1, 5, 2), file)
    found = json.loads(file.read_text())["networks"]
    assert asked == [3]
    assert [(one["seed"], one.get("sources")) for one in found] == [(1, "others"), (3, None)]


def test_of_a_model_only_what_was_wrong_is_examined_again(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "one.json"
    checks = {
        name: {"verdict": WRONG if name == "units" else RIGHT, "detail": "old"} for name in (*checks_before, "units")
    }
    row = {"model": "m", "seed": 0, "finished": True, "sources": "others", "checks": checks, "peers": {"a": {}}}
    runner.write(file, row)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2)).double()
    built = catalogue.Built(model, (3, 1, 1), torch.float64, {})
    monkeypatch.setattr(catalogue, "build", lambda _name, _seed: built)
    runner.examine_model("m", file, seed=0)
    found = json.loads(file.read_text())
    assert found["again"]["checks"] == ["units"]
    assert found["checks"]["units"] == {**found["checks"]["units"], "verdict": RIGHT, "detail": "1 layers"}
    assert found["checks"]["read"]["detail"] == "old"
    assert found["peers"] == {"a": {}}
    assert runner.finished(file)


checks_before = ("read", "gradient")


def random_subject() -> Subject:
    return Subject(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)).double(), (3, 1, 1), torch.float64)


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def test_a_run_stops_at_its_time_and_begins_anew_what_it_cut(tmp_path) -> None:
    def slow(file: Path) -> None:
        runner.write(file, {"finished": False, "networks": []})
        time.sleep(60)

    file = tmp_path / "one.json"
    told: list[str] = []
    start = time.monotonic()
    runner.run({file: slow}, processes=1, limit=60, memory=64, seconds=0.5, report=told.append)
    assert time.monotonic() - start < 20
    assert told == ["stopped after 0 s: one"]
    assert not runner.finished(file)


def test_what_other_sources_did_wrong_is_done_anew(tmp_path) -> None:
    file, wrong = tmp_path / "one.json", {"read": {"verdict": WRONG, "detail": ""}}
    runner.write(file, {"finished": True, **runner.version(), "checks": wrong})
    assert runner.finished(file)
    runner.write(file, {"finished": True, "sources": "others", "checks": wrong})
    assert not runner.finished(file)
    runner.write(file, {"finished": True, "sources": "others", "networks": [{"checks": wrong}]})
    assert not runner.finished(file)
    runner.write(file, {"finished": True, "sources": "others", "checks": {"read": {"verdict": RIGHT, "detail": ""}}})
    assert runner.finished(file)


def test_peers_are_held_against_the_same_references(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """captum's gradient is autograd's; a reference that is changed finds it wrong; who is not installed is left out."""
    pytest.importorskip("captum")
    verdict(checks.gradient, subject)
    assert peers.ask(subject)["gradient"]["captum"] == RIGHT
    subject.known["gradient"] = subject.known["gradient"] * 1.01
    assert peers.ask(subject)["gradient"]["captum"].startswith("wrong: off by 0.0099")
    monkeypatch.setattr(peers, "installed", list)
    assert peers.ask(subject) == {}


def test_the_terms_of_a_dissection_are_the_formula() -> None:
    """The reference of dissection: padding, stride and groups by hand on one pixel."""
    part = nn.Conv2d(4, 2, 3, stride=2, padding=1, groups=2).double()
    x = torch.rand(1, 4, 5, 5, dtype=torch.float64)
    terms = unit_checks._terms(part, x, 1)
    at = (x[0, 2:, 1:4, 1:4] * part.weight[1]).sum((1, 2))
    torch.testing.assert_close(terms[:, 4], at)
    torch.testing.assert_close(terms.sum(0).view(3, 3) + part.bias[1], part(x)[0, 1])


def test_every_kind_of_random_step_is_drawn_and_runs() -> None:
    drawn: set[str] = set()
    for seed in range(1, 300, 2):
        model = random_networks.draw(seed)
        drawn |= set(model.names)
        if seed < 60:
            x = torch.rand(2, 3, random_networks.SIDE, random_networks.SIDE, dtype=torch.float64)
            output = model(x)
            scores = (
                output
                if isinstance(output, torch.Tensor)
                else next(iter(output.values() if isinstance(output, dict) else output))
            )
            assert bool(torch.isfinite(scores).all()), seed
    assert drawn >= set(random_networks.KINDS)
    assert fuzz.describe(1) == random_networks.draw(1).names
