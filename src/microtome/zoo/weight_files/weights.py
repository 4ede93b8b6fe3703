"""Loads the weights of a file into a model, completely or not at all, with any prefixes of wrappers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from microtome.errors import InputError, ModelError
from microtome.inputs import unwrapped
from microtome.option_types import checks_types
from microtome.zoo.weight_files import state_dicts
from microtome.zoo.weight_files.checkpoint_files import content_of

__all__ = ["fill", "load_weights", "read_weights"]

_LOG = logging.getLogger(__name__)
_SHOWN = 6


@checks_types
def load_weights(model: nn.Module, path: Path | str, *, state: str | None = None) -> str:
    """Load a weight file into a model, completely or not at all.

    The file may hold the state dict itself or dicts around it, to any depth (``state_dict`` and ``hyper_parameters`` of
    Lightning, ``model`` and ``model_ema`` of timm and torchvision). What wrappers add to the names is removed
    where the rest then fits exactly: ``module.`` of data parallel training, ``_orig_mod.`` of ``torch.compile``,
    ``model.``, ``net.`` and any other common prefix, in any order.

    Parameters
    ----------
    model
        Filled in place; unchanged if the file does not fit. Tensors are converted to its types.
    path
        A ``.safetensors`` file, what ``torch.save`` wrote (tensors only, no code is run), or an index of shards.
    state
        Which state dict to load if several fit, by its key in the file, such as ``state_dict_ema``. By default an
        averaged one (EMA, SWA), since training code evaluates that one; a log message names the choice.

    Returns
    -------
    str
        The keys and prefix of the loaded state dict, joined by dots; empty for the file itself.

    Raises
    ------
    ModelError
        The file cannot be read, keys are missing, unexpected or of another shape (the message lists them), a weight is
        not finite, or there is no such ``state``.
    """
    inner = unwrapped(model)
    found = _states(path)
    fits = state_dicts.fitting(inner, found)
    if not fits:
        name, problems = state_dicts.nearest_misfit(inner, found)
        where = f'{path}, state "{name}",' if name and len(found) > 1 else str(path)
        raise _does_not_fit(inner, where, problems)
    taken = fits[0] if state is None else state_dicts.named(fits, state, str(path))
    _check_finite(taken.tensors, str(path))
    others = [fit for fit in fits if fit is not taken and not state_dicts.same(fit, taken)]
    if state is None:
        _tell(path, taken, others)
    inner.load_state_dict({**inner.state_dict(), **taken.tensors})
    return taken.name


@checks_types
def read_weights(path: Path | str, *, state: str | None = None) -> dict[str, Tensor]:
    """The tensors of a weight file by the names in it.

    Parameters
    ----------
    path
        As in :func:`load_weights`.
    state
        Which state dict to take where there are several, by its key in the file.

    Raises
    ------
    ModelError
        The file is missing, broken, holds no state dict, or several and none was named.
    """
    found = _states(path)
    chosen = [(name, tensors) for name, tensors in found if state is None or name == state]
    if len(chosen) != 1:
        names = ", ".join(name for name, _ in found)
        raise ModelError(f"{path} holds the states {names}; choose one of them with state=.")
    return dict(chosen[0][1])


@checks_types
def fill(model: nn.Module, state: Mapping[str, Tensor], source: str = "the weights") -> None:
    """Copy tensors into a model's parameters and buffers by name, all of them or none.

    Raises
    ------
    InputError
        The state holds something else than tensors.
    ModelError
        The tensors do not fit the model, or hold NaN or infinity.
    """
    given: Mapping[str, Any] = state
    strange = next((name for name, value in given.items() if not isinstance(value, Tensor)), None)
    if strange is not None:
        kind = type(state[strange]).__name__
        raise InputError(f'a state dict of tensors by name was expected, got a {kind} for "{strange}".')
    problems = state_dicts.misfit(model, state)
    if problems:
        raise _does_not_fit(model, source, problems)
    _check_finite(state, source)
    model.load_state_dict({**model.state_dict(), **state})


def _states(path: Path | str) -> list[tuple[str, state_dicts.State]]:
    content = content_of(path)
    found = list(state_dicts.states(content))
    if found:
        return found
    if isinstance(content, Mapping):
        held = f"a dict with {', '.join(map(repr, list(content)[:_SHOWN]))}" if content else "an empty dict"
    else:
        held = type(content).__name__
    raise ModelError(
        f"{path} holds no state dict (names and tensors), but {held}, or more than tensors, such as a whole model, "
        "whose code is not run. Save the weights alone: torch.save(model.state_dict(), path), or as safetensors."
    )


def _does_not_fit(model: nn.Module, source: str, problems: str) -> ModelError:
    return ModelError(
        f"{source} does not fit {type(model).__name__}: {problems}. "
        "Give the file that was saved from this model, with the same input channels and classes."
    )


def _check_finite(state: Mapping[str, Tensor], source: str) -> None:
    bad = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise ModelError(f"{source} holds NaN or infinite weights in {', '.join(bad[:_SHOWN])}; the training diverged.")


def _tell(path: Path | str, taken: state_dicts.Fit, others: list[state_dicts.Fit]) -> None:
    """Log which state was loaded if there are others, or which tensors are not used."""
    if others:
        names = ", ".join(fit.name or "(the file itself)" for fit in others)
        why = ", the averaged weights," if taken.averaged else ""
        _LOG.warning(
            "%s holds several states; %s%s was loaded, not %s. Choose another with --state NAME (state=NAME).",
            path, taken.name or "the file itself", why, names,
        )  # fmt: skip
    elif taken.unused:
        shown = ", ".join(taken.unused[:_SHOWN]) + (", ..." if len(taken.unused) > _SHOWN else "")
        count = len(taken.unused)
        _LOG.warning("%s holds %d tensors outside %s that are not used: %s.", path, count, taken.name, shown)
