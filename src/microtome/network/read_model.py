"""The user's model as one reading shows it: its layers, its head, and the images and classes that it takes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from microtome import inputs, trace
from microtome.errors import InputError, LayerError, ModelWarning
from microtome.inputs import Target
from microtome.network import reading_images
from microtome.network.layer_names import layer_named
from microtome.network.layer_table import layer_page, layer_table
from microtome.trace.graph import Layer
from microtome.trace.heads.head_reading import read_head
from microtome.trace.heads.last_operations import Ending

__all__ = ["ReadModel"]


class ReadModel:
    """A model that has been read once; see ``Network`` for its parameters, errors and cost."""

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

    def _pictures(self, count: int, size: tuple[int, int], changed: int | None) -> Tensor:
        """Images that the network's axes are read with, normalised."""
        shape = (count, self.input_shape[0], *size)
        return self.normalise(reading_images.faint_noise(shape, self.pixels, self.device, changed=changed))

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
        return self.text()

    def text(self, width: int | None = None) -> str:
        """The same in lines of at most ``width`` characters; columns that do not fit follow below the others."""
        return layer_table(
            self._title(), self.head, self.layers.values(), self.notes, self.input_shape[1:], width=width
        )

    def _repr_html_(self) -> str:
        """Show the same in a notebook; the table of a deep network opens by a click."""
        return layer_page(self._title(), self.head, self.layers.values(), self.notes, self.input_shape[1:])

    def _title(self) -> str:
        total = sum(parameter.numel() for parameter in self.model.parameters())
        return f"{self.name}: {' x '.join(map(str, self.input_shape))} in, {total:,} parameters"
