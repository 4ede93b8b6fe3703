"""How often admitted estimators recover planted information, and how often hopeless cases are refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.results import Provenance, Result, versions
from microtome.tables import Table
from microtome.training.information import Binning, Kernel, admit

__all__ = ["PlantedInformation", "planted_information"]

TOLERANCE = 0.1  # bits, or this share of the planted value if that is larger: as in ``admit``
WIDTHS, SAMPLES = (2, 4, 8), (1024, 4096)
BITS = (1.0, 2.0, 4.0, 6.0)
_APART = 6.0  # distance between the points of planted states, in standard deviations of the kernels' noise
_HOPELESS = tuple((width, samples) for width in (32, 128, 512) for samples in (64, 256, 1024))

Row = dict[str, float | str]


@dataclass(frozen=True, eq=False, kw_only=True)
class PlantedInformation(Result):
    """How often admitted estimators cover planted information, and how often hopeless cases are refused.

    Attributes
    ----------
    rows : list of dict
        ``estimator``, ``planting``, ``width``, ``samples``, ``bits``, ``draws``, ``admitted`` and ``covered`` draws.
    hopeless : list of dict
        ``estimator``, ``width``, ``samples``, ``bits`` (true), ``draws`` and ``refused`` draws.
    """

    rows: list[Row]
    hopeless: list[Row]

    @property
    def coverage(self) -> float:
        """Share of the draws with an admitted estimator whose interval holds the planted value."""
        admitted = sum(float(row["admitted"]) for row in self.rows)
        return sum(float(row["covered"]) for row in self.rows) / admitted if admitted else math.nan

    @property
    def admission(self) -> float:
        """Share of the draws that can be estimated in which the estimator is admitted."""
        return sum(float(row["admitted"]) for row in self.rows) / sum(float(row["draws"]) for row in self.rows)

    @property
    def refused(self) -> float:
        """Share of the hopeless draws in which the estimator is refused."""
        return sum(float(row["refused"]) for row in self.hopeless) / sum(float(row["draws"]) for row in self.hopeless)

    def table(self) -> Table:
        """One row for each estimator, planting, width, number of samples and value."""
        return Table.of(self.rows)

    def report(self) -> str:
        """The shares, and where coverage is least."""
        draws = sum(int(row["draws"]) for row in self.rows)
        admitted = sum(int(row["admitted"]) for row in self.rows)
        least = min(
            (row for row in self.rows if row["admitted"]),
            key=lambda row: float(row["covered"]) / float(row["admitted"]),
        )
        without = sum(int(row["draws"]) for row in self.hopeless)
        return (
            f"{draws} plantings: admitted in {admitted} ({self.admission:.0%}); of these the interval covers the "
            f"planted I(X;T) and I(T;Y) in {self.coverage:.1%} (within {TOLERANCE:g} bit, or a tenth of I(X;T))\n"
            f"least: {least['covered']} of {least['admitted']}, {least['estimator']}, {least['planting']}, width "
            f"{least['width']}, {least['samples']} samples, {float(least['bits']):g} bits\n"
            f"{without} cases with more information than log2 of the samples: refused in {self.refused:.1%}"
        )


def planted_information(*, trials: int = 10, seed: int = 1, out: Path | None = None) -> PlantedInformation:
    r"""Plant known information in states of many widths and sample sizes, and count how often estimators recover it.

    The plantings differ from those by which ``admit`` decides: states of unequal probability, drawn at random and not
    in equal numbers, with classes that are noisy functions of the state; and correlated normal units.

    - *States*: M points, :math:`p_m \propto 1 / m`, :math:`I(X;T) = H(p)`; classes of :math:`P(Y = 1 | m)` in turns
      0.05, 0.95, 0.3.
    - *Normal* (kernels): covariance with eigenvalues in a geometric series,
      :math:`I(X;T) = \frac12 \sum_i \log_2(1 + \lambda_i / \sigma^2)`; classes that are independent of the units.
    - *Hopeless*: independent normal units with more than :math:`\log_2 N + 1` bits from N samples: no estimator of
      pairs or counts can report them.

    Parameters
    ----------
    trials : int
        Number of draws of each planting.
    seed : int
        Seed of the draws; ``admit`` has another one.
    out : Path, optional
        Folder for the numbers and the result.

    Returns
    -------
    PlantedInformation

    Raises
    ------
    InputError
        There is no draw.
    """
    if trials < 1:
        raise InputError(f"at least one draw of each planting is needed, got {trials}.")
    generator = torch.Generator().manual_seed(seed)
    rows, hopeless = [], []
    for estimator in (Binning(-1.0, 1.0, 30), Kernel(0.1)):
        name = "bins" if isinstance(estimator, Binning) else "kernels"
        for planting in ("states",) if name == "bins" else ("states", "normal"):
            for width in WIDTHS:
                for samples in SAMPLES[: 1 if name == "kernels" else 2]:
                    for bits in BITS:
                        row = _counted(estimator, planting, width, samples, bits, trials, generator)
                        rows.append({"estimator": name, **row})
        for width, samples in _HOPELESS:
            hopeless.append(
                {"estimator": name, **_without_hope(estimator, width, samples, max(2, trials // 5), generator)}
            )
    result = PlantedInformation(
        provenance=Provenance("planted-information", {"trials": trials}, seed=seed, versions=versions()),
        rows=rows,
        hopeless=hopeless,
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        result.save(out / "planted-information.safetensors")
        (out / "planted-information.txt").write_text(f"{result.report()}\n\n{result.table()}\n", encoding="utf-8")
    return result


def _counted(
    estimator: Binning | Kernel,
    planting: str,
    width: int,
    samples: int,
    bits: float,
    trials: int,
    generator: torch.Generator,
) -> Row:
    admitted = covered = 0
    for _ in range(trials):
        plant = _states if planting == "states" else _normal
        values, labels, i_xt, i_ty = plant(estimator, bits, width, samples, generator)
        found = estimator(values[None], labels)
        if not admit(estimator, width, samples, reported=float(found.i_xt[0]), trials=10, seed=0).admitted:
            continue
        admitted += 1
        slack = max(TOLERANCE, TOLERANCE * i_xt)
        input_right = float(found.xt_low[0]) - slack <= i_xt <= float(found.xt_high[0]) + slack
        covered += input_right and abs(float(found.i_ty[0]) - i_ty) <= TOLERANCE
    counts = {"draws": trials, "admitted": admitted, "covered": covered}
    return {"planting": planting, "width": width, "samples": samples, "bits": i_xt, **counts}


def _states(
    estimator: Binning | Kernel, bits: float, width: int, samples: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, float, float]:
    """Points of probability proportional to 1/m, with an entropy of about ``bits``; their classes are noisy."""
    count = next(m for m in range(2, 4000) if _entropy(_zipf(m)) >= bits - 0.05 or m == 3999)
    share = _zipf(count)
    if isinstance(estimator, Binning):
        grid = min(estimator.edges - 1, max(2, math.ceil((4 * count) ** (1 / width))))
        step = (estimator.high - estimator.low) / (estimator.edges - 1)
        digits = _distinct(count, grid, width, generator)
        points, spread = estimator.low + step * (digits + 0.5), 0.9 * step
    else:
        grid = max(2, math.ceil(count ** (1 / width)))
        points = _APART * estimator.noise**0.5 * 2 * _distinct(count, grid, width, generator).double()
        spread = 0.0
    which = torch.multinomial(share, samples, replacement=True, generator=generator)
    jitter = torch.rand(samples, width, generator=generator, dtype=torch.float64, device="cpu") - 0.5
    ones = torch.tensor([0.05, 0.95, 0.3], dtype=torch.float64, device="cpu").repeat(count // 3 + 1)[:count]
    labels = (torch.rand(samples, generator=generator, dtype=torch.float64, device="cpu") < ones[which]).long()
    known = _entropy(torch.stack([(share * ones).sum(), (share * (1 - ones)).sum()]))
    left = float((share * torch.stack([_two(one) for one in ones])).sum())
    return points[which] + spread * jitter, labels, _entropy(share), known - left


def _normal(
    estimator: Binning | Kernel, bits: float, width: int, samples: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, float, float]:
    """Correlated normal units whose information under the kernels' noise is ``bits``."""
    noise = estimator.noise if isinstance(estimator, Kernel) else 1.0
    shape = 0.5 ** torch.arange(width, dtype=torch.float64, device="cpu")
    low, high = 1e-6, 1e9
    for _ in range(100):
        scale = math.sqrt(low * high)
        reached = 0.5 * float(torch.log2(1 + scale * shape / noise).sum())
        low, high = (scale, high) if reached < bits else (low, scale)
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64, device="cpu"))[0]
    values = torch.randn(samples, width, generator=generator, dtype=torch.float64, device="cpu")
    labels = torch.randint(2, (samples,), generator=generator, device="cpu")
    return values * (scale * shape).sqrt() @ turn, labels, bits, 0.0


def _without_hope(
    estimator: Binning | Kernel, width: int, samples: int, trials: int, generator: torch.Generator
) -> Row:
    """Independent normal units with far more bits than the samples can show."""
    bits = width * (0.5 * math.log2(1 + 0.25 / 0.1) if isinstance(estimator, Kernel) else 3.0)
    refused = 0
    for _ in range(trials):
        values = 0.5 * torch.randn(samples, width, generator=generator, dtype=torch.float64, device="cpu")
        labels = torch.randint(2, (samples,), generator=generator, device="cpu")
        reported = float(estimator(values[None], labels).i_xt[0])
        refused += not admit(estimator, width, samples, reported=reported, trials=10, seed=0).admitted
    return {"width": width, "samples": samples, "bits": bits, "draws": trials, "refused": refused}


def _zipf(count: int) -> Tensor:
    share = 1 / torch.arange(1, count + 1, dtype=torch.float64, device="cpu")
    return share / share.sum()


def _entropy(share: Tensor) -> float:
    return float(-torch.special.xlogy(share, share).sum()) / math.log(2)


def _two(one: Tensor) -> Tensor:
    both = torch.stack([one, 1 - one])
    bits: Tensor = -torch.special.xlogy(both, both).sum() / math.log(2)
    return bits


def _distinct(count: int, grid: int, width: int, generator: torch.Generator) -> Tensor:
    """(count, width) distinct points of a grid."""
    found = torch.empty(0, width, dtype=torch.int64, device="cpu")
    while len(found) < count:
        more = torch.randint(grid, (4 * count, width), generator=generator, device="cpu")
        found = torch.unique(torch.cat([found, more]), dim=0)
    return found[torch.randperm(len(found), generator=generator, device="cpu")[:count]].double()
