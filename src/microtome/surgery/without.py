"""Removal of a layer: the accuracy without it, before and after retraining."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome.data import Dataset, adapt, batches
from microtome.errors import InputError, LayerError, ModelError
from microtome.network import Network
from microtome.progress import Listener
from microtome.registry import register
from microtome.results import stated
from microtome.surgery.attached_network import AttachedNetwork
from microtome.surgery.channels import removal
from microtome.surgery.held_out import sampled, split
from microtome.surgery.smaller import held
from microtome.tables import Table
from microtome.training import checkpoints
from microtome.training.class_scores import check_precision
from microtome.training.fit import Recipe, evaluate, fit

_NOTE = "Accuracy and its standard error in percent of the test images."

ADAPTERS = ("identity", "copies", "linear")


class Adapter(nn.Module):
    """The replacement of a layer: maps resized to the layer's size, then a matrix over channels.

    Parameters
    ----------
    weight : Tensor
        (outputs, inputs) from input channels to the layer's output channels.
    bias : Tensor
        (outputs,)
    size : tuple of int
        Height and width of the layer's output; empty if it has none.
    """

    def __init__(self, weight: Tensor, bias: Tensor, size: tuple[int, ...]) -> None:
        super().__init__()
        self.weight, self.bias, self.size = nn.Parameter(weight), nn.Parameter(bias), size

    def forward(self, x: Tensor, *rest: Any, **named: Any) -> Tensor:
        """Resize the maps and mix the channels."""
        return mixed(resized(x, self.size), self.weight, self.bias)


class PassOn(nn.Module):
    """The replacement of a layer whose output has the shape of its input."""

    def forward(self, x: Tensor, *rest: Any, **named: Any) -> Tensor:
        """What comes in."""
        return x.clone()


def resized(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps averaged (or, if they grow, repeated) to another size."""
    if not size or tuple(x.shape[2:]) == size:
        return x
    return functional.adaptive_avg_pool2d(x, (size[0], size[1]))


def mixed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply a matrix over channels at every position."""
    if x.dim() == 4:
        return functional.conv2d(x, weight[:, :, None, None], bias)
    return functional.linear(x, weight, bias)


@dataclass(frozen=True, eq=False, kw_only=True)
class Without(AttachedNetwork, drawing="surgery.pruning_figures:without"):
    """A network without one of its layers.

    Attributes
    ----------
    layer : str
    adapter : str
        A description of the layer's replacement.
    before, without, retrained : float
        Accuracy on the test images: with the layer, without it, and after retraining.
    explained : float
        Share of the variance of the layer's output that the adapter explains, over the training images.
    images : int
        Number of test images.
    parameters : list of int
        Number of weights before and after.
    weights : dict of str to Tensor
        The state of the retrained model.
    kind : str
        ``"identity"``, ``"copies"`` or ``"linear"``.
    size : list of int
        Height and width of the layer's maps.
    """

    layer: str
    adapter: str
    before: float
    without: float
    retrained: float
    explained: float
    images: int
    parameters: list[int]
    weights: dict[str, Tensor]
    kind: str
    size: list[int]

    def rebuild(self, net: Network) -> Network:
        """Rebuild the network from the original network and the stored weights.

        Raises
        ------
        ModelError
            When it is another network.
        """
        module: nn.Module = PassOn()
        if self.kind != "identity":
            weight = self.weights.get(f"{self.layer}.weight", torch.zeros(1, 1, dtype=torch.float32, device="cpu"))
            bias = self.weights.get(f"{self.layer}.bias", torch.zeros(1, dtype=torch.float32, device="cpu"))
            module = Adapter(weight.clone(), bias.clone(), tuple(self.size)).to(net.device)
        try:
            model = _exchanged(net, self.layer, module)
            model.load_state_dict(self.weights)
        except (RuntimeError, AttributeError) as error:
            raise ModelError(f"these weights are of another network than {net.name}: {error}") from error
        return removal.wrapped(net, model)

    def table(self) -> Table:
        """One row for each state: accuracy in percent and its standard error."""
        values = {"before": self.before, "without": self.without, "retrained": self.retrained}
        return Table.of(
            [
                {"state": state, "accuracy": 100 * value, "error": 100 * (value * (1 - value) / self.images) ** 0.5}
                for state, value in values.items()
            ],
            _NOTE,
        )


@register("without", rows=("B7",), paper="dissecting", needs="a layer that is a module", kind="surgery")
def without(
    net: Network,
    layer: str,
    train: Dataset,
    *,
    test: Dataset | None = None,
    adapter: str | None = None,
    epochs: int = 1,
    lr: float = 0.02,
    batch: int = 64,
    sample: int = 512,
    seed: int = 0,
    progress: Listener | None = None,
) -> Without:
    r"""Remove a layer from a copy of the network and measure the accuracy, before and after retraining [1]_.

    An adapter without the layer's kernels replaces it:

    - ``"identity"``: the input is passed on; for a layer that keeps the shape;
    - ``"copies"``: each channel is :math:`a_k\, x_{j(k)} + b_k`, from the one input channel that predicts it best:
      this is what "the layer repeats the one before" means;
    - ``"linear"``: each channel is the linear combination of all input channels that predicts it best, at each
      position.

    Maps of another size are averaged to the layer's size first; a and b are fitted by least squares on ``sample``
    training images.

    Parameters
    ----------
    net : Network
        In float32; it is not changed.
    layer : str
        A module: a convolution, a block.
    train, test : data sets
        Labelled images for retraining and for testing; without ``test`` one of every five images of ``train`` is
        held out, at random.
    adapter : str, optional
        Default identity if the shape is kept, else copies.
    epochs, lr, batch
        Options of the retraining of all weights, including the adapter's.
    sample : int
        Number of training images for fitting the adapter.
    seed : int
        Random seed of the order of images.
    progress : function, optional
        Called after each training step.

    Returns
    -------
    Without
        ``.before``, ``.without``, ``.retrained``, ``.adapter``, ``.explained``, ``.network``.

    Raises
    ------
    LayerError
        When the layer is not a module, runs twice, or the adapter would be the layer itself (a matrix for a matrix).
    InputError
        When there is no such adapter, or it does not fit.

    Notes
    -----
    Cost: ``epochs`` passes over ``train`` and three over ``test``. What it does not show: a nonlinearity after the
    layer stays, so only the layer is removed, not its stage.

    References
    ----------
    .. [1] "Dissecting a ConvNet": a convolution that replicates the one before can be omitted.

    Examples
    --------
    >>> from torch import nn
    >>> from microtome.data import Images
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(), nn.Linear(144, 2))
    >>> net = Network(model.eval(), input_shape=(1, 8, 8))
    >>> pictures = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> found = without(net, "1", Images.from_float(pictures, torch.arange(12) % 2), epochs=1)
    >>> 0 <= found.retrained <= 1
    True
    """
    check_precision(net.model)
    training, held_out = split(adapt(train, net), None if test is None else adapt(test, net))
    some = sampled(training, sample)
    name = _module_layer(net, layer)
    first = net.activations(next(iter(batches(some, 1)))[1], [f"{name}@input", name])
    read, output = first[f"{name}@input"], first[name]
    kind = _kind(net, name, adapter, read, output)
    size = tuple(output.shape[2:]) if output.dim() == 4 else ()
    module: nn.Module = PassOn()
    if kind != "identity":
        module = Adapter(*_fitted(net, some, name, size, kind, batch), size)
    explained = _explained(net, some, name, module.to(net.device), batch)
    small = removal.wrapped(net, _exchanged(net, name, module))
    _check_runs(small, name)
    before, at_once = (evaluate(one.model, held_out, mean=net.mean, std=net.std)[1] for one in (net, small))
    small.model.requires_grad_(True)
    recipe = Recipe(epochs=epochs, batch=batch, lr=lr, nesterov=True, schedule="one-cycle", weight_decay=5e-4,
                    mean=net.mean, std=net.std, seed=seed)  # fmt: skip
    fit(small.model, training, recipe=recipe, progress=progress)
    result = Without(
        provenance=stated(layer=name, adapter=kind, sample=len(some), train=len(training), test=len(held_out)),
        layer=name,
        adapter=_words(kind, read, output),
        before=before,
        without=at_once,
        retrained=evaluate(small.model, held_out, mean=net.mean, std=net.std)[1],
        explained=explained,
        images=len(held_out),
        parameters=[held(net.model), held(small.model)],
        weights=checkpoints.state_of(small.model),
        kind=kind,
        size=list(size),
    )  # fmt: skip
    result.attach(removal.wrapped(net, small.model))
    return result


def _module_layer(net: Network, layer: str) -> str:
    found = net.layer(layer)
    if found.module is None:
        raise LayerError(f'"{layer}" is the operation {found.kind}, not a module, and cannot be removed.')
    runs = [name for name in net.layers if name.partition("#")[0] == found.name.partition("#")[0]]
    if len(runs) > 1:
        raise LayerError(f'layer "{layer}" runs {len(runs)} times in a pass; a layer that runs once was expected.')
    return found.name


def _kind(net: Network, layer: str, adapter: str | None, read: Tensor, output: Tensor) -> str:
    same = read.shape == output.shape
    kind = adapter or ("identity" if same else "copies")
    if kind not in ADAPTERS:
        raise InputError(f'there is no adapter "{kind}"; choose from {", ".join(ADAPTERS)}.')
    if kind == "identity" and not same:
        raise InputError(
            f'layer "{layer}" maps {tuple(read.shape[1:])} to {tuple(output.shape[1:])}, so nothing can be passed on; '
            'choose the adapter "copies" or "linear".'
        )
    if kind != "identity" and (read.dim() != output.dim() or read.dim() not in (2, 4)):
        raise LayerError(f'layer "{layer}" maps {tuple(read.shape[1:])} to {tuple(output.shape[1:])}; no adapter fits.')
    module = net.layer(layer).module
    pointwise = isinstance(module, nn.Conv2d) and all(k == 1 for k in module.kernel_size) and same
    if kind == "linear" and (isinstance(module, nn.Linear) or pointwise):
        raise LayerError(f'layer "{layer}" is a matrix itself, so a linear adapter would be the layer again.')
    return kind


def _pairs(net: Network, data: Dataset, layer: str, batch: int) -> Any:
    for _, images, _ in batches(data, batch):
        found = net.activations(images, [f"{layer}@input", layer], batch=batch)
        yield found[f"{layer}@input"], found[layer]


def _rows(value: Tensor) -> Tensor:
    """(channels, samples), float64."""
    return value.movedim(1, 0).flatten(1).double()


def _fitted(
    net: Network, data: Dataset, layer: str, size: tuple[int, ...], kind: str, batch: int
) -> tuple[Tensor, Tensor]:
    """Weight and bias of the adapter by least squares."""
    sums: list[tuple[Tensor, Tensor]] = []
    count = 0
    for read, output in _pairs(net, data, layer, batch):
        x, y = _rows(resized(read, size)), _rows(output)
        x = torch.cat([x, torch.ones_like(x[:1])])
        sums.append((x @ x.T, y @ x.T))
        count += x.shape[1]
    square, cross = (torch.stack(part).sum(0) for part in zip(*sums, strict=True))
    mean_x, mean_y = square[:-1, -1] / count, cross[:, -1] / count
    spread = square[:-1, :-1] / count - mean_x[:, None] * mean_x
    shared = cross[:, :-1] / count - mean_y[:, None] * mean_x
    level = spread.diagonal().mean().clamp(min=1e-30)
    if kind == "linear":
        unit = torch.eye(len(spread), dtype=spread.dtype, device=spread.device)
        weight = torch.linalg.solve(spread + 1e-6 * level * unit, shared.T).T
    else:
        own = spread.diagonal().clamp(min=1e-12 * float(level))
        slope = shared / own
        best = (shared.square() / own).argmax(1)
        weight = torch.zeros_like(shared).scatter_(1, best[:, None], slope.gather(1, best[:, None]))
    bias = mean_y - weight @ mean_x
    return weight.to(net.dtype), bias.to(net.dtype)


def _explained(net: Network, data: Dataset, layer: str, module: nn.Module, batch: int) -> float:
    """One minus the unexplained share of the layer's variance."""
    left, total, count, square = 0.0, torch.zeros((), dtype=torch.float32, device="cpu"), 0, 0.0
    with torch.no_grad():
        for read, output in _pairs(net, data, layer, batch):
            y = _rows(output)
            left += float((y - _rows(module(read))).square().sum())
            total = total + y.sum(1).cpu()
            count += y.shape[1]
            square += float(y.square().sum())
    whole = square - float(total.square().sum()) / max(count, 1)
    return 1 - left / whole if whole > 0 else float("nan")


def _exchanged(net: Network, layer: str, module: nn.Module) -> nn.Module:
    model = removal.copied(net)
    parent, _, child = layer.rpartition(".")
    setattr(model.get_submodule(parent), child, copy.deepcopy(module).to(net.device))
    return model.eval()


def _check_runs(small: Network, layer: str) -> None:
    """Refuse to leave out a layer whose attributes the model reads: torch's encoder layer asks its norm for them."""
    try:
        with torch.no_grad():
            small.model(small.normalise(small.probe))
    except AttributeError as error:
        raise LayerError(
            f'the model reads attributes of layer "{layer}" ({error}), so it cannot be left out; choose another.'
        ) from error


def _words(kind: str, read: Tensor, output: Tensor) -> str:
    if kind == "identity":
        return "the input is passed on"
    first = "" if read.shape[2:] == output.shape[2:] else "averaged to the layer's size, "
    what = (
        "a multiple of the one channel that predicts it best" if kind == "copies" else "a combination of all channels"
    )
    return f"{first}each of {output.shape[1]} channels {what}, of {read.shape[1]}"
