"""Does every mistake a person can make end in one clear line and exit code 2?"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from atlas import small
from microtome.attribution.gradients.integrated_gradients import RULES
from microtome.cli.main import app, run
from microtome.data.planted_shortcut import TELLING
from microtome.representation.features import REDUCTIONS
from microtome.reproduce.spotting_bias import HEADS
from microtome.spaces.split.subspaces import VIEWS
from microtome.surgery.without import ADAPTERS
from microtome.trace.heads.head import OUTPUTS
from microtome.training.information.networks import ACTIVATIONS
from microtome.training.information.plane import ESTIMATORS
from microtome.training.landscape.evaluation import PRECISIONS, STATISTICS
from microtome.units.reconstruct import METHODS
from microtome.units.what_where import REDUCTIONS as POSITIONS

MODEL = ["--model", "nets:build", "--input-shape", small.SHAPE]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("nets", None)
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"\x89PNG no more")
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("L", (10, 12)).save(tmp_path / "pets" / name / "a.png")
    (tmp_path / "two.txt").write_text("cat\ndog\n")
    (tmp_path / "names.txt").write_text("cat\ndog\nfish\n")
    (tmp_path / "a").mkdir()
    for name in ("nets.py", "nets.txt"):
        (tmp_path / "a" / name).write_text(small.MODULE)
    (tmp_path / "a" / "broken.py").write_text("import torch\n1 / 0\n")
    (tmp_path / "a" / "script.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "a" / "needs.py").write_text("import no_such_package\n")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    (tmp_path / "run.toml").write_text('model = "nets:build"\ninput-shape = [1, 12, 10]\nbugdet = "quick"\n')
    (tmp_path / "bad.toml").write_text("model = \n")
    small.save_weights(tmp_path / "short.pt", {"head.bias": None})
    small.save_weights(tmp_path / "wide.pt", {"one.weight": torch.zeros(4, 3, 3, 3)})
    small.save_weights(tmp_path / "more.pt", {"extra.weight": torch.zeros(1)})
    small.save_weights(tmp_path / "nan.pt", {"head.bias": torch.full((3,), float("nan"))})
    (tmp_path / "text.pt").write_text("no weights")
    Image.new("L", (10, 12)).save(tmp_path / "one.png")
    (tmp_path / "ones").mkdir()
    Image.new("L", (10, 12), 1).save(tmp_path / "ones" / "one.png")
    return tmp_path


def atlas(*options: str, data: str = "images", out: str = "out") -> list[str]:
    return ["atlas", *MODEL, "--data", data, "--out", out, *options]


def explain(*options: str, photo: str = "one.png", out: str = "out.png") -> list[str]:
    return ["explain", photo, *MODEL, "-o", out, *options]


def weights(file: str) -> list[str]:
    return explain("--weights", file)


def factory(name: str, shape: str = small.SHAPE) -> list[str]:
    return ["layers", "--model", name, "--input-shape", shape]


MISTAKES = {
    "missing image": (explain(photo="none.png"), ["no image file", "none.png"]),
    "broken image": (explain(photo="broken/a.png"), ["broken/a.png"]),
    "broken image in the folder": (atlas(data="broken"), ["a.png"]),
    "empty folder": (atlas(data="empty"), ["empty", "no images"]),
    "no such folder": (atlas(data="imagse"), ["imagse", "Nearest: images"]),
    "wrong shape": (factory("nets:build", "1,40,40"), ["raise"]),
    "wrong channels": (factory("nets:build", "3,12,10"), ["channels"]),
    "shape that is none": (factory("nets:build", "12,10"), ["channels,height,width"]),
    "shape in words": (factory("nets:build", "1,a,b"), ["integers"]),
    "no shape": (["layers", "--model", "nets:build"], ["--input-shape"]),
    "unknown layer": (explain("--layer", "twoo"), ['no layer "twoo"', "two"]),
    "unknown layer of an atlas": (atlas("--layers", "twoo"), ['no layer "twoo"', "two"]),
    "unknown class": (explain("--target", "7"), ["3 classes"]),
    "unknown class name": (explain("--target", "dgo", "--classes", "names.txt"), ['no class "dgo"', "dog"]),
    "too few class names": (explain("--classes", "two.txt"), ["3 class names", "2"]),
    "no class file": (explain("--classes", "none.txt"), ["none.txt cannot be read: No such file or directory."]),
    "unknown method": (explain("--method", "grad-cma"), ["grad-cma", "Nearest: grad-cam"]),
    "option of another method": (explain("--method", "saliency", "--layer", "one"), ['no option "layer"']),
    "factory that raises": (factory("nets:raises"), ["RuntimeError", "backbone.ckpt", "line"]),
    "factory of no module": (factory("nets:nothing"), ["dict", "torch.nn.Module"]),
    "factory not there": (factory("nets:biuld"), ['no "biuld"', "Nearest: build"]),
    "module not there": (factory("nest:build"), ['"nest"', "PYTHONPATH", "Nearest: nets"]),
    "file not there": (factory("a/nest.py:build"), ['no file "a/nest.py"', "Nearest: a/nets.py"]),
    "file of no function of that name": (factory("nets.py:biuld"), ['"nets.py" has no "biuld"', "Nearest: build"]),
    "function of a file that raises": (factory("nets.py:raises"), ["RuntimeError", "backbone.ckpt", "of nets.py"]),
    "function of a file of no module": (factory("nets.py:nothing"), ["dict", "torch.nn.Module"]),
    "file that raises": (factory("a/broken.py:build"), ["ZeroDivisionError", "line 2 of broken.py"]),
    "file that ends itself": (factory("a/script.py:build"), ["SystemExit", "line 2 of script.py"]),
    "file that needs a package": (factory("a/needs.py:build"), ['needs "no_such_package"', "nor installed"]),
    "file that is no Python": (factory("a/nets.txt:build"), ["no Python file"]),
    "folder in place of a picture": (explain(photo="images"), ["images is a folder"]),
    "other class folders than classes": (
        ["prune", *MODEL, "--data", "pets", "-o", "a.safetensors"],
        ["2 class folders (cat, dog", "3 classes", "--classes"],
    ),
    "name of no factory": (factory("nets"), ["package.module:factory"]),
    "unknown network of the zoo": (factory("zoo:resnet81"), ["resnet81", "resnet18"]),
    "model that raises in forward": (factory("nets:picky"), ["I take 7 channels"]),
    "NaN in the model": (factory("nets:broken"), ["NaN", "two.weight"]),
    "weights with a key too few": (weights("short.pt"), ["missing", "head.bias"]),
    "weights with a key too many": (weights("more.pt"), ["extra.weight"]),
    "weights of another shape": (weights("wide.pt"), ["one.weight", "(4, 3, 3, 3)"]),
    "NaN weights": (weights("nan.pt"), ["NaN", "head.bias"]),
    "weights that are none": (weights("text.pt"), ["text.pt is no weight file"]),
    "picture of a data set without a number": (explain(photo="mnist:-1"), ["number from 0", 'got "mnist:-1"']),
    "more points than can be taken": (
        explain("--method", "integrated-gradients", "--steps", "1000000000"),
        ["at most 5,000 points", "1,000,000,000"],
    ),
    "no weights file": (weights("none.pt"), ["none.pt"]),
    "zero standard deviation": (explain("--std", "0"), ["std must be positive"]),
    "number that is none": (explain("--mean", "a"), ["--mean"]),
    "file of another kind": (explain(out="out.gif"), [".png"]),
    "output that cannot be written": (explain(out="one.png/out.png"), ["cannot be written"]),
    "output folder with other files": (atlas(out="notes"), ["notes", "a.txt"]),
    "output folder that is a file": (atlas(out="one.png"), ["one.png", "folder"]),
    "output folder that cannot be made": (atlas(out="one.png/out"), ["one.png/out"]),
    "no image pages": (atlas("--images", "0"), ["at least one image"]),
    "unknown budget": (atlas("--budget", "huge"), ["quick"]),
    "unknown engine": (atlas("--engine", "proceses"), ["proceses", "processes"]),
    "unknown option": (explain("--colour", "red"), ["--colour"]),
    "unknown command": (["explian"], ["explian", '"explain"? `microtome --help`']),
    "no process": (atlas("--workers", "0"), ["at least one process"]),
    "training folder that cannot be written": (
        ["train", "fcnn1", "--data", "mnist", "--out", "one.png/run"],
        ["one.png/run cannot be written"],
    ),
    "class folders of another network": (
        ["ideal-inputs", *MODEL, "--data", "pets", "-o", "a.png"],
        ["2 class folders", "--classes"],
    ),
    "missing option": (["layers"], ["--model"]),
    "missing run file": (["atlas", "none.toml"], ["none.toml cannot be read: No such file or directory."]),
    "broken run file": (["atlas", "bad.toml"], ["bad.toml", "TOML"]),
    "unknown key in the run file": (["atlas", "run.toml", "--data", "images", "--out", "out"], ["bugdet"]),
    "no epoch": (["hand-net", "--train", "--epochs", "0"], ["--epochs is at least 1"]),
    "neither layer nor class": (["maximize", *MODEL, "-o", "out.png"], ["layer", "--for"]),
    "units in words": (["maximize", "one", *MODEL, "-o", "out.png", "--channels", "a"], ["--channels", "0-15"]),
    "scores that are none": (explain("--scores", "foo"), ["--scores", '"foo"', "logits", "value"]),
    "no columns named": (
        ["criteria", *MODEL, "--data", "images", "--layers", "one", "--columns", ",", "-o", "a.png"],
        ["--columns takes names"],
    ),
    "no classes to maximise": (["maximize", *MODEL, "--for", ",", "-o", "a.png"], ["--for takes names"]),
    "no methods named": (explain("--method", ","), ["--method takes names"]),
    "tag that nothing identifies": (["spotting-bias", "--tell", "foo"], ["--tell", '"foo"', "pattern", "place"]),
    "unknown unit": (["dissect", "one.png", *MODEL, "--layer", "one", "--channel", "9", "-o", "a.png"], ["9"]),
    "unknown kind of methods": (["methods", "--kind", "magic"], ["magic", "attribution"]),
    "units from the larger number to the smaller": (
        ["reconstruct", *MODEL, "--data", "images", "--layer", "one", "-o", "a.png", "--channels", "3-1"],
        ["--channels takes ranges from the smaller number to the larger", '"3-1"'],
    ),
    "units without end": (
        ["maximize", "one", *MODEL, "-o", "a.png", "--channels", "0-99999999999"],
        ["0-99999999999"],
    ),
    "a state of no weight file": (explain("--state", "ema"), ["--state ema", "--weights"]),
    "no weights named": (explain("--weights", ""), ["--weights is empty"]),
    "no classes named": (explain("--classes", " "), ["--classes is empty"]),
    "no layers named": (
        ["criteria", *MODEL, "--data", "images", "--layers", ",", "-o", "a.png"],
        ['--layers takes names joined by commas, got ","'],
    ),
    "target by a name without names": (
        ["explain-path", "one.png", *MODEL, "-o", "a.png", "--target", "dog"],
        ['no class "dog"', "given no class names"],
    ),
    "no image to compare layers on": (
        ["layer-repeats", *MODEL, "--data", "images", "--images", "0", "-o", "a.png"],
        ["at least one image", "--images 0"],
    ),
    "images larger than memory": (
        factory("nets:build", "1,99999999,99999999"),
        ["input_shape (1, 99999999, 99999999) is too large", "39,999,999.2 GB"],
    ),
    "library misspelt": (factory("timmm:resnet18"), ['"timmm"', "Nearest: timm"]),
    "folder in place of a file": (explain(out="folder.png"), ["folder.png cannot be written: it is a folder"]),
    "page in place of a figure": (
        ["map", *MODEL, "--data", "images", "--layer", "one", "-o", "a.htm"],
        ["a.htm", ".html for a page"],
    ),
    "page below a file": (
        ["map", *MODEL, "--data", "images", "--layer", "one", "-o", "one.png/a.html"],
        ["one.png/a.html cannot be written", "is a file, not a folder"],
    ),
    "no folder of masks": (
        ["shortcut-share", "one.png", *MODEL, "--masks", "none", "-o", "a.png"],
        ["no folder of masks none"],
    ),
    "mask that marks nothing": (
        ["shortcut-share", "one.png", *MODEL, "--masks", "ones", "-o", "a.png"],
        ["ones/one.png marks nothing", "0 and 255"],
    ),
    "several methods whose weights are randomised": (
        ["randomisation", "one.png", *MODEL, "--method", "lrp,saliency", "-o", "a.png"],
        ['--method expects one method, got "lrp,saliency"'],
    ),
    "no folder of masks for maps": (
        ["evaluate", "one.png", *MODEL, "--masks", "none", "-o", "a.png"],
        ["no folder of masks none"],
    ),
    "no picture to plant shortcuts in": (["spotting-bias", "--images", "0"], ["--images 0"]),
    "page of shortcuts that cannot be written": (
        ["spotting-bias", "--out", "one.png"],
        ["one.png cannot be written"],
    ),
    "reproductions that cannot be written": (
        ["reproduce", "vector-spaces", "--out", "one.png"],
        ["one.png cannot be written"],
    ),
    "unknown data set to train on": (
        ["train", "simple-convnet", "--data", "mnits", "--out", "run"],
        ["mnits", "mnist"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line_and_exit_2(mistake: str, files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens, expected = MISTAKES[mistake]
    assert run(tokens) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1
    for part in expected:
        assert part in said
    assert (files / "notes" / "a.txt").read_text() == "mine"


CHOICES = {
    ("layers", "--scores"): OUTPUTS,
    ("spotting-bias", "--tell"): TELLING,
    ("spotting-bias", "--head"): HEADS,
    ("landscape", "--statistics"): STATISTICS,
    ("landscape", "--precision"): PRECISIONS,
    ("information", "--activation"): ACTIVATIONS,
    ("information", "--estimator"): ESTIMATORS,
    ("usable-information", "--reduce"): REDUCTIONS,
    ("what-where", "--reduce"): POSITIONS,
    ("without", "--adapter"): ADAPTERS,
    ("explain", "--rule"): RULES,
    ("reconstruct", "--method"): METHODS,
    ("signal-space", "--view"): VIEWS,
}


@pytest.mark.parametrize("option", CHOICES)
def test_an_option_offers_what_the_library_takes(option: tuple[str, str]) -> None:
    arguments = app[option[0]].assemble_argument_collection()
    (found,) = (argument for argument in arguments if option[1] in argument.names)
    assert set(found.get_choices() or ()) == set(CHOICES[option])


def test_masks_are_found_by_names_with_brackets(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "masks").mkdir()
    Image.new("L", (10, 12), 120).save(files / "two [1].png")
    Image.new("L", (10, 12), 255).save(files / "masks" / "two [1].png")
    options = ["--masks", "masks", "--methods", "saliency", "-o", "a.png"]
    assert run(["shortcut-share", "two [1].png", *MODEL, *options]) == 0
    assert "100.0 % on the masks" in capsys.readouterr().out


def test_a_target_by_name_is_the_one_by_number(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for target in ("dog", "1"):
        named = ["explain-path", "one.png", *MODEL, "--classes", "names.txt", "--target", target, "--no-labels"]
        assert run([*named, "--json", "-o", "a.safetensors"]) == 0
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]


def test_warnings_are_lines_without_places_in_the_code(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "pets" / "cat" / "b.heic").write_bytes(b"x")
    (files / "pets" / "fish").mkdir()
    options = ["--data", "pets", "--layer", "one", "-o", "a.png"]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run(["top-patches", *MODEL, *options]) == 0
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "not read" in line] == [
        f"warning: the folder {files / 'pets'} holds files that are not read (1 .heic). Convert them to PNG or JPEG."
    ]
    assert not any(".py" in line for line in said)
