"""``microtome reproduce``: numbers and figures of papers and lectures, measured beside the published values."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from microtome.cli.output import check_place
from microtome.errors import InputError, nearest

__all__ = ["reproduce"]

_KNOWN = ("all", "vector-spaces", "lectures", "loss-surfaces", "information-plane", "representations",
          "dissecting-a-convnet")  # fmt: skip


def reproduce(
    what: Annotated[str, Parameter(help=f"What to reproduce: {', '.join(_KNOWN)}.")],
    /,
    *,
    full: Annotated[
        bool, Parameter(negative="--quick", help="Full size as in the paper, about two hours; otherwise a few minutes.")
    ] = False,
    photos: Annotated[
        Path | None,
        Parameter(name="--data", help="For all, lectures and representations: a folder of photos by class."),
    ] = None,
    images: Annotated[int, Parameter(help="Lectures: how many of the photos.")] = 50,
    only: Annotated[
        tuple[str, ...], Parameter(consume_multiple=True, negative=(), help="For all: names of measurements.")
    ] = (),
    workers: Annotated[
        int | None, Parameter(help="For all: number of measurements at a time; default one per core.")
    ] = None,
    out: Annotated[Path, Parameter(help="Folder for figures and numbers.")] = Path("reproduced"),
) -> None:
    """Make the figures and numbers of a paper or of the lectures again.

    `all` measures every statement of the paper on signal spaces, of the article that dissects a convnet and of both
    lectures, and writes one page for each: the published value, the measured value, and why they differ. Quick takes
    under 45 minutes on two cores. Finished measurements are not repeated; failures are reported, and the rest is
    delivered. `vector-spaces` sets the paper's value beside the measured one. `lectures` measures on EfficientNet-Lite0
    and real photos whether covering the object costs more than covering the background, where counterfactual maps fall,
    how deletion and insertion order the maps, and what is left of them when weights are lost (about ten minutes).
    `dissecting-a-convnet` trains and prunes a SimpleConvNet and compares each of the article's statements with the
    measured value, with its figures, on a page. `loss-surfaces` trains residual networks with and without skip
    connections and a DenseNet, with small and large batches and from several initial weights, and compares how convex
    and how wide their minima are. `information-plane` draws the six figures of the 12-bit task. `representations` maps
    digits and photos by t-SNE.

    Example: `microtome reproduce all --quick --data photos --out reproduced`
    """
    if what not in _KNOWN:
        raise InputError(f'"{what}" is not known. Nearest: {nearest(what, _KNOWN)}.')
    if what != "all" and (only or workers is not None):
        raise InputError("--only and --workers belong to `microtome reproduce all`.")
    check_place(out)
    place, say = out / what, partial(print, flush=True)
    if what == "all":
        from microtome.gallery.gallery_run import gallery

        result = gallery(out, quick=not full, photos=photos, only=only, workers=workers, say=say)
        print(f"\n{result.report()}\npages: {result.page}")
        return
    if what == "lectures":
        from microtome.reproduce.lectures import lectures

        if photos is None:
            raise InputError("the lectures' findings are measured on photos; give their folder with --data.")
        table = lectures(photos, images=images, out=place, say=say).report()
    elif what == "dissecting-a-convnet":
        from microtome.reproduce.dissecting.dissecting_a_convnet import dissecting_a_convnet

        table = dissecting_a_convnet(quick=not full, out=place, say=say).report()
    elif what == "loss-surfaces":
        from microtome.reproduce.loss_surfaces import loss_surfaces

        table = loss_surfaces(quick=not full, out=place, say=say).report()
    elif what == "information-plane":
        from microtome.reproduce.information_planes import information_planes

        table = information_planes(quick=not full, out=place, say=say).report()
    elif what == "representations":
        from microtome.reproduce.representations import representations

        table = representations(quick=not full, photos=photos, out=place, say=say).report()
    else:
        from microtome.reproduce.vector_spaces import vector_spaces

        table = vector_spaces(quick=not full, out=place, say=say).report()
    print(f"\n{table}\nfigures and numbers in {place}")
