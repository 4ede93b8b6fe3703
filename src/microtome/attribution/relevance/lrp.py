"""Layer-wise relevance propagation (LRP): the class score is distributed to the pixels, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from microtome.attribution.batching import by_batch
from microtome.attribution.relevance.composites import Rules, chooser
from microtome.attribution.result import Attribution, wide
from microtome.inputs import Target
from microtome.network import Network
from microtome.registry import register
from microtome.trace.lrp.account import Account
from microtome.trace.lrp.relevance import Chooser, Relevance
from microtome.trace.passes import RecordedPass

EXPLODES = 1e3  # absolute relevance divided by the score, above which a note warns of cancellation


@dataclass(frozen=True, eq=False, kw_only=True)
class RelevanceAttribution(Attribution):
    """Relevance per pixel, with the account of what did not arrive.

    Attributes
    ----------
    bias_share : Tensor
        (N,), relevance that biases and constants took, in logits.
    stabiliser_share : Tensor
        (N,), relevance that the stabilisers of denominators took, in logits.
    mixed : list of str
        Operations that mix the images of the batch: what they took is divided equally among all images.
    """

    bias_share: Tensor
    stabiliser_share: Tensor
    mixed: list[str] = field(default_factory=list)

    @property
    def conservation(self) -> Tensor:
        """(Sum of relevance + bias share) / score, (N,); one but for the stabilisers' share."""
        return (self.values.flatten(1).sum(1) + self.bias_share) / self.score

    @property
    def pixel_share(self) -> Tensor:
        """Sum of relevance / score, (N,): the part of the score that the map shows."""
        return self.values.flatten(1).sum(1) / self.score

    @property
    def mass(self) -> Tensor:
        """Sum of absolute relevance / absolute score, (N,): far above one if large parts cancel each other."""
        return self.values.flatten(1).abs().sum(1) / self.score.abs()

    @property
    def explodes(self) -> Tensor:
        """Whether absolute relevance is over a thousand times the score, (N,), so that the map is mostly noise."""
        return self.mass > EXPLODES

    @property
    def notes(self) -> list[str]:
        """Notes for the reader of the map: relevance that explodes or hardly arrives, images that mix."""
        found = super().notes
        if bool(self.explodes.any()):
            worst = float(self.mass.max())
            found.append(
                f"Relevance explodes for {int(self.explodes.sum())} of {len(self)} images: its absolute sum is up to "
                f"{worst:.2g} times the score, so the map consists of large parts that cancel. Use other rules."
            )
        poor = self.pixel_share.abs() < 0.01
        if bool(poor.any()):
            found.append(
                f"Less than 1 % of the score arrives at the pixels for {int(poor.sum())} of {len(self)} images; biases "
                "and stabilisers take the rest. The map shows the order of the pixels, not amounts."
            )
        lost = (self.score - self.values.flatten(1).sum(1) - self.bias_share - self.stabiliser_share).abs()
        open_ = lost > 0.01 * self.score.abs()
        if bool(open_.any()):
            found.append(
                f"More than 1 % of the score is not accounted for in {int(open_.sum())} of {len(self)} images: the "
                "network mixes the images of a batch, computes in half precision, or its score is near zero."
            )
        if self.mixed:
            found.append(
                f'The network mixes the images of a batch at "{self.mixed[0]}"; what biases took there is divided '
                "equally among all images. Use batch=1 for an account of each image."
            )
        return found


@register("lrp", rows=("C10",), paper="bach2015pixel", cost=8.0)
def lrp(
    net: Network, images: Any, target: Target = None, *, rules: Rules = "epsilon-sparing-plus", batch: int | None = None
) -> RelevanceAttribution:
    r"""Hand the class score back layer by layer, each unit sharing what it got among its inputs.

    .. math:: R_i = \sum_j \frac{q_{ij}}{\sum_{i'} q_{i'j}} R_j, \qquad R_{\text{output}} = S_c

    with :math:`q_{ij}` by rule: :math:`x_i w_{ij}` (epsilon), its positive part (z-plus), and so on [1]_
    [2]_. A convolution that is written as unfold and a product has the rules of linear layers. The rules act on the
    operators as the model runs them: batch norm is one linear layer with
    the convolution before it, residual sums share in proportion to their terms, gates (squeeze-excite)
    and attention weights are held and the signal takes all, as do the deviations of layer norm [3]_.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    target : int, str, sequence, Tensor or None
        The class that is explained; None for the predicted one.
    rules : str, Rule, or sequence of (selector, rule)
        A composite: ``"epsilon-sparing-plus"`` (see the notes), ``"epsilon"``, ``"z-plus"``, ``"epsilon-plus"``,
        ``"epsilon-plus-flat"``,
        ``"epsilon-alpha2-beta1"``, ``"epsilon-alpha2-beta1-flat"``, ``"epsilon-gamma-box"``; one rule
        for all layers; or pairs such as ``[("first", "z-box"), ("layer4.*", Epsilon(0.1)), ("*", "gamma")]``,
        with rules from ``microtome.attribution.rules``. The epsilon of the rule that fits a layer's name
        also holds for its sums, pooling and products.
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
    gamma. A pixel keeps its relevance through the network's normalisation. Where a score is near zero,
    relevance may be many times larger than it, of both signs; ``mass`` measures that and ``notes`` says
    it. Composites of z-plus hardly change when the upper layers' weights are lost [4]_: they show what was
    seen, less so why the network decided.

    The default spares the biases: convolutions follow the z-plus rule without biases and, for outputs
    without positive input, the w-square rule; linear layers follow epsilon. In depthwise networks the biases
    of ``"epsilon-plus"`` take nearly all. Six photos, trained weights, ``python -m benchmarks.composites``:

    ==================  ======================  ===========  ========  =========  =====
    network             composite               at pixels    deletion  insertion  alike
    ==================  ======================  ===========  ========  =========  =====
    EfficientNet-Lite0  epsilon-sparing-plus    0.90         0.073     0.480      0.59
    EfficientNet-Lite0  epsilon-plus            0.0002       0.097     0.524      0.72
    EfficientNet-Lite0  epsilon                 -0.05        0.164     0.342      0.33
    MobileNetV2         epsilon-sparing-plus    1.00         0.091     0.484      0.73
    MobileNetV2         epsilon-plus            0.0001       0.119     0.485      0.83
    MobileNetV2         epsilon                 0.09         0.107     0.293      0.42
    ==================  ======================  ===========  ========  =========  =====

    At pixels: share of the score. Deletion: less is better; insertion: more is better. Alike: rank correlation
    of absolute maps after half of the layers are randomised. With epsilon the absolute relevance is 150 to 200 times
    the score; with the others it is at most the score.

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
    return propagate(net, images, target, chooser(net, rules), batch)


def propagate(net: Network, images: Any, target: Target, choose: Chooser, batch: int | None) -> RelevanceAttribution:
    """Propagate relevance with a rule chosen for each layer."""
    passes = by_batch(net, images, target, partial(_propagated, net, choose=choose), batch, backwards=True)
    records, accounts = zip(*(one for made in passes for one in made), strict=True)
    return RelevanceAttribution(
        values=wide(torch.cat([record.gradient["input"] for record in records])),
        target=torch.cat([record.target for record in records]),
        score=wide(torch.cat([record.score for record in records])),
        images=torch.cat([record.value["input"] for record in records]),
        classes=net.classes,
        bias_share=wide(torch.cat([account.bias_share for account in accounts])),
        stabiliser_share=wide(torch.cat([account.stabiliser_share for account in accounts])),
        mixed=sorted({name for account in accounts for name in account.mixed}),
    )


def _propagated(net: Network, images: Tensor, target: Any, choose: Chooser) -> list[tuple[RecordedPass, Account]]:
    """One pass over a batch; one for each image if the batch has no axis for the account of an operation.

    That is so if a model loops over its images. If the images mix, single images have other scores, and the
    pass over the batch is used.
    """
    rules = Relevance(choose, net.graph.axes if len(images) > 1 else None)
    record = net.run(images, target, record="input", gradient=True, rules=rules, check=False)
    if not rules.account.mixed:
        return [(record, rules.account)]
    singles = []
    for index in range(len(images)):
        alone = Relevance(choose)
        one = net.run(
            images[index : index + 1], record.target[index : index + 1], record="input", gradient=True, rules=alone
        )
        singles.append((one, alone.account))
    if torch.allclose(torch.cat([one.score for one, _ in singles]), record.score, rtol=1e-3, atol=1e-5):
        return singles
    return [(record, rules.account)]
