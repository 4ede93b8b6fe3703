"""A small real network and every page that can be filled from it: what the browser tests open."""

from __future__ import annotations

import torch

from browser.drawn import at
from browser.small_layers import SmallLayers
from browser.small_units import DIGITS, MADE, WIDTHS
from microtome.atlas import widgets as pages
from microtome.atlas.widgets import to_class, to_unit


class SmallAtlas(SmallLayers):
    """Makes all pages; ``build`` returns the atlas."""

    # -- images --------------------------------------------------------------------------------------------------

    def maps(self, index: int) -> pages.Maps:
        rows = []
        for target in self.logits[index].topk(2).indices.tolist():
            record = self.net.run(self.x[index : index + 1], target, record="input", gradient=True)
            gradient = record.gradient["input"][0, 0]
            guided = self.net.run(
                self.x[index : index + 1], target, record="input", gradient=True, rules="guided"
            ).gradient["input"][0, 0]
            values = {
                "gradient": gradient,
                "gradient-x-input": gradient * self.x[index, 0],
                "guided-backpropagation": guided,
            }
            found = []
            for method, value in values.items():
                sprite = self.draw.scaled(f"map-{index}-{target}-{method}", value[None], "diverging", "logit per pixel")
                number = pages.Number(
                    "sum", float(value.sum()), "logit", "within 5 % of the score", ok=method != "gradient"
                )
                found.append(
                    pages.MethodMap(
                        method,
                        at(sprite, 0, f"{method} for {target}"),
                        numbers=(number,),
                        made=MADE,
                        meaning="the slope of the score",
                        shown="folded" if "guided" in method else "large",
                    )
                )
            rows.append(pages.MapRow(f"What speaks for {target}?", tuple(found), float(self.logits[index, target])))
        return pages.Maps(
            tuple(rows),
            "Red speaks for the class, blue against it. A click lays a map over the image.",
            self.image(index),
        )

    def occlusion(self, index: int) -> pages.Occlusion:
        covered = self.x[index].repeat(23 * 23, 1, 1, 1)
        for place in range(23 * 23):
            covered[place, :, place // 23 : place // 23 + 6, place % 23 : place % 23 + 6] = 0
        probability = self.net.probabilities(covered)
        colours = [
            "#4e79a7",
            "#f28e2b",
            "#e15759",
            "#76b7b2",
            "#59a14f",
            "#edc948",
            "#b07aa1",
            "#ff9da7",
            "#9c755f",
            "#79706e",
        ]
        winner = probability.argmax(1)
        rgb = torch.tensor([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colours])
        classes = self.draw._save(f"winner-{index}", rgb[winner].T.reshape(1, 3, 23, 23), "classes", 1, None, "", None)
        shown = self.draw.scaled(
            f"occlusion-{index}",
            1 - probability[:, self.predicted[index]].view(1, 23, 23),
            "sequential",
            "fall of probability",
        )
        shares = torch.bincount(winner, minlength=10).double() / len(winner)
        winners = tuple(
            pages.Winner(c, colours[c], float(shares[c])) for c in shares.argsort(descending=True).tolist() if shares[c]
        )
        covered_by = pages.CoveredBy(
            6, 1, at(shown, 0, "fall by position"), at(classes, 0, "class that wins by position"), winners, "It falls."
        )
        flat = pages.CoveredBy(2, 1, None, None, winners[:1], "No place matters alone.")
        return pages.Occlusion((covered_by, flat), self.image(index), "Bright places are needed for the answer.", MADE)

    def walk(self, index: int) -> pages.Step:
        """The score taken apart at fc5 by hand, and its strongest units at fc4."""
        target = int(self.predicted[index])
        model = self.net.model
        hidden = self.net.activations(self.x[index : index + 1], ["fc4", "fc4@input"])
        weight, bias = model.fc5.weight.detach(), model.fc5.bias.detach()
        below_bias = model.fc4.bias.detach()
        amounts = weight[target] * hidden["fc4"][0]
        best = amounts.abs().argsort(descending=True)[:4].tolist()
        inside = model.fc4.weight.detach() * hidden["fc4@input"][0]
        parts = []
        for j in best:
            maps = inside[j].view(16, 9).sum(1) * weight[target, j]
            strongest = maps.abs().argsort(descending=True)[:3].tolist()
            below = tuple(pages.Step(f"conv3:{k}", float(maps[k])) for k in strongest)
            b = float(below_bias[j] * weight[target, j])
            parts.append(
                pages.Step(
                    f"fc4:{j}",
                    float(amounts[j]),
                    parts=below,
                    rest=float(amounts[j]) - sum(s.amount for s in below) - b,
                    bias=b,
                )
            )
        total = float(self.logits[index, target])
        b = float(bias[target])
        return pages.Step(
            f"score of {target}",
            total,
            to_class(target),
            self.image(index),
            "logit",
            tuple(parts),
            total - b - sum(p.amount for p in parts),
            b,
        )

    def page(self, index: int) -> pages.ImagePage:
        probability = self.logits[index].softmax(0)
        best = probability.argsort(descending=True)[:5].tolist()
        rows = tuple(
            pages.Amount(
                DIGITS[c],
                100 * float(probability[c]),
                to_class(c),
                mark=" and ".join(
                    w for w, k in (("true", self.y[index]), ("predicted", self.predicted[index])) if c == k
                ),
            )
            for c in best
        )
        found = []
        for layer, width in WIDTHS.items():
            value = self.value[layer][index].relu()
            sprite = self.draw.scaled(f"active-{index}-{layer}", value, "sequential", "activation")
            order = value.amax((1, 2)).argsort(descending=True).tolist()
            found.append(
                pages.ActivationRow(
                    layer, tuple(at(sprite, k, f"unit {k} of {layer}", to_unit(layer, k), str(k)) for k in order), width
                )
            )
        return pages.ImagePage(
            f"{index:04d}",
            f"digit {index}",
            self.image(index),
            int(self.y[index]),
            int(self.predicted[index]),
            float(probability.max()),
            pages.Amounts(rows, "percent", "A second long bar means that the network hesitates.", MADE),
            overlay=True,
            sections=self.image_sections(index, tuple(found)),
        )

    def image_sections(self, index: int, rows: tuple[pages.ActivationRow, ...]) -> tuple[pages.Section, ...]:
        """The sections of an image; occlusion and dissection of the first one only."""
        first, part = index == self.pictured[0], pages.Part
        steps = pages.Decomposition(self.walk(index), "Open a line to see what it is made of.", MADE)
        return (
            pages.Section("What in the image decided", (part(self.maps(index)),)),
            pages.Section(
                "What happens when a part is covered",
                (part(self.occlusion(index) if first else None, "occlusion", "It covers one window after another."),),
            ),
            pages.Section("How the score comes about", (part(steps), part(self.sheet(3, index) if first else None))),
            pages.Section(
                "What each layer makes of it",
                (part(pages.ActivationMaps(rows, "Bright is where a unit fires.", MADE)),),
            ),
        )

    # -- all -----------------------------------------------------------------------------------------------------

    def overview(self) -> pages.OverviewPage:
        counts = torch.zeros(10, 10, dtype=torch.long)
        for true, predicted in zip(self.y.tolist(), self.predicted.tolist(), strict=True):
            counts[true, predicted] += 1
        wrong = (counts - counts.diag().diag()).flatten().topk(5)
        pairs = tuple(
            (int(i) // 10, int(i) % 10, int(n)) for n, i in zip(wrong.values, wrong.indices, strict=True) if n
        )
        mistaken = [i for i in self.pictured if self.predicted[i] != self.y[i]]
        blocks, before = [], "input"
        for layer in self.net.layers.values():
            size = layer.field.size if layer.field else None
            blocks.append(
                pages.Block(
                    layer.name,
                    layer.kind,
                    tuple(layer.shape),
                    layer.inputs or (before,),
                    layer.units,
                    layer.parameters,
                    f"{size[0]} px" if size else "",
                    0 if layer.name in WIDTHS else None,
                    pictures=tuple(self.picture(layer.name, k) for k in range(3)) if layer.name in WIDTHS else (),
                )
            )
            before = layer.name
        accuracy = float((self.predicted == self.y).double().mean())
        wrong = self.image(mistaken[0]) if mistaken else self.image(self.pictured[0])
        starts = (
            pages.Start("A unit that responds to a line: conv1:2", to_unit("conv1", 2), self.picture("conv1", 2)),
            pages.Start("The worst mistake", wrong.link, wrong),
        )
        return pages.OverviewPage(
            (
                pages.Number("input", "1 × 28 × 28"),
                pages.Number("classes", 10),
                pages.Number("accuracy", 100 * accuracy, "% of 600 images"),
            ),
            tuple(blocks),
            tuple(
                pages.Section(title, (pages.Part(content),))
                for title, content in (
                    (
                        "Which classes it confuses",
                        pages.Confusion(
                            tuple(tuple(row) for row in counts.tolist()), pairs, "Off the diagonal: confusions.", MADE
                        ),
                    ),
                    (
                        "Its most confident mistakes",
                        pages.Gallery(
                            tuple(self.image(i, f"true {self.y[i]}, says {self.predicted[i]}") for i in mistaken),
                            "The most confident mistakes.",
                            MADE,
                        ),
                    ),
                    (
                        "Images taken apart",
                        pages.Gallery(tuple(self.image(i) for i in self.pictured), "Open one.", MADE),
                    ),
                )
            ),
            summary="Tells ten digits apart.",
            starts=starts,
        )

    def build(self) -> pages.Atlas:
        units = (self.unit(layer, k) for layer, width in WIDTHS.items() for k in range(width))
        classes = tuple(
            pages.ClassPage(
                c,
                (pages.Number("accuracy", 100 * float((self.predicted == self.y)[self.y == c].double().mean()), "%"),),
                (
                    pages.Section(
                        "Its images",
                        (
                            pages.Part(
                                pages.Gallery(
                                    tuple(self.image(i) for i in self.pictured if self.y[i] == c), "Its images.", MADE
                                )
                            ),
                        ),
                    ),
                ),
            )
            for c in range(10)
        )
        return pages.Atlas(
            "SimpleConvNet, small",
            "microtome atlas --model small:build --data digits --out atlas",
            DIGITS,
            self.overview(),
            tuple(self.layer(name) for name in WIDTHS),
            units,
            tuple(self.page(i) for i in self.pictured),
            classes,
            tuple(self.net.layers),
            (("the strongest outputs", "microtome atlas --budget full"),),
            "test fixture",
        )
