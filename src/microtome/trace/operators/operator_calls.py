"""Names of operators: one name for every spelling of the same operation, and its arguments by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from microtome.trace.operators.operator_table import RECTIFIERS as RECTIFIERS

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

_AVERAGE = "input kernel_size stride=None padding=0 ceil_mode=False count_include_pad=True divisor_override=None"

_SIGNATURES: dict[str, str] = {
    "conv1d": "input weight bias=None stride=1 padding=0 dilation=1 groups=1",
    "conv2d": "input weight bias=None stride=1 padding=0 dilation=1 groups=1",
    "conv3d": "input weight bias=None stride=1 padding=0 dilation=1 groups=1",
    "conv_transpose1d": "input weight bias=None stride=1 padding=0 output_padding=0 groups=1 dilation=1",
    "conv_transpose2d": "input weight bias=None stride=1 padding=0 output_padding=0 groups=1 dilation=1",
    "conv_transpose3d": "input weight bias=None stride=1 padding=0 output_padding=0 groups=1 dilation=1",
    "linear": "input weight bias=None",
    "addmm": "bias input weight beta=1 alpha=1",
    "baddbmm": "bias input weight beta=1 alpha=1",
    "addcmul": "input tensor1 tensor2 value=1",
    "batch_norm": "input running_mean running_var weight=None bias=None training=False momentum=0.1 eps=1e-05",
    "layer_norm": "input normalized_shape weight=None bias=None eps=1e-05",
    "group_norm": "input num_groups weight=None bias=None eps=1e-05",
    "instance_norm": "input running_mean=None running_var=None weight=None bias=None use_input_stats=True",
    "max_pool1d": "input kernel_size stride=None padding=0 dilation=1 ceil_mode=False return_indices=False",
    "max_pool2d": "input kernel_size stride=None padding=0 dilation=1 ceil_mode=False return_indices=False",
    "max_pool3d": "input kernel_size stride=None padding=0 dilation=1 ceil_mode=False return_indices=False",
    "avg_pool1d": "input kernel_size stride=None padding=0 ceil_mode=False count_include_pad=True",
    "avg_pool2d": _AVERAGE,
    "avg_pool3d": _AVERAGE,
    "lp_pool2d": "input norm_type kernel_size stride=None ceil_mode=False",
    "unfold": "input kernel_size dilation=1 padding=0 stride=1",
    "adaptive_avg_pool1d": "input output_size",
    "adaptive_avg_pool2d": "input output_size",
    "adaptive_max_pool2d": "input output_size return_indices=False",
    "pad": "input pad mode='constant' value=None",
    "clamp": "input min=None max=None",
    "clamp_min": "input min",
    "clamp_max": "input max",
    "threshold": "input threshold value inplace=False",
    "hardtanh": "input min_val=-1.0 max_val=1.0 inplace=False",
    "relu": "input inplace=False",
    "relu6": "input inplace=False",
    "leaky_relu": "input negative_slope=0.01 inplace=False",
    "rrelu": "input lower=0.125 upper=0.3333333333333333 training=False inplace=False",
    "prelu": "input weight",
    "elu": "input alpha=1.0 inplace=False",
    "celu": "input alpha=1.0 inplace=False",
    "selu": "input inplace=False",
    "silu": "input inplace=False",
    "mish": "input inplace=False",
    "hardswish": "input inplace=False",
    "hardsigmoid": "input inplace=False",
    "gelu": "input approximate='none'",
    "softplus": "input beta=1 threshold=20",
    "softmax": "input dim=None",
    "log_softmax": "input dim=None",
    "mean": "input dim=None keepdim=False",
    "sum": "input dim=None keepdim=False",
    "amax": "input dim=() keepdim=False",
    "add": "input other alpha=1",
    "sub": "input other alpha=1",
    "rsub": "input other alpha=1",
    "mul": "input other",
    "div": "input other rounding_mode=None",
    "rdiv": "input other",
    "matmul": "input other",
    "mm": "input other",
    "bmm": "input other",
    "maximum": "input other",
    "glu": "input dim=-1",
    "copy": "input other non_blocking=False",
    "max": "input other=None",
    "where": "condition input other",
    "masked_fill": "input mask value",
    "setitem": "input index value",
    "getitem": "input index",
    "gt": "input other",
    "ge": "input other",
    "lt": "input other",
    "le": "input other",
    "cat": "tensors dim=0",
    "stack": "tensors dim=0",
    "flatten": "input start_dim=0 end_dim=-1",
    "interpolate": "input size=None scale_factor=None mode='nearest' align_corners=None",
    "upsample": "input size=None scale_factor=None mode='nearest' align_corners=None",
    "scaled_dot_product_attention": "query key value attn_mask=None dropout_p=0.0 is_causal=False scale=None",
}

_KEYWORDS = {
    "axis": "dim",
    "axes": "dim",
    "keepdims": "keepdim",
    "self": "input",
    "min_value": "min",
    "max_value": "max",
}


def _parse(signature: str) -> tuple[tuple[str, Any], ...]:
    """Read a line of the table: names with their defaults."""
    parameters: list[tuple[str, Any]] = []
    for word in signature.split():
        name, _, default = word.partition("=")
        parameters.append((name, _literal(default)))
    return tuple(parameters)


def _literal(text: str) -> Any:
    import ast

    return ast.literal_eval(text) if text else None


_PARAMETERS = {kind: _parse(signature) for kind, signature in _SIGNATURES.items()}
_INPLACE_AT = {
    kind: place for kind, named in _PARAMETERS.items() for place, (name, _) in enumerate(named) if name == "inplace"
}


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
    >>> spelling(torch.relu_), spelling(torch.Tensor.__iadd__).kind, spelling(torch.Tensor.size)
    (Spelling(kind='relu', inplace=True, foreign=False), 'add', None)
    """
    try:
        return _SPELLINGS[func]
    except KeyError:
        found = _spell(func)
        _SPELLINGS[func] = found
        return found
    except TypeError:  # not hashable: a wrapper of somebody's own
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


def bind(kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by name, defaults filled in; unknown operators give their positions as names.

    Examples
    --------
    >>> bind("hardtanh", (1.0, 0.0), {"max_val": 6.0})["max_val"]
    6.0
    """
    parameters = _PARAMETERS.get(kind)
    if parameters is None:
        named = {"input" if index == 0 else f"argument{index}": value for index, value in enumerate(args)}
        return named | {_KEYWORDS.get(key, key): value for key, value in kwargs.items()}
    bound = dict(parameters)
    if len(args) > len(parameters):  # x.permute(0, 2, 1), x.view(2, 3): the tail is one tuple
        args = (*args[: len(parameters) - 1], args[len(parameters) - 1 :])
    for (name, _), value in zip(parameters, args, strict=False):
        bound[name] = value
    for key, value in kwargs.items():
        bound[_KEYWORDS.get(key, key)] = value
    return bound


@dataclass
class Call:
    """One operation of a forward pass: what it is, on what, and how to run it.

    Attributes
    ----------
    kind : str
        The operator, the same for every spelling (``"relu"`` for ``x.clamp_(min=0)``).
    func, args, kwargs
        The call as the model made it.
    inplace : bool
        True when the first tensor is changed and returned.
    name : str
        The layer's name, ``"module/op"``.
    foreign : bool
        True for a custom operator from outside torch.
    """

    kind: str
    func: Function
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inplace: bool
    name: str = ""
    foreign: bool = False
    _bound: dict[str, Any] | None = field(default=None, repr=False)
    _tensors: list[Tensor] | None = field(default=None, repr=False)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by name."""
        if self._bound is None:
            self._bound = bind(self.kind, self.args, self.kwargs)
        return self._bound

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among the arguments, in order."""
        if self._tensors is None:
            self._tensors = tensors((self.args, self.kwargs))
        return self._tensors

    @property
    def input(self) -> Tensor:
        """The first tensor the operator reads."""
        return first_tensor(self.args, self.kwargs)

    def run(self) -> Any:
        """Run the operation as the model wrote it."""
        return self.func(*self.args, **self.kwargs)


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The first tensor among the arguments (lists looked into)."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            return value
        if isinstance(value, list | tuple):
            for item in value:
                if isinstance(item, Tensor):
                    return item
    return torch.empty(0, device="cpu")


def tensors(tree: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples, dicts and dataclasses, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    found: list[Tensor] = []
    _gather((tree,), found)
    return found


_PLAIN = frozenset((int, float, bool, str, type(None), slice, torch.dtype, torch.device))  # most arguments


def _gather(items: Iterable[Any], found: list[Tensor]) -> None:
    for item in items:
        if type(item) in _PLAIN:
            continue
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, list | tuple):
            if item:
                _gather(item, found)
        elif isinstance(item, dict):
            if item:
                _gather(item.values(), found)
        elif hasattr(item, "__dataclass_fields__") and not isinstance(item, type):
            _gather([getattr(item, name, None) for name in item.__dataclass_fields__], found)


def substitute(tree: Any, replacements: dict[int, Tensor]) -> Any:
    """The same nest with some tensors (by id) exchanged.

    Every part keeps its class: named tuples, torch's own (``topk(...)``), model outputs that are dicts, dataclasses.
    A part in which nothing is exchanged is the part itself.
    """
    if isinstance(tree, Tensor):
        return replacements.get(id(tree), tree)
    if tree is None or isinstance(tree, int | float):
        return tree
    if isinstance(tree, list | tuple):
        items = [substitute(item, replacements) for item in tree]
        if all(new is old for new, old in zip(items, tree, strict=True)):
            return tree
        if isinstance(tree, tuple):
            return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
        changed = copy.copy(tree)
        changed[:] = items
        return changed
    if isinstance(tree, dict):
        found = {key: substitute(item, replacements) for key, item in tree.items()}
        new = {key: item for key, item in found.items() if item is not dict.__getitem__(tree, key)}
        if not new:
            return tree
        again = copy.copy(tree)
        for key, item in new.items():
            again[key] = item
        return again
    if hasattr(tree, "__dataclass_fields__") and not isinstance(tree, type):
        values = {name: getattr(tree, name, None) for name in tree.__dataclass_fields__}
        exchanged = {name: substitute(value, replacements) for name, value in values.items()}
        if all(exchanged[name] is value for name, value in values.items()):
            return tree
        other = copy.copy(tree)
        for name, value in exchanged.items():
            object.__setattr__(other, name, value)  # also where the class is frozen
        return other
    return tree


def is_inplace(spelled: Spelling, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether this call changes its first tensor and returns it."""
    if spelled.inplace or kwargs.get("inplace") is True:
        return True
    place = _INPLACE_AT.get(spelled.kind)
    return place is not None and len(args) > place and args[place] is True


def refined(kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The rectifier that a clamp, threshold or hardtanh spells, or the kind itself.

    Examples
    --------
    >>> x = torch.zeros(1)
    >>> refined("clamp", (x,), {"min": 0}), refined("clamp", (x, 0, 6), {}), refined("clamp", (x, -1), {})
    ('relu', 'relu6', 'clamp')
    """
    if kind == "clamp_min":
        return "relu" if _is_zero(bind(kind, args, kwargs)["min"]) else kind
    if kind == "clamp" or kind == "hardtanh":
        bound = bind(kind, args, kwargs)
        low, high = (bound["min"], bound["max"]) if kind == "clamp" else (bound["min_val"], bound["max_val"])
        if not _is_zero(low):
            return kind
        if high is None or high == float("inf"):
            return "relu"
        return "relu6" if not isinstance(high, Tensor) and high == 6 else "rectifying_clamp"
    if kind == "threshold":
        bound = bind(kind, args, kwargs)
        return "relu" if bound["threshold"] == 0 and bound["value"] == 0 else kind
    if kind in ("maximum", "max"):
        bound = bind(kind, args, kwargs)
        other = bound["other"]
        constant = isinstance(other, Tensor) and isinstance(bound["input"], Tensor) and not other.requires_grad
        return "relu" if constant and not bool(other.count_nonzero()) and other.is_floating_point() else kind
    return kind


def _is_zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.requires_grad and not bool(value.count_nonzero())
    return value is not None and value == 0
