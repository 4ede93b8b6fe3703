"""The user's model with names for its layers, a pixel range and classes; nothing in the model is changed."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from microtome import inputs, trace
from microtome.errors import InputError, LayerError, MicrotomeError, OpaqueError, nearest
from microtome.inputs import Target
from microtome.trace.graph import Layer
from microtome.trace.passes import Seed, Tape, as_logits, take

_WORTH = 2**20  # pixels to be run from which a private copy pays: 20 photos of 224 x 224
_PHOTO = 64  # pixels of the shorter side from which channels innermost in memory save time, some 10 to 40 %


class Network:
    """A ``torch.nn.Module`` that takes images, made ready to be looked into.

    Parameters
    ----------
    model : nn.Module
        Any module whose forward takes images (N, C, H, W) and returns class scores (N, K): a tensor,
        or the first tensor, ``.logits`` or ``["logits"]`` of what it returns. Compiled and
        data-parallel wrappers are looked through. The model is left bitwise as found.
    input_shape : tuple of int
        (C, H, W) of the images; height and width may differ.
    mean, std : float or sequence of float
        Normalisation that the model was trained with, per channel; it is applied inside, so that
        every map lives in the pixel space of the user's images.
    classes : list of str, optional
        Names of the classes.
    device : str or torch.device, optional
        Where to run; when the model lives elsewhere a copy of it is moved. Default: where it lives.
    pixels : (float, float) or None
        Range of the images' values; None admits any.

    Raises
    ------
    InputError
        When the shape or the normalisation cannot be.
    ModelError
        When the model is no module, holds NaN weights, or raises on an image of this shape.

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
        classes: Sequence[str] | None = None,
        device: str | torch.device | None = None,
        pixels: tuple[float, float] | None = (0.0, 1.0),
    ) -> None:
        self.model = inputs.moved(inputs.unwrapped(model), device)
        self.input_shape = inputs.shape(input_shape)
        self.pixels = pixels
        self._layout = torch.contiguous_format
        self.name = getattr(self.model, "original_name", type(self.model).__name__)
        first = next((value for value in inputs.state(self.model) if value.is_floating_point()), torch.empty(0))
        self.device, self.dtype = first.device, first.dtype
        self.mean = inputs.per_channel(mean, self.input_shape[0], "mean")
        self.std = inputs.per_channel(std, self.input_shape[0], "std")
        if any(value <= 0 for value in self.std):
            raise InputError(f"std must be positive for every channel, got {self.std}.")
        inputs.check_weights(self.model)
        self.graph, output = trace.watch(self.model, self._pictures, self.input_shape[1:])
        self.output_shape = tuple(trace.logits_of(output).shape[1:])
        self.classes = self._class_names(classes)
        self._fingerprint = ""

    @property
    def layers(self) -> Mapping[str, Layer]:
        """All layers in the order they run: modules, and operations between modules."""
        return MappingProxyType(dict(self.graph.layers))

    @property
    def fingerprint(self) -> str:
        """A digest of every operation, weight and the normalisation; equal for equal networks."""
        if not self._fingerprint:
            about = (self.input_shape, self.mean, self.std)
            self._fingerprint = trace.fingerprint(self.model, self._probe(), *about)
        return self._fingerprint

    def layer(self, name: str) -> Layer:
        """Find a layer by name.

        Raises
        ------
        LayerError
            When there is none; the nearest names are given.
        """
        found = self.graph.layers.get(name) or self.graph.layers.get(f"/{name}")
        if found is None:
            known = list(self.graph.layers)
            scripted = [
                part for part, module in self.model.named_modules() if isinstance(module, torch.jit.ScriptModule)
            ]
            hidden = next((part for part in scripted if name.startswith(part) and name != part), None)
            why = f' "{hidden}" is scripted and shows nothing of its inside.' if hidden is not None else ""
            raise LayerError(
                f'the network has no layer "{name}".{why} Nearest: {nearest(name, known)}. '
                f"`microtome layers` lists all {len(known)}."
            )
        return found

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
            Whether values outside the network's pixel range are an error.

        Raises
        ------
        InputError
            When shape, type or range do not fit.
        """
        x = inputs.checked(images, self.input_shape, self.pixels if check else None)
        wide = torch.float64 if self.dtype == torch.float64 and x.dtype == torch.float64 else torch.float32
        return x.to(self.device, wide)

    def normalise(self, images: Tensor) -> Tensor:
        """What the model is given: (images - mean) / std in the model's own precision, always a new tensor."""
        if all(value == 0 for value in self.mean) and all(value == 1 for value in self.std):
            return images.to(self.dtype, copy=True, memory_format=self._layout)
        mean = torch.tensor(self.mean, dtype=images.dtype, device=images.device)[:, None, None]
        std = torch.tensor(self.std, dtype=images.dtype, device=images.device)[:, None, None]
        return ((images - mean) / std).to(self.dtype).contiguous(memory_format=self._layout)

    def targets(self, target: Target, logits: Tensor) -> Tensor:
        """The class asked about for each image, shape (N,): given by index or name, or the predicted one.

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
        inputs.check_class(index, self.output_shape[0] if self.output_shape else 1)
        return index

    # -- running -------------------------------------------------------------------------------------------------

    def tape(
        self,
        images: Any,
        target: Target = None,
        *,
        record: str | Iterable[str] = (),
        gradient: bool = False,
        rules: str | trace.RuleSet | None = None,
        replace: Mapping[str, trace.Replacement] | None = None,
        of: str | None = None,
        seed: Seed | None = None,
        check: bool = True,
    ) -> Tape:
        """Run once, keep values and gradients by layer; the engine stops where it may.

        Parameters
        ----------
        images : Tensor
            (N, C, H, W) in the network's pixel range.
        target : int, str, sequence, Tensor or None
            The class whose score is differentiated; None for the predicted one.
        record : str or iterable of str
            Layers to keep. ``"input"`` is the image, ``"conv2@input"`` what conv2 reads.
        gradient : bool
            Also the gradient at every recorded layer. Nothing below the first is differentiated,
            and no weight.
        rules : str or RuleSet, optional
            ``"guided"``, ``"deconvnet"`` or a set of backward rules in place of gradients.
        replace : mapping, optional
            Values to exchange, by layer: a tensor, or a function of the value.
        of, seed : str, Tensor or function
            Differentiate this layer, weighted by the seed, in place of the class score; the pass
            ends there.
        check : bool
            Whether values outside the pixel range are an error.
        """
        named = [record] if isinstance(record, str) else list(record)
        given = self.images(images, check=check)
        tape = take(
            self,
            given,
            target,
            record=[self._resolved(name) for name in named],
            gradient=gradient,
            rules=self._rules(rules),
            replace={self._resolved(name): value for name, value in (replace or {}).items()},
            of=None if of is None else self._resolved(of),
            seed=seed,
        )
        for name in named:  # known by the name that was asked for, too
            for table in (tape.value, tape.gradient):
                if self._resolved(name) in table:
                    table.setdefault(name, table[self._resolved(name)])
        return tape

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
        self, images: Any, layers: str | Iterable[str], *, batch: int = 64, check: bool = True
    ) -> dict[str, Tensor]:
        """Values of layers for images, as they are before any later in-place change.

        Runs in batches and stops at the last layer asked for.
        """
        named = [layers] if isinstance(layers, str) else list(layers)
        given = self.images(images, check=check)
        parts: dict[str, list[Tensor]] = {name: [] for name in named}
        with torch.no_grad():
            for chunk in given.split(batch):
                for name, value in self._values(chunk.detach(), named).items():
                    parts[name].append(value)
        return {name: torch.cat(values) for name, values in parts.items()}

    def logits(self, images: Any, *, batch: int = 64, check: bool = True) -> Tensor:
        """Class scores (N, K); what a closing softmax or log-softmax reads, where the model ends in one."""
        return self.activations(images, "logits", batch=batch, check=check)["logits"]

    def probabilities(self, images: Any, *, batch: int = 64, check: bool = True) -> Tensor:
        """Softmax of the class scores, (N, K)."""
        return self.logits(images, batch=batch, check=check).softmax(1)

    def quick(self, images: Tensor, logits: Tensor, times: int) -> Network:
        """The same function in less time, for methods that run it many times, on ``times`` images.

        In a private copy batch norms are folded into convolutions, and on a processor photos and kernels lie with their
        channels innermost; all other layers keep their values, up to rounding. What does not give ``logits`` for the
        first image is not used: a model may read a batch norm's statistics by itself, or ask for a view that only the
        usual order has. Where passes are few and small a copy costs more than it saves.
        """
        if times * self.input_shape[1] * self.input_shape[2] < _WORTH:
            return self
        model = trace.folded(self.model, self.graph)
        photos = self.device.type == "cpu" and min(self.input_shape[1:]) >= _PHOTO
        for layout in [torch.channels_last, torch.contiguous_format][0 if photos else 1 :]:
            quicker = copy.copy(self)
            quicker._layout = layout
            quicker.model = trace.channels_innermost(model) if layout is torch.channels_last else model
            try:
                away = float((quicker.logits(images[:1], check=False) - logits[:1]).abs().max())
            except MicrotomeError:
                continue
            if away <= 1e-4 * float(logits[:1].abs().max()):
                return quicker
        return self

    def call(self, layer: str, images: Any = None) -> trace.Call:
        """The operation behind a layer as the model makes it: arguments by name, weights as used.

        Parameters
        ----------
        layer : str
            A module with one operation of its own (``"conv2"``), or an operation.
        images : Tensor, optional
            On which images; default one gray image.
        """
        found = self.layer(layer)
        x = self.images(torch.full((1, *self.input_shape), 0.5) if images is None else images, check=False)
        capture = trace.Capture(found.operation)
        with torch.no_grad():
            trace.Tracer(self.model, [found.operation], observer=capture)(self.normalise(x.detach()))
        if capture.call is None:
            raise OpaqueError(f'layer "{layer}" shows no torch operation of its own.')
        return capture.call

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
        layers = {name: self._resolved(name) for name in named if name not in ("logits", "input")}
        end = self.graph.logits if self.graph.closing and "logits" in named else None
        wanted = [*layers.values(), end] if end is not None else list(layers.values())
        values = {"input": images} if "input" in named else {}
        if not wanted and "logits" not in named:
            return values
        tracer = trace.Tracer(
            self.model,
            wanted,
            live=wanted or ("logits",) if live else (),
            rules=self._rules(rules),
            replace={self._resolved(name): value for name, value in (replace or {}).items()},
            stop=stop and ("logits" not in named or end is not None),
        )
        output = tracer(self.normalise(images))
        if tracer.missing:
            raise OpaqueError(f'layer "{sorted(tracer.missing)[0]}" did not run for these images.')
        values.update({name: tracer.value[resolved] for name, resolved in layers.items()})
        if "logits" in named:
            values["logits"] = as_logits(tracer.value[end] if end is not None else trace.logits_of(output), self)
        return values

    def _probe(self) -> Tensor:
        """Gray images, normalised, as few as the model admits: on them it is run where any image will do."""
        return self._pictures(self.graph.batch, self.input_shape[1:], changed=False, gray=True)

    def _pictures(self, count: int, size: tuple[int, int], changed: bool, *, gray: bool = False) -> Tensor:  # noqa: FBT001 - trace.Pictures
        """Images that the network is read with, normalised: one is gray, several are noise of little contrast.

        The ``changed`` one has the whole contrast, so that it holds the extremes of the batch.
        """
        low, high = self.pixels or (0.0, 1.0)
        shape = (count, self.input_shape[0], *size)
        images = torch.full(shape, (low + high) / 2, device=self.device)
        if count > 1 and not gray:
            noise = torch.rand((count + 1, *shape[1:]), generator=torch.Generator().manual_seed(0)) - 0.5
            contrast = torch.full((count,), 0.5)
            if changed:
                which = trace.changed_image(count)
                noise[which], contrast[which] = noise[count], 1.0
            images = images + ((high - low) * contrast[:, None, None, None] * noise[:count]).to(images)
        return self.normalise(images)

    def _resolved(self, name: str) -> str:
        if name in ("input", self.graph.logits):
            return name
        bare, at, _ = name.partition(trace.INPUT)
        if bare not in self.graph.layers and f"/{bare}" not in self.graph.layers and self._hidden(bare):
            return name
        return self.layer(bare).name + (trace.INPUT if at else "")

    def _hidden(self, name: str) -> bool:
        """An operation that is not listed but runs: a module's inner step."""
        return any(layer.operation == name for layer in self.graph.layers.values())

    @staticmethod
    def _rules(rules: str | trace.RuleSet | None) -> trace.RuleSet | None:
        if isinstance(rules, str):
            if rules not in trace.RULES:
                raise InputError(f'there are no rules "{rules}". Known: {", ".join(trace.RULES)}.')
            return trace.RULES[rules]()
        return rules

    def _class_names(self, classes: Sequence[str] | None) -> list[str] | None:
        if classes is None:
            return None
        names = [str(name) for name in classes]
        if len(self.output_shape) == 1 and len(names) != self.output_shape[0]:
            raise InputError(f"{self.output_shape[0]} class names were expected, got {len(names)}.")
        return names

    def __repr__(self) -> str:
        """Show a table: layer, kind, output shape, units, parameters."""
        rows = [("layer", "kind", "output", "axes", "units", "parameters")]
        for layer in self.layers.values():
            shape = " x ".join(map(str, layer.shape))
            rows.append((layer.name, layer.kind, shape, _axes_word(layer), str(layer.units or "-"), f"{layer.parameters:,}"))
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        total = sum(parameter.numel() for parameter in self.model.parameters())
        head = f"{self.name}: {' x '.join(map(str, self.input_shape))} in, {total:,} parameters"
        return "\n".join([head, *lines, *self._notes()])

    def _notes(self) -> list[str]:
        """What a reader of the list of layers should know: N and C, mixed images, what was not measured."""
        found = ["axes: N images, C units, numbers are positions; what is folded into one axis stands in brackets"]
        if self.graph.mixes:
            found.append(
                f'the images of a batch influence each other from "{self.graph.mixes}" on: '
                "results for an image depend on the others in its batch"
            )
        return [*found, *([self.graph.note] if self.graph.note else [])]


def _axes_word(layer: Layer) -> str:
    return str(layer.axes) + ("" if layer.axes.image_axis is not None else " (no image)")
