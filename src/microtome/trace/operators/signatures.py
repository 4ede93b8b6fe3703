"""Arguments of operators by name, and what follows from them: in place or not, and the kind of a clamp."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from microtome.trace.operators.spellings import Spelling

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
    "lerp": "input end weight",
    "batch_norm": "input running_mean running_var weight=None bias=None training=False momentum=0.1 eps=1e-05",
    "layer_norm": "input normalized_shape weight=None bias=None eps=1e-05",
    "group_norm": "input num_groups weight=None bias=None eps=1e-05",
    "instance_norm": "input running_mean=None running_var=None weight=None bias=None use_input_stats=True "
    "momentum=0.1 eps=1e-05",
    "max_pool1d": "input kernel_size stride=None padding=0 dilation=1 ceil_mode=False return_indices=False",
    "max_pool2d": "input kernel_size stride=None padding=0 dilation=1 ceil_mode=False return_indices=False",
    "max_pool3d": "input kernel_size stride=None padding=0 dilation=1 ceil_mode=False return_indices=False",
    "avg_pool1d": "input kernel_size stride=None padding=0 ceil_mode=False count_include_pad=True",
    "avg_pool2d": _AVERAGE,
    "avg_pool3d": _AVERAGE,
    "lp_pool2d": "input norm_type kernel_size stride=None ceil_mode=False",
    "unfold": "input kernel_size dilation=1 padding=0 stride=1",
    **dict.fromkeys(("fft_fft", "fft_ifft", "fft_rfft", "fft_irfft"), "input n=None dim=-1 norm=None"),
    **dict.fromkeys(("fft_fft2", "fft_ifft2", "rfft2", "fft_irfft2"), "input s=None dim=(-2,-1) norm=None"),
    **dict.fromkeys(("fft_fftn", "fft_ifftn", "fft_rfftn", "fft_irfftn"), "input s=None dim=None norm=None"),
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


# torch.batch_norm and torch.instance_norm order their arguments in another way than those of torch.nn.functional. They
# have one more, and none of them has a default.
_NATIVE = {
    kind: _parse(f"input weight bias running_mean running_var {flag} momentum eps cudnn_enabled")
    for kind, flag in (("batch_norm", "training"), ("instance_norm", "use_input_stats"))
}


_INPLACE_AT = {
    kind: place for kind, named in _PARAMETERS.items() for place, (name, _) in enumerate(named) if name == "inplace"
}


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
    if kind in _NATIVE and len(args) + len(kwargs) > len(parameters):
        parameters = _NATIVE[kind]
    bound |= {f"argument{index}": value for index, value in enumerate(args) if index >= len(parameters)}
    for (name, _), value in zip(parameters, args, strict=False):
        bound[name] = value
    for key, value in kwargs.items():
        bound[_KEYWORDS.get(key, key)] = value
    return bound


def is_inplace(spelled: Spelling, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether this call changes its first tensor and returns it."""
    if spelled.inplace or kwargs.get("inplace") is True:
        return True
    place = _INPLACE_AT.get(spelled.kind)
    return place is not None and len(args) > place and args[place] is True


def _no_constant(_: Tensor) -> bool:
    return False


def refined(
    kind: str, args: tuple[Any, ...], kwargs: dict[str, Any], constant: Callable[[Tensor], bool] = _no_constant
) -> str:
    """The rectifier that a clamp, threshold or hardtanh spells, or the kind itself.

    The name is the same for all images and weights. A tensor is taken for zero only if the pass makes it from numbers,
    which ``constant`` tells. A weight, a buffer or a value of the network may be zero now and another number later, so
    its operation keeps its own name.

    Examples
    --------
    >>> import torch
    >>> x = torch.zeros(1)
    >>> refined("clamp", (x,), {"min": 0}), refined("clamp", (x, 0, 6), {}), refined("clamp", (x, -1), {})
    ('relu', 'relu6', 'clamp')
    """
    if kind == "clamp_min":
        return "relu" if _is_zero(bind(kind, args, kwargs)["min"], constant) else kind
    if kind == "clamp" or kind == "hardtanh":
        bound = bind(kind, args, kwargs)
        low, high = (bound["min"], bound["max"]) if kind == "clamp" else (bound["min_val"], bound["max_val"])
        if not _is_zero(low, constant):
            return kind
        if isinstance(high, Tensor):
            return "rectifying_clamp"
        return "relu" if high is None or high == float("inf") else "relu6" if high == 6 else "rectifying_clamp"
    if kind == "threshold":
        bound = bind(kind, args, kwargs)
        return "relu" if bound["threshold"] == 0 and bound["value"] == 0 else kind
    if kind in ("maximum", "max"):
        bound = bind(kind, args, kwargs)
        other = bound["other"]
        both = isinstance(other, Tensor) and isinstance(bound["input"], Tensor)
        return "relu" if both and other.is_floating_point() and _is_zero(other, constant) else kind
    return kind


def _is_zero(value: Any, constant: Callable[[Tensor], bool]) -> bool:
    """Whether a bound is zero in every pass."""
    if isinstance(value, Tensor):
        return constant(value) and not bool(value.count_nonzero())
    return value is not None and value == 0
