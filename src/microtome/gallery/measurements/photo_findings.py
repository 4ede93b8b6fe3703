"""Findings on photos: first filters, units that specialise, and reconstructions of the patches that drive units."""

from __future__ import annotations

import torch
from torch import Tensor

from microtome import data, units, zoo
from microtome.data import Folder
from microtome.errors import InputError
from microtome.gallery.finding import Finding, Workplace, verdict
from microtome.network import Network
from microtome.units import NaturalFilters

__all__ = ["first_filters", "photos_of", "reconstructions", "spread", "units_on_photos"]

_SEEING, _EXPLAINING = "visualization-lecture", "explaining-lecture"
_BLOCKS = ("_blocks.1._project_conv", "_blocks.6._project_conv", "_blocks.14._project_conv")  # of EfficientNet-Lite0
_CLEAR = 0.05  # smallest difference between the likeness within a unit and across units
_UNITS = 6  # number of units per layer whose patches are compared


def photos_of(place: Workplace, net: Network, quick: int) -> Folder:
    """Photos evenly over the folder: ``quick`` of them in a quick run, else all."""
    if place.photos is None:
        raise InputError("this measurement needs photos; give their folder with --data.")
    found = data.folder(place.photos, net.input_shape, classes=net.classes)
    return spread(found, quick) if place.quick else found


def spread(photos: Folder, count: int) -> Folder:
    """A number of images, evenly over the folder."""
    count = min(count, len(photos))
    return photos.subset([round(at * (len(photos) - 1) / max(count - 1, 1)) for at in range(count)])


def first_filters(place: Workplace) -> list[Finding]:
    """Oriented and coloured filters of first layers, kernels of second layers, and independent components of photos."""
    nets = {"EfficientNet-Lite0": zoo.network("efficientnet-lite0"), "MobileNetV2": zoo.network("mobilenet-v2")}
    texts, oriented, coloured, firsts, seconds, drawn = [], [], [], [], [], []
    natural: dict[str, NaturalFilters] = {}
    for name, net in nets.items():
        spatial = [one for one in net.layers if _wide(net, one)]
        first = units.filters(net, spatial[0])
        second = units.filters(net, spatial[1], fit=True)
        alive = first.weights.flatten(1).norm(dim=1) > 0.05 * first.weights.flatten(1).norm(dim=1).max()
        colour = (first.weights - first.weights.mean(1, keepdim=True)).square().flatten(1).sum(1)
        share = colour / first.weights.square().flatten(1).sum(1).clamp(min=1e-30)
        lines, blobs = alive & (first.goodness > 0.5) & (share < 1 / 3), alive & (share >= 1 / 3)
        oriented.append(int(lines.sum()))
        coloured.append(int(blobs.sum()))
        firsts.append(float(first.goodness[alive].median()))
        seconds.append(float(second.goodness.median()))
        texts.append(
            f"{name}: of {int(alive.sum())} filters that are not dead, {oriented[-1]} are oriented without colour and "
            f"{coloured[-1]} coloured"
        )
        natural[name] = units.natural_filters(net, photos_of(place, net, 40), layer=spatial[0])
        short = name.split("-")[0].lower()
        drawn.append(
            place.draw(
                f"filters-{short}",
                first,
                f"{name}: filters of the first convolution with the Gabor function fitted to each.",
            )
        )
    noise = _noise_fit()
    both = all(oriented) and all(coloured)
    found = [natural[name] for name in nets]
    alike = [(float(one.similarity.nanmean()), one.chance, one.chance_spread) for one in found]
    gabor = [float(one.gabor.median()) for one in found]
    better = all(mean > chance + 2 * spread for mean, chance, spread in alike)
    place_drawn = place.draw(
        "natural", found[0], "Each filter above the independent component of photo patches that is most like it."
    )
    return [
        Finding(
            _SEEING,
            "first-layer-filters",
            f"{sum(oriented)} oriented, {sum(coloured)} coloured",
            "\n".join(texts),
            verdict(both, any(oriented) or any(coloured)),
            "" if both else "Kernels here are 3 x 3 where AlexNet's are 11 x 11.",
            tuple(drawn),
        ),
        Finding(
            _EXPLAINING,
            "second-layer-filters",
            f"median Gabor fit {firsts[0]:.2f} and {seconds[0]:.2f}",
            "median share of a kernel that a Gabor function explains, first and second convolution with extent: "
            + "; ".join(f"{name} {a:.2f} and {b:.2f}" for name, a, b in zip(nets, firsts, seconds, strict=True))
            + f"; kernels of noise {noise:.2f}",
            verdict(
                all(a > b + 0.1 for a, b in zip(firsts, seconds, strict=True)),
                any(a > b for a, b in zip(firsts, seconds, strict=True)),
            ),
            "A kernel of 3 x 3 is fitted well by a Gabor function of five parameters whatever it holds, "
            "noise included: "
            "with so few pixels the fit says little. That deeper kernels read channels, not colours, remains.",
            (),
        ),
        Finding(
            _EXPLAINING,
            "gabor-everywhere",
            f"fit {gabor[0]:.2f}, likeness {alike[0][0]:.2f} (chance {alike[0][1]:.2f})",
            "\n".join(
                f"{name}: median Gabor fit of the components {fit:.2f}; mean likeness of filters and components "
                f"{mean:.2f}, random filters {chance:.2f} ± {spread:.2f}"
                for name, fit, (mean, chance, spread) in zip(nets, gabor, alike, strict=True)
            ),
            verdict(better and min(gabor) > 0.5, min(gabor) > 0.5),
            "" if better else "In 3 x 3 pixels there is little room for filters to differ.",
            (place_drawn,),
        ),
    ]


def _wide(net: Network, layer: str) -> bool:
    weight = dict(net.model.named_parameters()).get(f"{layer}.weight")
    return weight is not None and weight.dim() == 4 and weight.shape[-1] > 1


def _noise_fit() -> float:
    """Median goodness of the Gabor fit to 3 x 3 kernels of noise."""
    from microtome.units.wiring import gabor

    kernels = torch.randn(64, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu")
    return float(gabor.fit(kernels).goodness.median())


def units_on_photos(place: Workplace) -> list[Finding]:
    """Rarity of the responses of units by depth, and the most specialised units."""
    net = zoo.network("efficientnet-lite0")
    photos = photos_of(place, net, 80)
    layers = ["_conv_stem", *_BLOCKS, "_conv_head"]
    found = units.specialised(net, photos, layers)
    rarity = {layer: float(found.rarity[layer].median()) for layer in layers}
    values = list(rarity.values())
    rises = values[-1] > values[len(values) // 2] > values[0]
    best = found.units(8)
    rare = [(layer, unit) for layer, unit, _ in best if int(found.fires_on[layer][unit]) <= max(2, found.images // 20)]
    return [
        Finding(
            _SEEING,
            "features-hierarchical",
            f"rarity {values[0]:.2f} to {values[-1]:.2f}",
            f"median rarity over {found.images} photos (0: responds to all alike, 1: to one): "
            + ", ".join(f"{layer} {value:.2f}" for layer, value in rarity.items()),
            verdict(rises, values[-1] > values[0]),
            "" if rises else "Units of the first half may respond to all photos alike.",
        ),
        Finding(
            _SEEING,
            "specialised-maps",
            f"{len(rare)} of 8 fire on 1 photo in 20",
            "\n".join(found.describe(layer, unit) for layer, unit, _ in best),
            verdict(len(rare) >= 4, bool(rare)),
            ""
            if len(rare) >= 4
            else "Few photos of each class are at hand, so that a face or text detector has little to show.",
            (place.draw("specialised", found, "Rarity and locality of every unit; the most specialised are named."),),
        ),
    ]


def reconstructions(place: Workplace) -> list[Finding]:
    """Top 9 patches in three depths, reconstructed by deconvnet and by guided backpropagation."""
    net = zoo.network("efficientnet-lite0")
    photos = photos_of(place, net, 80)
    patches = units.top_patches(net, photos, _BLOCKS)
    alike, sharp, texts, drawn = [], [], [], []
    for layer in _BLOCKS:
        chosen = patches[layer].activation[:, 0].argsort(descending=True)[:_UNITS].tolist()
        made = {
            method: units.reconstruct(net, patches[layer], method=method, units=chosen, batch=4)
            for method in ("deconvnet", "guided")
        }
        own, other = group_likeness(made["deconvnet"].values)
        within = [concentration(one.values) for one in made.values()]
        alike.append((own, other))
        sharp.append(within)
        texts.append(
            f"{layer}: likeness of a unit's nine on 8 x 8 cells {own:.2f}, across units {other:.2f}; strongest tenth "
            f"of the pixels holds {within[0]:.0%} (deconvnet), {within[1]:.0%} (guided)"
        )
        short = layer.split(".")[1]
        for method, one in made.items():
            drawn.append(
                place.draw(
                    f"top9-{short}-{method}",
                    one,
                    f"{layer}: top 9 patches of {_UNITS} units and their reconstructions by {method}.",
                )
            )
    common = [own > other + _CLEAR for own, other in alike]
    cleaner = [guided > plain for plain, guided in sharp]
    return [
        Finding(
            _SEEING,
            "top-9",
            "; ".join(f"{own:.2f} against {other:.2f}" for own, other in alike),
            "\n".join(texts),
            verdict(all(common), any(common)),
            ""
            if all(common)
            else "This network has no max-pooling, whose switches give the reconstruction of a deconvnet its detail. "
            "Through strided convolutions the signal spreads evenly (Springenberg et al. 2015).",
            tuple(drawn[::2]),
        ),
        Finding(
            _EXPLAINING,
            "guided-is-sharper",
            f"in {sum(cleaner)} of {len(cleaner)} layers",
            "\n".join(texts),
            verdict(all(cleaner), any(cleaner)),
            ""
            if all(cleaner)
            else "Concentration is one way to say clean. Where the deconvnet leaves a lattice, guided "
            "backpropagation shows the photo's edges, which fill more pixels.",
            tuple(drawn[1::2]),
        ),
    ]


def group_likeness(values: Tensor) -> tuple[float, float]:
    """Mean cosine of the sizes of reconstructions (units, k, C, h, w): within a unit, and of different units."""
    sizes = values.double().abs().sum(2)
    sizes = torch.nn.functional.adaptive_avg_pool2d(sizes, 8).flatten(2)
    there = sizes.norm(dim=2) > 0
    flat = torch.nn.functional.normalize(sizes - sizes.mean(2, keepdim=True), dim=2)
    alike = torch.einsum("uif,vjf->uvij", flat, flat)
    valid = there[:, None, :, None] & there[None, :, None, :]
    same = torch.eye(len(values), dtype=torch.bool, device=values.device)[:, :, None, None]
    itself = torch.eye(values.shape[1], dtype=torch.bool, device=values.device)[None, None]
    return float(alike[valid & same & ~itself].mean()), float(alike[valid & ~same].mean())


def concentration(values: Tensor) -> float:
    """Mean share of a reconstruction's energy in its strongest tenth of pixels."""
    energy = values.double().square().sum(2).flatten(2)
    there = energy.sum(2) > 0
    count = max(1, energy.shape[2] // 10)
    return float((energy.topk(count, dim=2).values.sum(2) / energy.sum(2).clamp(min=1e-30))[there].mean())
