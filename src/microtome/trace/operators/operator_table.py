"""The table of operators: what each one does, where it reads, and what kind of function it is.

Every set of operator names in the package is derived from this table by ``those``. A new operator is one word in
one row; all methods then agree about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Traits:
    """The traits of an operator.

    Attributes
    ----------
    role : str
        Its role, one of ``ROLES``.
    reads : str
        The positions of a map that one position of the output depends on. ``"same"``: the same position, in any channel
        (the axes stay). ``"window"``: a window around it. ``"moved"``: other positions, one or several, after the axes
        or the positions were rearranged. ``"all"``: positions everywhere.
    function : str
        ``"identity"``: values are moved, chosen or repeated, never changed. ``"affine"``: affine in all its inputs
        together. ``"product"``: affine in each input while the others are fixed. ``"piecewise"``: piecewise affine,
        continuous. ``"step"``: piecewise constant; the derivative is zero. ``"curved"``: anything else.
    alone : bool
        Whether each number of the output depends on one number of each input, at the same place (broadcasting
        included).
    activation : str
        The kind of nonlinearity: ``"rectifier"`` (negative values are suppressed), ``"saturating"`` (bounded on both
        sides), ``"clipping"``, ``"shrinking"`` (small values are suppressed); empty for everything else.
    kink : str
        Where a piecewise affine operator bends: ``"zero"`` (at zero), ``"bounds"`` (at given numbers), ``"pair"``
        (where two inputs are equal), ``"window"`` (where the winner of a window changes); empty for everything else.
    layer : bool
        Whether a call is listed as a layer; operations that only move values are not.
    """

    role: str
    reads: str
    function: str
    alone: bool = False
    activation: str = ""
    kink: str = ""
    layer: bool = True


ROLES = frozenset(
    """activation arithmetic function comparison mask convolution transposed linear product bilinear pooling averaging
    reduction normalisation attention softmax gate view rearrangement selection split join copy cast repetition
    resampling padding writing transform""".split()
)

# Traits of a row, then its operators by the names of ``operators.spelling`` (in-place calls have the same name).
_ROWS: tuple[tuple[Traits, str], ...] = (
    # Nonlinearities of one number.
    (Traits("activation", "same", "piecewise", True, "rectifier", "zero"), "relu leaky_relu rrelu prelu"),
    (Traits("activation", "same", "piecewise", True, "rectifier", "bounds"), "relu6 rectifying_clamp"),
    (Traits("activation", "same", "curved", True, "rectifier"), "elu celu selu silu mish hardswish gelu softplus"),
    (Traits("activation", "same", "curved", True, "saturating"), "sigmoid tanh softsign"),
    (Traits("activation", "same", "piecewise", True, "saturating"), "hardsigmoid"),
    (Traits("activation", "same", "piecewise", True, "clipping", "bounds"), "clamp clamp_min clamp_max hardtanh"),
    (Traits("activation", "same", "curved", True, "shrinking"), "hardshrink tanhshrink"),
    (Traits("activation", "same", "piecewise", True, "shrinking"), "softshrink"),
    (Traits("activation", "same", "curved", True), "logsigmoid threshold"),
    # Arithmetic, place by place.
    (Traits("arithmetic", "same", "affine", True), "add sub rsub"),
    (Traits("arithmetic", "same", "product", True), "mul addcmul lerp"),
    (Traits("arithmetic", "same", "curved", True), """div rdiv addcdiv logaddexp hypot xlogy copysign fmod
     remainder"""),
    (Traits("arithmetic", "same", "piecewise", True, kink="pair"), "maximum minimum"),
    (Traits("arithmetic", "same", "piecewise", True), "fmax fmin add_relu"),
    (Traits("arithmetic", "same", "step", True), "heaviside floor_divide floordiv"),
    # Functions of one number.
    (Traits("function", "same", "affine", True), "neg positive"),
    (Traits("function", "same", "piecewise", True, kink="zero"), "abs"),
    (Traits("function", "same", "curved", True), """reciprocal pow float_power square sqrt rsqrt exp exp2 expm1 log
     log2 log10 log1p erf erfc sin cos sinh cosh atan asinh sinc logit nan_to_num ndtr log_ndtr
     erfinv"""),
    (Traits("function", "same", "step", True), "sign sgn floor ceil round trunc signbit"),
    # Comparisons and masks: no gradient passes through the condition.
    (Traits("comparison", "same", "step", True), """gt ge lt le eq ne logical_not logical_and logical_or logical_xor
     bitwise_not bitwise_and bitwise_or bitwise_xor invert and or xor rand ror rxor isnan isfinite isinf isclose
     bucketize"""),
    (Traits("mask", "same", "piecewise", True), "where masked_fill"),
    (Traits("mask", "moved", "identity"), "masked_scatter"),
    # Linear maps with weights, and products.
    (Traits("convolution", "window", "product"), "conv1d conv2d conv3d"),
    (Traits("transposed", "window", "product"), "conv_transpose1d conv_transpose2d conv_transpose3d"),
    (Traits("linear", "same", "product"), "linear addmm"),
    (Traits("product", "all", "product"), "matmul bmm mm mv dot einsum tensordot outer ger kron inner"),
    (Traits("bilinear", "all", "product"), "bilinear baddbmm"),
    # Pooling, averages, reductions, normalisation.
    (Traits("pooling", "window", "piecewise", kink="window"), "max_pool1d max_pool2d max_pool3d"),
    (Traits("pooling", "moved", "piecewise", kink="window"), "adaptive_max_pool2d"),
    (Traits("pooling", "moved", "piecewise"), "adaptive_max_pool1d adaptive_max_pool3d fractional_max_pool2d"),
    (Traits("pooling", "window", "curved"), "lp_pool1d lp_pool2d lp_pool3d"),
    (Traits("averaging", "window", "affine"), "avg_pool1d avg_pool2d avg_pool3d"),
    (Traits("averaging", "moved", "affine"), "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d"),
    (Traits("reduction", "all", "affine"), "mean sum cumsum nansum nanmean diff trace"),
    (Traits("reduction", "all", "piecewise"), "amax amin median nanmedian aminmax mode quantile"),
    (Traits("reduction", "all", "piecewise", kink="pair"), "max min"),
    (Traits("reduction", "all", "curved"), """prod std var std_mean var_mean norm vector_norm linalg_norm
     linalg_vector_norm logsumexp cumprod cosine_similarity cdist"""),
    (Traits("reduction", "all", "step"), "argmax argmin argsort count_nonzero any all one_hot"),
    (Traits("normalisation", "same", "affine"), "batch_norm"),
    (Traits("normalisation", "same", "curved"), "local_response_norm"),
    (Traits("normalisation", "all", "curved"), "layer_norm group_norm instance_norm rms_norm normalize"),
    (Traits("attention", "all", "curved"), "scaled_dot_product_attention multi_head_attention_forward"),
    (Traits("softmax", "all", "curved"), "softmax log_softmax softmin"),
    (Traits("gate", "same", "curved"), "glu"),
    # Values that are moved, chosen, repeated or copied.
    (Traits("view", "moved", "identity", layer=False), """view reshape permute transpose flatten unflatten squeeze
     unsqueeze t T mT H mH movedim view_as reshape_as ravel"""),
    (Traits("view", "moved", "identity"), """diagonal diagonal_copy adjoint view_copy as_strided
     view_as_real view_as_complex real imag atleast_1d atleast_2d atleast_3d nested_to_padded_tensor"""),
    (Traits("rearrangement", "moved", "identity"), "pixel_shuffle pixel_unshuffle flip roll rot90 fliplr flipud"),
    (Traits("rearrangement", "same", "identity"), "channel_shuffle native_channel_shuffle"),
    (Traits("selection", "moved", "identity", layer=False), "getitem"),
    (Traits("selection", "moved", "identity"), """narrow select slice index_select gather take take_along_dim
     masked_select unfold embedding"""),
    (Traits("selection", "moved", "piecewise"), "topk sort msort kthvalue cummax cummin"),
    (Traits("split", "same", "identity", layer=False), "chunk split tensor_split"),
    (Traits("split", "same", "identity"), "split_with_sizes hsplit vsplit dsplit unsafe_chunk unsafe_split"),
    (Traits("split", "moved", "identity", layer=False), "unbind iter"),
    (Traits("join", "same", "identity"), """cat stack hstack vstack dstack column_stack row_stack
     meshgrid"""),
    (Traits("copy", "same", "identity", True, layer=False), "clone contiguous detach identity dropout data"),
    (Traits("copy", "same", "identity", True), "alias detach_copy lift_fresh"),
    (Traits("cast", "same", "identity", True, layer=False), "to float half bfloat16 double type_as cuda cpu type"),
    (Traits("cast", "same", "step", True), "long int short char byte bool"),
    (Traits("repetition", "same", "identity", layer=False), "expand expand_as broadcast_to"),
    (Traits("repetition", "same", "identity"), "broadcast_tensors"),
    (Traits("repetition", "moved", "identity", layer=False), "repeat_interleave"),
    (Traits("repetition", "moved", "identity"), "repeat tile"),
    (Traits("resampling", "moved", "affine"), "interpolate upsample upsample_nearest upsample_bilinear fold"),
    (Traits("resampling", "moved", "identity"), "max_unpool1d max_unpool2d max_unpool3d"),
    (Traits("resampling", "moved", "curved"), "grid_sample"),
    (Traits("padding", "moved", "affine", layer=False), "pad"),
    (Traits("padding", "moved", "affine"), "constant_pad_nd"),
    (Traits("writing", "moved", "identity", layer=False), "setitem"),
    (Traits("writing", "moved", "identity"), """index_put index_copy index_fill scatter fill zero put copy
     slice_scatter select_scatter diagonal_scatter tril triu diag diag_embed block_diag"""),
    (Traits("writing", "moved", "affine"), "index_add scatter_add"),
    (Traits("transform", "all", "affine"), """fft_fft fft_ifft fft_fft2 fft_ifft2 rfft2 fft_irfft2 fft_rfft fft_irfft
     fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_fftshift fft_ifftshift"""),
)  # fmt: skip

TRAITS: dict[str, Traits] = {kind: traits for traits, kinds in _ROWS for kind in kinds.split()}


def those(**wanted: Any) -> frozenset[str]:
    """The operators that have all of these traits; a tuple or set of values admits any of them.

    Examples
    --------
    >>> sorted(those(role="convolution"))
    ['conv1d', 'conv2d', 'conv3d']
    >>> sorted(those(activation="rectifier", kink=("zero", "bounds")))
    ['leaky_relu', 'prelu', 'rectifying_clamp', 'relu', 'relu6', 'rrelu']
    """
    admitted = {trait: value if isinstance(value, tuple | frozenset) else (value,) for trait, value in wanted.items()}
    return frozenset(
        kind
        for kind, traits in TRAITS.items()
        if all(getattr(traits, trait) in values for trait, values in admitted.items())
    )


# Pointwise nonlinearities that a rectifying rule (guided backpropagation, deconvnet) acts on.
RECTIFIERS = those(activation="rectifier")
# Each number of the output depends on one number of each input, at the same place.
ELEMENTWISE = those(alone=True)
# Operators that leave every position of a map where it is.
IN_PLACE = those(reads="same") - those(role="linear")
COMPARISONS = those(role="comparison")
CONVOLUTIONS = those(role="convolution")
TRANSPOSED = those(role="transposed")
WEIGHTED = those(role=("convolution", "transposed", "linear"))
