"""The random states that a pass may use: of torch, numpy and Python, and of the generators in a model."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

Generator = torch.Generator | np.random.Generator | random.Random
GENERATORS = (torch.Generator, np.random.Generator, random.Random)


class RandomStates:
    """The random states of torch, numpy and Python, also on the devices of the parameters, and of some generators."""

    def __init__(self, parameters: Iterable[Tensor], generators: Sequence[Generator] = ()) -> None:
        devices = {tensor.device for tensor in parameters if tensor.is_cuda}
        if devices and torch.cuda.is_current_stream_capturing():
            devices = set()  # a captured pass draws nothing, and its state cannot be read
        self.devices = [(device, torch.cuda.get_rng_state(device)) for device in sorted(devices, key=str)]
        self._torch = torch.get_rng_state()
        self._numpy = np.random.get_state()  # noqa: NPY002 - the user's own state
        self._python = random.getstate()
        self._own = [(generator, _state(generator)) for generator in generators]

    def restore(self) -> None:
        """Restore all states."""
        torch.set_rng_state(self._torch)
        np.random.set_state(self._numpy)  # noqa: NPY002 - the user's own state
        random.setstate(self._python)
        for device, state in self.devices:
            torch.cuda.set_rng_state(state, device)
        for generator, state in self._own:
            _set_state(generator, state)

    def same(self, other: RandomStates) -> bool:
        """Whether no random number was drawn between two states."""
        mine, its = [*self._numpy], [*other._numpy]
        return (
            torch.equal(self._torch, other._torch)
            and all(np.array_equal(a, b) for a, b in zip(mine, its, strict=True))
            and self._python == other._python
            and all(torch.equal(a[1], b[1]) for a, b in zip(self.devices, other.devices, strict=True))
            and all(_same(a[1], b[1]) for a, b in zip(self._own, other._own, strict=True))
        )


@contextmanager
def seeded(seed: int, parameters: Iterable[Tensor], generators: Sequence[Generator] = ()) -> Iterator[None]:
    """Set all random states from a seed; restore the caller's states at the end."""
    states = RandomStates(list(parameters), generators)
    try:
        torch.default_generator.manual_seed(seed)
        for device, _ in states.devices:  # no other devices: their states would not be restored
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - what the model may draw from
        random.seed(seed)
        for generator in generators:
            _seed(generator, seed)
        yield
    finally:
        states.restore()


def _state(generator: Generator) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.getstate() if isinstance(generator, random.Random) else generator.bit_generator.state


def _set_state(generator: Generator, state: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        generator.bit_generator.state = state


def _seed(generator: Generator, seed: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, random.Random):
        generator.seed(seed)
    else:
        generator.bit_generator.state = type(generator.bit_generator)(seed).state


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    return str(one) == str(other)  # dicts of numbers and arrays, or tuples of numbers
