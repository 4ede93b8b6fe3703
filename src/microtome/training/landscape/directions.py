r"""Directions in the space of weights: random and filter-normalised, towards another network, along a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from microtome.errors import InputError, nearest
from microtome.network import Network
from microtome.option_types import checks_types
from microtome.training.image_losses import is_norm
from microtome.training.training_run import Run

__all__ = ["Direction", "PrincipalPlane", "check_direction", "principal", "random_direction", "state_of", "toward"]

# A displacement of parameters and floating buffers, by name, in float64; tensors without an entry stay.
Direction = Mapping[str, Tensor]

NORMALIZATIONS = ("filter", "layer", "none")
MOVES = ("fixed", "random")
_ON_LINE = 1e-6  # ratio of singular values below which the second direction is the rounding of weights


@checks_types
def random_direction(
    net: Network, *, seed: int = 0, normalization: str = "filter", biases: str = "fixed", norms: str = "fixed"
) -> dict[str, Tensor]:
    r"""A Gaussian direction whose filters have the norms of the network's own.

    .. math:: d_{i,j} \leftarrow \frac{d_{i,j}}{\lVert d_{i,j} \rVert_F} \lVert \theta_{i,j} \rVert_F

    for filter j of layer i [1]_: all weights that make one output channel of a convolution, one row of a linear
    layer, or one slice along the first axis of any other tensor. A direction does not contain running statistics.

    Parameters
    ----------
    net
        The network; all of its floating parameters have a direction, also those that were not trained.
    seed
        Random seed; numbers are drawn on the CPU, so that every device gets the same direction.
    normalization
        ``"filter"``; ``"layer"``, one norm for each tensor; ``"none"``, plain Gaussians.
    biases, norms
        ``"fixed"``: zero for biases (all parameters with one axis) and for weights and biases of normalisation
        layers, as in the paper's figures. ``"random"``: Gaussian with the norm of the whole tensor, or plain where
        the normalisation is ``"none"``.

    Raises
    ------
    InputError
        An option is not one of these words, or no parameter moves.

    References
    ----------
    .. [1] H. Li, Z. Xu, G. Taylor, C. Studer, T. Goldstein. Visualizing the loss landscape of neural nets.
       NeurIPS 2018.
    """
    for word, known, option in (
        (normalization, NORMALIZATIONS, "normalization"),
        (biases, MOVES, "biases"),
        (norms, MOVES, "norms"),
    ):
        if word not in known:
            raise InputError(f'{option} must be one of {", ".join(known)}; got "{word}".')
    generator = torch.Generator().manual_seed(seed)
    owners = _owners(net.model)
    found = {}
    for name, parameter in net.model.named_parameters():
        if not parameter.is_floating_point():
            continue
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64, device="cpu")
        weight = parameter.detach().to("cpu", torch.float64)
        if is_norm(owners[name]):
            kind, fixed = "layer", norms == "fixed"
        elif weight.dim() < 2:
            kind, fixed = "layer", biases == "fixed"
        else:
            kind, fixed = normalization, False
        if fixed:
            continue
        found[name] = drawn if normalization == "none" else _scaled(drawn, weight, owners[name], kind)
    if not found:
        still = "its parameters are biases, belong to norms or are not real" if owners else "it has none"
        raise InputError(
            f"the network has no weights that a direction could move: {still}. "
            'Move biases and norms with biases="random" and norms="random", or give a network with weights.'
        )
    return found


@checks_types
def toward(net: Network, other: Network) -> dict[str, Tensor]:
    """The direction to another network of the same architecture: all parameters and running statistics.

    In float64, so that the network plus the direction is the other network to the last bit.

    Raises
    ------
    InputError
        The networks have other parameters, or parameters of other shapes.
    """
    here, there = state_of(net.model), state_of(other.model)
    differing = [name for name in {**here, **there} if _shape(here, name) != _shape(there, name)]
    if differing:
        name = differing[0]
        raise InputError(
            f"two networks of one architecture were expected; {len(differing)} tensors differ, for example "
            f'"{name}", which is {_shape(here, name)} in the first and {_shape(there, name)} in the second.'
        )
    return {name: there[name] - here[name] for name in here}


@dataclass(frozen=True)
class PrincipalPlane:
    """The first two principal directions of a training.

    Attributes
    ----------
    directions : tuple of two directions
        Of length 1, orthogonal.
    epochs : Tensor
        (T,) epochs of the stored weights.
    path : Tensor
        (T, 2), coordinates in the plane, which passes through the network.
    explained : Tensor
        (2,), shares of the squared distances from the network.
    distance : Tensor
        (T,), distance of each from the plane.
    off_plane : float
        Share of the path's length that the plane does not show: 1 minus projected length over true length.
    """

    directions: tuple[dict[str, Tensor], dict[str, Tensor]]
    epochs: Tensor
    path: Tensor
    explained: Tensor
    distance: Tensor
    off_plane: float


@checks_types
def principal(net: Network, run: Run) -> PrincipalPlane:
    """The first two principal directions of a run's weights, relative to the network [1]_.

    The differences of all stored weights from the network's are decomposed without centring, so that the plane passes
    through the network. Running statistics are left out.

    Raises
    ------
    InputError
        Fewer than two weights are stored besides the network's own, they lie on one line through it, or they are of
        another architecture.

    References
    ----------
    .. [1] H. Li et al. Visualizing the loss landscape of neural nets. NeurIPS 2018, section 7.
    """
    theta = {n: p.detach().to("cpu", torch.float64) for n, p in net.model.named_parameters() if p.is_floating_point()}
    rows = []
    for epoch in run.checkpoints:
        kept = run.weights(epoch)
        wrong = [name for name, value in theta.items() if _shape(kept, name) != tuple(value.shape)]
        if wrong:
            raise InputError(
                f'the run is of another network: "{wrong[0]}" is {tuple(theta[wrong[0]].shape)} here and '
                f"{_shape(kept, wrong[0])} in epoch {epoch}."
            )
        rows.append(torch.cat([(kept[name].double() - value).flatten() for name, value in theta.items()]))
    apart = [row for row in rows if bool(row.any())]
    if len(apart) < 2:
        raise InputError(
            f"a plane needs two stored weights besides the network's own; the run has {len(apart)}. "
            "Train with out= and more epochs in keep=."
        )
    X = torch.stack(rows)
    _, S, Vh = torch.linalg.svd(X, full_matrices=False)
    if len(S) < 2 or float(S[1]) <= _ON_LINE * float(S[0]):
        raise InputError(
            "a plane needs weights that do not lie on one line through the network's own, and those of the run do. "
            "Draw the loss on that line: landscape.between(net, other, dataset) with the network of an epoch."
        )
    V = Vh[:2].T
    path = X @ V
    steps = X.diff(dim=0)
    drawn, true = path.diff(dim=0).norm(dim=1).sum(), steps.norm(dim=1).sum()
    hidden = float(1 - drawn / true.clamp(min=1e-300))
    first, second = (_unflattened(V[:, place], theta) for place in (0, 1))
    return PrincipalPlane(
        (first, second),
        torch.tensor(run.checkpoints, device="cpu"),
        path,
        S[:2].square() / S.square().sum(),
        (X - path @ V.T).norm(dim=1),
        hidden if hidden > 1e-12 else 0.0,  # smaller values are rounding errors of either sign
    )


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the floating parameters and buffers in float64 on the processor."""
    named = (*model.named_parameters(), *model.named_buffers())
    return {n: v.detach().to("cpu", torch.float64, copy=True) for n, v in named if v.is_floating_point()}


def check_direction(direction: Direction, state: Mapping[str, Tensor]) -> None:
    """Refuse a direction that does not fit a network's tensors.

    Parameters
    ----------
    direction
        The direction.
    state
        The floating parameters and buffers of the network by name.

    Raises
    ------
    InputError
        It is empty, or one of its tensors has another name, shape or type, or holds NaN or infinity.
    """
    if not direction:
        raise InputError("a direction of tensors by the names of the weights was expected, got one without tensors.")
    given: Mapping[str, Any] = direction
    for name, value in given.items():
        if name not in state:
            raise InputError(
                f'a direction holds "{name}", and the network has no such tensor. Nearest: {nearest(str(name), state)}.'
            )
        shape = tuple(state[name].shape)
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            came = tuple(value.shape) if isinstance(value, Tensor) else f"an object of type {type(value).__name__}"
            raise InputError(f'a tensor of shape {shape} was expected for "{name}" in a direction, got {came}.')
        if value.is_complex() or not bool(value.isfinite().all()):
            raise InputError(f'the direction of "{name}" must be real and finite; it holds other values.')


def filters(weight: Tensor, module: nn.Module) -> Tensor:
    """A weight with one row for each filter; a view or a copy, for norms."""
    if _transposed(module, weight):  # (inputs, outputs / groups)
        apart = weight.unflatten(0, (module.groups, -1)).transpose(1, 2)
        weight = apart.flatten(0, 1)
    return weight.flatten(1)


def _transposed(module: nn.Module, weight: Tensor) -> TypeGuard[_ConvTransposeNd]:
    """Whether a weight is that of a transposed convolution, whose first axis are the inputs."""
    return isinstance(module, _ConvTransposeNd) and len(weight) == module.in_channels


def _scaled(drawn: Tensor, weight: Tensor, module: nn.Module, kind: str) -> Tensor:
    if kind == "none":
        return drawn
    scale: Tensor
    if kind == "layer":
        scale = torch.linalg.vector_norm(weight) / torch.linalg.vector_norm(drawn).clamp(min=1e-300)
        return drawn * scale
    its, own = (torch.linalg.vector_norm(filters(value, module), dim=1) for value in (weight, drawn))
    scale = its / own.clamp(min=1e-300)
    axes = [1] * (drawn.dim() - 1)
    if _transposed(module, weight):
        rows = scale.unflatten(0, (module.groups, -1))[:, None].expand(-1, len(drawn) // module.groups, -1)
        scale = rows.reshape(len(drawn), -1, *axes[1:])
        return drawn * scale
    scale = scale.view(-1, *axes)
    return drawn * scale


def _owners(model: nn.Module) -> dict[str, nn.Module]:
    """The module that each parameter is for, by the parameter's name; that of a parametrised weight is its layer."""
    parts = dict(model.named_modules())
    found = {}
    for name, _ in model.named_parameters():
        holder, _, own = name.rpartition(".")
        layer, parametrised, _ = f".{holder}".rpartition(".parametrizations.")
        found[name] = parts[layer.removeprefix(".") if parametrised and own.startswith("original") else holder]
    return found


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None


def _unflattened(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    parts = vector.split([value.numel() for value in like.values()])
    return {name: part.view(value.shape) for part, (name, value) in zip(parts, like.items(), strict=True)}
