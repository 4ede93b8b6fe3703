"""Axes of images and units: measured on layouts that real networks use, held against one pass for each image.

The oracle runs the model on every image alone with plain hooks: element by element, ``per_image`` of a batch must
equal it. It shares no code with the reading.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import LayerError, Network, attribution, units
from microtome.trace.axes.axis_labels import Labels, pictures
from microtome.trace.axes.move_rules import regrouped
from microtome.trace.axes.value_axes import COLUMN, IMAGE, PLACE, ROW, UNIT, Axes, Factor

SHAPE = (3, 8, 8)
X = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))


class Spelled(nn.Module):
    """A convolution to 6 channels, a linear layer on what ``into`` lays out, and a head on what ``back`` gives."""

    def __init__(self, into, back, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.wide = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(width, width)
        self.head = nn.Linear(width, 4)
        self.into, self.back = into, back

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.back(self.wide(self.into(self.stem(x))), len(x)))


# name: (layout of the linear layer's input, back to one vector for each image, axes shown, units)
LAYOUTS = {
    "channels last": (lambda y: y.permute(0, 2, 3, 1), lambda z, n: z.mean((1, 2)), "N 8 8 C", 6, 6),
    "tokens": (lambda y: y.flatten(2).transpose(1, 2), lambda z, n: z.mean(1), "N 64 C", 6, 6),
    "tokens first": (lambda y: y.flatten(2).permute(2, 0, 1), lambda z, n: z.mean(0), "64 N C", 6, 6),
    "windows": (
        lambda y: y.view(-1, 6, 4, 2, 8).permute(0, 2, 3, 4, 1).reshape(-1, 16, 6),
        lambda z, n: z.view(n, 64, 6).mean(1), "(N 4) 16 C", 6, 6,
    ),
    "windows before images": (
        lambda y: y.view(-1, 6, 4, 16).permute(2, 0, 3, 1).reshape(-1, 16, 6),
        lambda z, n: z.view(4, n, 16, 6).mean((0, 2)), "(4 N) 16 C", 6, 6,
    ),
    "windows by strides, an operation without a rule": (
        lambda y: y.contiguous().as_strided((4, len(y), 16, 6), (16, 384, 1, 64)).reshape(-1, 16, 6),
        lambda z, n: z.view(4, n, 16, 6).mean((0, 2)), "(4 N) 16 C", 6, 6,
    ),
    "images between rows and columns of windows": (
        lambda y: y.view(-1, 6, 2, 4, 4, 2).permute(2, 0, 5, 3, 4, 1).reshape(-1, 16, 6),
        lambda z, n: z.view(2, n, 2, 16, 6).mean((0, 2, 3)), "(2 N 2) 16 C", 6, 6,
    ),
    "heads folded into the batch": (
        lambda y: y.flatten(2).transpose(1, 2).view(-1, 64, 3, 2).transpose(1, 2).reshape(-1, 64, 2),
        lambda z, n: z.view(n, 3, 64, 2).mean((1, 2)), "(N 3) 64 C", 2, 2,
    ),
    "channels of patches": (
        lambda y: F.unfold(y, 2, stride=2).transpose(1, 2), lambda z, n: z.mean(1), "N 16 C", 24, 24,
    ),
    "patches merged": (
        lambda y: torch.cat([y.permute(0, 2, 3, 1)[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -1),
        lambda z, n: z.mean((1, 2)), "N 4 4 C", 24, 24,
    ),
    "tokens as units": (lambda y: y.flatten(2), lambda z, n: z.mean(1), "N 6 C", 64, 64),
    "two views stacked": (
        lambda y: torch.stack([y, y.relu()], 1).permute(0, 1, 3, 4, 2),
        lambda z, n: z.mean((1, 2, 3)), "N 2 8 8 C", 6, 6,
    ),
    "twice the batch": (
        lambda y: torch.cat([y, y.flip(3)]).mean((2, 3)), lambda z, n: z[:n] + z[n:], "(2 N) C", 6, 6,
    ),
}  # fmt: skip


def network(layout: str) -> Network:
    into, back, _, _, width = LAYOUTS[layout]
    return Network(Spelled(into, back, width).eval(), SHAPE)


def by_hook(net: Network, name: str, images: Tensor) -> Tensor:
    kept: list[Tensor] = []
    hook = net.module(name).register_forward_hook(lambda _, args, output: kept.append(output.detach().clone()))
    with torch.no_grad():
        net.model(images)
    hook.remove()
    return kept[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_told_and_taken_apart_by_image(layout):
    net = network(layout)
    layer, count = net.layer("wide"), len(X)
    assert (str(layer.axes), layer.units) == LAYOUTS[layout][2:4]
    whole = layer.axes.per_image(by_hook(net, "wide", X), count)
    for index in range(count):
        alone = by_hook(net, "wide", X[index : index + 1])
        torch.testing.assert_close(whole[index], layer.axes.per_image(alone, 1)[0])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_units_lie_on_the_last_axis_of_a_linear_layer(layout):
    """By hand: the values of unit u are those at ``[..., u]``; which image each is of, is tested above."""
    net = network(layout)
    value = by_hook(net, "wide", X)
    found = net.layer("wide").axes.per_unit(value, len(X))
    assert found.shape == (len(X), value.shape[-1], value.numel() // len(X) // value.shape[-1])
    for unit in range(value.shape[-1]):
        assert torch.equal(found[:, unit].flatten().sort().values, value[..., unit].flatten().sort().values)
    assert torch.equal(net.layer("wide").axes.from_units(found, tuple(value.shape)), value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_batch_size_gives_the_same_activations(layout):
    net = network(layout)
    whole = net.activations(X, "wide")["wide"]
    torch.testing.assert_close(whole, by_hook(net, "wide", X))
    for batch in (1, 2, 3):
        torch.testing.assert_close(net.activations(X, "wide", batch=batch)["wide"], whole)
        read = net.activations(X, "wide@input", batch=batch)["wide@input"]
        torch.testing.assert_close(read, net.activations(X, "wide@input")["wide@input"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_top_patches_by_hand(layout):
    net = network(layout)
    table = units.top_patches(net, [(x, 0) for x in X], layers=["wide"], k=2, batch=3)["wide"]
    for image, x in enumerate(X):
        alone = by_hook(net, "wide", x[None])
        highest = alone.reshape(-1, alone.shape[-1]).amax(0)
        for unit in range(table.units):
            ranks = (table.image[unit] == image).nonzero().flatten().tolist()
            for rank in ranks:
                torch.testing.assert_close(table.activation[unit, rank], highest[unit])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_gradient_of_a_top_patch_begins_at_its_unit_and_image(layout):
    """Oracle: autograd of the largest value of the unit for the image alone."""
    net = network(layout)
    table = units.top_patches(net, [(x, 0) for x in X], layers=["wide"], k=2)["wide"]
    field = units.effective_field(net, table, 1, k=2)
    for rank, index in enumerate(table.image[1].tolist()):
        x = X[index : index + 1].clone().requires_grad_()
        kept: list[Tensor] = []
        hook = net.module("wide").register_forward_hook(lambda _, args, output, kept=kept: kept.append(output))
        net.model(x)
        hook.remove()
        slope = torch.autograd.grad(kept[0][..., 1].max(), x)[0].abs().sum((0, 1)).double()
        torch.testing.assert_close(field.weight[rank], slope / slope.sum(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_unit_taken_out_is_taken_out(layout):
    """Oracle: the same model whose weights of that unit are zero."""
    net = network(layout)
    silent = copy.deepcopy(net.model)
    with torch.no_grad():
        silent.wide.weight[1], silent.wide.bias[1] = 0, 0
        expected = (silent(X) - net.model(X)).mean(0)
    found = units.ablate(net, [(x, 0) for x in X], "wide", units=[1])
    torch.testing.assert_close(found.logit_change[0].float(), expected)


class Attention(nn.Module):
    """Self-attention spelled out: heads beside tokens, and weights without channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.qkv, self.head = nn.Conv2d(3, 6, 2, 2), nn.Linear(6, 18), nn.Linear(6, 4)
        self.bias = nn.Parameter(torch.randn(3, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).reshape(len(x), 16, 3, 3, 2).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q * 0.7 @ k.transpose(-2, -1) + self.bias.tanh()).softmax(-1)
        return self.head((weights @ v).transpose(1, 2).reshape(len(x), 16, 6).mean(1))


def test_heads_and_attention_weights():
    net = Network(Attention(), SHAPE)
    shown = {name: (str(layer.axes), layer.units, layer.spatial) for name, layer in net.layers.items()}
    assert shown["qkv"] == ("N 16 C", 18, False)
    assert shown["/mul"] == ("N C 16 C", 6, False)
    assert shown["/softmax"] == ("N C 16 16", 3, False)  # one unit for each head
    assert shown["/matmul.1"] == ("N C 16 C", 6, False)


class Apart(nn.Module):
    """Splits the images of a batch, as ``how`` says, and runs one convolutional network on each part."""

    def __init__(self, how) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head, self.how = nn.Conv2d(3, 6, 3), nn.Linear(6, 4), how

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.head(self.stem(part).relu().mean((2, 3))) for part in self.how(x)])


APART = {
    "by index": lambda x: [x[k : k + 1] for k in range(len(x))],
    "by iteration": lambda x: [image[None] for image in x],
    "unbound": lambda x: [image.unsqueeze(0) for image in x.unbind()],
    "split": lambda x: x.split(1),
    "halves": lambda x: x.chunk(2),
}


@pytest.mark.parametrize("how", APART)
def test_images_that_the_model_takes_apart_go_through_alone(how):
    """Oracle: the same network on the whole batch. Otherwise each image would have its own layer name."""
    net, whole = Network(Apart(APART[how]), SHAPE), Network(Apart(lambda x: [x]), SHAPE)
    assert any("one image goes through at a time" in note for note in net.notes)
    for name in ("stem", "/relu", "head"):
        torch.testing.assert_close(net.activations(X, name)[name], whole.activations(X, name)[name])
    found, expected = (attribution.grad_cam(one, X, target=1) for one in (net, whole))
    assert found.layer == expected.layer
    torch.testing.assert_close(found.values, expected.values)
    data = [(x, 0) for x in X]
    found, expected = (units.top_patches(one, data, layers=["stem"], k=2)["stem"] for one in (net, whole))
    torch.testing.assert_close(found.activation, expected.activation)


def test_gradients_do_not_end_at_a_layer_of_one_image():
    """Integrated gradients sum the points at the first affine layer, which here holds one image of the batch."""

    class Single(Apart):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.head(self.stem(image).relu().mean((1, 2))) for image in x])

    found, expected = (
        attribution.integrated_gradients(Network(model, SHAPE), X, target=1).values
        for model in (Single(None), Apart(lambda x: [x]))
    )
    torch.testing.assert_close(found, expected)


def test_a_layer_of_some_images_is_refused():
    """Two images at a time are not noticed if the network is read with two images."""
    net = Network(Apart(lambda x: x.split(2)), SHAPE)
    with pytest.raises(LayerError, match="4 images"):
        net.activations(X, "stem")


WEIGHTS = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
# name: (from a map of 6 channels, 8 x 6 places, to the last named value; its axes, its units, whether they are maps)
PRODUCTS = {
    "tensordot": (lambda y: torch.tensordot(y, WEIGHTS, ([1], [1])), "N 8 6 C", 7, True),
    "tensordot, last axis": (lambda y: torch.tensordot(y.permute(0, 2, 3, 1), WEIGHTS.T, 1), "N 8 6 C", 7, True),
    "product and sum": (lambda y: (y.permute(0, 2, 3, 1)[..., None, :] * WEIGHTS).sum(-1), "N 8 6 C", 7, True),
    "tensordot, weights first": (lambda y: torch.tensordot(WEIGHTS, y, ([1], [1])), "C N 8 6", 7, True),
    "inner": (lambda y: torch.inner(y.permute(0, 2, 3, 1), WEIGHTS), "N 8 6 C", 7, True),
    "rows cut at another length": (lambda y: y.reshape(-1, 6, 6, 8).relu(), "N C 6 8", 6, False),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_make_units_and_torn_rows_are_no_map(name):
    """By hand from the shapes. 8 rows of 6, read as 6 rows of 8, are not at their place in the picture any more."""
    make, shown, count, spatial = PRODUCTS[name]

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return make(self.stem(x)).movedim(1 if shown.startswith("C") else 0, 0).flatten(1)

    layer = [*Network(Product(), (3, 8, 6)).layers.values()][-1]
    assert (str(layer.axes), layer.units, layer.spatial) == (shown, count, spatial)


class Shared(nn.Module):
    """A table of parameters, run through a module, added to maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.table, self.head = nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Linear(6, 4)
        self.bias = nn.Parameter(torch.randn(1, 6, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.stem(x) + self.table(self.bias)).mean((2, 3)))


def test_a_table_of_parameters_belongs_to_no_image():
    net = Network(Shared(), SHAPE)
    data = [(x, 0) for x in X]
    assert net.layer("table").axes.image_axis is None
    assert "table" not in units.top_patches(net, data, k=1)
    with pytest.raises(LayerError, match="no axis of images"):
        units.top_patches(net, data, layers=["table"], k=1)
    assert torch.equal(net.activations(X, "table", batch=1)["table"], torch.tanh(net.model.bias))


@pytest.mark.parametrize("batch", [1, 4])
def test_a_model_of_one_batch_size_is_read_and_said(batch):
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.stem(x).view(batch, 6, 64).mean(2))

    net = Network(Fixed(), SHAPE)
    assert f"batches of {batch} only" in net.graph.note
    assert (str(net.layer("stem").axes), str(net.layer("head").axes)) == ("N C 8 8", "N C")
    assert not net.layer("head").axes.measured
    torch.testing.assert_close(net.activations(X, "stem")["stem"], net.model.stem(X).detach())
    assert net.logits(X).shape == (4, 4)


def test_reading_leaves_the_model_and_the_random_states_as_found():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Dropout(), nn.Flatten(), nn.Linear(216, 4)).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    Network(model, SHAPE)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_large_images_are_read_small_where_the_model_admits_it():
    """The lengths of all axes are those of the full size; windows folded into the batch among them."""
    sizes: list[int] = []

    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.wide, self.head = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, 5), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            sizes.append(x.shape[2])  # outside of the model, whose own lists are left as found
            n, side = len(x), x.shape[2] // 16
            y = self.stem(x).view(n, 6, side, 4, side, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 6)
            return self.head(self.wide(y).view(n, -1, 5).mean(1))

    model = Windows()
    net = Network(model, (3, 160, 160))
    assert (str(net.layer("wide").axes), net.layer("wide").shape) == ("(N 100) 16 C", (100, 16, 5))
    assert sizes.count(160) == 1  # the rest, three for the axes among it, are small
    images = torch.rand(2, 3, 160, 160)
    assert net.layer("wide").axes.per_unit(net.activations(images, "wide")["wide"], 2).shape == (2, 5, 1600)


def test_a_module_called_by_keyword_reads_what_it_is_given():
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.deep = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.deep(input=self.stem(input=x).relu()).mean((2, 3))

    net = Network(Keyword(), SHAPE)
    assert net.layer("deep").inputs == ("/relu",)
    read = net.activations(X, "deep@input", batch=2)["deep@input"]
    torch.testing.assert_close(read, net.model.stem(X).relu().detach())


def test_regrouped_rows_and_columns_come_together_again():
    cut = regrouped(pictures((2, 3, 8, 8)), (2, 3, 8, 8), (2, 3, 2, 4, 2, 4))
    moved = Labels(tuple(cut.axes[k] for k in (0, 2, 4, 3, 5, 1)))
    folded = regrouped(moved, (2, 2, 2, 4, 4, 3), (8, 16, 3))
    assert [f.role for f in folded.axes[0]] == [IMAGE, ROW, COLUMN]
    opened = regrouped(folded, (8, 16, 3), (2, 2, 2, 4, 4, 3))
    back = Labels(tuple(opened.axes[k] for k in (0, 5, 1, 3, 2, 4)))
    assert regrouped(back, (2, 3, 2, 4, 2, 4), (2, 3, 8, 8)).axes == pictures((2, 3, 8, 8)).axes


def test_join_refuses_what_belongs_to_no_image_and_differs():
    axes = Axes(((Factor(UNIT, 2),), (Factor(PLACE, 3),)))
    same = torch.ones(2, 3)
    assert torch.equal(axes.join([same, same.clone()], [1, 1]), same)
    with pytest.raises(LayerError, match="belongs to no single image"):
        axes.join([same, 2 * same], [1, 1])
