"""What does a unit, a neuron, a direction or a class want to see most? Images made by gradient ascent."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from microtome.network import Network
from microtome.registry import register
from microtome.results import provenance
from microtome.synthesis import objectives
from microtome.synthesis.ascent import Climb
from microtome.synthesis.placement import around, centred, recommended_size, whole
from microtome.synthesis.priors import Prior, prior_named
from microtome.synthesis.superstimuli import Superstimuli, made
from microtome.synthesis.targets import Asked, asked_of, at_least, checked_sign, chosen, reading


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
    channels: int | Iterable[int] | None = None,
    *,
    directions: Tensor | None = None,
    position: tuple[int, ...] | None = None,
    of: str | None = None,
    sign: int = 1,
    diverse: int = 1,
    diversity: float = 0.5,
    starts: int = 1,
    steps: int = 128,
    size: int | tuple[int, int] | None = None,
    prior: str | Prior | None = None,
    seed: int = 0,
) -> Superstimuli:
    r"""Make the images that units of a layer answer most.

    .. math:: x^* = \arg\max_x \; A_c(x) - |A_c(x)| \sum_r \lambda_r R_r(x) / P

    with A what ``of`` reads off the channel's map (of the map turned over for ``sign=-1``), R the
    penalties of the prior, P = C H W and :math:`|A_c|` held constant. The ascent runs on a
    Fourier canvas with decorrelated colours for photographs and on pixels with total variation for
    small pictures [1]_, every image for itself; the network stops at the layer. Where no gradient
    reaches the image, ReLUs let through what would switch them on.

    Parameters
    ----------
    net : Network
        The network.
    layer : str
        The layer whose units are asked.
    channels : int or iterable of int, optional
        Which channels; default all of them.
    directions : Tensor, optional
        (n, channels) directions of the layer's space in place of channels.
    position : tuple of int, optional
        One neuron (i, j) of each channel's map, in place of ``of``.
    of : str, optional
        What is read off a channel's map: ``"mean"``; ``"positive"``, the mean of the positive part, which
        is what a ReLU behind the layer lets through; ``"max"``; or ``"center"``, the neuron in the middle.
        Default: ``"center"`` for pictures of up to 64 pixels, a single shape; ``"positive"`` for
        larger ones, a texture.
    sign : int
        -1 for images that lower the unit most. Behind a ReLU that is any image that leaves it at zero;
        ask the layer before the ReLU.
    diverse : int
        Images per unit that shall differ from each other.
    diversity : float
        Share of the activation given up for complete likeness of a unit's images (their Gram matrices).
    starts : int
        Climbs from different noise; the best is kept.
    steps : int
        Steps of ascent.
    size : int or (int, int), optional
        Canvas in pixels. Default: for one neuron its receptive field as far as it lies in the picture;
        otherwise ``recommended_size``, twice the receptive field and at most 128 pixels, or the whole
        picture where that is small or the layer looks at all of it.
    prior : str or Prior, optional
        ``"natural"``, ``"strokes"``, ``"plain"``, ``"l2"``, ``"yosinski"`` or your own. Default: natural for
        pictures of more than 64 pixels, strokes for smaller ones, plain on canvases of up to 8.
    seed : int
        Noise and motion; every unit gets the same, so that it does not matter which others are made.

    Returns
    -------
    Superstimuli
        Unit by unit, ``diverse`` images each.

    Raises
    ------
    LayerError
        When there is no such layer or its values are no maps.
    InputError
        When channels, directions, position or options do not fit.

    Notes
    -----
    Cost: ``steps`` forward and backward passes down to the layer at canvas size per image and start.
    What it does not show: what the unit sees in data; an image beyond all data can excite it more.
    Compare ``peak`` with the unit's distribution over data.

    References
    ----------
    .. [1] Olah, Mordvintsev, Schubert: Feature Visualization, Distill 2017.
    .. [2] Yosinski, Clune, Nguyen, Fuchs, Lipson: Understanding Neural Networks Through Deep
       Visualization, 2015.

    Examples
    --------
    The image that a linear unit likes most is white where its weights are positive:

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, -2.0, 3.0, -4.0]]))
    >>> net = Network(model, input_shape=(1, 2, 2))
    >>> maximize(net, "1", prior=Prior(canvas="pixels", rate=0.1), steps=64).images.flatten()
    tensor([1., 0., 1., 0.])
    """
    asked = asked_of(net, layer, channels, directions)
    where = reading(net, layer, of, position)
    local = where
    if isinstance(where, tuple):
        place, local = around(net, layer, where, size)
    else:
        place = centred(net, layer, recommended_size(net, layer) if size is None else size)
    climb = Climb(
        net=net,
        objective=asked.make(local, checked_sign(sign)),
        frame=place,
        prior=prior_named(prior, net.input_shape[1:], place.size),
        cuts=not isinstance(where, tuple),
        steps=at_least(steps, 1, "steps"),
        seed=seed,
        diverse=at_least(diverse, 1, "diverse"),
        contrast_layer=layer,
        diversity=diversity,
    )
    note = provenance(
        net,
        "maximize",
        seed,
        layer=layer,
        channels=None if directions is not None else asked.rows,
        directions=directions,
        of=where,
        sign=sign,
        diverse=diverse,
        diversity=diversity,
        starts=starts,
        steps=steps,
        size=climb.frame.size,
        prior=vars(climb.prior),
    )
    return made(climb, asked, where, at_least(starts, 1, "starts"), note)


@register(
    "maximize-class", rows=("D4",), paper="simonyan2014deep", needs="a network with class scores", kind="synthesis"
)
def maximize_class(
    net: Network,
    classes: int | str | Iterable[int | str] | None = None,
    *,
    prior: str | Prior = "l2",
    sign: int = 1,
    diverse: int = 1,
    diversity: float = 0.5,
    starts: int = 1,
    steps: int = 128,
    seed: int = 0,
) -> Superstimuli:
    r"""Make the images that the network gives the highest score of a class.

    .. math:: x^* = \arg\max_x \; S_c(x) - \lambda \|x - m\|^2

    S is the logit, since softmax would also be raised by lowering the other classes; m is the mean
    colour of the network's normalisation, and :math:`\lambda = 10 / (C H W)`: ten logits for a mean
    squared distance of one. ``prior=Prior(canvas="pixels", l2=..., relative=False)`` sets another one,
    ``"natural"`` makes images that look more like photographs [1]_.

    Parameters
    ----------
    net : Network
        The network.
    classes : int, str or iterable of either, optional
        Which classes, by index or name; default all.
    prior : str or Prior
        ``"l2"`` for the equation above, ``"natural"``, ``"strokes"``, ``"plain"``, ``"yosinski"`` or your own.
    sign, diverse, diversity, starts, steps, seed
        As for ``maximize``.

    Returns
    -------
    Superstimuli
        Class by class; ``activation`` is the logit.

    Raises
    ------
    InputError
        When a class does not exist or an option does not fit.

    Notes
    -----
    Cost: ``steps`` forward and backward passes of the whole network per image.
    What it does not show: what the class looks like. The score rises without bound far from all data.

    References
    ----------
    .. [1] Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks, 2014.
    """
    if isinstance(classes, int | str):
        classes = [classes]
    known = net.output_shape[-1]
    rows = chosen(None if classes is None else [net.class_index(name) for name in classes], known, "classes")
    names = [net.classes[row] if net.classes is not None else f"class {row}" for row in rows]
    asked = Asked("logits", rows, names, lambda of, sign: objectives.logit(rows, sign=sign))
    climb = Climb(
        net=net,
        objective=asked.make("mean", checked_sign(sign)),
        frame=whole(net),
        prior=prior_named(prior, net.input_shape[1:], net.input_shape[1:]),
        cuts=True,
        steps=at_least(steps, 1, "steps"),
        seed=seed,
        diverse=at_least(diverse, 1, "diverse"),
        contrast_layer=_last_map(net) if diverse > 1 else "logits",
        diversity=diversity,
    )
    note = provenance(
        net,
        "maximize-class",
        seed,
        classes=rows,
        prior=vars(climb.prior),
        sign=sign,
        diverse=diverse,
        diversity=diversity,
        starts=starts,
        steps=steps,
    )
    return made(climb, asked, "mean", at_least(starts, 1, "starts"), note)


def _last_map(net: Network) -> str:
    """The last layer with height and width, where textures are compared."""
    found = [name for name, layer in net.layers.items() if layer.spatial and layer.leaf and layer.axes.grid[0] > 1]
    return found[-1] if found else "logits"
