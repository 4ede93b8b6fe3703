"""The inverse of a network, layer by layer, from class scores to images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, stated
from microtome.spaces.inversion.inverse_steps import Inverse, NoInverse, inverse_of
from microtome.spaces.inversion.newton import refined, rounding
from microtome.spaces.inversion.sequence import Step, chain
from microtome.spaces.operators.linear_layer import in_double
from microtome.tables import Table

_NOTE = (
    "inverse: exact, or of the part in the layer's signal space, or none. condition: largest divided by smallest "
    "singular value; errors grow by up to this factor."
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Invertibility(Result, drawing="spaces.inverse_figures:invertibility"):
    """Which layers are invertible, and the reasons for the others.

    Attributes
    ----------
    layers : list of dict
        In the order they run: ``name``, ``kind``, ``invertible``, ``exact`` (every input comes back for certain, not
        only its signal part), ``why``, ``rank``, ``condition_number`` (None if it was not computed).
    invertible : bool
        Whether all layers are invertible, so that ``invert_outputs`` works.
    exact : bool
        Whether every image comes back, not only its signal part.
    """

    layers: list[dict[str, Any]]
    invertible: bool
    exact: bool

    def table(self) -> Table:
        """One row per layer: whether it is invertible, its condition number, and the reason if it is not."""
        return _table(self.layers)


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkInverse(Result, drawing="spaces.inverse_figures:network_inverse"):
    """Images found from outputs, and how well.

    Attributes
    ----------
    images : Tensor
        (N, C, H, W) float64 in pixel space, not cut to the pixel range; NaN if ``valid`` is False.
    valid : Tensor
        (N,): whether all values stayed in the range of every activation on the way back.
    error : Tensor
        (N,): ``|f(image) - output| / |output|``, by running the network forwards on what was found.
    rounding : Tensor
        (N,): by how much, of its length, an image is uncertain because the network's values are rounded to float64:
        half a unit in the last place at every layer, followed back. It grows with the condition numbers; errors
        come out between this and some tens of times this. Zero if only signal parts come back, NaN if
        not ``valid``.
    layers : list of dict
        As in ``Invertibility``, with ``outside`` (how many images left the activation's range there) and,
        where true images were given, ``error``: median relative distance to their true activations.
    """

    images: Tensor
    valid: Tensor
    error: Tensor
    rounding: Tensor
    layers: list[dict[str, Any]]

    def table(self) -> Table:
        """One row per layer: whether it is invertible, its condition number, and the reason if it is not."""
        return _table(self.layers)


@register("invertibility", rows=("A6",), paper="pattichis2024spaces", kind="spaces")
def invertibility(net: Network) -> Invertibility:
    """For every operation from the image to the class scores: whether it is invertible.

    Parameters
    ----------
    net : Network
        The network.

    Returns
    -------
    Invertibility

    Raises
    ------
    ModelError
        When the model raises.

    Notes
    -----
    Cost: one SVD for each Linear layer and each small convolution. What a layer reads beside the one before
    (a residual add) is said to have no inverse; it does not show over which range of outputs an inverse exists.

    References
    ----------
    .. [1] R. Pattichis, M. S. Pattichis. Understanding neural network systems for image analysis using vector
       spaces and inverse maps. SSIAI 2024.

    Examples
    --------
    >>> from torch import nn
    >>> net = Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU()), input_shape=(1, 2, 2))
    >>> invertibility(net).invertible
    False
    """
    exact = in_double(net)
    probe = exact.probe.double()
    rows = [_row(step, inverse_of(exact, step)) for step in chain(exact, probe)]
    return Invertibility(
        layers=rows,
        invertible=all(row["invertible"] for row in rows),
        exact=all(row["exact"] for row in rows),
    )


@register("invert-outputs", rows=("A6",), paper="pattichis2024spaces", needs="invertible activations", kind="spaces")
def invert_outputs(
    net: Network,
    outputs: Tensor,
    *,
    beside: Tensor | None = None,
    truth: Tensor | None = None,
    strict: bool = True,
) -> NetworkInverse:
    r"""Invert a network layer by layer: from class scores to an image. Also named ``spaces.invert``.

    .. math:: x_s = W^+\,(f^{-1}(y) - b)

    Parameters
    ----------
    net : Network
        A network that is one chain of layers, with invertible activations.
    outputs : Tensor
        (N, K) class scores (before a closing softmax).
    beside : Tensor, optional
        (N, C, H, W) or (1, C, H, W): where a layer rejects part of its input, take that part from this image's
        own activation instead of leaving it zero.
    truth : Tensor, optional
        (N, C, H, W) images that gave these outputs: the report then holds the error at every layer.
    strict : bool
        Whether an output outside the range of an activation is an error; otherwise that image is NaN and
        marked in ``valid``.

    Returns
    -------
    NetworkInverse

    Raises
    ------
    LayerError
        When a layer is not invertible; the message names it and gives the reason.
    InputError
        When the outputs have the wrong shape, or leave the range of an activation.

    Notes
    -----
    All in float64. Exact where widths do not shrink; where they do, W^+ gives the shortest of all
    inputs with that output, whose values may leave the range of the activation before it. Errors
    grow by up to the product of the condition numbers; Newton's method on the whole network then takes back
    those that the layers' inverses made. What is left is ``rounding``: the forward pass had it already.

    References
    ----------
    .. [1] R. Pattichis, M. S. Pattichis. Understanding neural network systems for image analysis using vector
       spaces and inverse maps. SSIAI 2024.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 6), torch.nn.SELU(), torch.nn.Linear(6, 8))
    >>> net = Network(model.double(), (1, 2, 2))
    >>> x = torch.rand(3, 1, 2, 2, dtype=torch.float64)
    >>> bool((invert_outputs(net, net.logits(x)).images - x).abs().max() < 1e-9)
    True
    """
    exact = in_double(net)
    outputs = torch.as_tensor(outputs, device=exact.probe.device)
    y = _outputs(net, outputs)
    steps = chain(exact, exact.probe.double())
    inverses = [_required(step, inverse_of(exact, step)) for step in steps]
    lent = _activations(exact, beside, len(y), "beside")
    true = _activations(exact, truth, len(y), "truth")
    valid = torch.ones(len(y), dtype=torch.bool, device=y.device)
    rows: list[dict[str, Any]] = []
    for place in reversed(range(len(steps))):
        step, inverse = steps[place], inverses[place]
        inside = inverse.inside(y)
        left = valid & ~inside
        if strict and bool(left.any()):
            raise InputError(_outside(step, inverse, y, left))
        valid = valid & inside
        y = inverse.undo(y, None if lent is None else lent[place])
        y[~valid] = math.nan
        row = _row(step, inverse) | {"outside": int(left.sum())}
        if true is not None:
            row["error"] = _median_error(y[valid], true[place][valid])
        rows.append(row)
    images = _pixels(exact, y)
    doubt = images.new_zeros(len(images))
    doubt[~valid] = math.nan
    if all(inverse.exact for inverse in inverses) and bool(valid.any()):
        images[valid] = refined(exact, inverses, images[valid], outputs[valid].double())
        doubt[valid] = rounding(exact, inverses, images[valid])
    return NetworkInverse(
        provenance=stated(beside=beside is not None),
        images=images,
        valid=valid,
        error=_forward_error(exact, images, outputs.double(), valid),
        rounding=doubt,
        layers=rows[::-1],
    )


def _outputs(net: Network, outputs: Tensor) -> Tensor:
    if outputs.dim() != 2 or tuple(outputs.shape[1:]) != net.output_shape or not bool(torch.isfinite(outputs).all()):
        wanted = ", ".join(map(str, net.output_shape))
        raise InputError(f"finite outputs of shape (N, {wanted}) were expected, got {tuple(outputs.shape)}.")
    return outputs.detach().double().clone()


def _required(step: Step, inverse: Inverse | NoInverse) -> Inverse:
    if isinstance(inverse, NoInverse):
        raise LayerError(
            f'"{step.name}" cannot be undone: {inverse.reason}. `microtome invertibility`, or '
            "spaces.invertibility(net).table(), lists all layers; for such networks see spaces.linear_region and "
            "spaces.ideal_inputs."
        )
    return inverse


def _activations(net: Network, images: Tensor | None, count: int, what: str) -> list[Tensor] | None:
    """What each step reads for the given images, one for each output."""
    if images is None:
        return None
    if len(images) not in (1, count):
        raise InputError(f"{what} needs {count} images, one for each output, or one for all; got {len(images)}.")
    reads = [step.reads for step in chain(net, images.double())]
    return [value.expand(count, *value.shape[1:]) for value in reads]


def _pixels(net: Network, x: Tensor) -> Tensor:
    """Undo the normalisation."""
    mean, std = (x.new_tensor(value)[:, None, None] for value in (net.mean, net.std))
    return x.reshape(-1, *net.input_shape) * std + mean


def _outside(step: Step, inverse: Inverse, y: Tensor, left: Tensor) -> str:
    first = int(left.nonzero()[0])
    low, high = (float(edge) for edge in torch.aminmax(y[first]))
    return (
        f'{int(left.sum())} of {len(y)} outputs cannot come out of "{step.name}": values in {inverse.range} were '
        f"expected, output {first} needs values from {low:.6g} to {high:.6g}. "
        "Give outputs that the network can make, or strict=False to mark such outputs and go on with the others."
    )


def _forward_error(net: Network, images: Tensor, outputs: Tensor, valid: Tensor) -> Tensor:
    error = outputs.new_full((len(outputs),), math.nan, dtype=torch.float64)
    if bool(valid.any()):
        again = net.logits(images[valid], check=False).double()
        size = outputs[valid].norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
        error[valid] = (again - outputs[valid]).norm(dim=1) / size
    return error


def _median_error(found: Tensor, true: Tensor) -> float | None:
    if not len(found):
        return None
    size = true.flatten(1).norm(dim=1).clamp(min=torch.finfo(torch.float64).tiny)
    return float(((found - true).flatten(1).norm(dim=1) / size).median())


def _row(step: Step, inverse: Inverse | NoInverse) -> dict[str, Any]:
    if isinstance(inverse, NoInverse):
        return {
            "name": step.name,
            "kind": step.call.kind,
            "invertible": False,
            "exact": False,
            "why": inverse.reason,
            "rank": 0,
            "condition_number": None,
        }
    reads = math.prod(step.reads.shape[1:])
    why = (
        "" if inverse.exact else f"gives the part in its signal space only: {inverse.rank or '?'} of {reads} directions"
    )
    if not inverse.proved:
        why = "has as many outputs as inputs or more; too large to be decomposed, so that its rank is not known"
    number = inverse.condition_number
    return {
        "name": step.name,
        "kind": step.call.kind,
        "invertible": True,
        "exact": inverse.exact and inverse.proved,
        "why": why,
        "rank": inverse.rank,
        "condition_number": None if math.isnan(number) else number,
    }


def _table(rows: list[dict[str, Any]]) -> Table:
    cells = []
    for row in rows:
        known = "signal part" if row["rank"] else "not known"
        state = "exact" if row["exact"] else known if row["invertible"] else "no"
        error, outside = row.get("error"), row.get("outside")
        cells.append((row["name"], row["kind"], state, row["condition_number"], row["why"], error, outside or None))
    return Table(("layer", "kind", "inverse", "condition", "why", "error", "outside its range"), tuple(cells), _NOTE)
