"""Calls with options that take other paths in the code than the defaults; ``benchmarks.gpu`` runs each on two devices.

Tensors that a user gives may lie on the network's device or on the processor: where a call has some, it is made with
both.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu_cases import SIDE, Case, Subject, cases, halved, images, rounded, tiny
from microtome import Network, attribution, representation, spaces, surgery, synthesis, units
from microtome.attribution import rules
from microtome.data import Images, batches, with_shortcut
from microtome.data import labels as labels_of
from microtome.results import Result
from microtome.training import Recipe, Run, curvature, fit, information, landscape

Put = Callable[[Tensor], Tensor]
Call = Callable[[Network, Subject, Put], Any]
ON_OTHERS = ("relevance", "activation maps", "interventions")
DATA = images(12)
X = DATA.images[:2]


class Others(nn.Module):
    """Group norm, a depthwise convolution, a buffer that is not stored, and tensors made on the input's device."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(4, 8, 3, 2, 1), nn.GroupNorm(2, 8)
        self.depthwise, self.point = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 6, 1)
        self.register_buffer("scale", torch.rand(6, 1, 1) + 0.5, persistent=False)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        height = torch.linspace(-1, 1, x.shape[2], device=x.device, dtype=x.dtype)[:, None].expand(x.shape[2:])
        x = torch.cat([x, height.expand(len(x), 1, -1, -1)], 1)
        x = self.point(self.depthwise(nn.functional.silu(self.norm(self.first(x))))).relu() * self.scale
        return self.head(x.mean((2, 3)) + torch.zeros(6, device=x.device, dtype=x.dtype))


def subjects() -> dict[str, Subject]:
    """The networks besides those of ``gpu_cases``."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {"others": Subject(Others().eval(), "point", "depthwise")}


class Layers(nn.Module):
    """Layers whose matrices are too large to write out: each is decomposed in a way of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.padded, self.circular = (
            nn.Conv2d(3, 3, 3, padding=1),
            nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"),
        )
        self.pointwise, self.strided = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 2, padding=(0, 1))
        self.on_tokens, self.dense = nn.Linear(21, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        x = self.pointwise(self.circular(self.padded(x).relu()).relu())
        return self.dense(self.on_tokens(self.strided(x).flatten(1, 2)).mean(1))


def drawn(*shape: int) -> Tensor:
    """Numbers in [0, 1), the same at each call."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(5))


def trained(net: Network, **recipe: Any) -> list[Any]:
    """The weights of a copy that was trained, stopped after an epoch and resumed, and what its folder holds."""
    asked = Recipe(**{"epochs": 3, "batch": 5, "lr": 1e-3, **recipe})

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as folder:
        with contextlib.suppress(KeyboardInterrupt):
            fit(copy.deepcopy(net.model), DATA, DATA, recipe=asked, out=folder, progress=stop)
        model = copy.deepcopy(net.model)
        run = fit(model, DATA, DATA, recipe=asked, out=folder)
        return [model.state_dict(), run.curve("loss"), run.weights(run.checkpoints[-1])]


def of_run(net: Network, use: Callable[[Network, Run], Any]) -> Any:
    """What a function makes of a run of three epochs with a checkpoint each, and of the network at its end."""
    with tempfile.TemporaryDirectory() as folder:
        model = copy.deepcopy(net.model)
        run = fit(model, DATA, recipe=Recipe(epochs=3, batch=6, lr=1e-2), out=folder, keep=[1, 2, 3], gradients=True)
        return use(net.around(model), run)


def of_data_sets(net: Network, on: Subject, put: Put) -> list[Any]:
    """Methods on data sets whose images and labels the user has put somewhere."""
    kept = Images(put(DATA.pixels), put(DATA.labels), DATA.classes)
    pairs = [(put(image), put(label)) for image, label in zip(DATA.images, DATA.labels, strict=True)]
    rows = torch.utils.data.TensorDataset(put(DATA.images), put(DATA.labels))
    shortcut = with_shortcut(kept, agreement=0.9)
    found: list[Any] = [
        *(kept.sample(5, seed=1).images, kept.subset(put(DATA.labels) == 1).labels, kept.fit((1, 8, 10)).images),
        *(shortcut.images.images, shortcut.masks, Images.from_float(put(DATA.images)).images),
        *(
            landscape.line(net, kept, steps=3),
            units.ablate(net, kept, on.layer, units=[0]),
            spaces.class_averages(kept),
        ),
    ]
    for data in (kept, pairs, rows, Reader(put)):
        top = units.top_patches(net, data, on.layer, k=2)
        found += [top, top[on.layer].crops(0), labels_of(data), list(batches(data, 5, net=net, labelled=True))]
    return found


class Reader:
    """A data set of the user's own class that hands out many images at once."""

    def __init__(self, put: Put) -> None:
        self.put, self.labels = put, put(DATA.labels)

    def __len__(self) -> int:
        return len(DATA)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One image and its label."""
        return self.put(DATA.images[index]), int(DATA.labels[index])

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Some images and their labels."""
        return self.put(DATA.images[indices]), self.put(DATA.labels[indices])


def lrp_rules() -> dict[str, Any]:
    """Every rule for all layers, and rules for each layer by its name, its kind and a function."""
    names = ("epsilon-alpha2-beta1-flat", "epsilon-gamma-box", "w-square", "sparing-z-plus")
    mixed = [("first", "z-box"), (lambda name: name.endswith("2"), rules.AlphaBeta(1.0, 0.0)), ("linear", "z-plus")]
    return {name: name for name in names} | {"per layer": mixed}


def of_operators(net: Network, on: Subject, put: Put) -> list[Any]:
    """The exact operator of a layer, that of a part of the network, and the four spaces, on vectors of the user."""
    exact, through = spaces.operator(net, on.linear), spaces.jacobian(net, put(X[:1]))
    split = spaces.subspaces(net, on.linear, view="patches")
    row = put(drawn(3, split.shape[1]))
    found: list[Any] = [split.project(row), split.reject(row), split.energy(row), split.coefficients(row)]
    found += [split.pseudo_inverse(put(drawn(3, split.shape[0]))), split.rejected.abs().sum(), split.matrix]
    for map_ in (exact, through):
        found += [map_.apply(put(drawn(*map_.input_shape))), map_.adjoint(put(drawn(*map_.output_shape)))]
    found += [spaces.signal_part(exact, put(drawn(1, *exact.input_shape)), dense=False, iterations=5)]
    region = spaces.linear_region(small_net := tiny(net)[0], put(x := tiny(net)[1]), probes=2)
    found += [region.apply(put(x)), spaces.exit_distance(small_net, put(x), put(drawn(*x.shape).double()))]
    return [*found, spaces.ideal_outputs(put(drawn(8, 4)), [0, 1, 2, 3])]


FILLS: dict[str, Callable[[Put], Any]] = {
    **{name: lambda _, name=name: name for name in ("white", "mean", "image-mean", "blur", "noise")},
    "colour": lambda put: put(torch.tensor([0.1, 0.2, 0.3])),
    "picture": lambda put: put(drawn(3, SIDE, SIDE)),
}


def given() -> dict[str, Call]:
    """Calls with tensors of the user."""
    classes = torch.tensor([1, 2])
    mask = torch.zeros(SIDE, SIDE)
    mask[2:9, 3:11] = 1

    def filled(net: Network, put: Put) -> list[Any]:
        return [attribution.baseline(net, put(X), fill(put)) for fill in FILLS.values()]

    def occluded(net: Network, put: Put) -> list[Any]:
        forms = {"blur": ((4, 8), 4), "picture": (5, (3, 2)), "noise": (8, 8)}
        return [
            attribution.occlusion(net, put(X), put(classes), window=window, stride=stride, fill=FILLS[fill](put))
            for fill, (window, stride) in forms.items()
        ]

    def judged(net: Network, put: Put) -> list[Any]:
        maps, fills = put(drawn(2, SIDE, SIDE)), ("noise", 0.2, FILLS["picture"](put))
        own = {"mine": lambda _, images, __: images.sum(1).cpu()}
        kept = attribution.saliency(net, put(X), put(classes))
        return [
            attribution.evaluate(net, put(X), maps, put(classes), masks=put(mask), fills=fills, steps=3, samples=3),
            attribution.evaluate(net, put(X), own, 1, masks=put(mask).bool(), steps=3, samples=3),
            attribution.deletion(net, put(X), maps, steps=3, fill=FILLS["colour"](put)),
            attribution.pointing_game(kept, put(mask), tolerance=2),
            attribution.energy_in_mask(kept, put(torch.stack([mask, mask]))),
            attribution.infidelity(net, put(X), maps, put(classes), samples=3),
            attribution.shortcut_share({"a": net}, put(X), put(mask), put(classes), methods=["grad-cam"]),
        ]

    def made(net: Network, on: Subject, put: Put) -> list[Any]:
        directions = put(drawn(2, net.layer(on.layer).units))
        patterns = put(drawn(3, 4, 4))
        placed = units.placed((SIDE, SIDE), channels=3, grid=2, patterns=patterns)
        lines = units.stimuli.bars(SIDE, angles=4, channels=3)
        return [
            synthesis.maximize(net, on.layer, directions=directions, position=(1, 1), sign=-1, steps=2),
            synthesis.maximize_class(net, ["a"], diverse=2, begin=put(X[0]), prior="maco", steps=3),
            units.what_where(net, on.layer, stimuli=placed, reduce="centre"),
            units.tuning(net, on.layer, stimuli=dataclasses.replace(lines, images=put(lines.images))),
            units.dissect(net, put(X[0]), on.layer, 0), units.project_back(net, put(X), on.layer, 1, position=(1, 2)),
        ]  # fmt: skip

    def mapped(net: Network, on: Subject, put: Put) -> list[Any]:
        found = rounded(net, DATA, on.layer)
        moved = dataclasses.replace(found, values=put(found.values.cpu()))
        points = representation.tsne(moved, perplexity=2)
        flat = representation.pca(moved)
        return [points, points.place(moved.values[:3]), flat, flat.place(moved.values[:3])]

    def moved(net: Network, put: Put) -> list[Any]:
        drawn_ways = [landscape.random_direction(net, seed=seed) for seed in (1, 2)]
        ways = [{name: put(value.cpu()) for name, value in way.items()} for way in drawn_ways]
        return [
            landscape.surface(net, DATA, steps=3, directions=ways),
            landscape.line(net, DATA, steps=3, direction=ways[0]),
            information.kernel_bounds(put(drawn(20, 3)), put(torch.arange(20) % 3), 0.1),
        ]

    def pruned(net: Network, put: Put) -> Any:
        def score(one: Network, _: Any, layer: str) -> Tensor:
            return put(torch.arange(one.layer(layer).units).float())

        return surgery.prune(net, DATA, rounds=1, multiply_adds=0.8, criterion=score)

    return {
        "fills": lambda net, _, put: filled(net, put),
        "occlusion": lambda net, _, put: occluded(net, put),
        "quality": lambda net, _, put: judged(net, put),
        "data sets": of_data_sets,
        "made by the user": made,
        "maps": mapped,
        "operators": of_operators,
        "landscape": lambda net, _, put: moved(net, put),
        "prune by scores": lambda net, _, put: pruned(net, put),
        "integrated gradients": lambda net, _, put: attribution.integrated_gradients(
            net, put(X), put(classes), baseline=FILLS["picture"](put), rule="cosine", within=0.01, max_steps=8, steps=2
        ),
    }


def plain() -> dict[str, Case]:
    """Calls without tensors of the user but the images."""
    moves = synthesis.Prior("pixels", tv=1.0, alpha=1.0, jitter=2, rotate=10, scale=0.1, small_contribution=20)

    def relevance(net: Network, _: Subject) -> list[Any]:
        found: list[Any] = [attribution.lrp(net, X, 1, rules=one) for one in lrp_rules().values()]
        return [*found, *(attribution.deep_taylor(net, X, 1, input_rule=one) for one in ("w-square", "z-plus"))]

    def activation_maps(net: Network, on: Subject) -> list[Any]:
        return [
            attribution.grad_cam(net, X, layer=on.layer, counterfactual=True, batch=1),
            attribution.guided_grad_cam(net, X, layer=on.layer),
            attribution.randomisation(net, X, "smooth-grad", options={"samples": 2}, steps=2),
            attribution.compare(net, X, 1, methods={"mine": lambda _, x, __: x.mean(1).cpu(), "saliency": None}),
        ]

    def on_patches(net: Network, on: Subject) -> list[Any]:
        found = units.top_patches(net, DATA, [on.layer], k=3, bins=2, one_per_image=False, sample=8)[on.layer]
        made = [units.reconstruct(net, found, method=m, selection="binned", units=[0]) for m in ("guided", "gradient")]
        back = [units.project_back(net, X, on.layer, 1, method=method) for method in ("guided", "relevance")]
        return [found, *made, *back, units.ablate(net, DATA, on.layer, units=[0, [1, 2]], value="mean")]

    def edited(net: Network, on: Subject) -> list[Any]:
        one = units.intervene(net, scale={on.layer: {0: 0.0, 1: 2.0}}, clamp={on.layer: {2: 0.5}})
        return [
            one.logits(X), attribution.lrp(one, X, 1), attribution.occlusion(one, X, 1, window=8, stride=8),
            attribution.integrated_gradients(one, X, 1, steps=2), landscape.line(one, DATA, steps=3),
        ]  # fmt: skip

    def maxima(net: Network, on: Subject) -> list[Any]:
        def of(**options: Any) -> Any:
            return synthesis.maximize(net, on.layer, channels=[0, 1], steps=2, **options)

        made = [of(prior=prior) for prior in ("natural", "yosinski", moves)]
        made += [of(diverse=2, starts=2), of(reduction="max"), of(position=(1, 1))]
        return [*made, synthesis.invert(net, X[0], on.layer, starts=2, steps=2, prior=synthesis.Prior("phase"))]

    def decomposed(net: Network, on: Subject) -> list[Any]:
        exact = spaces.operator(net, on.linear)
        found: list[Any] = [spaces.spectra(net, [on.linear], view=view) for view in ("kernels", "patches")]
        found += [spaces.triplets(exact, 2, which=which).values for which in ("largest", "smallest")]
        return [*found, spaces.subspaces(net, on.linear, view="kernels").rejected_output.square().sum()]

    def large(net: Network, _: Subject) -> list[Any]:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = Network(Layers().double().to(net.device), (3, 20, 20))
        both = [(name, which) for name in ("padded", "pointwise") for which in ("largest", "smallest")]
        return [
            spaces.triplets(spaces.operator(layers, name), 2, which=which).values  # vectors of equal ones are free
            for name, which in (*both, ("circular", "largest"), ("on_tokens", "smallest"))
        ]

    def in_training(net: Network, on: Subject) -> list[Any]:
        return [
            trained(net, optimizer="adamw", schedule="one-cycle", mean=(0.1, 0.2, 0.3), std=0.5),
            *(information.plane(few, estimator="kde", trials=1, tolerance=10.0) for few in [relu_networks(net)]),
            *of_run(net, lambda end, run: (landscape.surface(end, DATA, steps=3, run=run), curve(end, run))),
            representation.cka(net, net.around(halved(net.model)), DATA, [on.layer], reduce="max", permutations=2),
        ]

    def curve(net: Network, run: Run) -> Any:
        return curvature.along_training(net, run, DATA, products=3, per_layer=True, smallest=1)

    def around(net: Network, _: Subject) -> list[Any]:
        ways = {"layer": "reestimated", "none": "frozen"}
        found: list[Any] = [
            landscape.line(
                net, DATA, steps=3, normalization=way, biases="random", norms="random", statistics=statistics,
                loss=squared, tolerance=0.5, common=False,
            )
            for way, statistics in ways.items()
        ]  # fmt: skip
        found += [landscape.between(net, net.around(halved(net.model)), DATA, test=DATA, steps=3, margin=0.2)]
        return [*found, curvature.spectral_density(net, DATA, layer="0", probes=1, products=3, loss=squared)]

    def cut(net: Network, on: Subject) -> list[Any]:
        pruned = surgery.prune(net, DATA, test=DATA, rounds=1, multiply_adds=0.8, criterion="taylor", batch=6)
        without = surgery.without(net, on.linear, DATA, adapter="linear", epochs=1, batch=6)
        to_cam = surgery.convert_to_cam(net, DATA, DATA, layer=on.layer, epochs=1, batch=6, freeze=True)
        return [
            *(pruned, without, to_cam, surgery.compress(net, DATA, multiply_adds=0.8, fit=False)),
            *(pruned.network.logits(X), without.rebuild(net).logits(X), to_cam.network(net).logits(X)),
        ]

    def heads(net: Network, _: Subject) -> list[Any]:
        shape = (3, SIDE, SIDE)
        ends = [Network(nn.Sequential(net.model, end), shape) for end in (nn.Softmax(1), nn.Sigmoid())]
        wide = Network(net.model, shape, pixels=None, mean=0.4, std=(0.5, 0.6, 0.7))
        return [wide.logits(3 * X), *(attribution.lrp(one, X) for one in ends), *(one.logits(X) for one in ends)]

    def figures(net: Network, on: Subject) -> list[Any]:
        drawn = ("activation-maps", "explain-path", "subspaces")
        results = [cases()[name](net, on) for name in drawn]
        parts = units.dissect(net, X[0], on.linear, 1)
        named = parts.channels[parts.order]
        return [named, *((Result.from_bytes(one.to_bytes()), one.plot(), one._repr_html_())[0] for one in results)]

    return {
        "figures": figures,
        "relevance": relevance,
        "activation maps": activation_maps,
        "patches": on_patches,
        "interventions": edited,
        "superstimuli": maxima,
        "spaces": decomposed,
        "large layers": large,
        "training": in_training,
        "surfaces": around,
        "surgery": cut,
        "heads": heads,
    }


def squared(scores: Tensor, labels: Tensor) -> Tensor:
    """A loss of the user."""
    return nn.functional.cross_entropy(scores, labels, reduction="none").square()


def relu_networks(net: Network) -> information.NetworkRuns:
    """Two networks with rectifiers, trained for a few epochs on the device of a network."""
    task = information.twelve_bits()
    return information.train_networks(
        task, hidden=(4, 3), activation="relu", networks=2, epochs=4, checkpoints=2, device=net.device
    )


def options() -> dict[str, Case]:
    """All calls; those with tensors of the user once with them on the network's device, once on the processor."""
    found = {f"options of {name}": call for name, call in plain().items()}
    for name, call in given().items():
        found[f"options of {name}"] = lambda net, on, call=call: call(net, on, lambda value: value.to(net.device))
        found[f"options of {name}, on the processor"] = lambda net, on, call=call: call(net, on, lambda value: value)
    return found


def pairs() -> list[tuple[str, str]]:
    """The networks and names of the comparisons."""
    return [("small", name) for name in options()] + [("others", f"options of {name}") for name in ON_OTHERS]
