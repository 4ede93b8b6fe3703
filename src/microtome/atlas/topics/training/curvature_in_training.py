"""How curved the loss is: the Hessian's largest and smallest eigenvalues by layer, and along the training."""

from __future__ import annotations

from collections.abc import Sequence

from microtome.atlas.album import Album
from microtome.atlas.pictures.figure_drawing import drawn_figure
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.training.kept_run import SLOPES, chosen_epochs, labelled, run_of
from microtome.atlas.widgets import Absent, DrawnFigure, Part, Section
from microtome.loading import Subject
from microtome.training import CurvatureHistory, HessianEigenvalues
from microtome.training.curvature import along_training, eigenvalues

__all__ = ["CURVATURE_IN_TRAINING"]

_IMAGES = (256, 128, 64)
_PRODUCTS = 40  # maximum number of Hessian-vector products for each layer and checkpoint
_USUAL = 20  # expected number of these products
_TOLERANCE = 0.01
_CHECKPOINTS, _FEW = 8, 3  # maximum and minimum number of checkpoints shown
_LARGEST = 2_000_000  # weights: above, the vectors take several hundred megabytes


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    """Curvature of every layer at the final weights, and of all weights along the training."""
    weights = [p for p in plan.net.model.parameters() if p.is_floating_point()]
    total, size = labelled(plan), sum(p.numel() for p in weights)
    if plan.subject.run is None or not total or not 0 < size <= _LARGEST:
        return []
    layers = 1 + len({name.rpartition(".")[0] for name, _ in plan.net.model.named_parameters()})
    seconds, epochs = plan.budget.topic_seconds, chosen_epochs(plan, _CHECKPOINTS)
    found = []
    if count := _affordable(plan, total, layers, 2 * seconds / 3):
        cost = _seconds(plan, min(count, total)) * layers
        found.append(plan.task("curvature-layers", cost=cost, of_run=True, count=count, seed=0))
    least = min(len(epochs), _FEW)
    if least and (count := _affordable(plan, total, least, seconds / 3)):
        each = _seconds(plan, min(count, total))
        epochs = chosen_epochs(plan, max(least, int(min(seconds / 3 / each, _CHECKPOINTS))))
        cost = each * len(epochs)
        found.append(plan.task("curvature-history", cost=cost, of_run=True, epochs=epochs, count=count, seed=0))
    return found


def _affordable(plan: Plan, total: int, times: int, seconds: float) -> int:
    """The number of images for this number of Hessians; 0 if the minimum is too expensive."""
    return next((n for n in _IMAGES if _seconds(plan, min(n, total)) * times <= seconds), 0)


def _seconds(plan: Plan, images: int) -> float:
    """Expected seconds for one Hessian's eigenvalues."""
    return SLOPES * plan.seconds * _USUAL * images


def curvature_layers(subject: Subject, *, count: int, seed: int) -> HessianEigenvalues:
    """Extreme eigenvalues at the network's weights, whole and by layer."""
    return eigenvalues(
        subject.net, subject.images, per_layer=True, images=count, tolerance=_TOLERANCE, products=_PRODUCTS, seed=seed
    )


def curvature_history(subject: Subject, *, epochs: Sequence[int], count: int, seed: int) -> CurvatureHistory:
    """Extreme eigenvalues at some checkpoints."""
    return along_training(
        subject.net, run_of(subject), subject.images, epochs=epochs, images=count, tolerance=_TOLERANCE,
        products=_PRODUCTS, seed=seed,
    )  # fmt: skip


# -- pages ---------------------------------------------------------------------------------------------------------


def _overview(album: Album) -> list[Section]:
    if album.subject.run is None or not labelled(album.plan):
        return []
    parts = (
        Part(_layers(album), "the curvature of each layer", "It shows which layer makes the minimum sharp."),
        Part(_history(album), "the curvature along the training", "It shows when the minimum became sharp."),
    )
    return [Section("How curved the loss is", parts)]


def _layers(album: Album) -> DrawnFigure | Absent | None:
    found = album.one(HessianEigenvalues, "curvature-layers")
    if not isinstance(found, HessianEigenvalues):
        return found
    caption = (
        "The largest and the smallest eigenvalue of the loss's second derivative, for all weights and for those of "
        "each layer alone: a layer with a long bar makes the minimum sharp."
    )
    command = album.commands.line("curvature", "--per-layer", data=album.commands.data, to="curvature.png")
    return drawn_figure(found, "Eigenvalues of the Hessian by layer", caption, album.made(found, command))


def _history(album: Album) -> DrawnFigure | Absent | None:
    found = album.one(CurvatureHistory, "curvature-history")
    if not isinstance(found, CurvatureHistory):
        return found
    caption = "The same two eigenvalues for all weights at stored epochs of the training, on the same images."
    command = album.commands.line(
        "curvature", data=album.commands.data, run=album.commands.run, to="curvature.png"
    )  # fmt: skip
    return drawn_figure(found, "Eigenvalues of the Hessian by epoch", caption, album.made(found, command))


CURVATURE_IN_TRAINING = Topic(
    "curvature in training",
    tasks=_tasks,
    jobs={"curvature-layers": curvature_layers, "curvature-history": curvature_history},
    sections={"overview": _overview},
)
