"""Interventions: a network in which some units are ablated, amplified or held at a value."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping

import torch

from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.trace.axes.unit_edits import Edit, edited, edits_of

__all__ = ["intervene"]

ByUnit = Mapping[str, Mapping[int, float]]  # layer -> unit -> number


def intervene(net: Network, *, scale: ByUnit | None = None, clamp: ByUnit | None = None) -> Network:
    r"""A network with some units changed at every position, for every method.

    .. math:: f_u'(x; i, j) = s_u \, f_u(x; i, j) \quad\text{or}\quad f_u'(x; i, j) = v_u

    All later layers read the changed value, and so do results: activations, scores, gradients,
    relevance and occlusion are those of the changed network.

    Parameters
    ----------
    net : Network
        The network; it is not changed. The weights are shared, not copied.
    scale : mapping
        ``{"conv2": {3: 0.0, 5: 2.0}}`` ablates unit 3 of conv2 and doubles unit 5 [1]_.
    clamp : mapping
        ``{"conv2": {7: 1.5}}`` holds unit 7 at 1.5 [2]_.

    Returns
    -------
    Network
        A network like ``net``; interventions can be combined. Its fingerprint differs from that of ``net``.

    Raises
    ------
    LayerError
        When a layer does not exist, has no units, or mixes images.
    InputError
        When a unit does not exist, a number is not finite, or a unit is scaled and clamped at once; when the model
        is scripted.

    Notes
    -----
    Cost: one multiplication, and one addition where units are clamped, in each edited layer of each pass. A clamped
    unit no longer depends on the image: its gradient and relevance end there. What it does not show:
    a network that was trained without the unit.

    References
    ----------
    .. [1] Morcos, Barrett, Rabinowitz, Botvinick. On the importance of single directions for
       generalization. ICLR 2018.
    .. [2] Bau et al. GAN dissection: visualizing and understanding generative adversarial networks. ICLR 2019.

    Examples
    --------
    >>> net = Network(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten()), (2, 1, 1))
    >>> x = torch.tensor([[[[0.25]], [[0.5]]]])
    >>> intervene(net, scale={"0": {1: 2.0}}, clamp={"0": {0: 3.0}}).logits(x)
    tensor([[3., 1.]])
    """
    edits = dict(edits_of(net.model))
    for layer in dict.fromkeys([*(scale or {}), *(clamp or {})]):
        name, edit = _edit(net, layer, (scale or {}).get(layer, {}), (clamp or {}).get(layer, {}))
        before = edits.get(name)
        edits[name] = edit if before is None else _after(before, edit)
    if not edits:
        return net
    changed = copy.copy(net)
    changed.model = edited(net.model, edits)
    changed._fingerprint = _digest(net.fingerprint, edits)
    return changed


def _edit(net: Network, layer: str, scale: Mapping[int, float], clamp: Mapping[int, float]) -> tuple[str, Edit]:
    found = net.layer(layer)
    if not found.units or found.axes.image_axis is None:
        raise LayerError(
            f'layer "{found.name}" ({found.kind}) has no separate values for each image, so units cannot be changed.'
        )
    factors, shifts = (
        torch.ones(found.units, dtype=torch.float64, device="cpu"),
        torch.zeros(found.units, dtype=torch.float64, device="cpu"),
    )
    for unit, number in [*scale.items(), *clamp.items()]:
        if not 0 <= int(unit) < found.units:
            raise InputError(f'unit {unit} does not exist: "{found.name}" has units 0 to {found.units - 1}.')
        if not math.isfinite(number):
            raise InputError(f'a finite number was expected for unit {unit} of "{found.name}", got {number}.')
    for unit, number in scale.items():
        factors[int(unit)] = float(number)
    for unit, number in clamp.items():
        if unit in scale:
            raise InputError(f'unit {unit} of "{found.name}" is both scaled and clamped; choose one.')
        factors[int(unit)], shifts[int(unit)] = 0.0, float(number)
    return found.name, Edit(found.axes, factors, shifts)


def _after(first: Edit, second: Edit) -> Edit:
    """One edit with the effect of two successive edits."""
    return Edit(first.axes, second.scale * first.scale, second.scale * first.shift + second.shift)


def _digest(fingerprint: str, edits: Mapping[str, Edit]) -> str:
    found = hashlib.sha256(fingerprint.encode())
    for name, edit in sorted(edits.items()):
        found.update(f"{name}:{edit.scale.tolist()}:{edit.shift.tolist()}".encode())
    return found.hexdigest()[:16]
