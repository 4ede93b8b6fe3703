"""Attention rollout: the attention of a vision transformer, multiplied through all its layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from microtome import trace
from microtome.attribution.batching import by_batch
from microtome.attribution.class_activation.arrangement import Arrangement
from microtome.attribution.class_activation.default_layer import last_tokens, read_tokens
from microtome.attribution.result import LayerAttribution, wide
from microtome.errors import InputError, LayerError
from microtome.inputs import Target
from microtome.network import Network
from microtome.registry import register
from microtome.trace.passes import RecordedPass

HEADS = ("mean", "max", "min")


@register(
    "attention-rollout", rows=("C11",), paper="abnar2020quantifying", kind="attention",
    needs="self-attention over tokens that stand for patches", quantity="share of attention", signed=False,
)  # fmt: skip
def attention_rollout(
    net: Network,
    images: Any,
    target: Target = None,
    *,
    heads: str = "mean",
    residual: float = 0.5,
    batch: int | None = None,
) -> LayerAttribution:
    r"""How much of each patch the answer has mixed in, if attention alone carried it.

    .. math:: \hat A_l = \rho I + (1 - \rho)\, \bar A_l, \qquad R = \hat A_L \cdots \hat A_2 \hat A_1

    with :math:`\bar A_l` the attention weights of layer l over its heads, and rho the share of the residual
    connection (1/2 in the paper [1]_). The map is the row of R of the token that the class scores are read
    from, or the mean of the rows where they are read from several; those are found by measurement.
    **It does not depend on the class**: every class has the same map.

    Parameters
    ----------
    net : Network
        A vision transformer, whatever its attention is written with: ``nn.MultiheadAttention``,
        ``scaled_dot_product_attention``, or products with a softmax between them.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    target : int, str, sequence, Tensor or None
        The class whose score is noted beside the map, which it does not change.
    heads : str
        How the heads are combined: ``"mean"`` as in the paper, ``"max"`` or ``"min"``, whose rows
        are scaled to sum to one again.
    residual : float
        rho, from 0 to below 1.
    batch : int, optional
        Images in one pass; default eight of 224 x 224 pixels, up to 64 smaller ones.

    Returns
    -------
    LayerAttribution
        ``values`` (N, 1, h, w), shares from 0 to 1; with those of class and register tokens, which have no
        place on the picture, they add to one. ``layer`` is the last attention.

    Raises
    ------
    InputError
        When images, targets or options do not fit.
    LayerError
        When the network has no self-attention over patches of the whole picture, or mixes the weights of its
        heads so that they are no shares any more.
    ModelError
        When the model raises.

    Notes
    -----
    Cost: two forward passes, of which one computes the attention weights too (T x T numbers for an image,
    head and layer), and one forward and backward pass of a single gray picture. It follows weights, not
    values: it ignores the content of a token, the perceptrons, and the class that a token is evidence for.

    References
    ----------
    .. [1] Abnar and Zuidema, Quantifying attention flow in transformers, ACL 2020.

    Examples
    --------
    Two patches and one uniform attention: half stays at its patch (residual), half is shared evenly.

    >>> from torch import nn
    >>> class Even(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.patches, self.head = nn.Linear(1, 4), nn.Linear(4, 2)
    ...     def forward(self, x):
    ...         x = self.patches(x.flatten(2).transpose(1, 2))
    ...         x = x + (0 * x @ x.transpose(1, 2)).softmax(-1) @ x
    ...         return self.head(x[:, 0])
    >>> attention_rollout(Network(Even(), input_shape=(1, 1, 2)), torch.rand(1, 1, 1, 2)).values
    tensor([[[[0.7500, 0.2500]]]])
    """
    if heads not in HEADS:
        raise InputError(f'heads must be one of {", ".join(HEADS)}, got "{heads}".')
    if not 0 <= residual < 1:
        raise InputError(f"residual is a share from 0 to below 1, got {residual}.")
    checked = net.images(images).detach()
    last = last_tokens(net)
    if last is None:
        raise LayerError(f"this network has no tokens that stand for patches of the picture. {_ADVICE}")
    name, laid = last
    begin = read_tokens(net, name, laid).double()
    begin = begin / begin.sum()

    def rolled(part: Tensor, classes: Target) -> tuple[Tensor, RecordedPass, str]:
        followed = _Rollout(laid, len(part), heads, residual)
        attentions = trace.Attentions(followed.attend)
        with torch.no_grad():
            trace.Tracer(net.model, observer=attentions)(net.normalise(part))
        attentions.finish()
        return laid.on_grid(followed.from_tokens(begin)[:, None]), net.run(part, classes, check=False), followed.last

    maps, records, layers = zip(*by_batch(net, checked, target, rolled, batch), strict=True)
    return LayerAttribution(
        values=torch.cat(maps),
        target=torch.cat([record.target for record in records]),
        score=wide(torch.cat([record.score for record in records])),
        images=checked,
        classes=net.classes,
        layer=layers[-1],
    )


_ADVICE = "Attention rollout serves vision transformers only; use grad_cam or lrp, which serve any network."


class _Rollout:
    """The product of the attentions met so far, for each image."""

    def __init__(self, laid: Arrangement, count: int, heads: str, residual: float) -> None:
        self.last = ""
        self._laid, self._count, self._heads, self._residual = laid, count, heads, residual
        self._product: Tensor | None = None
        self._pooled = False

    def attend(self, name: str, weights: Tensor) -> None:
        """One attention of the pass: (images, heads, queries, keys), or (images x heads, queries, keys)."""
        weights = wide(weights.detach())
        queries, keys = weights.shape[-2:]
        if weights.dim() == 3 and len(weights) % self._count == 0:
            weights = weights.unflatten(0, (self._count, -1))
        fits = weights.dim() == 4 and len(weights) == self._count and keys == self._laid.tokens and not self._pooled
        if not fits or queries not in (1, keys):
            raise LayerError(
                f'the attention "{name}" has weights {tuple(weights.shape)}; for {self._count} images those of all '
                f"{self._laid.tokens} tokens among each other were expected (windows, merged tokens?). {_ADVICE}"
            )
        if not trace.are_shares(weights):
            raise LayerError(
                f'the weights of the attention "{name}" are no shares when they are applied: their rows do not sum to '
                f"one (heads mixed after the softmax?), so they cannot be followed. {_ADVICE}"
            )
        together = self._taken_together(weights)
        if queries == keys:
            one = torch.eye(keys, dtype=together.dtype, device=together.device)
            together = self._residual * one + (1 - self._residual) * together
        else:
            self._pooled = True  # a query of its own collects the tokens: there is no residual beside it
        self._product = together if self._product is None else together @ self._product
        self.last = name

    def _taken_together(self, weights: Tensor) -> Tensor:
        if self._heads == "mean":
            return weights.mean(1)
        chosen = weights.amax(1) if self._heads == "max" else weights.amin(1)
        return chosen / chosen.sum(2, keepdim=True).clamp(min=torch.finfo(chosen.dtype).tiny)

    def from_tokens(self, begin: Tensor) -> Tensor:
        """The share of every first token in those that the scores are read from, (N, T)."""
        if self._product is None:
            raise LayerError(f"this network has tokens, but no attention among them. {_ADVICE}")
        if self._pooled:
            return self._product[:, 0]
        return begin.to(self._product) @ self._product
