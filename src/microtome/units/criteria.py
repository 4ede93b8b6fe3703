"""Criteria for the importance of units: variation, structure of kernel and superstimulus, selectivity, with errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from microtome.batch_sizes import read_at_once
from microtome.data import Dataset, adapt
from microtome.data.adapters.class_labels import UNLABELLED
from microtome.errors import InputError, nearest
from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.results import Result, stated
from microtome.tables import Table
from microtome.trace.graph import Layer
from microtome.units.kernel_structure import kernel_structure, spatial_correlation
from microtome.units.stimulus_tuning.stimuli import Stimuli, standard
from microtome.units.stimulus_tuning.stimulus_responses import responses
from microtome.units.streaming import streaming_pass
from microtome.units.streaming.layer_statistics import pooled, rounding, summarise
from microtome.units.streaming.streaming_pass import Batch

_NOTE = (
    "variation: standard deviation of the activation over the data. kernel: structure of the weights, as the "
    "correlation of neighbours. superstimulus: structure of the image that drives the unit most. "
    "class_selectivity and stimulus_selectivity: from 0, equal responses to all, to 1, a response to one only. ±: "
    "standard error (kernel: deviation by chance); p: p-value against chance."
)

COLUMNS = ("variation", "kernel", "superstimulus", "class_selectivity", "stimulus_selectivity")
_BLOCKS = 10  # blocks of the jackknife
_DRAWS = 199  # draws of the permutation tests

Measured = tuple[Tensor, Tensor, Tensor]  # value, standard error, p-value, each (units,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Criteria(Result, drawing="surgery.pruning_figures:criteria"):
    """Importance of units by several criteria.

    Attributes
    ----------
    layers, columns : list of str
    value : dict of str to Tensor
        By layer, (units, columns). NaN if a criterion is not defined for the layer, or its input is missing.
    error : dict of str to Tensor
        Standard errors, (units, columns); for ``kernel`` the standard deviation of its null distribution. NaN if
        there is none.
    p_value : dict of str to Tensor
        P-values of ``kernel`` and ``class_selectivity``, (units, columns); NaN for other columns.
    images : int
        Number of images of the data set.
    """

    layers: list[str]
    columns: list[str]
    value: dict[str, Tensor]
    error: dict[str, Tensor]
    p_value: dict[str, Tensor]
    images: int

    def column(self, name: str, layer: str) -> Tensor:
        """One criterion of one layer, (units,).

        Raises
        ------
        InputError
            When the criterion or the layer was not computed.
        """
        if name not in self.columns:
            raise InputError(f'there is no column "{name}"; there are {", ".join(self.columns)}.')
        if layer not in self.value:
            raise InputError(f'layer "{layer}" was not computed; there are {", ".join(self.layers)}.')
        return self.value[layer][:, self.columns.index(name)]

    def table(self) -> Table:
        """One row for each unit: every criterion with its standard error and its p-value."""
        head: list[str] = ["layer", "unit"]
        for name in self.columns:
            head += [name, f"{name} ±"] + ([f"{name} p"] if name in ("kernel", "class_selectivity") else [])
        rows = []
        for layer in self.layers:
            for unit in range(len(self.value[layer])):
                row: list[object] = [layer, unit]
                for place, name in enumerate(self.columns):
                    row += [float(self.value[layer][unit, place]), float(self.error[layer][unit, place])]
                    if name in ("kernel", "class_selectivity"):
                        row.append(float(self.p_value[layer][unit, place]))
                rows.append(tuple(row))
        return Table(tuple(head), tuple(rows), _NOTE)


@register("criteria", rows=("B2",), paper="dissecting", needs="a data set; labels for class selectivity", kind="units")
def criteria(
    net: Network,
    dataset: Dataset,
    layers: str | Iterable[str] | None = None,
    *,
    columns: Sequence[str] = COLUMNS,
    superstimuli: Mapping[str, Any] | None = None,
    stimuli: Stimuli | None = None,
    batch: int | None = None,
    seed: int = 0,
) -> Criteria:
    r"""Measure the importance of a network's units by several criteria [1]_.

    - ``variation``: :math:`\sigma_u`, the standard deviation of the activation over all images and positions.
    - ``kernel``: Moran's I of the kernel, slice by slice,
      :math:`I = \frac{n}{A} \frac{\sum_{i \sim j} (w_i - \bar w)(w_j - \bar w)}{\sum_i (w_i - \bar w)^2}`, with A the
      number of ordered pairs of neighbours; about :math:`-1/(n-1)` for noise, near 1 for a smooth pattern [2]_. Its
      p-value is the share of kernels with randomly permuted weights whose I is at least as large.
    - ``superstimulus``: root mean square contrast of the unit's superstimulus times its Moran's I; 0 for a flat image
      and for noise. The error is the standard error over several images of a unit.
    - ``class_selectivity``: :math:`\eta^2`, the share of the variance of the image's mean activation that lies
      between the classes, over the images with a label; p-value by permutation of labels. NaN if no class has two
      images.
    - ``stimulus_selectivity``: sparseness of the rectified responses to synthetic stimuli,
      :math:`(1 - \frac{(\sum r / n)^2}{\sum r^2 / n}) / (1 - 1/n)`: 0 if all stimuli have the same response, 1 if only
      one stimulus has a response [3]_.

    Parameters
    ----------
    net : Network
    dataset : data set
        Images, with labels for ``class_selectivity``.
    layers : str or iterable of str, optional
        Default: all layers that compute.
    columns : sequence of str
        Names of the criteria.
    superstimuli : mapping of str to Superstimuli, optional
        By layer, from ``synthesis.maximize``. Without them this column is NaN.
    stimuli : Stimuli, optional
        Default ``units.stimuli.standard``.
    batch : int, optional
        Number of images per pass.
    seed : int
        Seed of the permutations and of the blocks of the jackknife.

    Returns
    -------
    Criteria
        ``.value``, ``.error``, ``.p_value`` by layer, ``.column(name, layer)``, ``.table()``.

    Raises
    ------
    InputError
        When there is no such criterion or the data set is empty.
    LayerError
        When a layer does not exist or has no units.

    Notes
    -----
    Cost: one pass over the data, one over the stimuli (about 600). Errors come from a jackknife over ten random
    blocks of images (of stimuli). What it does not show: the loss of accuracy without the unit; see ``units.ablate``.

    References
    ----------
    .. [1] "Dissecting a ConvNet": the criteria by which its channels were pruned.
    .. [2] Moran. Notes on continuous stochastic phenomena. Biometrika 37, 1950.
    .. [3] Vinje, Gallant. Sparse coding and decorrelation in primary visual cortex during natural vision.
       Science 287, 2000.
    """
    names = [columns] if isinstance(columns, str) else list(columns)
    for name in names:
        if name not in COLUMNS:
            raise InputError(f'there is no criterion "{name}". Nearest: {nearest(name, COLUMNS)}.')
    dataset = adapt(dataset, net)
    selected = [layer.name for layer in streaming_pass.selected_layers(net, layers)]
    size = read_at_once(net, batch, 64)
    sums = _sums(net, dataset, selected, size) if {"variation", "class_selectivity"} & set(names) else {}
    response = {}
    if "stimulus_selectivity" in names:
        shown = standard((net.input_shape[1], net.input_shape[2])) if stimuli is None else stimuli
        response = responses(net, selected, shown, size)
    value, error, p_value = {}, {}, {}
    for layer in reported(selected, str):
        measured: dict[str, Measured] = {}
        if layer in sums:
            measured["variation"] = sums[layer].variation(seed)
            measured["class_selectivity"] = sums[layer].selectivity(dataset.shown_classes[0], seed)
        if "kernel" in names:
            measured["kernel"] = kernel_structure(net, layer, _DRAWS, seed)
        if "superstimulus" in names and superstimuli is not None and layer in superstimuli:
            measured["superstimulus"] = _superstimulus(superstimuli[layer], net.layer(layer).units)
        if layer in response:
            measured["stimulus_selectivity"] = _sparseness(response[layer].peak, seed)
        empty = torch.full((net.layer(layer).units,), torch.nan, dtype=torch.float64, device="cpu")
        rows = [measured.get(name, (empty, empty, empty)) for name in names]
        value[layer], error[layer], p_value[layer] = (torch.stack([row[part] for row in rows], 1) for part in range(3))
    return Criteria(
        provenance=stated(layers=selected, columns=names, images=len(dataset)),
        layers=selected,
        columns=names,
        value=value,
        error=error,
        p_value=p_value,
        images=len(dataset),
    )


class _Sums:
    """Activation of one layer: the moments of every image."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.moments: list[Tensor] = []  # per image (3, units): count, mean, sum of squared differences
        self.rounding = 0.0

    def add(self, value: Tensor, batch: Batch) -> None:
        """Add a batch of values."""
        self.rounding = rounding(value.dtype)
        values = self.layer.axes.per_unit(value, len(batch.indices)).double().cpu()
        summary = summarise(values)
        count = torch.full_like(summary.mean, values.shape[2])
        self.moments.append(torch.stack([count, summary.mean, summary.scatter], 1))

    def variation(self, seed: int) -> Measured:
        """Standard deviation over images and positions, its jackknife error, and NaN for the p-value."""
        each = torch.cat(self.moments)

        def deviation(rows: Tensor) -> Tensor:
            count, _, scatter = pooled(rows).unbind()
            return (scatter / count).sqrt()

        value = deviation(each)
        return value, _jackknife(deviation, each, seed), torch.full_like(value, torch.nan)

    def selectivity(self, labels: Tensor | None, seed: int) -> Measured:
        """Share of the variance of image means between classes, its jackknife error, and a p-value."""
        means = torch.cat(self.moments)[:, 1]
        undefined = torch.full((means.shape[1],), torch.nan, dtype=torch.float64, device=means.device)
        labels = torch.full((len(means),), UNLABELLED, device=means.device) if labels is None else labels
        labels, means = labels[labels != UNLABELLED], means[labels != UNLABELLED]
        # With one image a class, all variance lies between classes.
        if len(labels.unique()) in (0, 1, len(labels)):
            return undefined, undefined, undefined
        joined, share = torch.cat([means, labels[:, None].double()], 1), partial(_between, least=self.rounding)
        value = share(joined)
        generator = torch.Generator().manual_seed(seed)
        as_large = torch.zeros_like(value)
        for _ in range(_DRAWS):
            order = torch.randperm(len(labels), generator=generator, device="cpu")
            as_large += share(torch.cat([means, labels[order, None].double()], 1)) >= value
        p = (as_large + 1) / (_DRAWS + 1)
        return value, _jackknife(share, joined, seed), torch.where(value.isnan(), torch.nan, p)


def _between(rows: Tensor, least: float) -> Tensor:
    """Variance between the classes (last column) divided by the total variance, for every other column."""
    means, classes = rows[:, :-1], rows[:, -1].unique(return_inverse=True)[1]
    member = torch.nn.functional.one_hot(classes).to(means)
    count = member.sum(0)[:, None]
    centred = means - means.mean(0)
    between = ((member.T @ centred).square() / count).sum(0)
    total = centred.square().sum(0)
    return torch.where(total > least**2 * means.square().sum(0), between / total, torch.nan)


def _jackknife(statistic: Callable[[Tensor], Tensor], rows: Tensor, seed: int) -> Tensor:
    r"""Standard error :math:`\sqrt{\frac{g-1}{g} \sum_b (t_b - \bar t)^2}`, leaving out each block b in turn.

    The rows are divided into blocks at random: every tenth row may be of one class.
    """
    count = min(_BLOCKS, len(rows))
    if count < 2:
        return torch.full_like(statistic(rows), torch.nan)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed), device="cpu")
    blocks = order % count
    values = torch.stack([statistic(rows[blocks != block]) for block in range(count)])
    error: Tensor = ((values - values.mean(0)).square().sum(0) * (count - 1) / count).sqrt()
    return error


def _sums(net: Network, dataset: Dataset, layers: list[str], batch: int) -> dict[str, _Sums]:
    sums = {layer: _Sums(net.layer(layer)) for layer in layers}
    streaming_pass.read(net, dataset, {layer: one.add for layer, one in sums.items()}, batch=batch)
    return sums


def _sparseness(peak: Tensor, seed: int) -> Measured:
    rows = peak.double().clamp(min=0).T.cpu()  # (stimuli, units)

    def sparseness(some: Tensor) -> Tensor:
        n = len(some)
        square = some.square().mean(0)
        return torch.where(square > 0, (1 - some.mean(0).square() / square) / (1 - 1 / n), torch.nan)

    value = sparseness(rows)
    return value, _jackknife(sparseness, rows, seed), torch.full_like(value, torch.nan)


def _superstimulus(superstimuli: Any, units: int) -> Measured:
    """Mean over each unit's images of contrast times spatial correlation, and the standard error of this mean."""
    value = torch.full((units,), torch.nan, dtype=torch.float64, device="cpu")
    error = value.clone()
    gray = superstimuli.images.double().mean(1).cpu()
    structure = gray.flatten(1).std(1, correction=0) * spatial_correlation(gray[:, None]).clamp(min=0)
    for unit in range(units):
        own = structure[superstimuli.channel.cpu() == unit]
        if len(own):
            value[unit] = own.mean()
            error[unit] = own.std() / len(own) ** 0.5 if len(own) > 1 else torch.nan
    return value, error, torch.full_like(value, torch.nan)
