"""State dicts in a checkpoint, and the one among them that fits a model once prefixes of wrappers are removed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from microtome.errors import ModelError, nearest

__all__ = ["State", "fitting", "misfit", "states"]

State = Mapping[str, Tensor]

_USUAL = ("state_dict", "model_state_dict", "model", "net", "weights")  # in this order, where several fit
_DEEP = 4  # levels of dicts that are searched
_SHOWN = 6  # number of keys listed in a message
_COUNTERS = frozenset({"n_averaged"})  # tensors that averaging wrappers add to the weights

# Segments that torch.compile, FSDP and activation checkpointing put anywhere into a name; they change no weight.
_TRANSPARENT = re.compile(r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# Attributes under which training code keeps the network. Under another prefix the whole file must belong to it.
_WRAPPERS = frozenset(
    "module model net network backbone ema ema_model model_ema swa_model average_model averaged_model student "
    "teacher classifier".split()
)
_AVERAGED = re.compile(r"(?:^|[._])(?:ema|swa|avg|averaged?|polyak)(?:[._]|$)|ema$", re.IGNORECASE)


@dataclass(frozen=True)
class Fit:
    """A state dict that fits a model.

    Attributes
    ----------
    name : str
        Its place in the file: keys and prefix joined by dots, empty for the file itself.
    tensors : dict
        By the model's own names.
    unused : tuple of str
        Names in the state dict that are not the model's.
    """

    name: str
    tensors: dict[str, Tensor]
    unused: tuple[str, ...]

    @property
    def averaged(self) -> bool:
        """Whether its name marks it as an average over training steps (EMA, SWA)."""
        return bool(_AVERAGED.search(self.name))


def states(content: object, name: str = "", depth: int = _DEEP) -> Iterator[tuple[str, State]]:
    """Every state dict in the content of a file, with the keys that lead to it."""
    if not isinstance(content, Mapping) or not depth:
        return
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    inner = [
        (key, value)
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, Mapping) and not key.endswith("_extra_state")
    ]
    # A dict with a few tensors beside other dicts, such as a loss beside the weights, is no state dict.
    if tensors and not inner:
        yield name, tensors
    for key, value in inner:
        yield from states(value, f"{name}.{key}" if name else key, depth - 1)


def fitting(model: nn.Module, found: Sequence[tuple[str, State]]) -> list[Fit]:
    """All state dicts that hold the model's weights, exactly, under their own names or behind one prefix.

    In the order of preference: averaged ones first, then those under the usual keys.
    """
    fits = [
        fit
        for name, state in found
        for prefix in _prefixes(model, state)
        if (fit := _fit(model, name, state, prefix)) is not None
    ]
    return sorted(fits, key=_preference)


def misfit(model: nn.Module, state: State) -> str:
    """The reasons why a state dict does not fit a model; empty if it fits."""
    own = model.state_dict()
    problems = [
        _listed("missing", [name for name in own if name not in state and name not in _optional(own, state)]),
        _listed("unexpected", [name for name in state if name not in own]),
        _listed(
            "of another shape",
            [
                f"{name} (model {tuple(own[name].shape)}, file {tuple(value.shape)})"
                for name, value in state.items()
                if name in own and own[name].shape != value.shape
            ],
        ),
        _listed(
            "of another type",
            [
                f"{name} (model {_type(own[name])}, file {_type(value)})"
                for name, value in state.items()
                if name in own and own[name].shape == value.shape and not _converts(value, own[name])
            ],
        ),
    ]
    return "; ".join(filter(None, problems))


def _converts(value: Tensor, own: Tensor) -> bool:
    """Whether a tensor of a file can be converted by rounding alone; integers that need a scale cannot."""
    plain = value.layout is torch.strided and not value.is_quantized and not value.is_meta
    return plain and (value.is_floating_point(), value.is_complex()) == (own.is_floating_point(), own.is_complex())


def _type(value: Tensor) -> str:
    kind = "" if value.layout is torch.strided else "sparse "
    return kind + str(value.dtype).removeprefix("torch.") + (" without content" if value.is_meta else "")


def nearest_misfit(model: nn.Module, found: Sequence[tuple[str, State]]) -> tuple[str, str]:
    """Name and problems of the state dict that fits best."""
    tried = [
        (name, {_transparent(key).removeprefix(prefix): value for key, value in state.items()})
        for name, state in found
        for prefix in {"", *_prefixes(model, state)}
    ]
    own = model.state_dict().keys()
    name, state = max(tried, key=lambda one: (len(own & one[1].keys()) - len(one[1].keys() - own), -len(one[0])))
    return name, misfit(model, state)


def named(fits: Sequence[Fit], name: str, source: str) -> Fit:
    """The state dict that a user names by its full name or its last key.

    Raises
    ------
    ModelError
        No fitting state dict has this name; the message lists them.
    """
    folded = name.casefold()
    for fit in fits:
        if folded in (fit.name.casefold(), fit.name.casefold().split(".")[0], fit.name.casefold().rpartition(".")[2]):
            return fit
    names = [fit.name or "(the file itself)" for fit in fits]
    raise ModelError(
        f'{source} holds no fitting state "{name}". Fitting states: {", ".join(names)}. '
        f"Nearest: {nearest(name, names, 1)}."
    )


def _fit(model: nn.Module, name: str, state: State, prefix: str) -> Fit | None:
    own = {_transparent(key): key for key in model.state_dict()}
    stripped = _stripped(state, prefix)
    tensors = {own[key]: value for key, value in stripped.items() if key in own}
    unused = tuple(key for key in state if not _under(key, prefix) and key not in _COUNTERS)
    wrapped = bool(prefix) and set(prefix.rstrip(".").split(".")) <= _WRAPPERS
    if (unused and not wrapped) or len(stripped) > len(tensors) or misfit(model, tensors):
        return None
    return Fit(".".join(part for part in (name, prefix.rstrip(".")) if part), tensors, unused)


def _prefixes(model: nn.Module, state: State) -> list[str]:
    """Possible prefixes of the model's names."""
    own = [_transparent(key) for key in model.state_dict()]
    if not own:
        return [""]
    # The longest names end the fewest others; a file may leave one out.
    needed = [key for key in own if not key.endswith("num_batches_tracked")] or own
    probes = sorted(needed, key=lambda key: (-key.count("."), -len(key)))[:3]
    names = [_transparent(key) for key in state]
    found = [key[: -len(probe)] for probe in probes for key in names if key == probe or key.endswith(f".{probe}")]
    return sorted(set(found), key=lambda prefix: (prefix.count("."), prefix))


def _stripped(state: State, prefix: str) -> dict[str, Tensor]:
    return {
        _transparent(key).removeprefix(prefix): value
        for key, value in state.items()
        if _under(key, prefix) and key not in _COUNTERS
    }


def _under(key: str, prefix: str) -> bool:
    return _transparent(key).startswith(prefix)


def _transparent(key: str) -> str:
    return _TRANSPARENT.sub("", key)


def _optional(own: State, state: State) -> set[str]:
    """Names that a file may leave out.

    Batch counters are not in old files and change nothing that is computed; of weights that several names share, a
    safetensors file holds one.
    """
    shared = {(value.data_ptr(), value.shape) for name, value in own.items() if name in state and value.numel()}
    return {
        name
        for name, value in own.items()
        if name.endswith("num_batches_tracked") or (value.data_ptr(), value.shape) in shared
    }


def _preference(fit: Fit) -> tuple[int, int, int]:
    keys = fit.name.split(".")
    usual = min((_USUAL.index(key) for key in keys if key in _USUAL), default=len(_USUAL))
    return (0 if fit.averaged else 1, usual if fit.name else 0, len(keys))


def _listed(what: str, keys: Sequence[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
    return f"{len(keys)} {what}: {', '.join(keys[:_SHOWN])}{more}"


def same(first: Fit, second: Fit) -> bool:
    """Whether two fits hold equal tensors."""
    return all(torch.equal(value, second.tensors[name]) for name, value in first.tensors.items())
