"""How do weights get from a file into a model, without running code and without a silent misfit?"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from microtome.errors import ModelError

__all__ = ["fill", "load_weights", "read_weights"]

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights")
_NAMED = 6  # keys named in a message before it says how many more there are


def load_weights(model: nn.Module, path: Path | str) -> None:
    """Read a weight file into a model, all of it or nothing.

    Parameters
    ----------
    model
        Filled in place; left as it was when the file does not fit.
    path
        A ``.safetensors`` file, or what ``torch.save`` wrote (read with ``weights_only=True``: tensors, no code). A
        state dict inside ``state_dict``, ``model`` and the like, or the only one under any key, is found; a common
        prefix ``module.`` is taken off.

    Raises
    ------
    ModelError
        The file cannot be read, keys are missing, unexpected or of another shape (the message lists them), or a weight
        is not finite.
    """
    fill(model, read_weights(path), str(path))


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a weight file by name.

    Raises
    ------
    ModelError
        The file is missing, broken, or holds more than tensors.
    """
    file = Path(path)
    if file.is_dir():
        raise ModelError(f"{file} is a folder; a weight file is expected, .safetensors or .pt.")
    if not file.is_file():
        raise ModelError(f"there is no weight file {file}.")
    if not file.stat().st_size:
        raise ModelError(f"the weight file {file} is empty. Fetch or save it again.")
    if _scripted(file):
        raise ModelError(
            f"{file} is a TorchScript archive, whose inside cannot be seen. Save the weights of the model it was made "
            "from: torch.save(model.state_dict(), path)."
        )
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{file} holds more than tensors and is not loaded, for it could run code. Save the weights alone: "
            "torch.save(model.state_dict(), path), or as safetensors."
        ) from error
    except Exception as error:  # what the readers raise on a torn file is not bounded
        raise ModelError(
            f"{file} is no weight file, or a torn one ({' '.join(str(error).split())[:120] or type(error).__name__}). "
            "Safetensors are expected, or what torch.save wrote."
        ) from error
    return _state_dict(content, file)


def fill(model: nn.Module, state: Mapping[str, Tensor], source: str = "the weights") -> None:
    """Copy tensors into a model's parameters and buffers by name, all of them or none."""
    own = model.state_dict()
    # Batch counters are not in old files and change nothing that is computed.
    optional = {name for name in own if name.endswith("num_batches_tracked")}
    problems = [
        _listed("missing", [name for name in own if name not in state and name not in optional]),
        _listed("unexpected", [name for name in state if name not in own]),
        _listed(
            "of another shape",
            [
                f"{name} (model {tuple(own[name].shape)}, file {tuple(value.shape)})"
                for name, value in state.items()
                if name in own and own[name].shape != value.shape
            ],
        ),
    ]
    if any(problems):
        raise ModelError(
            f"{source} does not fit {type(model).__name__}: {'; '.join(filter(None, problems))}. "
            "Give the file that was saved from this model, with the same input channels and classes."
        )
    bad = [name for name, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise ModelError(f"{source} holds NaN or infinite weights in {', '.join(bad[:_NAMED])}; the training diverged.")
    model.load_state_dict({**own, **state})


def _scripted(file: Path) -> bool:
    """Whether ``torch.jit.save`` wrote a file: an archive with a module's constants in it."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _state_dict(content: object, file: Path) -> dict[str, Tensor]:
    """The state dict in what ``torch.load`` gave, however it was wrapped."""
    if isinstance(content, Mapping):
        inside = [key for key, value in content.items() if _is_state(value)]
        wanted = [key for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        chosen = wanted or (inside if len(inside) == 1 else [])
        content = content[chosen[0]] if chosen else content
    if not _is_state(content):
        held = f"a dict with {', '.join(map(repr, list(content)[:_NAMED]))}" if isinstance(content, Mapping) else ""
        raise ModelError(
            f"{file} holds no state dict (names and tensors), but {held or type(content).__name__}. "
            "Save one: torch.save(model.state_dict(), path)."
        )
    names = [str(name) for name in content]
    prefix = "module." if all(name.startswith("module.") for name in names) else ""
    return {name.removeprefix(prefix): value for name, value in zip(names, content.values(), strict=True)}


def _is_state(content: object) -> TypeGuard[Mapping[str, Tensor]]:
    return isinstance(content, Mapping) and bool(content) and all(isinstance(v, Tensor) for v in content.values())


def _listed(what: str, keys: Sequence[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f"{len(keys)} {what}: {', '.join(keys[:_NAMED])}{more}"
