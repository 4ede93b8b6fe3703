"""How much did each pixel contribute to the score, when every layer hands on exactly what it received?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.attribution.batching import chunks, fitting
from microtome.attribution.relevance.composites import Rules, chooser
from microtome.attribution.result import Attribution, wide
from microtome.inputs import Target
from microtome.network import Network
from microtome.registry import register
from microtome.results import Provenance, provenance
from microtome.trace.lrp.relevance import Chooser, Relevance


@dataclass(frozen=True, eq=False, kw_only=True)
class RelevanceAttribution(Attribution):
    """Relevance per pixel, with the account of what did not arrive.

    Attributes
    ----------
    bias_share : Tensor
        (N,), relevance that biases and constants took, in logits.
    stabiliser_share : Tensor
        (N,), relevance that the stabilisers of denominators took, in logits.
    """

    bias_share: Tensor
    stabiliser_share: Tensor

    @property
    def conservation(self) -> Tensor:
        """(Sum of relevance + bias share) / score, (N,); one but for the stabilisers' share."""
        return (self.values.flatten(1).sum(1) + self.bias_share) / self.score


@register("lrp", rows=("C10",), paper="bach2015pixel", cost=8.0)
def lrp(
    net: Network, images: Any, target: Target = None, *, rules: Rules = "epsilon-plus", batch: int | None = None
) -> RelevanceAttribution:
    r"""Hand the class score back layer by layer, each unit sharing what it got among its inputs.

    .. math:: R_i = \sum_j \frac{q_{ij}}{\sum_{i'} q_{i'j}} R_j, \qquad R_{\text{output}} = S_c

    with :math:`q_{ij}` by rule: :math:`x_i w_{ij}` (epsilon), its positive part (z-plus), and so on [1]_
    [2]_. The rules act on the operators as the model runs them: batch norm is one linear layer with
    the convolution before it, residual sums share in proportion to their terms, gates (squeeze-excite)
    and attention weights are held and the signal takes all, as do the deviations of layer norm [3]_.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    target : int, str, sequence, Tensor or None
        The class asked about; None for the predicted one.
    rules : str, Rule, or sequence of (selector, rule)
        A composite: ``"epsilon"``, ``"z-plus"``, ``"epsilon-plus"``, ``"epsilon-plus-flat"``,
        ``"epsilon-alpha2-beta1"``, ``"epsilon-alpha2-beta1-flat"``, ``"epsilon-gamma-box"``; one rule
        for all layers; or pairs such as ``[("first", "z-box"), ("layer4.*", Epsilon(0.1)), ("*", "gamma")]``.
    batch : int, optional
        Images in one pass; default 2 to 10 of 224 x 224 pixels, by the network, up to 64 small ones.

    Returns
    -------
    RelevanceAttribution
        ``values`` (N, C, H, W) in logits, ``bias_share``, ``stabiliser_share`` and ``conservation``
        (N,): values, biases and stabilisers add to the score.

    Raises
    ------
    InputError
        When images, targets, rules or selectors do not fit.
    OpaqueError
        When relevance reaches an operation without a rule, or one whose inside is hidden; it is named.

    Notes
    -----
    Cost: one forward and one backward pass for epsilon, about twice that for z-plus, three times for
    gamma. A pixel keeps its relevance through the network's normalisation. Where a score is near zero
    relevance may be many times larger than it, of both signs: look at the shares. Composites of z-plus
    hardly change when the upper layers' weights are lost [4]_: they show what was seen, less so why
    the network decided.

    References
    ----------
    .. [1] Bach et al., On pixel-wise explanations for non-linear classifier decisions by layer-wise
       relevance propagation, PLoS ONE 2015.
    .. [2] Montavon et al., Layer-wise relevance propagation: an overview, 2019.
    .. [3] Ali et al., XAI for transformers: better explanations through conservative propagation, ICML 2022.
    .. [4] Sixt, Granz and Landgraf, When explanations lie: why many modified BP attributions fail, ICML 2020.

    Examples
    --------
    >>> from torch import nn
    >>> line = nn.Linear(2, 1)
    >>> _ = line.weight.data.copy_(torch.tensor([[2.0, -3.0]])), line.bias.data.fill_(0.5)
    >>> net = Network(nn.Sequential(nn.Flatten(), line), input_shape=(1, 1, 2))
    >>> result = lrp(net, torch.ones(1, 1, 1, 2), rules="epsilon")  # x w, where the score is x w + b
    >>> [round(float(part), 3) for part in (*result.values.flatten(), result.bias_share, result.score)]
    [2.0, -3.0, 0.5, -0.5]
    """
    return propagate(
        net, images, target, chooser(net, rules), provenance(net, "lrp", rules=rules, target=target), batch
    )


def propagate(
    net: Network, images: Any, target: Target, choose: Chooser, made: Provenance, batch: int | None
) -> RelevanceAttribution:
    """Propagate relevance with a rule chosen for each layer."""
    records, accounts = [], []
    for part, asked in chunks(net, images, target, fitting(net, batch, backwards=True)):
        account = Relevance(choose)
        records.append(net.run(part, asked, record="input", gradient=True, rules=account, check=False))
        accounts.append(account)
    return RelevanceAttribution(
        provenance=made,
        values=wide(torch.cat([record.gradient["input"] for record in records])),
        target=torch.cat([record.target for record in records]),
        score=wide(torch.cat([record.score for record in records])),
        images=torch.cat([record.value["input"] for record in records]),
        classes=net.classes,
        bias_share=wide(torch.cat([account.bias_share for account in accounts])),
        stabiliser_share=wide(torch.cat([account.stabiliser_share for account in accounts])),
    )
