"""Every tensor that the library makes says on which device, so that none is born on the wrong one by accident."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import microtome

SOURCES = Path(microtome.__file__).parent

# Functions of torch that make a tensor from no tensor of torch. `from_numpy` is treated apart below.
FACTORIES = {
    "arange", "as_tensor", "asarray", "empty", "empty_strided", "eye", "frombuffer", "full", "linspace",
    "logspace", "normal", "ones", "rand", "randint", "randn", "randperm", "range", "scalar_tensor", "tensor",
    "tril_indices", "triu_indices", "zeros", "bartlett_window", "blackman_window", "hamming_window", "hann_window",
    "kaiser_window", "fftfreq", "rfftfreq", "sparse_coo_tensor", "sparse_csr_tensor", "sparse_compressed_tensor",
}  # fmt: skip
DRAWS = {"normal", "rand", "randint", "randn", "randperm"}
IN_PLACE_DRAWS = {
    "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_", "uniform_",
}  # fmt: skip
DRAWS_LIKE = {"bernoulli", "multinomial", "poisson", "rand_like", "randint_like", "randn_like"}

# torch.from_numpy gives a tensor on the processor, whatever the default device. Here none is moved on the spot.
ARRAYS = {
    "atlas/topics/network": "positions of images are tables on the processor",
    "attribution/gradients/integrated_gradients.py": "nodes and weights, each moved to its images",
    "data": "images and labels as read from files; Network.images moves a batch",
    "explorer": "pictures as sent and numbers of a shared view; Network.images moves them",
    "inputs.py": "images as given; Network.images moves them",
    "representation": "features are tables on the processor",
    "spaces/singular/triplets.py": "ARPACK works on the processor; its vectors are moved where they are used",
    "units/streaming": "tables over a data set are kept on the processor",
    "units/wiring/gabor.py": "filters are fitted on the processor",
    "units/wiring/natural_filters.py": "independent components are computed on the processor",
}
# Draws without a generator of their own.
DRAWN = {
    "zoo": "initial weights, drawn on the processor, within zoo.initial.seeded, before the model is moved",
}


def calls() -> Iterator[tuple[str, ast.Call, ast.AST]]:
    """Every call in the sources: file, call, and the node around it."""
    for path in sorted(SOURCES.rglob("*.py")):
        for around in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for node in ast.iter_child_nodes(around):
                if isinstance(node, ast.Call):
                    yield str(path.relative_to(SOURCES).as_posix()), node, around


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


def factory(call: ast.Call) -> str | None:
    """The name of the factory of torch that a call makes its tensor with."""
    module, _, name = name_of(call).rpartition(".")
    return name if module.split(".")[0] == "torch" and name in FACTORIES else None


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((word.value for word in call.keywords if word.arg == name), None)


def nameless(found: Iterator[tuple[str, ast.Call, ast.AST]]) -> list[str]:
    return [f"{file}:{call.lineno}: {name_of(call)}" for file, call, _ in found if factory(call) and not device(call)]


def device(call: ast.Call) -> bool:
    return any(word.arg in ("device", None) for word in call.keywords)


def test_every_factory_names_its_device():
    assert not nameless(calls())


def test_the_walk_finds_factories_without_a_device():
    """The check itself: it finds what it should, and its rows of names are names of torch."""
    import torch

    code = "torch.zeros(3); torch.arange(4, device=x.device); torch.fft.fftfreq(3); np.zeros(3); x.new_zeros(3)"
    tree = ast.parse(code)
    found = [("", node, tree) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert nameless(iter(found)) == [":1: torch.zeros", ":1: torch.fft.fftfreq"]
    assert all(hasattr(torch, name) or hasattr(torch.fft, name) for name in FACTORIES | DRAWS_LIKE)
    assert all(hasattr(torch.Tensor, name) for name in IN_PLACE_DRAWS)
    assert sum(factory(call) is not None for _, call, _ in calls()) > 150


def test_arrays_of_numpy_are_moved_or_stay_for_a_reason():
    left = []
    used = set()
    for file, call, around in calls():
        if name_of(call) == "torch.from_numpy":
            moved = isinstance(around, ast.Attribute) and around.attr == "to"
            reason = next((entry for entry in ARRAYS if file.startswith(entry)), None)
            used.add(reason)
            if not moved and reason is None and not _inside_moved(file, call):
                left.append(f"{file}:{call.lineno}")
    assert not left
    assert used >= set(ARRAYS), f"no longer needed: {set(ARRAYS) - used}"


def _inside_moved(file: str, call: ast.Call) -> bool:
    """Whether the call's own line moves what it made."""
    return ".to(" in (SOURCES / file).read_text(encoding="utf-8").splitlines()[call.lineno - 1]


def test_random_numbers_are_drawn_on_the_processor():
    """A seed gives the same numbers on every device: each draw has a generator, and its device is the processor."""
    wrong = []
    for file, call, _ in calls():
        name = name_of(call).rpartition(".")[2]
        drawing = name in IN_PLACE_DRAWS and "." in name_of(call)
        drawing |= name_of(call).startswith("torch.") and name in DRAWS | DRAWS_LIKE
        if not drawing or file.startswith(tuple(DRAWN)):
            continue
        at = keyword(call, "device")
        plain = isinstance(at, ast.Constant) and at.value == "cpu"
        if keyword(call, "generator") is None or not (plain or name not in DRAWS):
            wrong.append(f"{file}:{call.lineno}: {name_of(call)}")
    assert not wrong


def test_generators_are_the_processors():
    wrong = [
        f"{file}:{call.lineno}"
        for file, call, _ in calls()
        if name_of(call) == "torch.Generator" and (call.args or call.keywords)
    ]
    assert not wrong


@pytest.mark.parametrize("file", [*ARRAYS, *DRAWN])
def test_the_exceptions_exist(file):
    assert (SOURCES / file).exists()
