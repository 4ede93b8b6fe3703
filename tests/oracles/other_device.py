"""A device without hardware, "other", that refuses to mix its tensors with the processor's, as CUDA does.

A tensor of it holds a tensor of the processor and says that it lies elsewhere. Every operation on it runs on what is
held. An operation that mixes devices raises, except where CUDA admits it: copies, numbers without axes, indices. So do
draws from a generator of the processor. What depends on the word "cuda" (its memory, its graphs, its random states) is
not tried here.

``python tests/oracles/other_device.py NETWORK [METHOD ...]`` runs the registered methods of ``benchmarks.gpu`` on both
devices and prints a line of JSON for each; ``atlas`` in place of a network builds the atlas of the tests' small network
there. It needs a process of its own, since torch knows the device until the process ends.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "other"
_COPIES = {"aten::_to_copy", "aten::copy_"}
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
_JOINS = {"aten::cat", "aten::stack"}  # the only ones that refuse a number of another device
# What torch computes later, by flags that are not read here: in forward derivatives, and in those of complex numbers.
_LAZY = {
    "aten::_efficientzerotensor": torch.ops.aten.zeros.default,
    "aten::_conj": torch.ops.aten._conj_physical.default,
    "aten::_neg_view": torch.ops.aten.neg.default,
}
_KEPT: list[torch.library.Library] = []  # whose kernels go when it goes


def known() -> bool:
    """Whether this version of torch admits a device that is written in Python."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


class OtherTensor(Tensor):
    """A tensor of the device."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> OtherTensor:
        """Wrap a tensor of the processor."""
        made: OtherTensor = Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        return run(func, args, kwargs or {})

    # What torch answers without an operation, from memory that the wrapper does not have.

    @property
    def data(self) -> Tensor:
        """The tensor without its graph."""
        return self.detach()

    @data.setter
    def data(self, value: OtherTensor) -> None:
        """Hold another tensor, as a parameter does when its model changes precision or layout."""
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held

    def untyped_storage(self) -> torch.UntypedStorage:
        """The memory."""
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        """The address."""
        return self.held.data_ptr()

    def tolist(self) -> Any:
        """The numbers."""
        return self.held.tolist()

    def __format__(self, asked: str) -> str:
        """The number in a text."""
        return format(self.held, asked)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        """A copy of its own."""
        copied: Tensor = OtherTensor(self.held.detach().clone())
        if isinstance(self, nn.Parameter):
            copied = nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied.requires_grad_(self.requires_grad)
        return copied

    def __repr__(self) -> str:
        """The numbers, and where they lie."""
        return f"{self.held}, on {self.device}"


class Device(TorchDispatchMode):
    """A context in which tensors can be made on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        return run(func, args, kwargs or {})


def run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on what its tensors hold; the results lie where they do, or where the call says."""
    name, device = func._schema.name, kwargs.get("device")
    ours = [value for value in _leaves((args, tuple(kwargs.values()))) if isinstance(value, OtherTensor)]
    if not ours and (device is None or torch.device(device).type != NAME):
        return func(*args, **kwargs)
    if ours:
        _check(name, args, tuple(kwargs.values()))
    here = bool(ours) if device is None else torch.device(device).type == NAME
    if here and kwargs.get("generator") is not None:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu' ({func})")
    if here and device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    func = _LAZY.get(name, func) if here else func
    given = {id(value.held): value for value in ours}
    output = func(*[_held(value) for value in args], **{word: _held(value) for word, value in kwargs.items()})
    if name == "aten::copy_":
        return args[0]
    return _wrapped(output, given, here)


# The arguments of an operation are tensors, other values, or lists of them; torch's own walk over trees takes most of
# the time.


def _leaves(value: Any) -> Iterator[Any]:
    """All values of nested lists and tuples."""
    if isinstance(value, list | tuple):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _held(value: Any) -> Any:
    """What a value holds."""
    if isinstance(value, OtherTensor):
        return value.held
    return [_held(one) for one in value] if isinstance(value, list | tuple) else value


def _wrapped(value: Any, given: Mapping[int, OtherTensor], here: bool) -> Any:
    """The tensors of a result: those that were given, and new ones on the device if it was made there."""
    if isinstance(value, Tensor):
        return given[id(value)] if id(value) in given else OtherTensor(value) if here else value
    return type(value)(_wrapped(one, given, here) for one in value) if isinstance(value, list | tuple) else value


def _check(name: str, args: Sequence[Any], named: Sequence[Any]) -> None:
    """Refuse what CUDA refuses."""
    if name in _COPIES:
        return
    read: Any = (args, named)
    if name in _INDEXING:
        values = args[2:3]
        read = (args[0], values) if isinstance(args[0], OtherTensor) else args
    if any(
        not isinstance(value, OtherTensor) and (value.dim() or name in _JOINS)
        for value in _leaves(read)
        if isinstance(value, Tensor)
    ):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {NAME}:0 and cpu! ({name})"
        )


class _Module(ModuleType):
    """What torch asks a device."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def manual_seed_all(self, seed: int) -> None: ...

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_rng_state(self, device: Any = None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device: Any = None) -> None: ...

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


def set_up() -> None:
    """Make the device known to torch."""
    backend_registration._setup_privateuseone_for_python_backend(rename=NAME, backend_module=_Module(NAME))
    library = torch.library.Library("aten", "IMPL")
    kernels: dict[str, Callable[..., Any]] = {  # for the threads of backward passes, which know no context
        "empty.memory_format": lambda size, *, dtype=None, memory_format=torch.contiguous_format, **_: OtherTensor(
            torch.empty(size, dtype=dtype, memory_format=memory_format, device="cpu")
        ),
        "empty_strided": lambda size, stride, *, dtype=None, **_: OtherTensor(
            torch.empty_strided(size, stride, dtype=dtype, device="cpu")
        ),
        "_copy_from": lambda source, target, non_blocking=False: run(
            torch.ops.aten.copy_.default, (target, source), {}
        ),
    }
    for name, kernel in kernels.items():
        library.impl(name, kernel, "PrivateUse1")
    _KEPT.append(library)


def atlas() -> Iterator[dict[str, Any]]:
    """One row for each task that failed, and one for the number of pages."""
    from atlas import small
    from microtome.atlas import build
    from microtome.loading import RunConfig

    with tempfile.TemporaryDirectory() as folder:
        small.write(Path(folder))
        sys.path.insert(0, folder)
        config = RunConfig("nets:build", input_shape=(1, 12, 10), data=f"{folder}/images", device=f"{NAME}:0")
        report = build(config.open(), f"{folder}/out", size=small.TINY)
        yield from ({"task": name, "error": str(why)} for name, why in dict(report.failed).items())
        yield {"pages": len([*Path(folder, "out").rglob("*.html")])}


def compared(network: str, methods: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The comparison of each method."""
    from benchmarks import gpu, gpu_options

    slow = {method for where, method in gpu.SLOW if where == network}
    pairs = [(network, name) for name in methods or sorted(set(gpu.cases()) - slow)]
    if network == "options":
        pairs = [pair for pair in gpu_options.pairs() if not methods or pair[1] in methods]
    for pair in pairs:
        row = gpu.one_row(*pair, "cpu", f"{NAME}:0")
        yield {**row, "wrong": gpu.wrong(row)}


def main(network: str, *methods: str) -> None:
    """Print a row for each comparison."""
    here = Path(__file__).parents[1]
    sys.path[:0] = [str(here), str(here.parent)]
    torch.set_num_threads(1)
    set_up()
    with Device():
        for row in atlas() if network == "atlas" else compared(network, methods):
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # torch cannot end the threads of a device that is written in Python
