"""A small network's layers as pages of the site, for the tests in a browser."""

from __future__ import annotations

import torch

from browser.drawn import at
from browser.small_units import MADE, WIDTHS, SmallUnits
from microtome.atlas import widgets as pages
from microtome.atlas.widgets import to_unit


class SmallLayers(SmallUnits):
    """Pages of units and of the layers that hold them."""

    def layer(self, name: str) -> pages.LayerPage:
        sprite, _ = self.stimuli[name]
        flat = self.value[name].amax((2, 3))
        mean = torch.stack([flat[self.y == c].mean(0) for c in range(10)])
        selectivity = mean.std(0)
        similar = torch.corrcoef(flat.T).nan_to_num()
        picture = self.draw.scaled(f"{name}-similar", similar[None], "diverging", "correlation")
        cards = tuple(
            pages.UnitCard(
                k,
                at(sprite, k, f"unit {k} of {name}, {self.label(name, k)}", to_unit(name, k)),
                self.label(name, k),
                0.8,
                float(selectivity[k]),
                float((flat[:, k] <= 0).double().mean()),
                int(mean[:, k].argmax()),
                tuple(mean[:, k].tolist()),
                WIDTHS[name] - k,
            )
            for k in range(WIDTHS[name])
        )
        return pages.LayerPage(
            name,
            (
                pages.Number("output", " × ".join(map(str, self.net.layer(name).shape))),
                pages.Number("field", self.net.layer(name).field.size[0], "px"),
            ),
            cards,
            "What each unit would rather see than any digit. The bars are its mean answer to the digits 0 to 9.",
            MADE,
            sections=(
                pages.Section("Which units matter", (pages.Part(self.criteria(name)),)),
                pages.Section("Pattern or place", (pages.Part(self.shares(name)),)),
                pages.Section(
                    "All its weights",
                    (
                        pages.Part(
                            pages.WeightSheet(
                                name,
                                self.kernels(name),
                                "A row is a unit. Look for rows with one strong kernel.",
                                MADE,
                                "conv1" if name == "conv2" else None,
                            )
                        ),
                    ),
                ),
                pages.Section(
                    "Units that respond alike",
                    (
                        pages.Part(
                            pages.SimilarityMatrix(
                                name,
                                at(picture, 0, f"similarity of the units of {name}"),
                                ((0, 1, float(similar[0, 1])),),
                                "Blocks on the diagonal are groups.",
                                MADE,
                            )
                        ),
                    ),
                ),
            ),
        )

    def criteria(self, name: str) -> pages.UnitTable:
        """Spread and smallest weight of six units, with a standard error."""
        spread = self.value[name].transpose(0, 1).flatten(1).double().std(1)
        least = self.weight(name).flatten(1).amin(1)
        rows = tuple(
            pages.UnitTableRow(
                k, to_unit(name, k), (float(spread[k]), float(least[k]), None), (0.01, None, None), (None,) * 3
            )
            for k in range(6)
        )
        return pages.UnitTable(("spread", "smallest weight", "not known"), rows, "Six units.", MADE)

    def shares(self, name: str) -> pages.Shares:
        """Of each unit, how much of its weights is positive, negative, and below a tenth of the largest."""
        rows = []
        for k, weights in enumerate(self.weight(name).flatten(1)):
            small = weights.abs() < weights.abs().max() / 10
            parts = (float(((weights > 0) & ~small).double().mean()), float(((weights < 0) & ~small).double().mean()))
            rows.append(pages.Share(f"{name}:{k}", to_unit(name, k), (*parts, 1 - sum(parts))))
        return pages.Shares(("positive", "negative", "small"), tuple(rows), "A bar is a unit.", MADE)
