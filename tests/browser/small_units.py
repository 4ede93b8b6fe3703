"""The small network, its layers and its units, for the pages that the browser tests open.

Nothing here is made up: the network is trained on digits for a few seconds, patches, dissections, maps
and amounts are computed from it by hand. Some parts are left out on purpose, so that empty states show.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from browser.drawn import Drawer, at
from microtome import Network
from microtome.atlas import widgets as pages
from microtome.atlas.widgets import to_class, to_image, to_unit
from microtome.data.named.digits import mnist_5000
from microtome.zoo.models.simple_conv_net import SimpleConvNet

DIGITS = tuple("0123456789")
WIDTHS = {"conv1": 8, "conv2": 12}
MADE = pages.Made(
    "by-hand", {"k": 9, "images": 600}, command="microtome atlas --data digits", paper="Zeiler & Fergus 2014"
)


def trained() -> tuple[Network, Tensor, Tensor]:
    """A small SimpleConvNet after two passes over 3,000 digits, with 600 others."""
    data = mnist_5000()
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(3))
    x = data.images[order].float()
    x = x / 255 if x.max() > 2 else x
    y = data.labels[order]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = SimpleConvNet(channels=(8, 12, 16), hidden=16)
    speed = [torch.zeros_like(weight) for weight in model.parameters()]
    for start in [*range(0, 3000, 50)] * 2:
        model.zero_grad()
        F.nll_loss(model((x[start : start + 50] - 0.13) / 0.31), y[start : start + 50]).backward()
        with torch.no_grad():
            for weight, momentum in zip(model.parameters(), speed, strict=True):
                weight -= 0.03 * momentum.mul_(0.9).add_(weight.grad)
    net = Network(model, input_shape=(1, 28, 28), mean=0.13, std=0.31, classes=list(DIGITS))
    return net, x[3000:3600], y[3000:3600]


class SmallUnits:
    """Trains the network; makes the pages of its layers and units, writing their sprites."""

    def __init__(self, folder: Path) -> None:
        self.draw = Drawer(folder)
        self.net, self.x, self.y = trained()
        names = ["conv1", "conv2", "conv1@input", "conv2@input"]
        self.value = self.net.activations(self.x, names)
        self.logits = self.net.logits(self.x)
        self.predicted = self.logits.argmax(1)
        self.pictured = sorted(range(600), key=lambda i: (self.predicted[i] == self.y[i], i))[:12]
        self.photos = self.draw.natural("images", self.x[:600], 30)
        self.stimuli = {layer: self._stimuli(layer) for layer in WIDTHS}
        self.crops: dict[str, tuple] = {}

    def image(self, index: int, note: str = "") -> pages.Picture:
        text = f"image {index}, a {self.y[index]}, says {self.predicted[index]}"
        return at(self.photos, index, text, to_image(f"{index:04d}"), note)

    # -- units ---------------------------------------------------------------------------------------------------

    def _stimuli(self, layer: str):
        """Gradient ascent on the strongest place of each unit's map, up and down."""
        found, reached = [], []
        for sign in (1, -1):
            x = torch.full((WIDTHS[layer], 1, 28, 28), 0.5) + 0.02 * torch.randn(
                WIDTHS[layer], 1, 28, 28, generator=torch.Generator().manual_seed(0)
            )
            x.requires_grad_(True)
            for _ in range(24):
                value = self.net.forward(x.clamp(0, 1), [layer])[layer]
                centre = value[torch.arange(len(x)), torch.arange(len(x)), value.shape[2] // 2, value.shape[3] // 2]
                (gradient,) = torch.autograd.grad(sign * centre.sum(), x)
                x = (x + 0.2 * gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-9)).detach()
                x.clamp_(0, 1).requires_grad_(True)
            found.append(x.detach())
            reached.append(centre.detach())
        sprite = self.draw.natural(f"{layer}-stimuli", torch.cat(found), WIDTHS[layer])
        return sprite, torch.stack(reached)

    def patches(self, layer: str):
        """Nine strongest and lowest places of every unit with their crops and gradients."""
        if layer in self.crops:
            return self.crops[layer]
        value = self.value[layer]
        field = self.net.layer(layer).field
        per_image, place = value.flatten(2).max(2)
        crops, rebuilt, notes = [], [], []
        for unit in range(value.shape[1]):
            best = per_image[:, unit].topk(9).indices
            worst = per_image[:, unit].topk(9, largest=False).indices
            for index in torch.cat([best, worst]).tolist():
                row, column = divmod(int(place[index, unit]), value.shape[3])
                top, left, bottom, right = field.box(row, column)
                x = self.x[index : index + 1].clone().requires_grad_(True)
                spot = self.net.forward(x, [layer])[layer][0, unit, row, column]
                (gradient,) = torch.autograd.grad(spot, x)
                padded = F.pad(self.x[index], (32, 32, 32, 32), value=0.5)
                crops.append(padded[:, top + 32 : bottom + 32, left + 32 : right + 32])
                rebuilt.append(
                    F.pad(gradient[0] * self.x[index], (32, 32, 32, 32))[
                        0, top + 32 : bottom + 32, left + 32 : right + 32
                    ]
                )
                notes.append((index, float(per_image[index, unit]), (row, column)))
        sprites = (
            self.draw.natural(f"{layer}-crops", torch.stack(crops), 18),
            self.draw.scaled(f"{layer}-rebuilt", torch.stack(rebuilt), "diverging", "activation per pixel", 18),
        )
        self.crops[layer] = (*sprites, notes)
        return self.crops[layer]

    def patch(self, layer: str, unit: int, rank: int) -> pages.Patch:
        crops, rebuilt, notes = self.patches(layer)
        index, value, position = notes[unit * 18 + rank]
        text = f"crop of image {index}, a {self.y[index]}, that drives unit {unit} of {layer} to {value:.2f}"
        return pages.Patch(
            at(crops, unit * 18 + rank, text, to_image(f"{index:04d}")),
            value,
            f"{index}, a {self.y[index]}",
            position,
            at(rebuilt, unit * 18 + rank, f"what in this crop drives unit {unit}"),
            self.image(index) if rank % 9 else None,
            (position[1] / 28, position[0] / 28, 5 / 28, 5 / 28),
        )

    def picture(self, layer: str, unit: int) -> pages.Picture:
        """A unit's superstimulus as a link to its page."""
        return at(self.stimuli[layer][0], unit, f"image made for unit {unit} of {layer}", to_unit(layer, unit))

    def histogram(self, layer: str, unit: int) -> pages.Histogram:
        peak = self.value[layer][:, unit].amax((1, 2))
        edges = torch.linspace(float(peak.min()), float(peak.max()) + 1e-6, 25)
        rows = tuple(
            (DIGITS[c], to_class(c), tuple(int(n) for n in torch.histogram(peak[self.y == c], edges).hist))
            for c in range(10)
        )
        return pages.Histogram(
            tuple(edges.tolist()), rows, "Rows that reach to the right are digits on which the unit fires.", MADE
        )

    def tuning(self, layer: str, unit: int) -> pages.Curves:
        angles = torch.arange(0, 180, 10)
        bars = torch.stack([_bar(float(angle)) for angle in angles])
        answer = self.net.activations(bars, layer)[layer][:, unit].amax((1, 2))
        best = float(angles[int(answer.argmax())])
        curve = pages.Curve("angle", "°", tuple(map(float, angles)), tuple(answer.tolist()), best, circular=True)
        return pages.Curves((curve,), "A narrow peak means that the unit answers to lines of one direction only.", MADE)

    def sheet(self, unit: int, index: int) -> pages.DissectionTable:
        """conv2's unit taken apart on one image, in the channels' order and ranked."""
        call = self.net.call("conv2")
        weight, bias = call.arguments["weight"].detach(), call.arguments["bias"].detach()
        x = self.value["conv2@input"][index]
        a = torch.stack(
            [F.conv2d(x[None, j : j + 1], weight[unit : unit + 1, j : j + 1], padding=2)[0, 0] for j in range(len(x))]
        )
        y = self.value["conv2"][index, unit]
        spot = divmod(int(y.argmax()), y.shape[1])
        amounts = a[:, spot[0], spot[1]]
        order = amounts.abs().argsort(descending=True)
        ranked = torch.empty_like(a)
        ranked[order] = a[order].cumsum(0)
        name = f"sheet-{unit}-{index}"
        sprites = {
            "x": self.draw.scaled(f"{name}-x", x, "sequential", "activation"),
            "w": self.draw.scaled(f"{name}-w", weight[unit], "diverging", "weight"),
            "a": self.draw.scaled(f"{name}-a", a, "diverging", "activation"),
            "c": self.draw.scaled(f"{name}-c", torch.cat([a.cumsum(0), ranked, y[None]]), "diverging", "activation"),
        }
        n = len(x)
        rows = tuple(
            pages.DissectionRow(
                j,
                at(sprites["x"], j, f"input channel {j}"),
                at(sprites["w"], j, f"weights on channel {j}"),
                at(sprites["a"], j, f"what channel {j} adds, {float(amounts[j]):+.2f} at the place read"),
                at(sprites["c"], j, f"running sum after channel {j}"),
                float(amounts[j]),
                at(sprites["c"], n + j, f"running sum by rank, after channel {j}"),
                f"unit {j} of conv1",
                to_unit("conv1", j),
                bool(amounts[j].abs() < 0.3 * amounts.abs().max()),
            )
            for j in range(n)
        )
        gap = float((a.sum(0) + bias[unit] - y).abs().max())
        check = pages.Number(
            "largest difference from the network's own value", gap, "activation", "below 1e-4", gap < 1e-4
        )
        picture = at(sprites["c"], 2 * n, f"output of unit {unit}")
        return pages.DissectionTable(
            to_unit("conv2", unit),
            self.image(index),
            rows,
            float(bias[unit]),
            picture,
            float(y.max()),
            spot,
            (int(y.shape[-2]), int(y.shape[-1])),
            check,
            "Read downwards: the last column becomes y. Rows that stay pale add nothing.",
            MADE,
        )

    def unit(self, layer: str, unit: int) -> pages.UnitPage:
        sprite, reached = self.stimuli[layer]
        share = float((self.value[layer][:, unit].amax((1, 2)) < reached[0, unit]).double().mean()) * 100
        stimuli = pages.Stimuli(
            (
                pages.Stimulus(
                    at(sprite, unit, f"superstimulus of unit {unit} of {layer}"),
                    "positive",
                    float(reached[0, unit]),
                    share,
                ),
                pages.Stimulus(at(sprite, WIDTHS[layer] + unit, "its opposite"), "negative", float(reached[1, unit])),
            ),
            "What the unit would rather see than any digit: look for a stroke and its direction.",
            MADE,
        )
        top = tuple(self.patch(layer, unit, k) for k in range(9))
        low = tuple(self.patch(layer, unit, 9 + k) for k in range(9))
        flat = self.value[layer].amax((2, 3))
        near = torch.corrcoef(flat.T)[unit].nan_to_num()
        rest = [k for k in near.argsort(descending=True).tolist() if k != unit][:5]
        nearest = pages.Amounts(
            tuple(
                pages.Amount(
                    f"{layer}:{k}", float(near[k]), to_unit(layer, k), at(sprite, k, f"unit {k}", to_unit(layer, k))
                )
                for k in rest
            ),
            "correlation",
            "Units at the top do nearly the same.",
            MADE,
        )
        return pages.UnitPage(
            layer,
            unit,
            label=self.label(layer, unit),
            confidence=0.91 if unit % 2 else 0.62,
            facts=(
                pages.Number("selectivity", float(flat[:, unit].std()), explain="Spread over images."),
                pages.Number("completeness gap", 0.031, "", "below 0.01", ok=False),
            ),
            sections=self.unit_sections(layer, unit, stimuli, nearest, top, low),
        )

    def unit_sections(self, layer, unit, stimuli, nearest, top, low) -> tuple[pages.Section, ...]:
        """The sections of a unit; some parts of conv1 are not computed, others cannot exist."""
        deep, value = layer == "conv2", self.value[layer][:, unit]
        caption = "Above: the crops that drive it most; below each, what in it did. Look for what repeats."
        bin_ = pages.Bin(float(value.min()), 0.0, float((value < 0).double().mean()), low[:4])
        kernel = (
            None if deep else pages.Filter(at(self.kernels(layer), unit, f"weights of unit {unit}"), "Its weights.")
        )
        sheet = self.sheet(unit, self.pictured[0]) if deep else pages.Absent("conv1 reads the picture itself.")
        inputs = self.connections(unit) if deep else pages.Absent("conv1 reads the picture itself.")
        part = pages.Part
        return (
            pages.Section("Images made to drive it", (part(stimuli), part(kernel)), beside=True),
            pages.Section(
                "What drives it in the data",
                (
                    part(pages.Examples(top, caption, MADE)),
                    part(pages.Bins((bin_,), "Each row is a range of its activation.", MADE)),
                    part(pages.Examples(low, "The lowest responses.", MADE, heading="lowest")),
                ),
            ),
            pages.Section("How it responds to each class", (part(self.histogram(layer, unit)),), half=True),
            pages.Section(
                "What it is tuned to",
                (part(None if deep else self.tuning(layer, unit), "tuning curves", "They show the label."),),
                half=True,
            ),
            pages.Section("How one response comes about", (part(sheet),)),
            pages.Section("What it reads, and what reads it", (part(pages.Wiring(f"{layer}:{unit}", inputs, None)),)),
            pages.Section("Units that respond alike", (part(nearest),), half=True),
            pages.Section("What is lost without it", (part(self.ablation(layer, unit)),), half=True),
        )

    def label(self, layer: str, unit: int) -> str:
        if layer != "conv1":
            return ""
        curve = self.tuning(layer, unit).curves[0]
        return f"line at {curve.peak:.0f}°"

    def connections(self, unit: int) -> pages.Amounts:
        weight = self.net.call("conv2").arguments["weight"].detach()[unit]
        size = weight.flatten(1).norm(dim=1)
        sprite, _ = self.stimuli["conv1"]
        rows = tuple(
            pages.Amount(
                f"conv1:{j}",
                float(size[j]),
                to_unit("conv1", j),
                at(sprite, j, f"unit {j} of conv1", to_unit("conv1", j)),
                self.label("conv1", j),
            )
            for j in size.argsort(descending=True)[:5].tolist()
        )
        return pages.Amounts(rows, "norm of the kernel", "The channels with the largest weights.", MADE)

    def ablation(self, layer: str, unit: int) -> pages.Amounts:
        logits = self.net.run(self.x, 0, replace={layer: lambda v: v.index_fill(1, torch.tensor([unit]), 0.0)}).logits
        right = (logits.argmax(1) == self.y).double() - (self.predicted == self.y).double()
        rows = tuple(pages.Amount(DIGITS[c], 100 * float(right[self.y == c].mean()), to_class(c)) for c in range(10))
        return pages.Amounts(
            rows, "percentage points of accuracy", "Bars to the left: classes that need the unit.", MADE
        )

    def weight(self, layer: str) -> Tensor:
        return self.net.call(layer).arguments["weight"].detach()

    def kernels(self, layer: str) -> pages.Sprite:
        weight = self.weight(layer)
        return self.draw.scaled(f"{layer}-kernels", weight.flatten(0, 1), "diverging", "weight", weight.shape[1])


def _bar(angle: float) -> Tensor:
    """A line through the middle, 0 horizontal, 45 rising."""
    turned = torch.deg2rad(torch.tensor(angle))
    row, column = torch.meshgrid(torch.arange(28.0) - 13.5, torch.arange(28.0) - 13.5, indexing="ij")
    distance = (column * torch.sin(turned) + row * torch.cos(turned)).abs()
    return (1 - (distance - 1).clamp(min=0)).clamp(min=0)[None]
