"""Many small fully connected networks trained in one batch, each as if it were trained alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from microtome.batch_sizes import check_count
from microtome.errors import InputError, ModelError
from microtome.option_types import checks_types
from microtome.progress import Clock, Listener
from microtome.results import Provenance, Result, versions
from microtome.training.information.binary_task import Patterns

__all__ = ["NetworkRuns", "log_spaced", "train_networks"]

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu}


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkRuns(Result, drawing="training.information_figures:networks"):
    """The record of training many networks: weights at checkpoints, curves, gradient statistics.

    Attributes
    ----------
    epochs : Tensor
        (E,) the epochs of the checkpoints, from 0, the first weights.
    weights, biases : list of Tensor
        For each layer (E, R, units, inputs) and (E, R, units), R networks.
    activation : str
        Of the hidden layers; the output is a softmax.
    inputs, labels : Tensor
        (N, d) and (N,): all patterns of the task.
    exhaustive : bool
        Whether these are all inputs that exist.
    trained_on : Tensor
        (R, n) indices of each network's training patterns.
    loss, error, test_error : Tensor
        (E, R) cross-entropy in nats and share of wrong answers on the training patterns, and that share on the other
        patterns; NaN if there are none.
    gradient_mean, gradient_std : Tensor
        (E, R, layers) norm of the mean and of the standard deviation of the weight gradients over the steps of the
        epoch, both over the norm of the weights; NaN at epoch 0.
    """

    epochs: Tensor
    weights: list[Tensor]
    biases: list[Tensor]
    activation: str
    inputs: Tensor
    labels: Tensor
    exhaustive: bool
    trained_on: Tensor
    loss: Tensor
    error: Tensor
    test_error: Tensor
    gradient_mean: Tensor
    gradient_std: Tensor

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each layer, the output last."""
        return tuple(bias.shape[-1] for bias in self.biases)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers: ``hidden1`` and so on, ``output``."""
        return (*(f"hidden{place + 1}" for place in range(len(self.biases) - 1)), "output")

    @property
    def gap(self) -> Tensor:
        """(E, R) the generalisation error: share of wrong answers on the other patterns minus that in training."""
        return self.test_error - self.error

    def states(self, checkpoint: int) -> list[Tensor]:
        """Each layer's values for all patterns at a checkpoint, (R, N, units); the output's are probabilities."""
        weights = [weight[checkpoint] for weight in self.weights]
        biases = [bias[checkpoint] for bias in self.biases]
        inputs = self.inputs.T.expand(len(weights[0]), -1, -1)
        *hidden, scores = _forward(inputs, weights, biases, self.activation)
        return [values.transpose(1, 2) for values in (*hidden, scores.softmax(1))]


def log_spaced(epochs: int, checkpoints: int = 100) -> list[int]:
    """Epochs from 0 to the last, evenly spaced on a logarithmic scale; fewer if some coincide.

    Raises
    ------
    InputError
        Fewer than two checkpoints are wanted, which the first and the last epoch are.

    Examples
    --------
    >>> log_spaced(100, 6)
    [0, 1, 3, 10, 32, 100]
    """
    if checkpoints < 2:
        raise InputError(f"at least two checkpoints were expected, the first and the last; got {checkpoints}.")
    steps = checkpoints - 2
    spaced = {round(epochs ** (step / steps)) for step in range(steps + 1)} if steps else set()
    return sorted({0, *spaced, epochs})


@checks_types
def train_networks(
    task: Patterns,
    *,
    hidden: Sequence[int] = (10, 7, 5, 4, 3),
    activation: str = "tanh",
    networks: int = 50,
    epochs: int = 8000,
    checkpoints: int = 100,
    share: float = 0.85,
    batch: int = 512,
    lr: float = 4e-4,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Listener | None = None,
) -> NetworkRuns:
    r"""Train many networks of one shape on a task at once by Adam and cross-entropy.

    The networks differ in their initial weights, their training patterns and the order of these. Network r
    draws all three from the seed ``seed + r``: it ends with the weights that it would have if trained alone, up to
    rounding. One layer of all networks is one batched product.

    Parameters
    ----------
    task : Patterns
        Inputs and labels, for example :func:`twelve_bits`.
    hidden : sequence of int
        Units of the hidden layers.
    activation : str
        ``"tanh"`` or ``"relu"``. Initial weights are normal, truncated at two deviations, with deviation
        1/sqrt(inputs); initial biases are 0.
    networks, epochs, batch, lr
        Number of networks, number of epochs, patterns per step, learning rate of Adam.
    checkpoints : int
        Maximum number of checkpoints, evenly spaced on a logarithmic scale of epochs, with epoch 0.
    share : float
        Share of the patterns used to train each network.
    seed : int
        Of the first network.
    device
        Device of the training; random numbers are drawn on the CPU.
    progress
        Called after each epoch.

    Returns
    -------
    NetworkRuns

    Raises
    ------
    InputError
        A value is out of range, or the task has only one class.
    ModelError
        The loss is not finite.

    Notes
    -----
    Cost: about 8 ms per step of 50 networks and 512 patterns on one core, 7 steps per epoch.
    """
    _check(task, hidden, activation, networks, epochs, share, batch)
    if not 0 < lr < float("inf"):
        raise InputError(f"a positive learning rate was expected, got {lr}.")
    device = torch.device(device)
    inputs, labels = task.inputs.float().to(device), task.labels.to(device)
    generators = [torch.Generator().manual_seed(seed + network) for network in range(networks)]
    sizes = [inputs.shape[1], *hidden, int(labels.max()) + 1]
    weights = [_first(generators, a, b).to(device).requires_grad_() for a, b in itertools.pairwise(sizes)]
    biases = [torch.zeros(networks, size, dtype=torch.float32, device=device).requires_grad_() for size in sizes[1:]]
    count = max(1, round(share * len(task)))
    shuffled = torch.stack([torch.randperm(len(task), generator=generator, device="cpu") for generator in generators])
    training, rest = shuffled[:, :count].to(device), shuffled[:, count:].to(device)
    optimizer = torch.optim.Adam([*weights, *biases], lr)
    kept = _Kept(weights, biases)
    clock = Clock(progress, epochs)
    wanted = set(log_spaced(epochs, checkpoints))

    def keep(statistics: list[tuple[Tensor, Tensor]] | None) -> None:
        with torch.no_grad():
            scores = _forward(inputs.T.expand(networks, -1, -1), weights, biases, activation)[-1]
        kept.add(scores, labels, training, rest, statistics)

    keep(None)
    for epoch in range(1, epochs + 1):
        order = torch.stack([torch.randperm(count, generator=generator, device="cpu") for generator in generators]).to(
            device
        )
        sums = _GradientSums(weights) if epoch in wanted else None
        for places in training.gather(1, order).split(batch, 1):
            optimizer.zero_grad(set_to_none=True)
            scores = _forward(inputs[places].transpose(1, 2).contiguous(), weights, biases, activation)[-1]
            loss = functional.cross_entropy(scores, labels[places], reduction="sum")
            (loss / places.shape[1]).backward()  # the mean over the batch of each network; networks do not mix
            if sums is not None:
                sums.add()
            optimizer.step()
        if sums is not None:
            keep(sums.statistics())
            if not bool(kept.loss[-1].isfinite().all()):
                raise ModelError(f"the loss is not finite after epoch {epoch}; lower the learning rate {lr}.")
        clock.step(f"epoch {epoch} of {epochs}", epoch, loss=float(kept.loss[-1].mean()))
    made = Provenance(
        "train_networks",
        {"hidden": list(hidden), "activation": activation, "networks": networks, "epochs": epochs, "share": share,
         "batch": batch, "lr": lr, "checkpoints": checkpoints},
        seed=seed,
        versions=versions(),
    )  # fmt: skip
    return NetworkRuns(
        provenance=made,
        epochs=torch.tensor(sorted(wanted), device="cpu"),
        weights=[torch.stack(values) for values in kept.weights],
        biases=[torch.stack(values) for values in kept.biases],
        activation=activation,
        inputs=inputs.cpu(),
        labels=labels.cpu(),
        exhaustive=task.exhaustive,
        trained_on=training.cpu(),
        loss=torch.stack(kept.loss),
        error=torch.stack(kept.error),
        test_error=torch.stack(kept.test_error),
        gradient_mean=torch.stack(kept.mean),
        gradient_std=torch.stack(kept.deviation),
    )


class _Kept:
    """The record of each checkpoint."""

    def __init__(self, weights: list[Tensor], biases: list[Tensor]) -> None:
        self.live = weights, biases
        self.weights: list[list[Tensor]] = [[] for _ in weights]
        self.biases: list[list[Tensor]] = [[] for _ in biases]
        self.loss: list[Tensor] = []
        self.error: list[Tensor] = []
        self.test_error: list[Tensor] = []
        self.mean: list[Tensor] = []
        self.deviation: list[Tensor] = []

    def add(
        self,
        scores: Tensor,
        labels: Tensor,
        training: Tensor,
        rest: Tensor,
        statistics: list[tuple[Tensor, Tensor]] | None,
    ) -> None:
        for lists, values in zip((self.weights, self.biases), self.live, strict=True):
            for stored, value in zip(lists, values, strict=True):
                stored.append(value.detach().cpu().clone())
        wanted = labels.expand(len(scores), -1)
        losses = functional.cross_entropy(scores, wanted, reduction="none")
        wrong = (scores.argmax(1) != wanted).float()
        self.loss.append(losses.gather(1, training).mean(1).cpu())
        self.error.append(wrong.gather(1, training).mean(1).cpu())
        self.test_error.append(wrong.gather(1, rest).mean(1).cpu())
        none = torch.full((len(scores), len(self.weights)), math.nan, dtype=torch.float32, device="cpu")
        self.mean.append(none if statistics is None else torch.stack([mean for mean, _ in statistics], 1).cpu())
        self.deviation.append(none if statistics is None else torch.stack([std for _, std in statistics], 1).cpu())


class _GradientSums:
    """Sums of the weight gradients and of their squares over the steps of one epoch."""

    def __init__(self, weights: list[Tensor]) -> None:
        self.weights = weights
        self.sums = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
        self.squares = [torch.zeros_like(weight, dtype=torch.float64) for weight in weights]
        self.steps = 0

    def add(self) -> None:
        self.steps += 1
        for weight, total, square in zip(self.weights, self.sums, self.squares, strict=True):
            if weight.grad is not None:
                gradient = weight.grad.double()
                total += gradient
                square.addcmul_(gradient, gradient)

    def statistics(self) -> list[tuple[Tensor, Tensor]]:
        """For each layer the norms (R,) of mean and standard deviation, over that of the weights."""
        found = []
        for weight, total, square in zip(self.weights, self.sums, self.squares, strict=True):
            mean = total / self.steps
            variance = (square / self.steps - mean.square()).clamp(min=0)
            norm = weight.detach().double().flatten(1).norm(dim=1).clamp(min=1e-30)
            found.append((mean.flatten(1).norm(dim=1) / norm, variance.sqrt().flatten(1).norm(dim=1) / norm))
        return [(mean.float(), deviation.float()) for mean, deviation in found]


def _forward(inputs: Tensor, weights: list[Tensor], biases: list[Tensor], activation: str) -> list[Tensor]:
    """Each layer's values (R, units, n), from inputs (R, d, n); the last are scores.

    Inputs are the last axis, because rows of a few units would leave the processor's vector units idle.
    """
    values, found = inputs, []
    for place, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        values = torch.baddbmm(bias[:, :, None], weight, values)
        if place < len(weights) - 1:
            values = ACTIVATIONS[activation](values)
        found.append(values)
    return found


def _first(generators: list[torch.Generator], inputs: int, units: int) -> Tensor:
    """Initial weights (R, units, inputs): normal, truncated at two deviations, with deviation 1/sqrt(inputs)."""
    weights = torch.empty(len(generators), units, inputs, dtype=torch.float32, device="cpu")
    deviation = inputs**-0.5
    for weight, generator in zip(weights, generators, strict=True):
        torch.nn.init.trunc_normal_(weight, 0.0, deviation, -2 * deviation, 2 * deviation, generator=generator)
    return weights


def _check(
    task: Patterns, hidden: Sequence[int], activation: str, networks: int, epochs: int, share: float, batch: int
) -> None:
    if len(task.labels.unique()) < 2:
        raise InputError("the task has only one class; at least two are needed.")
    if activation not in ACTIVATIONS:
        raise InputError(f'there is no activation "{activation}"; choose from {", ".join(ACTIVATIONS)}.')
    for name, count in (("networks", networks), ("epochs", epochs), ("batch", batch)):
        check_count(count, name)
    if not hidden or min(hidden) < 1:
        raise InputError(f"at least one hidden layer with at least one unit in each was expected, got {tuple(hidden)}.")
    if not 0 < share <= 1:
        raise InputError(f"the share of training patterns must be in (0, 1], got {share}.")
