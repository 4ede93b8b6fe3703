"""Conversion to CAM: global average pooling and one linear layer replace the head, and a copy is fine-tuned."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from microtome import trace
from microtome.attribution.class_activation.arrangement import arrangement
from microtome.attribution.class_activation.default_layer import map_layer
from microtome.data import Dataset, batches
from microtome.errors import InputError, LayerError, MicrotomeError, ModelError
from microtome.network import Network
from microtome.progress import Listener
from microtome.registry import register
from microtome.results import Result, stated
from microtome.tables import Table
from microtome.trace.tracing.caller_modes import callers_autocast
from microtome.training.class_scores import check_precision
from microtome.training.fit import Recipe, fit

_NOTE = "Accuracy and its standard error in percent of the test images."


class CamNetwork(nn.Module):
    """A model up to one of its layers, global average pooling, and one linear layer for the logits.

    Parameters
    ----------
    body : nn.Module
        The model; it runs up to ``layer``.
    layer : str
        Name of a layer with channels, height and width.
    channels, classes : int
        Number of channels of the layer, and of classes.
    frozen : bool
        Whether only the linear layer is trained; the body, including its batch norms, stays fixed.
    """

    def __init__(self, body: nn.Module, layer: str, channels: int, classes: int, *, frozen: bool = False) -> None:
        super().__init__()
        self.body, self.layer, self.frozen = body, layer, frozen
        self.head = nn.Linear(channels, classes, dtype=torch.float32)
        for parameter in body.parameters():
            parameter.requires_grad = parameter.is_floating_point() and not frozen

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (N, classes) of normalised images."""
        maps = trace.up_to(self.body, self.layer, x)
        scores: Tensor = self.head(maps.mean((2, 3)))
        return scores

    def train(self, mode: bool = True) -> CamNetwork:
        """Set the mode; a frozen body stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self


@dataclass(frozen=True, eq=False, kw_only=True)
class CamConversion(Result, drawing="surgery.cam_conversion_figures:cam_conversion"):
    """A network with a CAM head, and its accuracy before and after.

    Attributes
    ----------
    layer : str
        The layer whose maps are averaged.
    accuracy : dict of str to float
        On the test images: ``"before"`` of the network as it was, ``"replaced"`` with the new head untrained,
        ``"tuned"`` after fine-tuning.
    loss : list of float
        Mean training loss of each epoch.
    images : int
        Number of test images.
    parameters : dict of str to int
        Number of weights ``"before"`` and ``"after"``.
    weights : dict of str to Tensor
        The state of the new model.
    """

    layer: str
    accuracy: dict[str, float]
    loss: list[float]
    images: int
    parameters: dict[str, int]
    weights: dict[str, Tensor]

    def network(self, net: Network) -> Network:
        """The converted network, built from the one that was converted and the tuned weights.

        Raises
        ------
        ModelError
            When ``net`` is not the converted network.
        """
        model = _replaced(net, self.layer, frozen=False)
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise ModelError(f"these weights are of another network than {net.name}: {error}") from error
        return _wrapped(net, model.eval())

    def table(self) -> Table:
        """One row for each state: accuracy in percent and its standard error on the test images."""
        return Table.of(
            [
                {"state": state, "accuracy": 100 * value, "error": 100 * (value * (1 - value) / self.images) ** 0.5}
                for state, value in self.accuracy.items()
            ],
            _NOTE,
        )


@register("convert-to-cam", rows=("C3",), paper="zhou2016learning", needs="maps and labelled images", kind="surgery")
def convert_to_cam(
    net: Network,
    train: Dataset,
    test: Dataset,
    *,
    layer: str | None = None,
    epochs: int = 3,
    lr: float = 0.02,
    batch: int = 128,
    freeze: bool = False,
    seed: int = 0,
    progress: Listener | None = None,
) -> CamConversion:
    r"""Replace the head by global average pooling and a linear layer, and fine-tune a copy.

    .. math:: S_c = \sum_k w_{ck}\, \frac{1}{hw} \sum_{ij} f_k(i, j) + b_c

    with f the maps of ``layer``; all later layers are dropped. Class activation maps of the result add up
    to its scores [1]_. The given network does not change: a copy is converted and trained.

    Parameters
    ----------
    net : Network
        Any network with a layer of maps, in float32.
    train, test : data sets
        Labelled images: see ``data.batches``. Accuracies are measured on ``test``.
    layer : str, optional
        The layer whose maps are averaged; default the last layer that is not a pooling layer, as in the paper.
    epochs, lr, batch
        Options of fine-tuning: SGD with momentum 0.9 (Nesterov) and a one-cycle learning rate.
    freeze : bool
        Whether to train only the new linear layer.
    seed : int
        Seed of the new head's initial weights and of the order of the images.
    progress : function, optional
        Called after every step.

    Returns
    -------
    CamConversion
        Accuracies before, after replacing and after tuning, and the weights; ``.network(net)`` is the
        network that ``attribution.cam`` works on.

    Raises
    ------
    InputError
        When data or options do not fit, or the network is not in float32.
    LayerError
        When the layer does not exist or has no channels, height and width.
    ModelError
        When the loss is no longer finite.

    Notes
    -----
    Cost: ``epochs`` passes over the training images forwards and backwards, and three over the test images.
    The maps explain the new network, which may decide differently from the old one. A mean over positions
    discards positions, so accuracy may fall if the old head used them.

    References
    ----------
    .. [1] Zhou, Khosla, Lapedriza, Oliva and Torralba, Learning deep features for discriminative
       localization, CVPR 2016.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    >>> net = Network(model.eval(), input_shape=(1, 8, 8))
    >>> pictures = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> from microtome.data import Images
    >>> photos = Images.from_float(pictures, torch.arange(12) % 2)
    >>> found = convert_to_cam(net, photos, photos, epochs=1)
    >>> type(found.network(net).model).__name__
    'CamNetwork'
    """
    check_precision(net.model)
    name = _maps_of(net, layer)
    model = _replaced(net, name, frozen=freeze, seed=seed)
    accuracy = {"before": _accuracy(net, test)}
    accuracy["replaced"] = _accuracy(_wrapped(net, model), test)
    settings: dict[str, Any] = {"epochs": epochs, "lr": lr, "batch": batch}
    recipe = Recipe(**settings, nesterov=True, schedule="one-cycle", mean=net.mean, std=net.std, seed=seed)
    run = fit(model, train, recipe=recipe, progress=progress)
    accuracy["tuned"] = _accuracy(_wrapped(net, model), test)
    return CamConversion(
        provenance=stated(layer=name, train=len(train), test=len(test), **settings),
        layer=name,
        accuracy=accuracy,
        loss=[float(record["loss"]) for record in run.records],
        images=len(test),
        parameters={"before": _held(net.model), "after": _held(model)},
        weights={key: value.detach().cpu().clone() for key, value in model.state_dict().items()},
    )


def _maps_of(net: Network, layer: str | None) -> str:
    name = net.layer(map_layer(net, layer)).name
    if arrangement(net, name).kind != "maps":
        raise LayerError(f'a layer with channels, height and width is needed, "{name}" has {net.layer(name).shape}.')
    return name


def _replaced(net: Network, layer: str, *, frozen: bool, seed: int = 0) -> CamNetwork:
    """A copy of the model with the new head, without the modules that only run after the layer."""
    classes = net.head.classes
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the generators of GPUs are not used here
        model = CamNetwork(copy.deepcopy(net.model), layer, net.layer(layer).shape[0], classes, frozen=frozen)
    model.to(net.device).eval()
    gray = net.normalise(net.probe)
    with torch.no_grad(), callers_autocast():
        expected = model(gray)
        whole = model.body
        model.body = _without(copy.deepcopy(whole), net, layer)
        try:
            same = torch.equal(model(gray), expected)
        except (MicrotomeError, RuntimeError):  # maps of another shape
            same = False
    if not same:  # the model reads attributes of modules that it does not call
        model.body = whole
    return model


def _without(body: nn.Module, net: Network, layer: str) -> nn.Module:
    """Replace modules that only run after the layer by an identity."""
    order = list(net.layers)
    until = order.index(layer) + 1
    used = {id(net.layers[name].module) for name in order[:until]}
    behind = {id(net.layers[name].module) for name in order[until:]} - used
    gone: list[str] = []
    for name, module in net.model.named_modules():
        inside_gone = any(name.startswith(f"{outer}.") for outer in gone)
        if not name or id(module) not in behind or inside_gone or any(id(part) in used for part in module.modules()):
            continue
        parent, _, last = name.rpartition(".")
        setattr(body.get_submodule(parent), last, nn.Identity())
        gone.append(name)
    return body


def _wrapped(net: Network, model: nn.Module) -> Network:
    """The network with a linear head: its scores are logits, or of the old kind if that is not probabilities."""
    output = None if net.output in ("logits", "probabilities") else net.output
    return Network(model, net.input_shape, net.mean, net.std, net.classes, pixels=net.pixels, output=output)


def _held(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _accuracy(net: Network, dataset: Dataset) -> float:
    right = count = 0
    for _, images, labels in batches(dataset, 500, net=net, labelled=True):
        known = labels if labels is not None else torch.empty(0, dtype=torch.float32, device="cpu")
        right += int((net.logits(images, batch=500).argmax(1).cpu() == known).sum())
        count += int((known >= 0).sum())
    if not count:
        raise InputError("accuracy needs labels: the data set is empty, or none of its images has a label.")
    return right / count
