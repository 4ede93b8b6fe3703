"""A rotatable loss surface, as a part of a page and as one file that opens from disk."""

from __future__ import annotations

from microtome.atlas.site.page_file import made_by, page_file
from microtome.atlas.widgets import Made, SurfaceCanvas
from microtome.atlas.widgets.surface_canvas import solid
from microtome.training import LossSurface

__all__ = ["surface_file", "turning"]


def turning(found: LossSurface, caption: str, made: Made | None = None) -> SurfaceCanvas:
    """The surface as a widget.

    Parameters
    ----------
    found
        Losses on a plane, optionally with the path of a training.
    caption, made
        See :class:`~microtome.atlas.widgets.SurfaceCanvas`.
    """
    path = None if found.path is None else found.path.numpy()
    data = solid(found.alpha.numpy(), found.beta.numpy(), found.loss.numpy(), found.error.numpy(), path=path)
    return SurfaceCanvas(data, _spoken(found), caption, made)


def surface_file(found: LossSurface, title: str) -> bytes:
    """The page of a surface, in one self-contained file.

    Parameters
    ----------
    found
        Losses on a plane.
    title
        The page's heading.
    """
    few, many = int(found.images.min()), int(found.images.max())
    on = f"{few:,} images" if few == many else f"{few:,} to {many:,} images a point"
    caption = f"The mean loss of {on} on a plane of weights; the red dot is the network. "
    if found.path is not None:
        caption += (
            "The line is the path of the training, drawn on the surface; "
            f"{100 * float(found.off_plane or 0):.0f} % of its length lies off this plane. "
        )
    if found.explained is not None:
        first, second = (f"{100 * float(share):.0f} %" for share in found.explained)
        caption += f"Alpha explains {first} and beta {second} of the squared distances on the path. "
    return page_file(title, turning(found, caption + _treated(found), made_by(found)))


def _treated(found: LossSurface) -> str:
    words = "; ".join(f"{name}: {what}" for name, what in found.treatment.items())
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _spoken(found: LossSurface) -> str:
    known = found.loss[found.loss.isfinite()]
    size = " by ".join(str(side) for side in found.loss.shape)
    if not len(known):
        return f"Loss surface of {size} points, none of them finite"
    here = float(found.loss[int(found.alpha.abs().argmin()), int(found.beta.abs().argmin())])
    return (
        f"Loss surface of {size} points, from {float(known.min()):.3g} to {float(known.max()):.3g}; at the network "
        f"{here:.3g}"
    )
