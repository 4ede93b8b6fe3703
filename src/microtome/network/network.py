"""The user's model with names for its layers, a pixel range, classes and a head; the model itself is not changed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from microtome import batch_sizes, inputs, trace
from microtome.errors import InputError, LayerError, ModelWarning
from microtome.inputs import Target
from microtome.network import faster_copy, layer_values, reading_images
from microtome.network.layer_names import layer_named, recorded_name
from microtome.network.layer_table import layer_page, layer_table
from microtome.trace.graph import Layer
from microtome.trace.heads.head_reading import read_head
from microtome.trace.heads.last_operations import Ending
from microtome.trace.passes import GradOutput, RecordedPass, take

_AT_ONCE = 64  # images whose values are read at a time on a processor


class Network:
    """A ``torch.nn.Module`` that takes images, with everything that the methods need.

    Parameters
    ----------
    model : nn.Module
        Any module whose forward takes images (N, C, H, W) and returns class scores (N, K): a tensor,
        ``.logits`` or ``["logits"]`` of what it returns, or the one output that has a row of numbers
        for each image. Compiled and data-parallel wrappers are unwrapped. The model is left
        bitwise as found.
    input_shape : tuple of int
        (C, H, W) of the images; height and width may differ.
    mean, std : float or sequence of float
        Normalisation that the model was trained with, per channel; it is applied inside, so that
        every map lives in the pixel space of the user's images.
    classes : list of str, optional
        Names of the classes in order; a dict of numbers and names, as ``id2label`` or ``class_to_idx``, serves too.
    device : str or torch.device, optional
        Where to run; when the model lives elsewhere a copy of it is moved. Default: where it lives.
    pixels : (float, float) or None
        Range of the images' values; None admits any.
    output : str, optional
        The meaning of the output. Default: detected when the model is read, shown by ``print``.

        - ``"logits"``: probabilities are their softmax. The score of a class is its logit, also
          if the model closes with the softmax.
        - ``"sigmoid"``: each class is decided separately; its probability is the sigmoid of its
          score. The score is the input of the sigmoid if the model closes with it.
        - ``"probabilities"``: the numbers are probabilities and serve as scores.
        - ``"value"``: the numbers are values (regression); there are no probabilities.
    head : str or int, optional
        Which output holds the scores, if the model returns several: a key, an attribute or a
        position; ``"1.color"`` for a key in the second.

    Raises
    ------
    InputError
        When the shape, the normalisation, the output or the head does not fit the model.
    ModelError
        When the model is not a module, holds NaN or uninitialised weights, or raises on an image of
        this shape.

    Warns
    -----
    ModelWarning
        When the scores change with the random state, for example because dropout is active in evaluation.

    Notes
    -----
    Cost: a pass over one image, and passes over one and four images of 64 pixels, or one over two images of full size
    if the model does not accept small ones. If the values of an image change in a batch, two more passes over four or
    two images; five over four images if an operation reads some images of a batch only. Without ``output`` and a
    closing softmax or sigmoid (in any spelling), outputs in [0, 1] are probabilities where they sum to 1 or are made
    of sigmoids and softmaxes alone; a single output is a value; several are logits.

    Examples
    --------
    >>> net = Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), input_shape=(1, 2, 2))
    >>> [layer.name for layer in net.layers.values()]
    ['0', '1']
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: Sequence[int],
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        classes: Sequence[str] | Mapping[Any, Any] | None = None,
        device: str | torch.device | None = None,
        pixels: tuple[float, float] | None = (0.0, 1.0),
        output: str | None = None,
        head: str | int | None = None,
    ) -> None:
        self.model = inputs.moved(inputs.unwrapped(model), device)
        self.input_shape = inputs.shape(input_shape)
        self.pixels = inputs.pixel_range(pixels)
        self._layout = torch.contiguous_format
        self.name = getattr(self.model, "original_name", type(self.model).__name__)
        floating = (value for value in inputs.state(self.model) if value.is_floating_point())
        first = next(floating, torch.empty(0, dtype=torch.float32, device="cpu"))
        self.device, self.dtype = first.device, first.dtype
        self.mean = inputs.per_channel(mean, self.input_shape[0], "mean")
        self.std = inputs.per_channel(std, self.input_shape[0], "std")
        if any(value <= 0 for value in self.std):
            raise InputError(f"std must be positive for every channel, got {self.std}.")
        names = None if classes is None else inputs.class_names(classes)
        inputs.check_weights(self.model)
        self.graph, first, shared = trace.watch(self.model, self._pictures, self.input_shape[1:], Ending)
        self._user_choice = output, head
        read = read_head(
            self.model,
            self.graph.layers,
            first if self.graph.batch == 1 else None,
            self._gray_and_noise,
            self.input_shape[1:],
            shared,
            output=output,
            head=head,
            names=None if names is None else len(names),
        )
        self.head, self.random = read.head, read.random
        self.classes = self._class_names(names)
        if self.random:
            warnings.warn(f"{self.name}: {self._random_scores()}", ModelWarning, stacklevel=2)
        self._fingerprint = ""

    @property
    def layers(self) -> Mapping[str, Layer]:
        """All layers in the order they run: modules, and operations between modules."""
        return MappingProxyType(dict(self.graph.layers))

    @property
    def output(self) -> str:
        """The meaning of the output: ``"logits"``, ``"sigmoid"``, ``"probabilities"`` or ``"value"``."""
        return self.head.output

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(K,), the number of class scores; empty if the model gives none."""
        return (self.head.classes,) if self.head.classes else ()

    @property
    def probe(self) -> Tensor:
        """Gray images in the middle of the pixel range, (1, C, H, W): for passes where any image will do.

        More than one if the model does not take single images.
        """
        return reading_images.gray((self.graph.batch, *self.input_shape), self.pixels, self.device)

    @property
    def notes(self) -> list[str]:
        """Notes for every result: random scores, images that influence each other, a fixed batch size."""
        found = [self._random_scores()] if self.random else []
        if self.graph.mixes:
            found.append(
                f'the images of a batch influence each other from "{self.graph.mixes}" on: the result for an image '
                "depends on the others in its batch"
            )
        if hooked := trace.hooked_backwards(self.model):
            found.append(f'"{hooked}" has backward hooks, which run with every gradient and may change it')
        return [*found, *([self.graph.note] if self.graph.note else [])]

    @property
    def fingerprint(self) -> str:
        """A digest of every operation, weight and the normalisation; equal for equal networks."""
        if not self._fingerprint:
            about: tuple[Any, ...] = (self.input_shape, self.mean, self.std)
            if self.output != "logits" or self._user_choice[1] is not None:
                about = (*about, self.output, self.head.path)
            self._fingerprint = trace.fingerprint(self.model, self.normalise(self.probe), *about)
        return self._fingerprint

    def around(self, model: nn.Module) -> Network:
        """A network with another model of the same kind: its images, normalisation, classes and head stay."""
        output, head = self._user_choice
        return Network(
            model, self.input_shape, self.mean, self.std, self.classes, pixels=self.pixels, output=output, head=head
        )

    def layer(self, name: str) -> Layer:
        """Find a layer by name.

        Raises
        ------
        LayerError
            When there is none; the nearest names are given.
        """
        return layer_named(name, self.graph, self.model)

    def module(self, name: str) -> nn.Module:
        """The module of a layer.

        Raises
        ------
        LayerError
            When the layer is an operation, or does not exist.
        """
        layer = self.layer(name)
        if layer.module is None:
            raise LayerError(f'layer "{name}" is the operation {layer.kind}, not a module; it holds no weights.')
        return layer.module

    # -- images and classes --------------------------------------------------------------------------------------

    def images(self, images: Any, *, check: bool = True) -> Tensor:
        """Images as the network takes them: (N, C, H, W), floating, on the device.

        Parameters
        ----------
        images : Tensor or array
            (N, C, H, W) or one image (C, H, W).
        check : bool
            Whether the values are checked: NaN, infinity and values outside the network's pixel
            range are errors.

        Raises
        ------
        InputError
            When shape, type or values do not fit.
        """
        x = inputs.checked(images, self.input_shape, self.pixels, values=check)
        wide = torch.float64 if self.dtype == torch.float64 and x.dtype == torch.float64 else torch.float32
        return x.to(self.device, wide)

    def normalise(self, images: Tensor) -> Tensor:
        """Images as the model takes them, (images - mean) / std in the model's precision; always a new tensor."""
        if all(value == 0 for value in self.mean) and all(value == 1 for value in self.std):
            return images.to(self.dtype, copy=True, memory_format=self._layout)
        mean, std = (inputs.column(numbers, images.dtype, images.device) for numbers in (self.mean, self.std))
        return ((images - mean) / std).to(self.dtype).contiguous(memory_format=self._layout)

    def targets(self, target: Target, logits: Tensor) -> Tensor:
        """The class of each image, (N,): the one given by index or name, else the predicted one.

        Raises
        ------
        InputError
            When a class does not exist or the number of targets is not that of the images.
        """
        return inputs.targets(target, logits, self.classes)

    def class_index(self, name: Any) -> int:
        """The index of a class given by index or by name.

        Raises
        ------
        InputError
            When there is no such class; the nearest names are given.
        """
        index = inputs.class_index(name, self.classes)
        inputs.check_class(index, self.head.classes)
        return index

    # -- running -------------------------------------------------------------------------------------------------

    def run(
        self,
        images: Any,
        target: Target = None,
        *,
        record: str | Iterable[str] = (),
        gradient: bool = False,
        rules: str | trace.RuleSet | None = None,
        replace: Mapping[str, trace.Replacement] | None = None,
        output_layer: str | None = None,
        grad_output: GradOutput | None = None,
        check: bool = True,
    ) -> RecordedPass:
        """Run once and record values and gradients by layer; the pass ends as soon as all is recorded.

        Parameters
        ----------
        images : Tensor
            (N, C, H, W) in the network's pixel range.
        target : int, str, sequence, Tensor or None
            The class whose score is differentiated; None for the predicted class.
        record : str or iterable of str
            Layers to record. ``"input"`` is the image, ``"conv2@input"`` what conv2 reads.
        gradient : bool
            Also the gradient at every recorded layer. Nothing below the first is differentiated,
            and no weight.
        rules : str or RuleSet, optional
            ``"guided"``, ``"deconvnet"`` or a set of backward rules in place of gradients.
        replace : mapping, optional
            Values to exchange, by layer: a tensor, or a function of the value.
        output_layer : str, optional
            Differentiate this layer in place of the class score; the pass ends there.
        grad_output : Tensor or function, optional
            Weights of the output layer's values: a tensor of its shape, or a function of the value.
        check : bool
            Whether the images' values are checked, see ``images``.

        Returns
        -------
        RecordedPass
            ``value`` and ``gradient`` by layer, ``logits``, ``score`` and ``target``.
        """
        named = [record] if isinstance(record, str) else list(record)
        checked = self.images(images, check=check)
        made = take(
            self,
            checked,
            target,
            record=[self._resolved(name) for name in named],
            gradient=gradient,
            rules=self._rules(rules),
            replace={self._resolved(name): value for name, value in (replace or {}).items()},
            output_layer=None if output_layer is None else self._resolved(output_layer),
            grad_output=grad_output,
        )
        for name in named:  # also under the name that the caller used
            for table in (made.value, made.gradient):
                if self._resolved(name) in table:
                    table.setdefault(name, table[self._resolved(name)])
        return made

    @torch.inference_mode(False)
    def forward(
        self,
        images: Tensor,
        record: str | Iterable[str],
        *,
        rules: str | trace.RuleSet | None = None,
        replace: Mapping[str, trace.Replacement] | None = None,
        stop: bool = True,
    ) -> dict[str, Tensor]:
        """Values of layers, attached to the graph of ``images``: for optimisation over the image.

        Stops at the last recorded layer; no weight is differentiated. Values outside the pixel
        range are admitted. ``record`` may hold ``"logits"``.
        """
        named = [record] if isinstance(record, str) else list(record)
        return self._values(images, named, live=True, rules=rules, replace=replace, stop=stop)

    def activations(
        self, images: Any, layers: str | Iterable[str], *, batch: int | None = None, check: bool = True
    ) -> dict[str, Tensor]:
        """Values of layers for images, as they are before any later in-place change.

        Runs in batches (default 64 images on a CPU, as many as fit on a GPU) and stops at the last of the layers.
        Every batch size gives the same tensors: batches are joined along the axis that holds the images
        (``net.layer(name).axes``), so that a value has the layout of one large batch.
        ``axes.per_image(value, n)`` puts the images first.

        Raises
        ------
        LayerError
            When a layer's value belongs to no image and differs between batches.
        """
        named = [layers] if isinstance(layers, str) else list(layers)
        checked = self.images(images, check=check)

        def part(start: int, stop: int) -> tuple[int, dict[str, Tensor]]:
            return stop - start, self._values(checked[start:stop].detach(), named)

        with torch.no_grad():
            counts, parts = zip(*batch_sizes.in_passes(self, len(checked), part, batch, usual=_AT_ONCE), strict=True)
        return {name: self._joined(name, [values[name] for values in parts], list(counts)) for name in named}

    def admitted(self, batch: int) -> int:
        """Number of images per pass: ``batch``, or the model's batch size if that is fixed."""
        return self.graph.batch if self.graph.note else batch

    def logits(self, images: Any, *, batch: int | None = None, check: bool = True) -> Tensor:
        """Class scores (N, K): the input of a closing softmax or sigmoid, else the model's output."""
        return self.activations(images, "logits", batch=batch, check=check)["logits"]

    def probabilities(self, images: Any, *, batch: int | None = None, check: bool = True) -> Tensor:
        """Probabilities of the classes, (N, K), by the meaning of the head, see ``output``.

        Raises
        ------
        InputError
            When the head gives values, which have no probability.
        """
        if self.output == "value":
            raise InputError(
                "the network's output is a value and has no probability; use logits(), or Network(..., "
                'output="sigmoid") if it is the logit of one class.'
            )
        return self.head.readout(self.logits(images, batch=batch, check=check))

    def quick(self, images: Tensor, same: Tensor | Sequence[str], times: int, *, backwards: bool = True) -> Network:
        """A faster copy with the same scores or layers, for methods that run the network on many (``times``) images.

        Batch norms are folded into convolutions; photos and kernels use the channels-last layout. All other layers keep
        their values up to rounding. A copy that gives other values for the first image is not used: a model may read
        the statistics of a batch norm itself, or need the usual layout for a view. ``same`` are the logits of the
        images, or the names of layers: these are compared, and are not folded. The network itself is returned if the
        passes are too few and small for a copy to pay. On a CPU the copy is made and tested at each call, which costs
        less than a pass. On a GPU it is cached until the weights change, because making it takes longer than many
        passes. There nothing is folded without backward passes (``backwards``): adding the folded bias costs as much as
        the norm.
        """
        return faster_copy.faster_copy(self, images, same, times, backwards=backwards)

    def with_layout(self, model: nn.Module, layout: torch.memory_format) -> Network:
        """The same network with a copy of its model that computes the same function, for images in a memory layout."""
        other = copy.copy(self)
        other.model, other._layout = model, layout
        return other

    def call(self, layer: str, images: Any = None) -> trace.Call:
        """The operation of a layer as the model calls it: arguments by name, weights as used.

        Parameters
        ----------
        layer : str
            A module with one operation of its own (``"conv2"``), or an operation.
        images : Tensor, optional
            The images; default the gray probe.
        """
        return layer_values.operation_call(self, layer, images)

    def _values(
        self,
        images: Tensor,
        named: list[str],
        *,
        live: bool = False,
        rules: str | trace.RuleSet | None = None,
        replace: Mapping[str, trace.Replacement] | None = None,
        stop: bool = True,
    ) -> dict[str, Tensor]:
        return layer_values.layer_values(
            self,
            images,
            {name: name if name in layer_values.ENDS else self._resolved(name) for name in named},
            live=live,
            rules=self._rules(rules),
            replace={self._resolved(name): value for name, value in (replace or {}).items()},
            stop=stop,
        )

    def _pictures(self, count: int, size: tuple[int, int], changed: int | None) -> Tensor:
        """Images that the network's axes are read with, normalised."""
        shape = (count, self.input_shape[0], *size)
        return self.normalise(reading_images.faint_noise(shape, self.pixels, self.device, changed=changed))

    def _joined(self, name: str, parts: list[Tensor], counts: list[int]) -> Tensor:
        known = None if name in layer_values.ENDS else self.graph.axes.get(self._resolved(name))
        return layer_values.joined(known, parts, counts)

    def _resolved(self, name: str) -> str:
        return recorded_name(name, self.graph, self.model, self.head.layer)

    @staticmethod
    def _rules(rules: str | trace.RuleSet | None) -> trace.RuleSet | None:
        if isinstance(rules, str):
            if rules not in trace.RULES:
                raise InputError(f'there are no rules "{rules}". Known: {", ".join(trace.RULES)}.')
            return trace.RULES[rules]()
        return rules

    def _class_names(self, names: list[str] | None) -> list[str] | None:
        if names is not None and self.head.classes and len(names) != self.head.classes:
            raise InputError(f"{self.head.classes} class names were expected, got {len(names)}.")
        return names

    def _gray_and_noise(self, size: tuple[int, int]) -> Tensor:
        """Images that the network's head is read with, normalised."""
        shape = (max(2, self.graph.batch), self.input_shape[0], *size)
        return self.normalise(reading_images.full_noise(shape, self.pixels, self.device))

    def _random_scores(self) -> str:
        return (
            f"the scores change with the random state, also in evaluation: {self.random} draws random numbers. Every "
            "result holds for one draw."
        )

    def __repr__(self) -> str:
        """Show what the scores are and a table: layer, kind, output shape, axes, units, parameters, field."""
        return layer_table(self._title(), self.head, self.layers.values(), self.notes, self.input_shape[1:])

    def _repr_html_(self) -> str:
        """Show the same in a notebook; the table of a deep network opens by a click."""
        return layer_page(self._title(), self.head, self.layers.values(), self.notes, self.input_shape[1:])

    def _title(self) -> str:
        total = sum(parameter.numel() for parameter in self.model.parameters())
        return f"{self.name}: {' x '.join(map(str, self.input_shape))} in, {total:,} parameters"
