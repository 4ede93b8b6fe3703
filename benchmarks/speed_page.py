"""Writes ``docs/speed.rst`` from the results of the benchmarks: ``python -m benchmarks.speed_page``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.turns import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "speed.rst"

HEAD = """Speed and conservation
======================

The results of ``make bench``, written by ``python -m benchmarks.speed_page``. Every line was measured in one process on
one thread of one machine, in processor seconds: ours and the peers in turns, the least of several turns. The peer
is the fastest of those tried, at its best batch size. Below 1, ours is faster. The floor is the work that no method can
avoid: plain passes of the model through torch. Between two runs on a busy machine such a ratio changed by up to 15 %.
"""

GRADIENTS = """One image (x1) or sixteen (x16) of 224 x 224 pixels. On the ReLU6 of MobileNetV2 no peer does guided
backpropagation: captum's is the plain gradient there, and stands beside ours because there is no other. The line below
it is the same network with ReLU, where captum's is guided backpropagation.
"""

WINDOWS = """One image of 224 x 224 pixels, windows of 16 or 32 pixels eight pixels apart; captum and the plain passes
were timed on a share of the rows of windows, and the time was scaled. The last column is the largest difference from
plain passes, as a share of the score.
"""

ACCOUNT = """The share of the class score at the pixels, in biases and in stabilisers, mean over photos, and the
largest part that is missing from their sum.
"""

CARD = """One run of ``python -m benchmarks.gpu`` on one {device} with torch {torch} and TF32 on: images of 224 x 224
pixels, milliseconds of wall time, the least of three; peers in the same run. Of {parity} comparisons of a method with
the processor, with TF32 off, none was marked as different.
"""

PARTS = (
    ("Gradients and relevance", "attribution.json", GRADIENTS),
    ("Occlusion by windows", "occlusion.json", WINDOWS),
)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (titles, *rows):
        lines += [f"   {'*' if place == 0 else ' '} - {cell}".rstrip() for place, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


def compared(rows: Sequence[dict[str, Any]]) -> str:
    """Lines of ours, the fastest peer and the floor."""
    errors = any("largest error / score" in row for row in rows)
    titles = ["", "network", "ours [s]", "fastest peer", "its time [s]", "ours / peer", "floor", "ours / floor"]
    cells = []
    for row in rows:
        if "ours / floor" not in row:
            continue
        peer = str(row.get("fastest peer", ""))
        found = [row["what"], row["network"], f"{row['ours [s]']:.3g}", peer]
        found += [f"{row[f'{peer} [s]']:.3g}", f"{row['ours / peer']:.2f}"] if peer else ["", ""]
        found += [row["floor"], f"{row['ours / floor']:.2f}"]
        cells.append([*found, f"{row['largest error / score']:.0e}"] if errors else found)
    return table([*titles, "error"] if errors else titles, sorted(cells))


def memory(rows: Sequence[dict[str, Any]]) -> str:
    """Memory of integrated gradients beyond the model."""
    ours, theirs = "ours, above the model [MB]", "captum, above the model [MB]"
    found = [[row["network"], f"{row[ours]:.0f}", f"{row[theirs]:.0f}"] for row in rows if ours in row]
    return table(["network", "ours [MB]", "captum as it runs by default [MB]"], sorted(found))


def accounts(rows: Sequence[dict[str, Any]]) -> str:
    """Where the score went."""
    found = [
        [row["network"], row["rules"], *(f"{row[part]:.3f}" for part in ("pixels", "biases")),
         f"{row['stabilisers']:.1e}", f"{row['missing']:.0e}"]
        for row in rows
    ]  # fmt: skip
    return table(["network", "rules", "pixels", "biases", "stabilisers", "missing"], found)


def spaces(found: dict[str, Any]) -> str:
    """Singular values of operators, and facets."""
    dense, facets = found["dense"], found["facets"]
    against = f"{dense['times_faster']:.0f} times faster than a dense decomposition, taken to 32x32 by the cube from "
    against += f"{dense['dense_16x16_s']:.0f} s at 16x16; residual {dense['residual']:.0e}"
    rows = [["32 strongest triplets, 3x3, 16 to 16 channels, on 32x32", f"{dense['top_32_at_32x32_s']:.1f}", against]]
    for name, layer in found["layers"].items():
        if isinstance(layer, dict):
            what = f"8 strongest of EfficientNet-Lite0's {name}, {layer['shape'][0]:,} x {layer['shape'][1]:,}"
            rows.append([what, f"{layer['s']:.2f}", f"residual {layer['residual']:.0e}"])
    each = f"{facets['gradients']:.0f} gradients an image"
    rows.append(["nearest facet of 100 images, SimpleConvNet", f"{facets['nearest_of_100_s']:.1f}", each])
    rows.append([f"all {facets['between_two_digits']:,} facets between two digits", f"{facets['between_s']:.1f}", ""])
    return table(["", "seconds", ""], rows)


def card(found: dict[str, Any]) -> str:
    """Ours compared with a peer on a GPU."""
    lines = [
        [row["network"], row["what"], f"{row['ours [ms]']:.3g}", f"{row['peer [ms]']:.3g}", f"{ratio(row):.2f}"]
        if "peer [ms]" in row
        else [row["network"], row["what"], f"{row['ours [ms]']:.3g}", "", ""]
        for row in found["speed"]
    ]
    return table(["network", "", "ours or plain torch [ms]", "peer [ms]", "ours / peer"], lines)


def ratio(row: dict[str, Any]) -> float:
    """Our time by the peer's."""
    return float(row["ours [ms]"]) / float(row["peer [ms]"])


def page() -> str:
    """The whole page, from the existing results."""
    text = [HEAD]
    for title, file, about in PARTS:
        rows = read(file)
        if rows:
            text += [heading(title), about, compared(rows)]
            if file == "attribution.json":
                text += ["Memory of integrated gradients with 50 steps:\n", memory(rows)]
    if accounted := read("conservation.json"):
        text += [heading("Where relevance stays"), ACCOUNT, accounts(accounted)]
    if found := read("spaces.json"):
        text += [heading("Signal spaces"), spaces(found)]
    if found := read("gpu.json"):
        compared_there = sum("difference" in row for row in found["parity"])
        about = CARD.format(device=found["device"], torch=found["torch"], parity=compared_there)
        text += [heading("On a GPU"), about, card(found)]
    return "\n".join(text)


def heading(title: str) -> str:
    """A title with its line."""
    return f"{title}\n{'-' * len(title)}\n"


def read(file: str) -> Any:
    """A file of results; None if it does not exist."""
    path = RESULTS / file
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
