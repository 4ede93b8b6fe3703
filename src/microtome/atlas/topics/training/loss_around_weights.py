"""The loss around the weights: on a line and a plane of random directions, and on the plane of the training's path."""

from __future__ import annotations

from typing import Any

from microtome.atlas.album import Album
from microtome.atlas.pictures.figure_drawing import drawn_figure
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.surface_page import turning
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.training.kept_run import labelled, run_of
from microtome.atlas.widgets import Absent, DrawnFigure, Facts, Number, Part, Section, SurfaceCanvas
from microtome.loading import Subject
from microtome.training import LossLine, LossSurface
from microtome.training.landscape import line, surface

__all__ = ["LOSS_AROUND_WEIGHTS"]

_STEPS = (31, 21, 15, 11, 9)  # points along each direction of a plane, as many as the budget allows
_ENOUGH = 11  # points along each direction; then more images are preferred
_LINE = 41
_IMAGES = (512, 256, 128)
_EXTENT = 1.0


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    """A line and a plane; with two stored weights also the plane of the path. Each has a third of the time."""
    total = labelled(plan)
    if plan.subject.run is None or not total:
        return []
    seconds = plan.budget.topic_seconds / 3
    fitting = [(n, s) for n in _IMAGES for s in _STEPS if s * s * min(n, total) * plan.seconds <= seconds]
    if not fitting:
        return []
    count, steps = max(fitting, key=lambda pair: (pair[1] >= _ENOUGH, pair[0], pair[1]))
    cost = min(count, total) * plan.seconds
    options: dict[str, Any] = {"count": count, "seed": 0}
    found = [
        plan.task("loss-line", cost=_LINE * cost, of_run=True, steps=_LINE, **options),
        plan.task("loss-plane", cost=steps**2 * cost, of_run=True, steps=steps, **options),
    ]
    if len(run_of(plan.subject).checkpoints) > 2:
        found.append(plan.task("loss-path", cost=steps**2 * cost, of_run=True, steps=steps, **options))
    return found


def loss_line(subject: Subject, *, steps: int, count: int, seed: int) -> LossLine:
    """The loss on a line in a random direction."""
    return line(subject.net, subject.images, steps=steps, extent=_EXTENT, images=count, seed=seed)


def loss_plane(subject: Subject, *, steps: int, count: int, seed: int) -> LossSurface:
    """The loss on a plane of two random directions."""
    return surface(subject.net, subject.images, steps=steps, extent=_EXTENT, images=count, seed=seed)


def loss_path(subject: Subject, *, steps: int, count: int, seed: int) -> LossSurface:
    """The loss on the plane along which the training moved most."""
    return surface(subject.net, subject.images, steps=steps, run=run_of(subject), images=count, seed=seed)


# -- pages ---------------------------------------------------------------------------------------------------------


def _overview(album: Album) -> list[Section]:
    if album.subject.run is None:
        return []
    if not labelled(album.plan):
        return [
            Section("The loss around its weights", (Part(Absent("The images have no labels, so there is no loss.")),))
        ]
    plane, path = album.one(LossSurface, "loss-plane"), album.one(LossSurface, "loss-path")
    curve = album.one(LossLine, "loss-line")
    parts = (
        Part(_facts(curve, plane, path)),
        Part(_line(album, curve), "the loss on a line", "It shows how wide the minimum is."),
        Part(_plane(album, plane), "the loss on a plane", "It shows how wide and how convex the minimum is."),
        Part(_solid(album, plane), "the rotatable loss surface", "It shows the same plane as a landscape."),
        Part(_path(album, path), "the path of the training", "It shows how the training came to the minimum."),
        Part(_solid(album, path), "the path on the rotatable surface", "It shows the way down."),
    )
    return [Section("The loss around its weights", parts)]


def _facts(curve: Any, plane: Any, path: Any) -> Facts | None:
    numbers = []
    if isinstance(curve, LossLine):
        middle = len(curve.alpha) // 2
        value, error = float(curve.loss[middle]), float(curve.error[middle])
        explain = f"Mean of {int(curve.images[middle]):,} images; its standard error is {error:.2g}."
        numbers.append(Number("loss", value, explain=explain))
    if isinstance(plane, LossSurface):
        explain = "Diameter of the region in which the loss rises by less than 1; the weights' own norm is 1."
        numbers.append(Number("width of the minimum", plane.width(), explain=explain))
        explain = "Share of the plane where the loss has negative curvature in some direction."
        numbers.append(Number("negative curvature", 100 * plane.negative_curvature, "%", explain=explain))
    if isinstance(path, LossSurface) and path.off_plane is not None:
        explain = "Share of the path's length that the plane of the path does not show."
        numbers.append(Number("path off the plane", 100 * path.off_plane, "%", explain=explain))
    return Facts(tuple(numbers)) if numbers else None


def _line(album: Album, found: LossLine | Absent | None) -> DrawnFigure | Absent | None:
    if not isinstance(found, LossLine):
        return found
    caption = (
        "The mean loss on a line through the weights in a random direction, whose filters have the norms of the "
        "network's. The network is at 0. The band is two standard errors."
    )
    return drawn_figure(found, "Loss and accuracy on a line", caption, album.made(found, _command(album, line="")))


def _plane(album: Album, found: LossSurface | Absent | None) -> DrawnFigure | Absent | None:
    if not isinstance(found, LossSurface):
        return found
    caption = (
        "The mean loss on a plane of two random directions, whose filters have the norms of the network's, so that "
        "planes of different networks can be compared. The cross is the network."
    )
    made = album.made(found, _command(album))
    return drawn_figure(found, "Contours of the loss", caption, made, view="contours")


def _path(album: Album, found: LossSurface | Absent | None) -> DrawnFigure | Absent | None:
    if not isinstance(found, LossSurface):
        return found
    caption = (
        "The mean loss on the plane along which the training moved most, with the stored weights as dots. They lie off "
        "this plane, so the loss at a dot differs from that of the contours."
    )
    made = album.made(found, _command(album, run=album.commands.run))
    return drawn_figure(found, "Contours of the loss with the path of the training", caption, made, view="contours")


def _solid(album: Album, found: LossSurface | Absent | None) -> SurfaceCanvas | Absent | None:
    if not isinstance(found, LossSurface):
        return found
    if found.path is None:
        caption = "The same plane as a surface: drag it, or use the arrow keys. The red dot is the network."
        made = album.made(found, _command(album, to="loss.html"))
    else:
        caption = "The same plane as a surface, with the path of the training drawn on it. The red dot is the network."
        made = album.made(found, _command(album, run=album.commands.run, to="loss.html"))
    return turning(found, caption, made)


def _command(album: Album, **options: str) -> str:
    words = ["landscape", *(["--line"] if options.pop("line", None) is not None else [])]
    return album.commands.line(*words, data=album.commands.data, **{"to": "loss.png", **options})


LOSS_AROUND_WEIGHTS = Topic(
    "loss around the weights",
    tasks=_tasks,
    jobs={"loss-line": loss_line, "loss-plane": loss_plane, "loss-path": loss_path},
    sections={"overview": _overview},
)
