"""Names of operators: one name for every spelling of the same operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Function = Callable[..., Any]


# Spellings that mean the same; in-place variants (a trailing underscore, __iadd__ and so on) are folded first.
_SAME = {
    "radd": "add",
    "iadd": "add",
    "rmul": "mul",
    "imul": "mul",
    "multiply": "mul",
    "truediv": "div",
    "itruediv": "div",
    "idiv": "div",
    "true_divide": "div",
    "divide": "div",
    "rtruediv": "rdiv",
    "isub": "sub",
    "subtract": "sub",
    "negative": "neg",
    "concat": "cat",
    "concatenate": "cat",
    "clip": "clamp",
    "rmatmul": "matmul",
    "linalg_matmul": "matmul",
    "expit": "sigmoid",
    "log_sigmoid": "logsigmoid",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "moveaxis": "movedim",
    "absolute": "abs",
    "greater": "gt",
    "less": "lt",
    "greater_equal": "ge",
    "less_equal": "le",
    "dropout1d": "dropout",
    "dropout2d": "dropout",
    "dropout3d": "dropout",
    "feature_dropout": "dropout",
    "alpha_dropout": "dropout",
    "feature_alpha_dropout": "dropout",
    "fft_rfft2": "rfft2",
    "max_pool2d_with_indices": "max_pool2d",
    "max_pool1d_with_indices": "max_pool1d",
    "max_pool3d_with_indices": "max_pool3d",
    "adaptive_max_pool2d_with_indices": "adaptive_max_pool2d",
    "reversed": "flip",
    "arctan": "atan",
    "arcsinh": "asinh",
    "fix": "trunc",
}


# Calls that ask about a tensor and compute nothing from it: they never become layers.
_QUESTIONS = frozenset(
    """get set delete size dim ndimension numel nelement stride storage_offset data_ptr is_contiguous element_size
    is_floating_point is_complex is_signed is_cuda is_quantized is_conj is_inference is_same_size get_device
    len index repr str format hash item tolist numpy requires_grad register_hook retain_grad
    backward is_nonzero equal allclose dir contains has_names storage untyped_storage result_type
    is_tensor is_storage finfo iinfo can_cast array deepcopy reduce_ex setstate names new_empty empty_like
    zeros_like ones_like new_zeros new_ones new_full full_like rand_like randn_like is_shared is_pinned
    unify_type_list broadcast_shapes symbolic_trace dim_order""".split()
)


# float(x) asks for a number, x.float() changes the type.
_NUMBERS = frozenset("__float__ __int__ __bool__ __complex__ __index__ __long__".split())


# Attributes of a tensor that are tensors made from it: x.T is an operation.
_ATTRIBUTES = frozenset("T mT H mH data real imag".split())


_KEEPS_UNDERSCORES = {"__getitem__": "getitem", "__setitem__": "setitem", "__set__": "set"}


@dataclass(frozen=True)
class Spelling:
    """What a torch function is called by everybody, and how this spelling writes it."""

    kind: str
    inplace: bool
    foreign: bool = False


_SPELLINGS: dict[Any, Spelling | None] = {}


def spelling(func: Function) -> Spelling | None:
    """The operator behind a torch function; None for questions about a tensor.

    Examples
    --------
    >>> import torch
    >>> spelling(torch.relu_), spelling(torch.Tensor.__iadd__).kind, spelling(torch.Tensor.size)
    (Spelling(kind='relu', inplace=True, foreign=False), 'add', None)
    """
    try:
        return _SPELLINGS[func]
    except KeyError:
        found = _spell(func)
        _SPELLINGS[func] = found
        return found
    except TypeError:  # not hashable: a user's own wrapper
        return _spell(func)


def _spell(func: Function) -> Spelling | None:
    name = getattr(func, "__name__", None) or type(func).__name__
    if name in _NUMBERS:
        return None
    if name == "__get__":
        attribute = getattr(getattr(func, "__self__", None), "__name__", "")
        return Spelling(attribute, inplace=False) if attribute in _ATTRIBUTES else None
    namespace = str(getattr(func, "namespace", "") or "")
    packet = getattr(func, "_qualified_op_name", "") or getattr(func, "_qualified_name", "") or ""
    if isinstance(packet, str) and "::" in packet:  # torch.ops.*: an overload or a packet of overloads
        namespace, _, name = packet.partition("::")
    if namespace:
        name = name.split(".")[0]  # "relu.default"
    if namespace and namespace not in ("aten", "prims"):
        return Spelling(f"{namespace}::{name}", inplace=name.endswith("_"), foreign=True)
    if name in _KEEPS_UNDERSCORES:
        bare, inplace = _KEEPS_UNDERSCORES[name], name == "__setitem__"
    elif name.startswith("__") and name.endswith("__"):
        bare = name.strip("_")
        inplace = bare.startswith("i") and bare[1:] in ("add", "mul", "sub", "truediv", "div", "pow", "and", "or")
    else:
        inplace = name.endswith("_") and not name.startswith("_")
        bare = name.strip("_")
    bare = bare.removeprefix("special_")
    kind = _SAME.get(bare, bare)
    if kind in _QUESTIONS or kind.startswith(("is_", "has_", "new_")):
        return None
    return Spelling(kind, inplace)
