"""Activation maximisation: images that maximise a unit, a neuron, a direction or a class score."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from microtome.network import Network
from microtome.registry import register
from microtome.results import stated
from microtome.synthesis import objectives
from microtome.synthesis.optimisation.ascent import Ascent
from microtome.synthesis.optimisation.priors import Prior, prior_named
from microtome.synthesis.placement import around, centred, recommended_size, whole
from microtome.synthesis.superstimuli import Superstimuli, superstimuli_of
from microtome.synthesis.targets import (
    Targets,
    at_least,
    checked_begin,
    checked_diversity,
    checked_indices,
    checked_reduction,
    checked_sign,
    unit_targets,
)


@register(
    "maximize",
    rows=("D4", "B5"),
    paper="olah2017feature",
    needs="a layer",
    kind="synthesis",
)
def maximize(
    net: Network,
    layer: str,
    *,
    channels: int | Iterable[int] | None = None,
    directions: Tensor | None = None,
    position: tuple[int, ...] | None = None,
    reduction: str | None = None,
    sign: int = 1,
    diverse: int = 1,
    diversity: float = 0.5,
    starts: int = 1,
    steps: int = 128,
    size: int | tuple[int, int] | None = None,
    prior: str | Prior | None = None,
    begin: Tensor | None = None,
    seed: int = 0,
) -> Superstimuli:
    r"""Compute images that maximise the activation of units of a layer.

    .. math:: x^* = \arg\max_x \; A_c(x) - |A_c(x)| \sum_r \lambda_r R_r(x) / P

    A is the ``reduction`` of the channel's map (of minus the map for ``sign=-1``), R are the penalties of
    the prior, P = C H W, and the factor :math:`|A_c|` is a constant. The ascent runs on a Fourier canvas
    with decorrelated colours for photographs, and on pixels with total variation for small pictures [1]_.
    Images do not influence each other. The network stops at the layer. If the gradient is zero
    everywhere, ReLUs pass the gradient that would raise their inputs (see ``relu_override``).

    Parameters
    ----------
    net : Network
        The network.
    layer : str
        The layer of the units.
    channels : int or iterable of int, optional
        Indices of the channels; default all.
    directions : Tensor, optional
        (n, channels) directions of the layer's space in place of channels.
    position : tuple of int, optional
        One neuron (i, j) of each channel's map, in place of ``reduction``.
    reduction : str, optional
        Reduction of a channel's map to one number: ``"mean"``; ``"positive"``, the mean of the positive
        part, which a ReLU after the layer passes; ``"max"``; or ``"center"``, the neuron in the middle.
        Default: ``"center"`` for pictures of up to 64 pixels, which shows one shape; ``"positive"`` for
        larger pictures, which shows a texture.
    sign : int
        -1 minimises the unit. After a ReLU every image with activation zero is a minimum; use the layer
        before the ReLU.
    diverse : int
        Number of images per unit that shall differ from each other.
    diversity : float
        Share of the activation that complete similarity of a unit's images (of their Gram matrices) costs.
    starts : int
        Number of ascents, each from different noise. The best is returned.
    steps : int
        Number of steps of ascent.
    size : int or (int, int), optional
        Size of the canvas in pixels. Default: for one neuron its receptive field inside the picture;
        otherwise ``recommended_size``, which is twice the receptive field and at most 128 pixels, or the
        whole picture if it is small or the layer depends on all of it.
    prior : str or Prior, optional
        ``"natural"``, ``"maco"``, ``"strokes"``, ``"plain"``, ``"l2"``, ``"yosinski"`` or your own. Default: natural
        for pictures of more than 64 pixels, strokes for smaller ones, plain on canvases of up to 8.
    begin : Tensor, optional
        Real images to start from in place of a flat one: (C, h, w), or one for each channel or direction
        (n, C, h, w), at the size of the canvas, in the network's pixel range.
    seed : int
        Seed of noise and augmentation. Every unit gets the same draws, whichever other units are computed.

    Returns
    -------
    Superstimuli
        ``.images`` (n, C, h, w), ``diverse`` images per unit; ``.activation`` (n,).

    Raises
    ------
    LayerError
        When there is no such layer or its values are no maps, tokens or neurons.
    InputError
        When channels, directions, position or options do not fit.

    Notes
    -----
    Cost: ``steps`` forward and backward passes down to the layer at canvas size per image and start.
    What it does not show: the images in data that activate the unit. An image far from all data can
    have a higher activation. Compare ``peak`` with the unit's distribution over data.

    References
    ----------
    .. [1] Olah, Mordvintsev, Schubert: Feature Visualization, Distill 2017.
    .. [2] Yosinski, Clune, Nguyen, Fuchs, Lipson: Understanding Neural Networks Through Deep
       Visualization, 2015.

    Examples
    --------
    The image that maximises a linear unit is white where its weights are positive:

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, -2.0, 3.0, -4.0]]))
    >>> net = Network(model, input_shape=(1, 2, 2))
    >>> maximize(net, "1", prior=Prior(canvas="pixels", lr=0.1), steps=64).images.flatten()
    tensor([1., 0., 1., 0.])
    """
    targets = unit_targets(net, layer, channels, directions)
    in_picture = in_window = checked_reduction(net, layer, reduction, position)
    if isinstance(in_picture, tuple):
        placement, in_window = around(net, layer, in_picture, size)
    else:
        placement = centred(net, layer, recommended_size(net, layer) if size is None else size)
    ascent = Ascent(
        net=net,
        objective=targets.objective(in_window, checked_sign(sign)),
        placement=placement,
        prior=prior_named(prior, net.input_shape[1:], placement.size),
        crop_maps=not isinstance(in_picture, tuple),
        steps=at_least(steps, 1, "steps"),
        seed=seed,
        diverse=at_least(diverse, 1, "diverse"),
        contrast_layer=layer,
        diversity=checked_diversity(diversity),
        begin=checked_begin(net, begin, len(targets.rows), placement.size),
    )
    note = stated(
        channels=None if directions is not None else targets.rows,
        reduction=in_picture,
        size=placement.size,
        prior=vars(ascent.prior),
    )
    return superstimuli_of(ascent, targets, in_picture, at_least(starts, 1, "starts"), sign, note)


@register(
    "maximize-class", rows=("D4",), paper="simonyan2014deep", needs="a network with class scores", kind="synthesis"
)
def maximize_class(
    net: Network,
    classes: int | str | Iterable[int | str] | None = None,
    *,
    prior: str | Prior | None = None,
    sign: int = 1,
    diverse: int = 1,
    diversity: float = 0.5,
    starts: int = 1,
    steps: int = 128,
    begin: Tensor | None = None,
    seed: int = 0,
) -> Superstimuli:
    r"""Compute images that maximise the score of a class.

    .. math:: x^* = \arg\max_x \; S_c(x) - \lambda \|x - m\|^2

    S is the logit, because lower scores of the other classes would also raise the softmax. m is the mean
    colour of the network's normalisation. :math:`\lambda = 10 / (C H W)` costs ten logits for a mean
    squared distance of one; ``prior=Prior(canvas="pixels", l2=..., relative=False)`` sets another weight.
    For photographs the penalty is not sufficient; the Fourier canvas of ``"natural"`` takes its place [1]_.

    Parameters
    ----------
    net : Network
        The network.
    classes : int, str or iterable of either, optional
        Indices or names of the classes; default all.
    prior : str or Prior, optional
        ``"l2"`` for the equation above, ``"natural"``, ``"maco"``, ``"strokes"``, ``"plain"``, ``"yosinski"`` or your
        own. Default: l2 for pictures of up to 64 pixels, natural for larger ones, where l2 gives coloured noise.
    sign, diverse, diversity, starts, steps, begin, seed
        As for ``maximize``.

    Returns
    -------
    Superstimuli
        ``.images`` (n, C, H, W), ``diverse`` images per class; ``.activation`` (n,) is the logit.

    Raises
    ------
    InputError
        When a class does not exist or an option does not fit.

    Notes
    -----
    Cost: ``steps`` forward and backward passes of the whole network per image.
    What it does not show: the appearance of the class in data. The score rises without bound far from all data.

    References
    ----------
    .. [1] Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks, 2014.
    """
    if isinstance(classes, int | str):
        classes = [classes]
    indices = None if classes is None else [net.class_index(name) for name in classes]
    rows = checked_indices(indices, net.output_shape[-1], "classes")
    names = [net.classes[row] if net.classes is not None else f"class {row}" for row in rows]
    targets = Targets("logits", rows, names, lambda reduction, sign: objectives.logit(rows, sign=sign))
    ascent = Ascent(
        net=net,
        objective=targets.objective("mean", checked_sign(sign)),
        placement=whole(net),
        prior=prior_named(_class_prior(net) if prior is None else prior, net.input_shape[1:], net.input_shape[1:]),
        crop_maps=True,
        steps=at_least(steps, 1, "steps"),
        seed=seed,
        diverse=at_least(diverse, 1, "diverse"),
        contrast_layer=_last_map(net) if diverse > 1 else "logits",
        diversity=checked_diversity(diversity),
        begin=checked_begin(net, begin, len(rows), net.input_shape[1:]),
    )
    note = stated(classes=rows, prior=vars(ascent.prior))
    return superstimuli_of(ascent, targets, "mean", at_least(starts, 1, "starts"), sign, note)


def _class_prior(net: Network) -> str:
    """The penalty of the equation for small pictures, the Fourier canvas for photographs."""
    return "l2" if max(net.input_shape[1:]) <= 64 else "natural"


def _last_map(net: Network) -> str:
    """The last layer with height and width, which measures the similarity of textures."""
    spatial = [name for name, layer in net.layers.items() if layer.spatial and layer.leaf and layer.axes.grid[0] > 1]
    return spatial[-1] if spatial else "logits"
