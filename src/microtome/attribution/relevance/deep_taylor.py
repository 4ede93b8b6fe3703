"""Deep Taylor decomposition: positive contributions to the score, followed back to the pixels."""

from __future__ import annotations

from typing import Any

from microtome.attribution.relevance.lrp import RelevanceAttribution, propagate
from microtome.errors import InputError
from microtome.inputs import Target
from microtome.network import Network
from microtome.registry import register
from microtome.trace.lrp.rules import Rule, WSquare, ZBox, ZPlus

_INPUT_RULES: dict[str, Rule] = {"z-box": ZBox(), "w-square": WSquare(), "z-plus": ZPlus(bias=False)}


@register("deep-taylor", rows=("C10",), paper="montavon2017explaining", cost=8.0)
def deep_taylor(
    net: Network, images: Any, target: Target = None, *, input_rule: str = "z-box", batch: int | None = None
) -> RelevanceAttribution:
    r"""Deep Taylor decomposition: z+ inside the network, z^B (or w^2) at the pixels.

    .. math::
        R_i = \sum_j \frac{x_i w_{ij}^+}{\sum_{i'} x_{i'} w_{i'j}^+} R_j, \qquad
        R_i = \sum_j \frac{x_i w_{ij} - l_i w_{ij}^+ - h_i w_{ij}^-}
                          {\sum_{i'} x_{i'} w_{i'j} - l_{i'} w_{i'j}^+ - h_{i'} w_{i'j}^-} R_j

    with l and h the lowest and highest value a pixel can have [1]_. Biases take nothing.

    Parameters
    ----------
    net : Network
        The network; its ``pixels`` are l and h, or each image's own range where they are None.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    target : int, str, sequence, Tensor or None
        The class that is explained; None for the predicted one.
    input_rule : str
        ``"z-box"`` for pixels with bounds, ``"w-square"`` without, ``"z-plus"`` for positive input.
    batch : int, optional
        Images in one pass; default 2 to 10 of 224 x 224 pixels, by the network, up to 64 small ones.

    Returns
    -------
    RelevanceAttribution
        ``values`` (N, C, H, W) in logits, of the score's sign where all inner inputs are positive;
        ``conservation`` (N,) = (sum of relevance + bias share) / score.

    Raises
    ------
    InputError
        When images or targets do not fit, or the input rule does not exist.
    OpaqueError
        When relevance reaches an operation without a rule; it is named.

    Notes
    -----
    Cost: about three passes forward and backward. What it does not show: evidence against the class,
    since z+ follows positive contributions only. Where a unit with relevance has no positive input at
    all, its relevance stays there; ``stabiliser_share`` measures it. Batch norm is one layer with
    the convolution before it.

    References
    ----------
    .. [1] Montavon, Lapuschkin, Binder, Samek and Müller, Explaining nonlinear classification
       decisions with deep Taylor decomposition, Pattern Recognition 2017.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> line = nn.Linear(2, 1, bias=False)
    >>> _ = line.weight.data.copy_(torch.tensor([[1.0, 3.0]]))
    >>> net = Network(nn.Sequential(nn.Flatten(), line), input_shape=(1, 1, 2))
    >>> result = deep_taylor(net, torch.ones(1, 1, 1, 2))  # l = 0: all weights positive, so x w
    >>> result.values.flatten().round(decimals=3), result.conservation.round(decimals=3)
    (tensor([1., 3.]), tensor([1.]))
    """
    if input_rule not in _INPUT_RULES:
        raise InputError(f'an input rule is one of {", ".join(_INPUT_RULES)}, got "{input_rule}".')

    def choose(_operation: str, _kind: str, reads_image: bool) -> Rule:
        return _INPUT_RULES[input_rule] if reads_image else ZPlus(bias=False)

    return propagate(net, images, target, choose, batch)
