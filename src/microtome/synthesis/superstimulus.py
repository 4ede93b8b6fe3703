"""What does a unit, a neuron, a direction or a class want to see most? Images made by gradient ascent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Provenance, Result, provenance
from microtome.synthesis import objectives
from microtome.synthesis.ascent import Climb
from microtome.synthesis.frame import around, centred, chunk_size, recommended_size, whole
from microtome.synthesis.objectives import Objective, Where
from microtome.synthesis.priors import Prior, prior_named


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Superstimuli(Result):
    """Images that excite units most.

    Attributes
    ----------
    images : Tensor
        (n, C, h, w) in the network's pixel range; the images of one unit follow each other.
    activation : Tensor
        (n,) what was maximised, reached by the image at rest in the middle of a picture of the
        network's size, over the positions centred on it. For ``sign=-1`` this is the low value reached.
    peak, mean : Tensor
        (n,) the largest (for ``sign=-1`` the smallest) and the mean value over the same positions: the
        same measure as the activation of a patch of data.
    history : Tensor
        (steps, n) the objective during the ascent, as seen under motion.
    channel, variant : Tensor
        (n,) which channel or class (row of ``directions``), and which of its diverse images.
    layer : str
        The layer; ``"logits"`` for classes.
    sign : int
        1, or -1 for images that lower the unit most.
    names : list of str
        What each image is of.
    """

    images: Tensor
    activation: Tensor
    peak: Tensor
    mean: Tensor
    history: Tensor
    channel: Tensor
    variant: Tensor
    layer: str
    sign: int
    names: list[str]

    def of(self, channel: int) -> Tensor:
        """The images of one channel or class, (diverse, C, h, w).

        Raises
        ------
        InputError
            When it is not among them.
        """
        found = self.images[self.channel == channel]
        if not len(found):
            raise InputError(f"channel {channel} is not here; there are {sorted(set(self.channel.tolist()))}.")
        return found


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
    steps: int = 256,
    size: int | tuple[int, int] | None = None,
    prior: str | Prior | None = None,
    seed: int = 0,
) -> Superstimuli:
    r"""Make the images that units of a layer answer most.

    .. math:: x^* = \arg\max_x \; \pm A_c(x) - |A_c| \sum_r \lambda_r R_r(x)

    with A the channel's mean over positions, its largest value or one neuron. The ascent runs on a
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
        One neuron (i, j) of each channel's map; default ``of`` over all positions.
    of : str
        ``"mean"``, ``"max"`` or ``"center"``.
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
        Canvas in pixels. Default: the whole picture where it is small or the layer looks at all of
        it, otherwise twice the receptive field, at most 128.
    prior : str or Prior, optional
        ``"natural"``, ``"strokes"``, ``"l2"``, ``"yosinski"`` or your own. Default: by picture size.
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

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, -2.0, 3.0, -4.0]]))
    >>> net = Network(model, input_shape=(1, 2, 2))
    >>> maximize(net, "1", prior=Prior(canvas="pixels", rate=0.1), steps=64).images.flatten()
    tensor([1., 0., 1., 0.])
    """
    asked = _asked(net, layer, channels, directions)
    where = _where(net, layer, of, position)
    local = where
    if isinstance(where, tuple):
        place, local = around(net, layer, where, size)
    else:
        place = centred(net, layer, recommended_size(net, layer) if size is None else size)
    climb = Climb(
        net=net,
        objective=asked.make(local, _sign(sign)),
        frame=place,
        prior=prior_named(prior, net.input_shape[1:]),
        cuts=not isinstance(where, tuple),
        steps=_at_least(steps, 1, "steps"),
        seed=seed,
        diverse=_at_least(diverse, 1, "diverse"),
        contrast_layer=layer,
        diversity=diversity,
    )
    made = provenance(
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
    return _made(climb, asked, where, _at_least(starts, 1, "starts"), made)


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
    steps: int = 256,
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
        ``"l2"`` for the equation above, ``"natural"``, ``"strokes"``, ``"yosinski"`` or your own.
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
    rows = _chosen(None if classes is None else [net.class_index(name) for name in classes], known, "classes")
    names = [net.classes[row] if net.classes is not None else f"class {row}" for row in rows]
    asked = _Asked("logits", rows, names, lambda of, sign: objectives.logit(rows, sign=sign))
    climb = Climb(
        net=net,
        objective=asked.make("mean", _sign(sign)),
        frame=whole(net),
        prior=prior_named(prior, net.input_shape[1:]),
        cuts=True,
        steps=_at_least(steps, 1, "steps"),
        seed=seed,
        diverse=_at_least(diverse, 1, "diverse"),
        contrast_layer=_last_map(net) if diverse > 1 else "logits",
        diversity=diversity,
    )
    made = provenance(
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
    return _made(climb, asked, "mean", _at_least(starts, 1, "starts"), made)


@dataclass(frozen=True)
class _Asked:
    """Problems of one kind: their rows, their names, and the objective for a reduction over positions."""

    layer: str
    rows: list[int]
    names: list[str]
    make: Callable[[Where, int], Objective]


def _asked(net: Network, layer: str, channels: int | Iterable[int] | None, directions: Tensor | None) -> _Asked:
    found = net.layer(layer)
    if len(found.shape) not in (1, 2, 3):
        raise LayerError(f'layer "{layer}" has shape {found.shape}; maps, tokens or neurons were expected.')
    if directions is None:
        rows = _chosen(channels, found.units, f'channels of layer "{layer}"')
        names = [f"{layer}:{row}" for row in rows]
        return _Asked(layer, rows, names, lambda of, sign: objectives.channel(layer, rows, of=of, sign=sign))
    if channels is not None:
        raise InputError("give channels or directions, not both.")
    if directions.dim() not in (1, 2) or directions.shape[-1] != found.units:
        raise InputError(f"directions of shape (n, {found.units}) were expected, got {tuple(directions.shape)}.")
    count = len(torch.atleast_2d(directions))
    names = [f"{layer}, direction {row}" for row in range(count)]
    vectors = directions
    return _Asked(
        layer, list(range(count)), names, lambda of, sign: objectives.direction(layer, vectors, of=of, sign=sign)
    )


def _where(net: Network, layer: str, of: str | None, position: tuple[int, ...] | None) -> Where:
    """What is read off a unit's map: as asked, or by the size of the picture."""
    if position is not None:
        if of is not None:
            raise InputError("give of or position, not both.")
        return tuple(int(at) for at in position)
    found = net.layer(layer)
    if of is None:
        of = "center" if max(net.input_shape[1:]) <= 64 else "positive"
    if of == "center" and found.spatial:
        return found.shape[1] // 2, found.shape[2] // 2
    return of


def _made(climb: Climb, asked: _Asked, where: Where, starts: int, made: Provenance) -> Superstimuli:
    """Climb chunk by chunk, keep the best start of every row, and measure at rest."""
    per_chunk = max(1, chunk_size(climb.net, climb.objective.layers, climb.frame.window) // climb.diverse)
    sign = int(made.parameters["sign"])
    measures = {"activation": where, "peak": "max", "mean": "mean"}
    parts: list[dict[str, Tensor]] = []
    for rows in torch.arange(len(asked.rows), device=climb.net.device).split(per_chunk):
        rows = rows.repeat_interleave(climb.diverse)
        images, history = _best(climb, rows, asked.make(where, sign), starts)
        measured = {key: sign * climb.reached(images, rows, asked.make(how, sign)) for key, how in measures.items()}
        parts.append({"images": images, "history": history.T, **measured})
    joined = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    return Superstimuli(
        provenance=made,
        images=joined["images"],
        activation=joined["activation"],
        peak=joined["peak"],
        mean=joined["mean"],
        history=sign * joined["history"].T,
        channel=torch.tensor(asked.rows).repeat_interleave(climb.diverse),
        variant=torch.arange(climb.diverse).repeat(len(asked.rows)),
        layer=asked.layer,
        sign=sign,
        names=[name for name in asked.names for _ in range(climb.diverse)],
    )


def _best(climb: Climb, rows: Tensor, measure: Objective, starts: int) -> tuple[Tensor, Tensor]:
    """Per row the start whose images reach most at rest, diverse images taken together."""
    images, history = climb.run(rows, 0)
    best = climb.reached(images, rows, measure)
    for start in range(1, starts):
        others, seen = climb.run(rows, start)
        reached = climb.reached(others, rows, measure)
        gained = (reached - best).view(-1, climb.diverse).mean(1) > 0
        better = gained.repeat_interleave(climb.diverse)
        images = torch.where(better[:, None, None, None], others, images)
        history = torch.where(better, seen, history)
        best = torch.where(better, reached, best)
    return images, history


def _chosen(asked: int | Iterable[int] | None, count: int, what: str) -> list[int]:
    rows = list(range(count)) if asked is None else [asked] if isinstance(asked, int) else [int(row) for row in asked]
    if not rows:
        raise InputError(f"no {what} were asked for; give at least one.")
    wrong = [row for row in rows if not 0 <= row < count]
    if wrong:
        raise InputError(f"{what} are 0 to {count - 1}, got {wrong[:5]}.")
    return rows


def _sign(sign: int) -> int:
    if sign not in (1, -1):
        raise InputError(f"sign is 1 or -1, got {sign}.")
    return sign


def _at_least(value: int, least: int, what: str) -> int:
    if value < least:
        raise InputError(f"{what} is at least {least}, got {value}.")
    return value


def _last_map(net: Network) -> str:
    """The last layer with height and width, where textures are compared."""
    found = [name for name, layer in net.layers.items() if layer.spatial and layer.leaf and layer.shape[1] > 1]
    return found[-1] if found else "logits"
