"""What do layers keep and throw away, as the pages show it? Spectra, signal vectors, residuals, what images lose."""

from __future__ import annotations

import math

from torch import Tensor

from microtome.atlas.assemble.album import Album
from microtome.atlas.findings import Kept
from microtome.atlas.fit import fitted, fitted_signal
from microtome.atlas.pages import (
    Absent,
    Amount,
    Amounts,
    Gallery,
    KeptRow,
    Made,
    Number,
    Picture,
    Spectrum,
    to_layer,
)
from microtome.atlas.spaces import SignalSpace, maps_inside
from microtome.spaces import ClassResiduals, Rejected, Spectra

__all__ = ["conditions", "kept_made", "kept_rows", "rejected", "residuals", "signal", "spectrum", "without_weights"]

_SIDE = 160  # pixels a side of a picture
_NOTHING = 1e-3  # a share of the energy that no picture would show
_FAINT = 0.1  # residuals are drawn on a scale of at least this share of the image's range


def spectra(album: Album, view: str) -> Spectra | Absent | None:
    """The singular values of all linear layers, with convolutions read in one way."""
    return album.remembered(("spectra", view), lambda: album.one(Spectra, "spectra", view=view))


def without_weights(album: Album, layer: str) -> Absent | None:
    """Why a layer is no single linear map, with the layers that are; None where it is one."""
    inside = maps_inside(album.net, layer)
    if inside == [layer]:
        return None
    kind = album.net.layer(layer).kind
    if not inside:
        return Absent(f"{layer} ({kind}) has no weights of its own.")
    named = ", ".join(inside[:4]) + (", ..." if len(inside) > 4 else "")
    text = f"{layer} ({kind}) is a block of {len(inside)} linear layers with operations between them, not one of them."
    return Absent(f"{text} Each can be looked at alone: {named}.", f"--layers {inside[0]}")


def spectrum(album: Album, layer: str) -> Spectrum | Absent | None:
    """The singular values of a layer's weights, or of each linear layer that it holds."""
    inside = maps_inside(album.net, layer)
    if not inside:
        return without_weights(album, layer)
    curves: list[tuple[str, tuple[float, ...]]] = []
    made: Made | None = None
    for view in ("patches", "kernels"):
        found = spectra(album, view)
        if not isinstance(found, Spectra):
            return found
        made = made or album.made(found, album.commands.line("spectra", to="spectra.png"))
        for name in inside if view == "patches" or _two_ways(album, layer, inside) else []:
            values = tuple(round(value, 9) for value in found.singular_values[name].tolist())
            how = {"patches": "whole kernels", "kernels": "single kernels"}.get(found.view[name], "weights")
            if values[0] > 0:
                curves.append((how if len(inside) == 1 else name.removeprefix(f"{layer}."), values))
    caption = "Each singular value by the largest: a flat line hears all directions alike, a steep one few of them."
    return Spectrum(tuple(curves), caption, made) if curves else Absent("All its weights are zero.")


def _two_ways(album: Album, layer: str, inside: list[str]) -> bool:
    """Whether the kernels of a layer, each alone, are another matrix than its weights."""
    whole, single = spectra(album, "patches"), spectra(album, "kernels")
    if inside != [layer] or not isinstance(whole, Spectra) or not isinstance(single, Spectra):
        return False
    return single.view[layer] == "kernels" and single.shape[layer] != whole.shape[layer] and single.shape[layer][1] > 1


def conditions(album: Album, layer: str) -> list[Number]:
    """Rank and condition number of a layer's weights."""
    inside = maps_inside(album.net, layer)
    whole, kernels = spectra(album, "patches"), spectra(album, "kernels")
    if inside != [layer] or not isinstance(whole, Spectra) or not isinstance(kernels, Spectra):
        return []
    m, n = whole.shape[layer]
    found = [
        Number("rank", f"{whole.rank[layer]} of {min(m, n)}", explain=f"Of its weights as a matrix of {m} x {n}."),
        Number("condition number", whole.condition_number[layer], explain="Largest by smallest singular value."),
    ]
    if _two_ways(album, layer, inside):
        explain = "Of all kernels, each one row, as the signal-space paper reads a convolution."
        found.append(Number("condition number of kernels", kernels.condition_number[layer], explain=explain))
    return found


def signal(album: Album, layer: str) -> Gallery | Absent | None:
    """The signal vectors of a layer, strongest first."""
    found = album.one(SignalSpace, "signal", layer=layer)
    if not isinstance(found, SignalSpace):
        return found
    if not len(found.signal):
        return Absent("All its weights are zero: it has no signal vector.")
    if found.signal[0].dim() != 3 and found.signal[0].dim() != 2:
        return Absent(
            f"Its {found.rank} signal vectors have {found.signal[0].numel()} values each and are no pictures."
        )
    pictures, about = _signed_pictures(album, f"signal-{album.slug(layer)}", found.signal)
    notes = [f"{value:.3g}" for value in found.singular_values.tolist()]
    of = {"patches": "patches", "kernels": "single kernels"}.get(found.view, "what it reads")
    caption = (
        f"The directions among {of} that it hears, {len(found.signal)} of {found.rank}, with their singular values; "
        f"what is at right angles to all of them leaves no trace.{about}"
    )
    return Gallery(
        tuple(
            Picture(p.sprite, p.index, f"signal vector {i} of {layer}", None, notes[i]) for i, p in enumerate(pictures)
        ),
        caption,
        album.made(found, album.commands.line("signal-space", layer, view=found.view, to="space.png")),
    )


def heard(album: Album, layer: str, unit: int) -> list[Number]:
    """The share of what its layer reads that lies along a unit's weight vector."""
    found = album.one(SignalSpace, "signal", layer=layer)
    if not isinstance(found, SignalSpace) or unit >= len(found.heard):
        return []
    explain = f"Share of the energy of what it reads along its weight vector, mean over {found.images} images."
    return [Number("energy heard", 100 * float(found.heard[unit]), "%", explain=explain)]


def residuals(album: Album, layer: str) -> tuple[Gallery | None, Gallery | Absent | None]:
    """Average images of classes, and what of each the first layer does not hear."""
    found = album.one(ClassResiduals, "class-residuals", layer=layer)
    if not isinstance(found, ClassResiduals) or len(found.residual_shape) != 3:
        return None, None
    sprite = album.sheet.natural(f"averages-{album.slug(layer)}", fitted(found.averages.float(), _SIDE))
    averages = Gallery(
        tuple(Picture(sprite, i, f"average image of {name}", None, name) for i, name in enumerate(found.classes)),
        "The average image of each class.",
        album.made(found),
    )
    most = float(found.removed.max())
    if most <= _NOTHING:
        return averages, Absent(f"It hears all of it: at most {100 * most:.2g} % of an average's energy is removed.")
    rest = found.residual.reshape(-1, *found.residual_shape).float()
    limit = max(float(rest.abs().max()), _FAINT * float(found.averages.abs().max()))
    pictures, about = _signed_pictures(album, f"residuals-{album.slug(layer)}", rest, limit, "as the layer reads it")
    own = "its own unit's weight vector" if found.against == "unit" else "the layer's signal space"
    return (
        averages,
        Gallery(
            tuple(
                Picture(p.sprite, p.index, f"residual of {name}", None, f"{100 * share:.3g} % removed")
                for p, name, share in zip(pictures, found.classes, found.removed.tolist(), strict=True)
            ),
            f"What is left of it beside its projection on {own}: this share of its energy changes nothing.{about}",
            album.made(found),
        ),
    )


def _signed_pictures(
    album: Album, file: str, values: Tensor, limit: float | None = None, quantity: str = "weight"
) -> tuple[list[Picture], str]:
    """Signed pictures (n, h, w) or (n, C, h, w); three channels as colours about gray, more as their strongest."""
    about = ""
    if values.dim() == 4 and values.shape[1] == 3:
        size = values.flatten(1).abs().amax(1) if limit is None else values.new_full((len(values),), limit)
        shown = 0.5 + 0.5 * values / size.clamp(min=1e-12)[:, None, None, None]
        sprite, about = album.sheet.natural(file, fitted(shown.clamp(0, 1), _SIDE)), " Gray is zero."
    else:
        if values.dim() == 4 and values.shape[1] > 1:
            strongest = values.square().flatten(2).sum(2).argmax(1)
            values, about = values[range(len(values)), strongest], " Of each the channel of most energy is drawn."
        maps = fitted_signal(values.flatten(0, 1) if values.dim() == 4 else values, _SIDE)
        limits = None if limit is None else (-limit, limit)
        sprite = album.sheet.scaled(file, maps, "diverging", quantity, limits=limits, own=limit is None, square=True)
    return [Picture(sprite, index, file) for index in range(len(values))], about


def rejected(album: Album) -> Amounts | Absent | None:
    """The share of what it reads that each linear layer rejects."""
    found = album.one(Rejected, "rejected")
    if not isinstance(found, Rejected):
        return found
    rows = tuple(
        Amount(name, 100 * float(share), to_layer(name), label=_told(found, place, ok))
        for place, (name, share, ok) in enumerate(
            zip(found.layers, found.mean.tolist(), found.known.all(1).tolist(), strict=True)
        )
    )
    caption = (
        f"The share of the energy of what a layer reads whose removal changes the output of its weights by less than "
        f"{found.threshold:.0%}, mean over {found.share.shape[1]} images."
    )
    return Amounts(rows, "%", caption, album.made(found))


def _told(found: Rejected, layer: int, known: bool) -> str:
    """That an amount is a bound, and what is known of the exact null space."""
    null = "" if bool(found.null_share[layer].isnan().any()) else f"exact null space {found.null_space(layer)}"
    return ", ".join(part for part in ("" if known else "at most", null) if part)


def kept_rows(album: Album, index: int) -> tuple[KeptRow, ...] | Absent | None:
    """The kept and the lost part of an image at some layers."""
    for task in album.find("kept"):
        if index in task.parameters["images"]:
            result, place = album.load(task), task.parameters["images"].index(index)
            return (
                _rows(album, result, place, index)
                if isinstance(result, Kept)
                else Absent(getattr(result, "reason", "It cannot be split."))
            )
    return None


def kept_made(album: Album) -> Made | None:
    """How the kept parts were made."""
    found = album.find("kept")
    result = album.load(found[0]) if found else None
    return album.made(result) if isinstance(result, Kept) else None


def _lost(found: Kept, row: int, place: int) -> tuple[Number, ...]:
    """The lost share with its proof, and the share in the exact null space where it is known."""
    share, error, null = (float(value[row, place]) for value in (found.share, found.error, found.null_share))
    known = bool(found.known[row, place])
    explain = f"Its removal changes the layer by {float(found.reached[row, place]):.2g} of its norm, to first order."
    if not known:
        explain += f" The steps of this atlas do not reach {found.threshold:.0%}, for which less is lost."
    numbers = (
        Number("lost" if known else "lost at most", 100 * share, "%", explain=explain),
        Number("proved to within", 100 * error, "%", tolerance="4 % of it or 0.1 %" if known else ""),
    )
    if math.isnan(null):
        return numbers
    return (*numbers, Number("in the exact null space", 100 * null, "%", explain="0 where the local map is injective."))


def _rows(album: Album, found: Kept, place: int, index: int) -> tuple[KeptRow, ...]:
    picture = album.subject.pictures([index])[0].float()
    rows = []
    for row, layer in enumerate(found.layers):
        file = f"image-{album.image_id(index)}-kept-{album.slug(layer)}"
        kept = found.kept[layer][place].float()
        sprite = album.sheet.natural(file, fitted(kept[None].clamp(0, 1), _SIDE))
        lost, _ = _signed_pictures(
            album, f"{file}-lost", (picture - kept)[None], float(picture.abs().max()) or 1.0, "pixel value"
        )
        numbers = _lost(found, row, place)
        rows.append(
            KeptRow(layer, Picture(sprite, 0, f"what {layer} can still tell of the picture"),
                    Picture(lost[0].sprite, 0, f"what {layer} has lost of the picture"), numbers)
        )  # fmt: skip
    return tuple(rows)
