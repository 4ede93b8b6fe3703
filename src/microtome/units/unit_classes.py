"""Labels of units by the data: the class whose images drive a unit, with precision and recall."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import hypergeom
from torch import Tensor

from microtome.errors import InputError
from microtome.registry import register
from microtome.results import Result
from microtome.tables import Table
from microtome.units.streaming.patch_tables import LayerPatches

_NOTE = (
    "precision and recall: of the unit as a detector of the class, above its best threshold. p: probability of "
    "such a detector by chance."
)

PRECISION = 0.5  # a class is named if at least half of the images above the threshold belong to it,
RECALL = 0.25  # they are at least a quarter of its images,
SIGNIFICANCE = 0.01  # and chance reaches as many less often than this, corrected for all classes and thresholds


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassLabels(Result, drawing="units.unit_class_figures:class_labels"):
    """The class that each unit of a layer responds to.

    Attributes
    ----------
    layer : str
    labels : tuple of str
        Such as ``"class 7 (precision 0.93, recall 0.81)"``; empty for units without a class.
    index : Tensor
        (U,) class with the largest F1 score; -1 if no image has a class.
    precision, recall : Tensor
        (U,) of the images whose largest activation exceeds ``threshold``, as a detector of this class.
    threshold : Tensor
        (U,) activation.
    p_value : Tensor
        (U,) the probability that as many images of the class lie above the threshold by chance, times the number of
        classes and thresholds, at most 1.
    """

    layer: str
    labels: tuple[str, ...]
    index: Tensor
    precision: Tensor
    recall: Tensor
    threshold: Tensor
    p_value: Tensor

    def label(self, unit: int) -> str:
        """The label of one unit; empty if it has no class.

        Raises
        ------
        InputError
            When there is no such unit.
        """
        if not 0 <= unit < len(self.labels):
            raise InputError(f'layer "{self.layer}" has units 0 to {len(self.labels) - 1}, not {unit}.')
        return self.labels[unit]

    def table(self) -> Table:
        """Unit, label, class, precision, recall and p-value."""
        columns = (self.index, self.precision, self.recall, self.p_value)
        rows = tuple((unit, label, *(one[unit].item() for one in columns)) for unit, label in enumerate(self.labels))
        return Table(("unit", "label", "class", "precision", "recall", "p"), rows, _NOTE)


@register("class-labels", rows=("B4",), paper="dissecting", needs="top patches of labelled images", kind="units")
def class_labels(patches: LayerPatches) -> ClassLabels:
    r"""Label units that detect one class by the class of the images with the highest activation.

    A unit with a threshold t is a detector of class c: with the n images whose largest activation is at least t,
    :math:`n_c` of them of class c, and :math:`N_c` images of this class in the data,

    .. math:: \text{precision} = n_c / n, \qquad \text{recall} = n_c / N_c, \qquad F_1 = \frac{2 n_c}{n + N_c}.

    The class and the threshold (an edge of the histogram) are those with the largest :math:`F_1`. The unit is labelled
    if precision is at least .5, recall at least .25, and the hypergeometric probability of :math:`n_c` or more, times
    the number of classes and thresholds, is below .01.

    Parameters
    ----------
    patches : LayerPatches
        One layer's table from ``units.top_patches`` on labelled images; folder names are classes.

    Returns
    -------
    ClassLabels
        ``.labels``, ``.precision``, ``.recall``, ``.p_value`` by unit.

    Notes
    -----
    Cost: none beyond the table. Only the ten classes with the highest mean of a unit are tried. What it does not show:
    which part of these images drives the unit.

    Examples
    --------
    A unit that measures brightness, on data where class 1 is bright:

    >>> from microtome import Network, units
    >>> net = Network(torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()), (1, 2, 2))
    >>> images = [(torch.full((1, 2, 2), 0.4 + 0.5 * (i % 2) - i / 1000), i % 2) for i in range(40)]
    >>> class_labels(units.top_patches(net, images, "0")["0"]).labels
    ('class 1 (precision 1.00, recall 1.00)',)
    """
    counts = patches.histogram.double()  # (units, groups, bins)
    named = counts[:, :-1]
    above, all_above = named.flip(2).cumsum(2).flip(2), counts.sum(1).flip(1).cumsum(1).flip(1)[:, None]
    size = named.sum(2, keepdim=True)
    score = 2 * above / (all_above + size).clamp(min=1)
    units, columns, bins = named.shape
    total = int(counts[0].sum()) if units else 0
    known = [int(one) for one in patches.groups[:, :-1].unique() if one >= 0]
    trials = max(len(patches.classes or known), 1) * bins
    found: list[tuple[int, float, float, float, float]] = []
    for unit in range(units):
        if not columns or float(score[unit].max()) <= 0:
            found.append((-1, 0.0, 0.0, torch.nan, 1.0))
            continue
        column, place = divmod(int(score[unit].argmax()), bins)
        hits, drawn, members = (
            int(one) for one in (above[unit, column, place], all_above[unit, 0, place], size[unit, column, 0])
        )
        p = min(1.0, trials * float(hypergeom.sf(hits - 1, total, members, drawn)))
        edge = float(patches.edges[unit, place])
        found.append((int(patches.groups[unit, column]), hits / drawn, hits / members, edge, p))
    index, precision, recall, threshold, p_value = (
        torch.tensor(column, dtype=torch.float32 if place else torch.int64, device="cpu")
        for place, column in enumerate(zip(*found, strict=True) if found else [()] * 5)
    )
    return ClassLabels(
        layer=patches.layer,
        labels=tuple(_words(patches.classes, *row) for row in found),
        index=index,
        precision=precision,
        recall=recall,
        threshold=threshold,
        p_value=p_value,
    )


def _words(
    classes: list[str] | None, index: int, precision: float, recall: float, _threshold: float, p_value: float
) -> str:
    if index < 0 or precision < PRECISION or recall < RECALL or p_value > SIGNIFICANCE:
        return ""
    name = classes[index] if classes is not None and index < len(classes) else str(index)
    return f"class {name} (precision {precision:.2f}, recall {recall:.2f})"
