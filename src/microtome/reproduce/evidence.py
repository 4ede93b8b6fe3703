"""Tests whether evidence lies on the object and counterfactual evidence elsewhere, photo by photo, with controls."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from microtome import attribution
from microtome.attribution.gradients.baselines import baseline
from microtome.attribution.quality import rank_correlation
from microtome.attribution.result import enlarged
from microtome.network import Network
from microtome.results import Result, provenance

OBJECT = 0.25  # share of the picture that counts as object, and likewise as background
STRONG = 0.2  # share of the picture that a map marks


@dataclass(frozen=True, eq=False, kw_only=True)
class Covering(Result):
    """Drop of the probability of a photo's class as parts of it are covered.

    Attributes
    ----------
    object, background : Tensor
        (N,), mean drop over the windows whose middle lies in the object, and in the background.
    whole_object, whole_background : Tensor
        (N,), the drop with all of the object covered, and all of the background region of equal size.
    """

    object: Tensor
    background: Tensor
    whole_object: Tensor
    whole_background: Tensor

    @property
    def share(self) -> float:
        """Share of the photos where windows on the object cost more than windows on the background."""
        return float((self.object > self.background).double().mean())

    @property
    def share_whole(self) -> float:
        """The same with the whole regions covered."""
        return float((self.whole_object > self.whole_background).double().mean())

    def line(self) -> str:
        """Summary in one line."""
        return (
            f"windows: object costs more in {self.share:.0%} of the photos, mean drop {float(self.object.mean()):.3f} "
            f"against {float(self.background.mean()):.3f}; whole region: {self.share_whole:.0%}, "
            f"{float(self.whole_object.mean()):.3f} against {float(self.whole_background.mean()):.3f}"
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Counterfactual(Result):
    """Overlap of Grad-CAM and its counterfactual, and the change of the logit as either is covered.

    On the layer's grid the two cannot overlap, since they are the positive and the negative part of one
    sum. A second network and the score test whether they lie on different parts of the image.

    Attributes
    ----------
    overlap : Tensor
        (N,), intersection over union of the strongest fifth of both maps. NaN, here and below, where a
        photo has no evidence or no counterfactual: the map is zero everywhere.
    correlation : Tensor
        (N,), rank correlation of the two maps.
    evidence_on_object, counterfactual_on_object : Tensor
        (N,), share of each map's energy on the object as the second network sees it.
    evidence_covered, counterfactual_covered : Tensor
        (N,), change of the class's logit when the strongest fifth of either map is covered.
    """

    overlap: Tensor
    correlation: Tensor
    evidence_on_object: Tensor
    counterfactual_on_object: Tensor
    evidence_covered: Tensor
    counterfactual_covered: Tensor

    def lines(self) -> list[str]:
        """Summary in a few lines."""
        there = ~self.overlap.isnan()
        lower = (self.evidence_covered < self.counterfactual_covered)[there].double().mean()
        chance = STRONG / (2 - STRONG)
        first = (
            f"    {int(there.sum())} of {len(there)} photos have both; their strongest fifths overlap by "
            f"{float(self.overlap.nanmean()):.3f} (chance {chance:.3f}), rank correlation "
            f"{float(self.correlation[there].mean()):.2f}"
        )
        energies = float(self.evidence_on_object.nanmean()), float(self.counterfactual_on_object.nanmean())
        second = (
            f"    energy on the object (a quarter of the picture): evidence {energies[0]:.2f}, "
            f"counterfactual {energies[1]:.2f}"
        )
        third = (
            f"    logit when covered: evidence {float(self.evidence_covered.nanmean()):+.2f}, "
            f"counterfactual {float(self.counterfactual_covered.nanmean()):+.2f}; "
            f"evidence costs more in {float(lower):.0%} of the photos"
        )
        return [first, second, third]


def regions(second: Network, images: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Masks (N, H, W) of object and background, each a quarter of the image, for each way to find the object.

    ``"second network"``: the strongest and the weakest quarter of the Grad-CAM of a network that is not
    explained. ``"centre box"``: the middle of the picture, and what is farthest from it.
    ``"another photo's"``: the first, of the next photo.
    """
    seen = attribution.grad_cam(second, images, labels)
    # Grad-CAM is zero over large parts; the signed sum orders them, too.
    against = attribution.grad_cam(second, images, labels, counterfactual=True)
    maps = enlarged((seen.values - against.values)[:, 0], (images.shape[-2], images.shape[-1]))
    found = strongest(maps, OBJECT), strongest(-maps, OBJECT)
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=maps.device) + 0.5) / height - 0.5
    columns = (torch.arange(width, device=maps.device) + 0.5) / width - 0.5
    off = torch.maximum(rows.abs()[:, None].expand(-1, width), columns.abs()[None].expand(height, -1))
    off = off.expand(len(images), -1, -1)
    return {
        "second network": found,
        "centre box": (strongest(-off, OBJECT), strongest(off, OBJECT)),
        "another photo's": (found[0].roll(1, 0), found[1].roll(1, 0)),
    }


def strongest(maps: Tensor, share: float) -> Tensor:
    """Mask of a share of the pixels of each map (N, H, W), the strongest ones; equal pixels go row by row."""
    flat = maps.flatten(1)
    count = round(share * flat.shape[1])
    order = flat.argsort(dim=1, descending=True, stable=True)[:, :count]
    return (
        torch.zeros_like(flat, dtype=torch.bool)
        .scatter_(1, order, torch.ones_like(order, dtype=torch.bool))
        .view_as(maps)
    )


def covering(
    net: Network, images: Tensor, labels: Tensor, masks: dict[str, tuple[Tensor, Tensor]]
) -> dict[str, Covering]:
    """Drops of the class's probability under gray windows of a seventh of the picture, and under whole regions."""
    side = min(images.shape[-2:])
    window = max(1, side // 7)
    tried = attribution.occlusion(net, images, labels, window=window, stride=max(1, window // 2))
    middle = ((tried.boxes[..., :2] + tried.boxes[..., 2:]) // 2).cpu()  # indices of masks on any device
    drop, gray = tried.values[:, 0], baseline(net, images, "gray")
    maps = {}
    for name, pair in masks.items():
        windows, whole = [], []
        for mask in pair:
            inside = mask[:, middle[..., 0], middle[..., 1]]
            windows.append((drop * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1))
            covered = torch.where(mask[:, None], gray, images)
            left = net.probabilities(covered, batch=8).gather(1, labels[:, None])[:, 0]
            whole.append(tried.unoccluded - left)
        maps[name] = Covering(
            provenance=provenance(net, "covering", regions=name, window=window),
            object=windows[0],
            background=windows[1],
            whole_object=whole[0],
            whole_background=whole[1],
        )
    return maps


def counterfactual(net: Network, images: Tensor, labels: Tensor, masks: tuple[Tensor, Tensor]) -> Counterfactual:
    """Compare Grad-CAM and its counterfactual with each other, with the object, and with the score."""
    evidence = attribution.grad_cam(net, images, labels)
    against = attribution.grad_cam(net, images, labels, counterfactual=True)
    seen, denied = (one.map.flatten(1).amax(1) > 0 for one in (evidence, against))
    nothing = torch.full_like(evidence.score, float("nan"))
    marks = [strongest(one.map, STRONG) for one in (evidence, against)]
    both, either = ((marks[0] & marks[1]).flatten(1).sum(1), (marks[0] | marks[1]).flatten(1).sum(1))
    gray = baseline(net, images, "gray")
    change = []
    for mark in marks:
        covered = net.logits(torch.where(mark[:, None], gray, images), batch=8)
        change.append(covered.gather(1, labels[:, None])[:, 0] - evidence.score)
    return Counterfactual(
        provenance=provenance(net, "counterfactual", layer=evidence.layer),
        overlap=torch.where(seen & denied, both / either, nothing),
        correlation=rank_correlation(evidence.map, against.map),
        evidence_on_object=attribution.energy_in_mask(evidence, masks[0]),
        counterfactual_on_object=attribution.energy_in_mask(against, masks[0]),
        evidence_covered=torch.where(seen, change[0], nothing),
        counterfactual_covered=torch.where(denied, change[1], nothing),
    )


def noise(images: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Random maps as controls: independent pixels, and an enlarged coarse grid that is as smooth as a class map."""
    generator = torch.Generator().manual_seed(seed)
    size = (int(images.shape[-2]), int(images.shape[-1]))
    fine = torch.rand((len(images), *size), generator=generator, dtype=torch.float32, device="cpu")
    coarse = torch.rand((len(images), 7, 7), generator=generator, dtype=torch.float32, device="cpu")
    smooth = functional.interpolate(coarse[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    return {"random": fine.to(images), "random, smooth": smooth.to(images)}
