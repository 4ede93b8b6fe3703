"""The table of operators says what is measured on torch's own functions, and no other list of names is kept."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import microtome
from microtome.trace.operators import signatures, spellings
from microtome.trace.operators.operator_table import ROLES, TRAITS, those

SOURCES = Path(microtome.__file__).parent
Call = Callable[..., Any]
A = torch.randn(3, 4, dtype=torch.double, generator=torch.Generator().manual_seed(0))
# What has no sample here: devices that are not at hand, and calls that need more than tensors.
UNTRIED = frozenset(
    """cuda nested_to_padded_tensor add_relu multi_head_attention_forward channel_shuffle_ positive_ affine_grid
    rectifying_clamp_ and or xor rand ror rxor floordiv rdiv identity data iter type""".split()
)

W = torch.randn(4, 3, 3, 3, dtype=torch.double, generator=torch.Generator().manual_seed(1))
STAT = torch.rand(3, dtype=torch.double, generator=torch.Generator().manual_seed(2)) + 0.5
INDEX = torch.tensor([1, 0])


def _wide(rank: int, kind: str) -> Call:
    weight = torch.randn(4, 3, *(2,) * rank, dtype=torch.double, generator=torch.Generator().manual_seed(3))
    weight = weight.transpose(0, 1).contiguous() if "transpose" in kind else weight
    return lambda x: getattr(F, kind)(x, weight)


def _unpooled(rank: int) -> Call:
    every_second = (..., *(slice(0, 4, 2),) * rank)
    places = torch.arange(4**rank).reshape((4,) * rank).expand(2, 3, *(4,) * rank)[every_second].contiguous()
    return lambda x: getattr(F, f"max_unpool{rank}d")(x, places, 2)


# By operator: the function of as many tensors as it is given, and their shapes.
FOUR = (2, 3, 4, 5)
SAMPLES: dict[str, tuple[Call, tuple[tuple[int, ...], ...]]] = {
    **{f"conv{d}d": (_wide(d, f"conv{d}d"), ((2, 3, *(4,) * d),)) for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": (_wide(d, f"conv_transpose{d}d"), ((2, 3, *(4,) * d),)) for d in (1, 2, 3)},
    **{f"{a}_pool{d}d": (lambda x, a=a, d=d: getattr(F, f"{a}_pool{d}d")(x, 2), ((2, 3, *(4,) * d),))
       for a in ("max", "avg", "adaptive_avg", "adaptive_max") for d in (1, 2, 3)},
    **{f"lp_pool{d}d": (lambda x, d=d: getattr(F, f"lp_pool{d}d")(x, 2, 2), ((2, 3, *(4,) * d),)) for d in (1, 2, 3)},
    **{f"max_unpool{d}d": (_unpooled(d), ((2, 3, *(2,) * d),)) for d in (1, 2, 3)},
    "fractional_max_pool2d": (
        lambda x: F.fractional_max_pool2d(x, 2, 2, _random_samples=torch.full((2, 3, 2), 0.3).double()), (FOUR,)),
    "prelu": (lambda x: F.prelu(x, STAT / 4), (FOUR,)),
    "rectifying_clamp": (lambda x: x.clamp(0, 2), (FOUR,)),
    "threshold": (lambda x: F.threshold(x, 0.3, 7.0), (FOUR,)),
    "clamp": (lambda x: x.clamp(-0.5, 0.5), (FOUR,)),
    "clamp_min": (lambda x: x.clamp_min(0.5), (FOUR,)),
    "clamp_max": (lambda x: x.clamp_max(0.5), (FOUR,)),
    "pow": (lambda x: x**3, (FOUR,)),
    "float_power": (lambda x: torch.float_power(x, 2.0), (FOUR,)),
    "addcmul": (torch.addcmul, (FOUR,) * 3),
    "addcdiv": (torch.addcdiv, (FOUR,) * 3),
    "lerp": (torch.lerp, (FOUR,) * 3),
    "where": (lambda x, y: torch.where(x > y, x, y), (FOUR,) * 2),
    "masked_fill": (lambda x: x.masked_fill(x < 0, 0.0), (FOUR,)),
    "masked_scatter": (lambda x, y: x.masked_scatter(torch.arange(5) > 2, y), (FOUR,) * 2),
    "masked_select": (lambda x: x.masked_select(torch.arange(5) > 2), (FOUR,)),
    "isclose": (torch.isclose, (FOUR,) * 2),
    "linear": (lambda x, w: F.linear(x, w), (FOUR, (6, 5))),
    "addmm": (torch.addmm, ((2, 4), (2, 3), (3, 4))),
    "baddbmm": (torch.baddbmm, ((2, 2, 4), (2, 2, 3), (2, 3, 4))),
    "bilinear": (F.bilinear, ((2, 3), (2, 4), (5, 3, 4))),
    "matmul": (torch.matmul, (FOUR, (2, 3, 5, 2))),
    "bmm": (torch.bmm, ((2, 3, 4), (2, 4, 5))),
    "mm": (torch.mm, ((3, 4), (4, 5))),
    "mv": (torch.mv, ((3, 4), (4,))),
    "dot": (torch.dot, ((4,), (4,))),
    "inner": (torch.inner, ((3, 4), (2, 4))),
    "outer": (torch.outer, ((3,), (4,))),
    "ger": (torch.ger, ((3,), (4,))),
    "kron": (torch.kron, ((2, 2), (2, 3))),
    "einsum": (lambda x, y: torch.einsum("nchw,nchv->nwv", x, y), (FOUR,) * 2),
    "tensordot": (lambda x, y: torch.tensordot(x, y, 2), ((2, 3, 4), (3, 4, 2))),
    "cosine_similarity": (F.cosine_similarity, (FOUR,) * 2),
    "cdist": (torch.cdist, ((3, 4), (2, 4))),
    "batch_norm": (lambda x: F.batch_norm(x, STAT, STAT, STAT, STAT), (FOUR,)),
    "layer_norm": (lambda x: F.layer_norm(x, (5,)), (FOUR,)),
    "rms_norm": (lambda x: F.rms_norm(x, (5,)), (FOUR,)),
    "group_norm": (lambda x: F.group_norm(x, 3), (FOUR,)),
    "local_response_norm": (lambda x: F.local_response_norm(x, 2, alpha=1.0), (FOUR,)),
    "normalize": (lambda x: F.normalize(x, dim=2), (FOUR,)),
    "scaled_dot_product_attention": (F.scaled_dot_product_attention, (FOUR,) * 3),
    **{kind: (lambda x, kind=kind: getattr(torch, kind)(x, 2), (FOUR,)) for kind in
       "softmax log_softmax cumsum cumprod cummax cummin kthvalue topk sort msort_ argsort unbind_ logsumexp".split()},
    "softmin": (lambda x: F.softmin(x, 2), (FOUR,)),
    "glu": (lambda x: F.glu(x, 1), ((2, 4, 4, 5),)),
    **{kind: (lambda x, kind=kind: getattr(torch, kind)(x, dim=2), (FOUR,)) for kind in
       "mean sum nansum nanmean amax amin median nanmedian aminmax mode prod std var std_mean var_mean norm argmax "
       "argmin count_nonzero diff max min".split()},
    "quantile": (lambda x: x.quantile(0.3, 2), (FOUR,)),
    "trace": (torch.trace, ((4, 4),)),
    "vector_norm": (torch.linalg.vector_norm, (FOUR,)),
    "linalg_vector_norm": (torch.linalg.vector_norm, (FOUR,)),
    "linalg_norm": (lambda x: torch.linalg.norm(x, dim=2), (FOUR,)),
    "one_hot": (lambda x: F.one_hot(x.round().long().clamp(0, 3), 4), ((3, 4),)),
    "view": (lambda x: x.view(2, -1), (FOUR,)),
    "reshape": (lambda x: x.reshape(3, -1), (FOUR,)),
    "permute": (lambda x: x.permute(0, 2, 3, 1), (FOUR,)),
    "transpose": (lambda x: x.transpose(1, 3), (FOUR,)),
    "movedim": (lambda x: x.movedim(1, 3), (FOUR,)),
    "unflatten": (lambda x: x.unflatten(2, (2, 2)), (FOUR,)),
    "unsqueeze": (lambda x: x.unsqueeze(1), (FOUR,)),
    **{kind: (lambda x, kind=kind: getattr(x, kind) if kind[0] not in "t" else x.t(), ((3, 4),)) for kind in
       "T mT H mH t".split()},
    "adjoint": (lambda x: x.adjoint(), ((3, 4),)),
    "view_as": (lambda x: x.view_as(torch.zeros(2, 60)), (FOUR,)),
    "reshape_as": (lambda x: x.reshape_as(torch.zeros(2, 60)), (FOUR,)),
    "view_copy": (lambda x: torch.view_copy(x, (2, 60)), (FOUR,)),
    "as_strided": (lambda x: x.as_strided((2, 3), (3, 1)), (FOUR,)),
    "view_as_real": (lambda x: torch.view_as_real(torch.complex(x, x)), (FOUR,)),
    "view_as_complex": (lambda x: torch.view_as_real(torch.view_as_complex(x)), ((3, 2),)),
    "real": (lambda x: torch.complex(x, x).real, (FOUR,)),
    "imag": (lambda x: torch.complex(x, x).imag, (FOUR,)),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), ((2, 8, 2, 3),)),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), ((2, 2, 4, 6),)),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), ((2, 4, 3, 3),)),
    "native_channel_shuffle": (lambda x: torch.native_channel_shuffle(x, 2), ((2, 4, 3, 3),)),
    "flip": (lambda x: x.flip(2), (FOUR,)),
    "roll": (lambda x: x.roll(1, 2), (FOUR,)),
    "getitem": (lambda x: x[:, 1:, ::2], (FOUR,)),
    "narrow": (lambda x: x.narrow(2, 1, 2), (FOUR,)),
    "select": (lambda x: x.select(2, 1), (FOUR,)),
    "slice": (lambda x: x[:, :, 1:3], (FOUR,)),
    "index_select": (lambda x: x.index_select(2, INDEX), (FOUR,)),
    "gather": (lambda x: x.gather(1, torch.tensor([[1, 0]]).expand(3, 2)), ((3, 4),)),
    "take": (lambda x: x.take(INDEX), (FOUR,)),
    "take_along_dim": (lambda x: x.take_along_dim(INDEX.reshape(1, 1, 2, 1), 2), (FOUR,)),
    "unfold": (lambda x: F.unfold(x, 2), (FOUR,)),
    "embedding": (lambda w: F.embedding(INDEX, w), ((3, 4),)),
    **{kind: (lambda x, kind=kind: getattr(torch, kind)(x, 2, 1), ((2, 4, 4, 5),)) for kind in
       "chunk split tensor_split unsafe_chunk unsafe_split".split()},
    "split_with_sizes": (lambda x: x.split_with_sizes([1, 2], 1), (FOUR,)),
    "hsplit": (lambda x: x.hsplit(2), ((2, 4, 3, 3),)),
    "vsplit": (lambda x: torch.split(x, 1, 1), (FOUR,)),
    "dsplit": (lambda x: torch.split(x, 1, 1), (FOUR,)),
    "unbind": (lambda x: x.unbind(2), (FOUR,)),
    "cat": (lambda x, y: torch.cat([x, y], 1), (FOUR,) * 2),
    **{kind: (lambda x, y, kind=kind: getattr(torch, kind)([x, y]), (FOUR,) * 2) for kind in
       "stack hstack vstack dstack column_stack row_stack".split()},
    "meshgrid": (lambda x, y: torch.meshgrid(x, y, indexing="ij"), ((3,), (4,))),
    "broadcast_tensors": (lambda x, y: torch.broadcast_tensors(x, y), ((3, 1), (1, 4))),
    "block_diag": (torch.block_diag, ((2, 2), (3, 1))),
    "dropout": (lambda x: F.dropout(x, training=False), (FOUR,)),
    "lift_fresh": (lambda x: torch.ops.aten.lift_fresh(x), (FOUR,)),
    "alias": (lambda x: torch.ops.aten.alias(x), (FOUR,)),
    "to": (lambda x: x.to(torch.double), (FOUR,)),
    "type_as": (lambda x: x.type_as(A), (FOUR,)),
    "float": (lambda x: x.float().double(), (FOUR,)),
    "half": (lambda x: x.half().double(), (FOUR,)),
    "bfloat16": (lambda x: x.bfloat16().double(), (FOUR,)),
    "expand": (lambda x: x.expand(2, 3, 4, 5), ((2, 3, 1, 1),)),
    "expand_as": (lambda x: x.expand_as(torch.zeros(2, 3, 4, 5)), ((2, 3, 1, 1),)),
    "broadcast_to": (lambda x: x.broadcast_to(2, 3, 4, 5), ((2, 3, 1, 1),)),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 2), (FOUR,)),
    "repeat": (lambda x: x.repeat(1, 1, 2, 1), (FOUR,)),
    "tile": (lambda x: x.tile(1, 1, 2, 1), (FOUR,)),
    "interpolate": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (FOUR,)),
    "upsample": (lambda x: F.interpolate(x, scale_factor=2), (FOUR,)),
    "upsample_nearest": (lambda x: F.interpolate(x, scale_factor=2), (FOUR,)),
    "upsample_bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), (FOUR,)),
    "fold": (lambda x: F.fold(x, (3, 3), 2), ((2, 12, 4),)),
    "grid_sample": (lambda x, g: F.grid_sample(x, g.tanh(), align_corners=False), (FOUR, (2, 3, 3, 2))),
    "pad": (lambda x: F.pad(x, (1, 1)), (FOUR,)),
    "constant_pad_nd": (lambda x: torch.constant_pad_nd(x, (1, 1)), (FOUR,)),
    "setitem": (lambda x, y: _written(x, lambda z: z.__setitem__(0, y)), (FOUR, FOUR[1:])),
    "index_put": (lambda x, y: x.index_put((INDEX,), y), (FOUR, FOUR)),
    "index_copy": (lambda x, y: x.index_copy(0, INDEX, y), (FOUR, FOUR)),
    "index_fill": (lambda x: x.index_fill(2, INDEX, 0.0), (FOUR,)),
    "index_add": (lambda x, y: x.index_add(0, INDEX, y), (FOUR, FOUR)),
    "scatter": (lambda x, y: x.scatter(1, torch.tensor([[1, 0]]).expand(3, 2), y), ((3, 4), (3, 2))),
    "scatter_add": (lambda x, y: x.scatter_add(1, torch.tensor([[1, 0]]).expand(3, 2), y), ((3, 4), (3, 2))),
    "fill": (lambda x: torch.fill(x, 0.0), (FOUR,)),
    "zero": (lambda x: x.clone().zero_(), (FOUR,)),
    "put": (lambda x, y: x.put(INDEX, y), (FOUR, (2,))),
    "copy": (lambda x, y: x.clone().copy_(y), (FOUR, FOUR)),
    "slice_scatter": (lambda x, y: x.slice_scatter(y, 2, 0, 2), (FOUR, (2, 3, 2, 5))),
    "select_scatter": (lambda x, y: x.select_scatter(y, 2, 0), (FOUR, (2, 3, 5))),
    "diagonal_scatter": (lambda x, y: x.diagonal_scatter(y), ((3, 3), (3,))),
    "diag": (torch.diag, ((4,),)),
    "rfft2": (torch.fft.rfft2, (FOUR,)),
    **{f"fft_{name}": (getattr(torch.fft, name), (FOUR,)) for name in
       "fft ifft fft2 ifft2 irfft2 rfft irfft fftn ifftn rfftn irfftn fftshift ifftshift".split()},
    **{kind: (lambda x, y, kind=kind: getattr(torch, kind)(x > 0, y > 0), (FOUR,) * 2)
       for kind in "bitwise_and bitwise_or bitwise_xor".split()},
    "bitwise_not": (lambda x: torch.bitwise_not(x > 0), (FOUR,)),
    "invert": (lambda x: ~(x > 0), (FOUR,)),
    "bucketize": (lambda x: torch.bucketize(x, torch.zeros(1, dtype=x.dtype)), (FOUR,)),
}  # fmt: skip
PAIRS = frozenset(
    """add sub rsub mul div logaddexp hypot xlogy copysign fmod remainder maximum minimum fmax fmin heaviside
    floor_divide gt ge lt le eq ne logical_and logical_or logical_xor""".split()
)


def _written(x: Tensor, write: Call) -> Tensor:
    own = x.clone()
    write(own)
    return own


def _sample(kind: str) -> tuple[Call, list[tuple[int, ...]]]:
    if kind in SAMPLES:
        call, shapes = SAMPLES[kind]
        return call, list(shapes)
    shapes = [FOUR] * (2 if kind in PAIRS else 1)
    if kind in ("diagonal", "diagonal_copy", "tril", "triu", "fliplr", "rot90", "flipud", "diag_embed"):
        shapes = [(4, 4)]
    homes = (Tensor,) if TRAITS[kind].role == "cast" else (F, torch, Tensor, torch.special)
    return next(getattr(home, kind) for home in homes if hasattr(home, kind)), shapes


def _draw(kind: str, shapes: list[tuple[int, ...]], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(shape, dtype=torch.double, generator=generator) * 3 for shape in shapes]
    narrow = TRAITS[kind].role == "function" and TRAITS[kind].function == "curved" and kind != "nan_to_num"
    positive = narrow or kind in ("xlogy", "fmod", "remainder", "div", "floor_divide", "addcdiv")
    return [value.sigmoid() * 0.8 + 0.1 if positive else value for value in drawn]


def _values(made: Any) -> Tensor:
    tensors = [made] if isinstance(made, Tensor) else [item for item in made if isinstance(item, Tensor)]
    tensors = [item for item in tensors if item.is_floating_point() or item.is_complex() or len(tensors) == 1]
    flat = [
        torch.view_as_real(item.resolve_conj()).flatten() if item.is_complex() else item.double().flatten()
        for item in tensors
    ]
    return torch.cat(flat)


def _along(call: Call, start: list[Tensor], end: list[Tensor], moving: list[bool]) -> Tensor:
    """The values on a straight line between two inputs, (points, values); what does not move stays at the start."""
    rows = []
    for t in torch.linspace(0, 1, 81, dtype=torch.double):
        given = [a + t * (b - a) if move else a for a, b, move in zip(start, end, moving, strict=True)]
        rows.append(_values(call(*[value.clone() for value in given])))
    return torch.stack(rows)


def _function(call: Call, start: list[Tensor], end: list[Tensor]) -> str:
    """What kind of function it is, by its values alone."""
    together = _bend(_along(call, start, end, [True] * len(start)))
    if together == "curved" and len(start) > 1:
        alone = {_bend(_along(call, start, end, [i == j for j in range(len(start))])) for i in range(len(start))}
        return "product" if alone <= {"affine"} else "curved"
    return together


def _bend(y: Tensor) -> str:
    scale = float(y.abs().max()) + 1e-12
    bends = (y.diff(n=2, dim=0).abs() > 1e-9 * scale).double().mean(0)
    steps = (y.diff(dim=0).abs() > 1e-9 * scale).double().mean(0)
    if float(bends.max()) == 0:
        return "affine"
    if float(steps.mean()) < 0.12:
        return "step"
    return "piecewise" if float(bends.mean()) < 0.12 else "curved"


# Operators that are "curved" in the table, that is, without a promise, though a sample may look straight in part.
_NO_PROMISE = frozenset(("threshold", "hardshrink", "nan_to_num", "copysign", "fmod", "remainder", "grid_sample"))
# Half precision rounds, which is no function of the table's words.
_ROUNDING = frozenset(("float", "half", "bfloat16"))
TRIED = sorted(kind for kind in TRAITS if kind not in UNTRIED)


def test_every_operator_has_every_trait() -> None:
    functions = {"identity", "affine", "product", "piecewise", "step", "curved"}
    for kind, traits in TRAITS.items():
        assert traits.role in ROLES, kind
        assert traits.reads in ("same", "window", "moved", "all"), kind
        assert traits.function in functions, kind
        assert traits.activation in ("", "rectifier", "saturating", "clipping", "shrinking"), kind
        assert traits.kink in ("", "zero", "bounds", "pair", "window"), kind
        assert not traits.kink or traits.function == "piecewise", kind
    assert {traits.role for traits in TRAITS.values()} == ROLES


def test_the_table_holds_every_operator_that_the_tracer_names() -> None:
    named = set(signatures._SIGNATURES) | set(spellings._SAME.values())
    assert named <= TRAITS.keys()
    assert not TRAITS.keys() & (spellings._SAME.keys() | spellings._QUESTIONS)  # names that no call ever gets


@pytest.mark.parametrize("kind", [kind for kind in TRIED if kind not in _NO_PROMISE | _ROUNDING])
def test_the_kind_of_function_is_the_one_measured(kind: str) -> None:
    """Oracle: torch's own function on a straight line of inputs; no code of the package takes part."""
    call, shapes = _sample(kind)
    start, end = _draw(kind, shapes, 0), _draw(kind, shapes, 1)
    found = _function(call, start, end)
    said = TRAITS[kind].function
    if said == "identity":
        assert found == "affine"
        known = torch.cat([value.flatten() for value in start] + [torch.zeros(1, dtype=torch.double)])
        assert bool(torch.isin(_values(call(*[value.clone() for value in start])), known).all())
    elif said == "product":
        assert found in ("product", "affine")  # affine where the sample's weight is a constant
    else:
        assert found == said or (said == "step" and found == "affine")  # no step on this line


@pytest.mark.parametrize("kind", [kind for kind in TRIED if TRAITS[kind].alone])
def test_what_is_alone_depends_on_one_number_of_each_input(kind: str) -> None:
    call, shapes = _sample(kind)
    start, other = _draw(kind, shapes, 0), _draw(kind, shapes, 1)
    for index in range(len(start)):
        changed = [value.clone() for value in start]
        changed[index][0, 1, 2, 3] = other[index][0, 1, 2, 3]
        before, after = call(*[value.clone() for value in start]), call(*changed)
        assert before.shape == start[0].shape
        differs = before != after
        differs[0, 1, 2, 3] = False
        assert not bool(differs.any())


@pytest.mark.parametrize("kind", [kind for kind in TRIED if TRAITS[kind].reads == "same" and not TRAITS[kind].alone])
def test_what_reads_the_same_position_leaves_positions_where_they_are(kind: str) -> None:
    call, shapes = _sample(kind)
    if any(len(shape) != 4 for shape in shapes) or shapes[0][2:] == (1, 1) or TRAITS[kind].role in ("linear", "join"):
        pytest.skip("no map of positions")
    start = _draw(kind, shapes, 0)
    changed = [value.clone() for value in start]
    changed[0][:, :, 1, 2] += 1.0
    pairs = zip(_listed(call(*start)), _listed(call(*changed)), strict=True)
    for before, after in pairs:
        if before.dim() == 4 and before.shape[2:] == start[0].shape[2:]:
            differs = (before != after).any(1).any(0)
            differs[1, 2] = False
            assert not bool(differs.any())


def _listed(made: Any) -> list[Tensor]:
    return [made] if isinstance(made, Tensor) else list(made)


# Where a list of operators belongs to one rule that is written beside it.
_HANDLERS = frozenset(
    """trace/axes/axis_rules.py trace/axes/layer_rules.py trace/axes/move_rules.py trace/heads/last_operations.py
    trace/heads/closing_softmax.py trace/heads/score_meaning.py trace/lrp/moves.py trace/lrp/relevance.py
    spaces/inversion/inverse_steps.py spaces/inversion/activation_inverses.py""".split()
)


def _literals() -> list[tuple[str, int, list[str]]]:
    """All literal collections of strings in the engine that hold names of operators: file, line, names."""
    found = []
    for folder in ("trace", "spaces", "units", "attribution"):
        for path in sorted((SOURCES / folder).rglob("*.py")):
            if path.name in ("operator_table.py", "signatures.py", "spellings.py"):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names: list[Any] = []
                if isinstance(node, ast.Tuple | ast.List | ast.Set):
                    names = [item.value if isinstance(item, ast.Constant) else None for item in node.elts]
                elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "split":
                    text = node.func.value
                    names = text.value.split() if isinstance(text, ast.Constant) and isinstance(text.value, str) else []
                known = sum(name in TRAITS for name in names)
                if len(names) > 1 and all(isinstance(name, str) for name in names) and known > 0.7 * len(names):
                    found.append((path.relative_to(SOURCES).as_posix(), node.lineno, names))
    return found


def test_no_other_list_of_operators_is_kept() -> None:
    long = [(file, line) for file, line, names in _literals() if len(names) > 6 and file not in _HANDLERS]
    allowed = {"trace/receptive_fields.py"}  # one rule for several operators, in the line itself
    assert not [place for place in long if place[0] not in allowed]


def test_sets_by_traits() -> None:
    assert those(kink="zero") == {"relu", "leaky_relu", "prelu", "rrelu", "abs"}
    assert those(role="convolution") | those(role="transposed") == {
        f"conv{transposed}{d}d" for transposed in ("", "_transpose") for d in (1, 2, 3)
    }
    assert "identity" not in those(role="activation")
