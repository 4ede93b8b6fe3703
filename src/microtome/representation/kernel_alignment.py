"""CKA: similarity of two layers' features, of one network or of two, with intervals and a permutation test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.data import Dataset, adapt
from microtome.data.adapters.adapter import Expected
from microtome.errors import InputError
from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.representation import hsic
from microtome.representation.feature_table import FeatureTable
from microtome.representation.features import check_reduction, feature_rows
from microtome.results import Result, stated
from microtome.tables import Table
from microtome.units.streaming.streaming_pass import computing_layers

_NOTE = (
    "cka: similarity of two layers over all images, 1 if they are equal up to rotation and scale. low and high: "
    "its 95 % interval. p: p-value against images in random order. influence: what the most influential images "
    "contribute."
)

_FLOOR = 1e-10  # HSIC below this is rounding; its scale is 1
_NULL = 500  # images of the permutation test
_NORMAL = 1.959963984540054  # 97.5 % of the standard normal distribution


@dataclass(frozen=True, eq=False, kw_only=True)
class KernelAlignment(Result, drawing="representation_figures:kernel_alignment"):
    """Linear CKA of the layers of two networks.

    Attributes
    ----------
    layers, other_layers : tuple of str
        Rows and columns.
    values : Tensor
        (layers, other_layers) CKA; 0 in a cell that is not ``defined``.
    low, high : Tensor
        (layers, other_layers) 95 % interval by the jackknife over images.
    p : Tensor
        (layers, other_layers) p-value against images in random order.
    defined : Tensor
        (layers, other_layers) bool: False if one of the two layers is dead.
    without : Tensor
        (layers, other_layers) CKA without the most influential images.
    influence : Tensor
        (layers, other_layers) ``values - without``: the contribution of these images.
    influential : Tensor
        (layers, other_layers, n) indices of these images, the strongest first.
    images : int
        Number of images.
    dead, other_dead : dict of str to str
        Layers without CKA, with the reason.
    """

    layers: tuple[str, ...]
    other_layers: tuple[str, ...]
    values: Tensor
    low: Tensor
    high: Tensor
    p: Tensor
    defined: Tensor
    without: Tensor
    influence: Tensor
    influential: Tensor
    images: int
    dead: dict[str, str]
    other_dead: dict[str, str]

    def table(self) -> Table:
        """One row per pair of layers."""
        rows = []
        for a, layer in enumerate(self.layers):
            for b, other in enumerate(self.other_layers):
                note = "; ".join(f"{name} {why[name]}" for name, why in self._dead(layer, other))
                numbers = [float(field[a, b]) for field in (self.values, self.low, self.high, self.p, self.influence)]
                cells = numbers if not note else [float("nan")] * len(numbers)
                rows.append((layer, other, *cells, note))
        return Table(("layer", "other", "cka", "low", "high", "p", "influence", "note"), tuple(rows), _NOTE)

    def _dead(self, layer: str, other: str) -> list[tuple[str, dict[str, str]]]:
        pairs = ((layer, self.dead), (other, self.other_dead))
        found = [(name, why) for name, why in pairs if name in why]
        return found[:1] if layer == other and self.dead == self.other_dead else found


@register("cka", rows=("E2", "H7"), paper="kornblith2019similarity", needs="a data set", kind="representation")
def cka(
    net: Network,
    other: Network | None,
    dataset: Dataset,
    layers: str | Iterable[str] | None = None,
    *,
    other_layers: str | Iterable[str] | None = None,
    reduce: str = "mean",
    debiased: bool = True,
    permutations: int = 200,
    influential: float = 0.01,
    seed: int = 0,
    batch: int = 32,
) -> KernelAlignment:
    r"""Compare layers by linear centred kernel alignment over a whole data set [1]_.

    .. math:: \mathrm{CKA} = \frac{\mathrm{HSIC}(K, L)}{\sqrt{\mathrm{HSIC}(K, K)\,\mathrm{HSIC}(L, L)}},
              \qquad K = X X^\top, \quad L = Y Y^\top

    1 for features that differ by a rotation and a scale. HSIC is the debiased estimate [2]_, which is 0 on average for
    unrelated features of any number; the value may be slightly below 0.

    Parameters
    ----------
    net : Network
        The network whose layers are the rows.
    other : Network or None
        The network whose layers are the columns: another network, a checkpoint, or None for the same.
    dataset : Dataset
        Images, at least five; all are used, including those of a small last batch.
    layers : str or iterable of str, optional
        Layers of ``net``; default all that compute. ``"logits"`` for the scores.
    other_layers : str or iterable of str, optional
        Layers of ``other``; default those of ``net`` if given, else all that compute.
    reduce : str
        How the positions of a map are reduced to one number: ``"mean"``, ``"max"``, or ``"flat"``, which keeps them
        all, as the paper does.
    debiased : bool
        Whether HSIC is the debiased estimate.
    permutations : int
        Random orders of the images for the null.
    influential : float
        Share of the images that is left out for ``.without``; at least one image.
    seed : int
        Seed of the random orders.
    batch : int
        Images per pass; it does not change the results.

    Returns
    -------
    KernelAlignment
        ``.values``, ``.low``, ``.high``, ``.p``, ``.influence`` (layers, other_layers).

    Raises
    ------
    InputError
        When there are fewer than five images, an option is out of range, or a feature is not finite.
    LayerError
        When a layer does not exist, belongs to no image, or has no units to reduce.

    Notes
    -----
    Exact over all images: HSIC is a sum over the whole data set, not a mean over batches. Cost: one pass of each
    network, then for each pair of layers the cheaper of 2 N F G (covariance) and N squared (F + G) (Gram)
    multiplications. Memory: the features of all chosen layers, on disk beyond 1 GiB, and two layers' in double
    precision.

    The interval is the value plus and minus 1.96 standard errors of the jackknife, from the CKA without each image in
    closed form. The p-value is that of the debiased HSIC of at most 500 images spread over the data set, against
    ``permutations`` orders of the other layer's. ``.influence`` follows [3]_: CKA may depend on few images that lie far
    from all others. A layer that does not vary over the images, or varies for only one of them, has no CKA: its cells
    are 0 and not ``defined``, and ``.dead`` gives the reason.

    References
    ----------
    .. [1] Kornblith, Norouzi, Lee and Hinton, Similarity of neural network representations revisited, ICML 2019.
    .. [2] Song, Smola, Gretton, Bedo and Borgwardt, Feature selection via dependence maximization, JMLR 13, 2012.
    .. [3] Davari et al., Reliability of CKA as a similarity measure in deep learning, ICLR 2023.

    Examples
    --------
    >>> net = Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3), torch.nn.ReLU()), (1, 2, 2))
    >>> images = list(torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0)))
    >>> round(float(cka(net, None, images, ["1"]).values), 6)
    1.0
    """
    if permutations < 1 or not 0 < influential < 0.5:
        raise InputError(
            f"permutations=1 or more and influential above 0 and below 0.5; got {permutations} and {influential:g}."
        )
    second = net if other is None else other
    rows = _named(net, layers)
    columns = _named(second, other_layers if other_layers is not None else layers)
    data = adapt(dataset, Expected(net.input_shape, net.pixels))  # labels are not used
    count = len(data)
    if count < 5:
        raise InputError(f"CKA with an interval needs at least five images, got {count}.")
    for one, names in ((net, rows), (second, columns)):
        check_reduction(one, names, reduce)
    shared = second is net
    wanted = list(dict.fromkeys([*rows, *columns])) if shared else rows
    with FeatureTable(count) as left, FeatureTable(count) as right:
        _fill(net, data, wanted, reduce, batch, left)
        if not shared:
            _fill(second, data, columns, reduce, batch, right)
        pairs = _Pairs(left, left if shared else right, rows, columns, debiased, max(1, int(influential * count)))
        found = pairs.all()
        p = _null(pairs, count, permutations, seed)
    return KernelAlignment(
        provenance=stated(other=second.fingerprint, layers=rows, other_layers=columns, images=count),
        layers=tuple(rows),
        other_layers=tuple(columns),
        p=torch.where(found["defined"], p, torch.ones_like(p)),
        images=count,
        dead=pairs.dead(0),
        other_dead=pairs.dead(1),
        **found,
    )


def _named(net: Network, layers: str | Iterable[str] | None) -> list[str]:
    names = computing_layers(net) if layers is None else [layers] if isinstance(layers, str) else list(layers)
    if not names:
        raise InputError("no layer was given to compare.")
    return list(dict.fromkeys(name if name == "logits" else net.layer(name).name for name in names))


def _fill(net: Network, data: Dataset, names: list[str], reduce: str, batch: int, table: FeatureTable) -> None:
    """Run the data set through a network once."""
    adapted = adapt(data, Expected(net.input_shape, net.pixels))
    for indices in reported(torch.arange(len(adapted), device="cpu").split(net.admitted(batch)), "images"):
        images, _ = adapted.fetch(indices)
        for name, values in feature_rows(net, images, names, reduce).items():
            table.put(name, int(indices[0]), values)


_Hsic = tuple[Tensor, Tensor]  # of all images, and (n,) of all but each one


class _Pairs:
    """All pairs of layers of two tables of features."""

    def __init__(
        self, left: FeatureTable, right: FeatureTable, rows: list[str], columns: list[str], debiased: bool, few: int
    ) -> None:
        self.sides = ((left, rows), (right, columns))
        self._same = left is right
        self._debiased, self._few = debiased, few
        self.own: tuple[dict[str, _Hsic | None], ...] = ({}, {})
        for side, (table, names) in enumerate(self.sides):
            for name in names:
                x = hsic.normalised(table[name])
                known = None if x is None else hsic.hsic(hsic.sums(x, x), debiased)
                self.own[side][name] = None if known is None or float(known[0]) <= _FLOOR else known
        self._reasons = [
            {name: self._why(table, name) for name in names if self.own[side][name] is None}
            for side, (table, names) in enumerate(self.sides)
        ]

    def dead(self, side: int) -> dict[str, str]:
        """Layers without CKA, and why."""
        return self._reasons[side]

    def all(self) -> dict[str, Tensor]:
        """Every field of the result that is a matrix over pairs."""
        (left, rows), (right, columns) = self.sides
        shape = (len(rows), len(columns))
        found = {
            name: torch.zeros(shape, dtype=torch.float64, device="cpu") for name in ("values", "low", "high", "without")
        }
        found["defined"] = torch.zeros(shape, dtype=torch.bool, device="cpu")
        found["influential"] = torch.full((*shape, self._few), -1, device="cpu")
        for a, row in enumerate(reported(rows, str)):
            x = hsic.normalised(left[row]) if self.own[0][row] is not None else None
            for b, column in enumerate(columns):
                if x is None or self.own[1][column] is None:
                    continue
                if self._same and column in rows[:a] and row in columns:  # CKA is symmetric
                    mirrored = rows.index(column), columns.index(row)
                    for field in found.values():
                        field[a, b] = field[mirrored]
                    continue
                y = x if self._same and row == column else hsic.normalised(right[column])
                assert y is not None  # noqa: S101 - its own HSIC is known
                found["defined"][a, b] = True
                for name, value in self._one(x, y, row, column).items():
                    found[name][a, b] = value
        found["influence"] = found["values"] - found["without"]
        return found

    def _one(self, x: Tensor, y: Tensor, row: str, column: str) -> dict[str, Tensor]:
        own, others = self.own[0][row], self.own[1][column]
        assert own is not None and others is not None  # noqa: S101, PT018 - looked at before
        found, each = _interval(hsic.hsic(hsic.sums(x, y), self._debiased), own, others)
        few = each.argsort(stable=True)[: self._few]  # CKA is lowest without them
        kept = torch.ones(len(x), dtype=torch.bool, device="cpu").index_fill_(0, few, False)
        return {**found, "without": self._plain(x[kept], y[kept]), "influential": few}

    def _plain(self, x: Tensor, y: Tensor) -> Tensor:
        """CKA of some of the images; 0 if a layer does not vary over them."""
        first, second = hsic.normalised(x), hsic.normalised(y)
        if first is None or second is None or len(x) < 4:
            return x.new_zeros(())
        parts = [hsic.hsic(hsic.sums(*pair), self._debiased)[0] for pair in _three(first, second)]
        return hsic.ratio(parts[0], parts[1], parts[2], _FLOOR)

    @staticmethod
    def _why(table: FeatureTable, name: str) -> str:
        varies = hsic.normalised(table[name]) is not None
        return "varies for single images only" if varies else "does not vary over the images"


def _interval(across: _Hsic, own: _Hsic, others: _Hsic) -> tuple[dict[str, Tensor], Tensor]:
    """CKA of two layers with its interval, and CKA without each image, from HSIC across and of each alone."""
    value, each = (hsic.ratio(across[part], own[part], others[part], _FLOOR) for part in (0, 1))
    n = len(each)
    error = ((n - 1) / n * (each - each.mean()).square().sum()).sqrt()
    found = {
        "values": value,
        "low": (value - _NORMAL * error).clamp(min=-1.0),
        "high": torch.maximum((value + _NORMAL * error).clamp(max=1.0), value),
    }
    return found, each


def successive(features: Iterable[Tensor]) -> dict[str, Tensor]:
    """Debiased CKA of each layer's features (N, F) and the next one's: ``values``, ``low``, ``high``; NaN if undefined.

    The features of a layer are requested once, and those of two layers are held in double precision.
    """
    found: dict[str, list[Tensor]] = {"values": [], "low": [], "high": []}
    x: Tensor | None = None
    own: _Hsic | None = None
    for place, values in enumerate(features):
        y = hsic.normalised(values)
        others = None if y is None else hsic.hsic(hsic.sums(y, y), debiased=True)
        others = None if others is None or float(others[0]) <= _FLOOR else others
        if place:
            cells: dict[str, Tensor] = {}
            if x is not None and y is not None and own is not None and others is not None:
                cells, _ = _interval(hsic.hsic(hsic.sums(x, y), debiased=True), own, others)
            for name, row in found.items():
                row.append(cells.get(name, torch.tensor(torch.nan, dtype=torch.float64, device="cpu")))
        x, own = y, others
    return {name: torch.stack(row) for name, row in found.items()}


def _three(x: Tensor, y: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
    return ((x, y), (x, x), (y, y))


def _null(pairs: _Pairs, count: int, permutations: int, seed: int) -> Tensor:
    """P-values of all pairs: how often images in random order reach the same value."""
    chosen = torch.arange(0, count, max(1, -(-count // _NULL)), device="cpu")
    grams = []
    for side, (table, names) in enumerate(pairs.sides):
        stacked = torch.zeros(len(names), len(chosen), len(chosen), dtype=torch.float64, device="cpu")
        for place, name in enumerate(names):
            x = hsic.normalised(table[name][chosen]) if pairs.own[side][name] is not None else None
            if x is not None:
                stacked[place] = hsic.u_centred(x)
        grams.append(stacked)
    first, second = grams
    flat = first.flatten(1)
    seen = flat @ second.flatten(1).T
    slack = 1e-12 * flat.norm(dim=1)[:, None] * second.flatten(1).norm(dim=1)[None, :]  # rounding is no difference
    generator = torch.Generator().manual_seed(seed)
    above = torch.zeros_like(seen)
    for _ in reported(range(permutations), "permutations"):
        order = torch.randperm(len(chosen), generator=generator, device="cpu")
        above += flat @ second[:, order][:, :, order].flatten(1).T >= seen - slack
    return (above + 1) / (permutations + 1)
