"""What does each kind of task compute? One small function a job: methods are called, results are returned."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from microtome import registry, spaces, synthesis, units
from microtome.atlas.findings import (
    Kept,
    Maps,
    Predictions,
    Reconstructed,
    Similarities,
    Strongest,
    Tunings,
)
from microtome.atlas.fit import CELL, fitted_signal
from microtome.atlas.sheets import image_sheet, sheets_of
from microtome.atlas.space_tasks import steps
from microtome.atlas.spaces import signal_space
from microtome.atlas.store import Store
from microtome.atlas.task import Task
from microtome.atlas.walk import walk
from microtome.errors import InputError
from microtome.loading import Subject
from microtome.network import Network
from microtome.results import Result, provenance

__all__ = ["JOBS", "recall", "recall_small"]

_CLASSES = 10  # classes whose average is split by the first layer

Job = Callable[[Subject, Store, Task], Result]


def predictions(subject: Subject, store: Store, task: Task) -> Result:
    """Class scores of all images."""
    from microtome.data import batches

    parts = [subject.net.logits(images).cpu() for _, images, _ in batches(subject.images, task.parameters["batch"])]
    logits = torch.cat(parts)
    labels = torch.full((len(logits),), -1) if subject.labels is None else subject.labels
    if len(labels) and int(labels.max()) >= logits.shape[1]:
        raise InputError(
            f"the data set's labels go up to {int(labels.max())}, the network tells {logits.shape[1]} classes apart; "
            "give the class names with --classes, or a flat folder."
        )
    head = subject.net.head
    return Predictions(
        provenance=provenance(subject.net, "predictions"),
        logits=logits.float(),
        labels=labels,
        squash=head.squash,
        quantity=head.quantity,
    )


def patches(subject: Subject, store: Store, task: Task) -> Result:
    """The patches that drive every unit of every layer."""
    return units.top_patches(subject.net, subject.images, **_options(task))


def maximize(subject: Subject, store: Store, task: Task) -> Result:
    """Superstimuli of some units."""
    return synthesis.maximize(subject.net, **_options(task))


def maximize_class(subject: Subject, store: Store, task: Task) -> Result:
    """Images made for class scores."""
    return synthesis.maximize_class(subject.net, **_options(task))


def explain(subject: Subject, store: Store, task: Task) -> Result:
    """One attribution method on some images."""
    given = _options(task)
    method = registry.method(given.pop("method"), registry.EXPLAINING)
    images, target = subject.pictures(given.pop("images")), given.pop("target")
    made = explained(subject.net, method, images, target, given)
    return _maps(made)


def explained(net: Network, method: registry.Method, images: Tensor, target: Any, options: dict[str, Any]) -> Result:
    """Call an attribution method with the options that it takes; one that it does not take is an error."""
    known = inspect.signature(method.function).parameters
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InputError(f'"{method.name}" has no option "{unknown[0]}"; it has {", ".join(list(known)[3:])}.')
    result: Result = method.function(net, images, target, **options)
    return result


def _maps(made: Any) -> Maps:
    values = made.map.float()
    size = values.flatten(1).abs().amax(1).clamp(min=1e-30)
    extra = {name: getattr(made, name) for name in ("probability", "winner", "unoccluded") if hasattr(made, name)}
    numbers = {name: getattr(made, name) for name in ("conservation", "completeness_gap") if hasattr(made, name)}
    return Maps(
        provenance=made.provenance,
        scaled=(values / size[:, None, None]).half(),
        size=size,
        target=made.target,
        score=made.score,
        layer=getattr(made, "layer", ""),
        extra=extra,
        numbers=numbers,
    )


def strongest(subject: Subject, store: Store, task: Task) -> Result:
    """The maps of the units that answer some images most, layer by layer."""
    given = _options(task)
    kept: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    values = subject.net.activations(subject.pictures(given["images"]), given["layers"])
    for name, value in values.items():
        maps = subject.net.layer(name).axes.maps(value, len(given["images"])).float()
        peaks = maps.flatten(2).amax(2)
        top = peaks.topk(min(given["units"], maps.shape[1]), dim=1).indices
        chosen = maps.gather(1, top[:, :, None, None].expand(-1, -1, *maps.shape[2:]))
        kept[name] = (top, chosen.half(), peaks.gather(1, top))
    return Strongest(
        provenance=provenance(subject.net, "activations", **given),
        units={name: entry[0] for name, entry in kept.items()},
        maps={name: entry[1] for name, entry in kept.items()},
        peaks={name: entry[2] for name, entry in kept.items()},
    )


def walks(subject: Subject, store: Store, task: Task) -> Result:
    """One image's class score taken apart down to the lower layers."""
    given = _options(task)
    return walk(subject.net, subject.pictures([given["image"]]), given["target"], given["layers"])


def tuning(subject: Subject, store: Store, task: Task) -> Result:
    """What the units of some layers are tuned to."""
    found = units.tunings(subject.net, **_options(task))
    return Tunings(provenance=next(iter(found.values())).provenance, layers=found)


def filters(subject: Subject, store: Store, task: Task) -> Result:
    """The filters of a convolution."""
    return units.filters(subject.net, **_options(task))


def connections(subject: Subject, store: Store, task: Task) -> Result:
    """The strongest inputs and outputs of units."""
    return units.connections(subject.net, **_options(task))


def similar(subject: Subject, store: Store, task: Task) -> Result:
    """How alike the units of some layers answer some images."""
    given = _options(task)
    found = units.similarities(subject.net, subject.subset(given.pop("images")), **given)
    return Similarities(provenance=next(iter(found.values())).provenance, layers=found)


def ablate(subject: Subject, store: Store, task: Task) -> Result:
    """What the network loses without each unit, on some images."""
    given = _options(task)
    chosen = subject.subset(given["images"])
    return units.ablate(subject.net, chosen, given["layer"], given["units"], batch=given["batch"])


def reconstruct(subject: Subject, store: Store, task: Task) -> Result:
    """The strongest patches of units, taken back to the pixels."""
    given = _options(task)
    table = table_of(subject, store, task)
    made = units.reconstruct(subject.net, table, ranks=given["ranks"], units=given["units"], batch=given["batch"])
    signal = made.values.sum(2)  # over the channels
    maps = fitted_signal(signal.flatten(0, 1), CELL)
    return Reconstructed(provenance=made.provenance, units=made.units, maps=maps.unflatten(0, signal.shape[:2]).half())


def sheets(subject: Subject, store: Store, task: Task) -> Result:
    """Dissected activations of units, each on the image that drives it most."""
    return sheets_of(subject, table_of(subject, store, task), task.parameters["units"])


def sheet_of_image(subject: Subject, store: Store, task: Task) -> Result:
    """The unit that speaks most for a class on one image, dissected there."""
    return image_sheet(subject, task.parameters["image"], task.parameters["target"])


def spectra(subject: Subject, store: Store, task: Task) -> Result:
    """Singular values of all linear layers."""
    return spaces.spectra(subject.net, **_options(task))


def signal(subject: Subject, store: Store, task: Task) -> Result:
    """Signal vectors of a layer, and what its units hear of some images."""
    return signal_space(subject, **_options(task))


def class_residuals(subject: Subject, store: Store, task: Task) -> Result:
    """What the first layer does not hear of the average image of the classes with most images."""
    return spaces.class_residuals(subject.net, subject.commonest(_CLASSES), layer=task.parameters["layer"])


def rejected(subject: Subject, store: Store, task: Task) -> Result:
    """The share of what it reads that each linear layer rejects."""
    given = _options(task)
    images = subject.pictures(given.pop("images"))
    return spaces.rejected_energy(subject.net, images, **given)


def kept(subject: Subject, store: Store, task: Task) -> Result:
    """What of some images can still be told at some layers."""
    given = _options(task)
    images = subject.pictures(given.pop("images"))
    return Kept.of(
        spaces.kept_and_lost(subject.net, images, given["layers"], iterations=steps(subject.net), dense=False)
    )


def table_of(subject: Subject, store: Store, task: Task) -> units.LayerPatches:
    """The table of patches that a task reads."""
    found = recall(store.address, task.needs[0])
    if not isinstance(found, units.TopPatches):
        raise TypeError("a table of patches is needed.")  # cannot be: the plan names it
    return found[task.parameters["layer"]].with_images(subject.images)


def _options(task: Task) -> dict[str, Any]:
    return dict(task.parameters)


@functools.lru_cache(maxsize=16)
def recall(address: str, key: str) -> Result:
    """A result of an earlier task; the last few stay in memory, for all units of a layer read the same ones."""
    return Store(address).load(key)


@functools.lru_cache(maxsize=128)
def recall_small(address: str, key: str) -> Result:
    """The same for results of a few images, of which a page needs dozens."""
    return Store(address).load(key)


JOBS: dict[str, Job] = {
    "predictions": predictions,
    "patches": patches,
    "maximize": maximize,
    "maximize-class": maximize_class,
    "explain": explain,
    "strongest": strongest,
    "tuning": tuning,
    "filters": filters,
    "connections": connections,
    "similar": similar,
    "ablate": ablate,
    "reconstruct": reconstruct,
    "sheets": sheets,
    "walk": walks,
    "image-sheet": sheet_of_image,
    "spectra": spectra,
    "signal": signal,
    "class-residuals": class_residuals,
    "rejected": rejected,
    "kept": kept,
}
