"""A smaller network as a result: the removed channels, the remaining weights, and how to rebuild it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from microtome.errors import InputError, ModelError
from microtome.network import Network
from microtome.option_types import checks_types
from microtome.results import Result
from microtome.surgery.attached_network import AttachedNetwork
from microtome.surgery.channels.channel_families import Channels
from microtome.surgery.channels.channel_map import channels_of
from microtome.surgery.channels.removal import without as cut
from microtome.surgery.channels.removal import wrapped
from microtome.training import checkpoints


@dataclass(frozen=True, eq=False, kw_only=True)
class SmallerNetwork(AttachedNetwork):
    """A network with fewer channels.

    Attributes
    ----------
    removed : list of list of int
        The removed channels of each step, with the numbers of ``surgery.channels`` for the network before the step.
    weights : dict of str to Tensor
        The state of the smaller model.
    widths : dict of str to list of int
        For each layer that lost channels: their number before and after.
    multiply_adds : list of float
        Multiply-adds for one image, before and after.
    parameters : list of int
        Number of weights before and after.
    """

    removed: list[list[int]]
    weights: dict[str, Tensor]
    widths: dict[str, list[int]]
    multiply_adds: list[float]
    parameters: list[int]

    @property
    def share(self) -> float:
        """The share of the multiply-adds that is left."""
        return self.multiply_adds[1] / max(self.multiply_adds[0], 1.0)

    def rebuild(self, net: Network) -> Network:
        """Rebuild the smaller network from the original network and the stored weights.

        Raises
        ------
        ModelError
            When it is another network.
        """
        return rebuilt(net, self.removed, self.weights)


def rebuilt(net: Network, removed: Sequence[Sequence[int]], weights: dict[str, Tensor]) -> Network:
    """Repeat the cuts on a network, and load the weights."""
    small = net
    try:
        for gone in removed:
            small = cut(small, channels_of(small.model, small.normalise(small.probe)), gone)
    except (InputError, ModelError, IndexError) as error:
        raise ModelError(f"this result belongs to another network than {net.name}: {error}") from error
    model = small.model if removed else cut(net, Channels([], {}, {}), []).model
    for name, value in weights.items():
        owner, _, key = name.rpartition(".")
        module = model.get_submodule(owner) if _has(model, owner) else None
        if key == "bias" and isinstance(module, nn.Conv2d | nn.Linear) and module.bias is None:
            module.bias = nn.Parameter(value.to(module.weight))  # added by a fit
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ModelError(f"these weights are of another network than {net.name}: {error}") from error
    return wrapped(net, model)


def _has(model: nn.Module, name: str) -> bool:
    return any(found == name for found, _ in model.named_modules())


def described(before: Network, channels: Channels, gone: Sequence[int], small: Network) -> dict[str, object]:
    """The fields of the result, for one step."""
    removed = torch.tensor(sorted(gone), dtype=torch.int64, device="cpu")
    widths: dict[str, list[int]] = {}
    for operation in channels.operations.values():
        lost = int(torch.isin(operation.made, removed).sum())
        if lost:
            widths[operation.owner or operation.name] = [len(operation.made), len(operation.made) - lost]
    return {
        "removed": [sorted(int(channel) for channel in gone)],
        "weights": checkpoints.state_of(small.model),
        "widths": widths,
        "multiply_adds": [channels.multiply_adds(), channels.multiply_adds(gone)],
        "parameters": [held(before.model), held(small.model)],
    }


def held(model: nn.Module) -> int:
    """Number of weights of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


@dataclass(frozen=True, eq=False, kw_only=True)
class Latency(Result, drawing="surgery.pruning_figures:latency"):
    """Time of a forward pass before and after, measured alternately.

    Attributes
    ----------
    before, after : float
        Median processor seconds of one pass.
    ratio : float
        Median of after / before over the turns.
    low, high : float
        The ratio's quartiles.
    images : int
        Images per pass.
    """

    before: float
    after: float
    ratio: float
    low: float
    high: float
    images: int

    @property
    def gain(self) -> bool:
        """Whether the smaller network is faster beyond the noise: in three quarters of the turns."""
        return self.high < 1.0


@checks_types
def latency(net: Network, small: Network, *, images: int = 8, turns: int = 15) -> Latency:
    """Time two networks alternately, in processor seconds, so that other work affects both equally.

    Parameters
    ----------
    net, small : Network
        The network before and after.
    images : int
        Images per pass.
    turns : int
        Pairs of passes.

    Raises
    ------
    InputError
        A number is below 1, or the networks take other images.
    """
    from microtome.results import provenance

    if images < 1 or turns < 1:
        raise InputError(f"at least one image and one pair of passes were expected, got {images} and {turns}.")
    if net.input_shape != small.input_shape:
        raise InputError(
            f"networks for images of one shape were expected, got {net.input_shape} and {small.input_shape}."
        )

    x = net.normalise(torch.full((images, *net.input_shape), 0.5, dtype=torch.float32, device=net.device))
    times: list[list[float]] = [[], []]
    with torch.no_grad():
        for turn in range(turns + 2):
            for column, one in enumerate((net, small)):
                mode = one.model.training
                one.model.eval()
                started = time.process_time() if x.device.type == "cpu" else time.perf_counter()
                one.model(x)
                if x.device.type == "cuda":
                    torch.cuda.synchronize(x.device)
                ended = time.process_time() if x.device.type == "cpu" else time.perf_counter()
                one.model.train(mode)
                if turn > 1:  # the first two warm up
                    times[column].append(ended - started)
    before, after = (torch.tensor(column, dtype=torch.float64, device="cpu") for column in times)
    ratio = after / before.clamp(min=1e-9)
    low, middle, high = (float(ratio.quantile(q)) for q in (0.25, 0.5, 0.75))
    return Latency(
        provenance=provenance(net, "latency", images=images, turns=turns),
        before=float(before.median()), after=float(after.median()), ratio=middle, low=low, high=high, images=images,
    )  # fmt: skip
