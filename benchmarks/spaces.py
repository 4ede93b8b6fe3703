"""How fast are singular triplets of a convolution and the nearest facet, against a dense decomposition?"""

from __future__ import annotations

import time

import torch
from torch import nn

from microtome import Network, spaces, zoo
from microtome.spaces.linear_layer import linear_layers


def seconds(run):
    started = time.perf_counter()
    value = run()
    return time.perf_counter() - started, value


def convolution(side):
    torch.manual_seed(0)
    return Network(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False)), (16, side, side))


def against_dense():
    """Top 32 triplets at 32 x 32 against a dense decomposition at 16 x 16, which costs its side cubed."""
    small = spaces.operator(convolution(16), "0")
    dense, values = seconds(lambda: torch.linalg.svd(small.dense(), full_matrices=False)[1])
    agree = float((small.singular_values(32) - values[:32]).abs().max())
    large = spaces.operator(convolution(32), "0")
    ours, found = seconds(lambda: large.triplets(32))
    whole = dense * (large.shape[0] / small.shape[0]) ** 3
    print(f"dense SVD, 16 x 16 x 16 ({small.shape[0]} values): {dense:.1f} s; times 4^3: {whole:.0f} s (cubic)")
    print(f"top 32 triplets at 32 x 32: {ours:.2f} s, residual {float(found.residual.max()):.1e}: {whole / ours:.0f} x")
    print(f"largest difference from the dense values at 16 x 16: {agree:.1e}")
    return whole / ours


def large_layers():
    """Layers of EfficientNet-Lite0 at 112 x 112."""
    net = Network(zoo.efficientnet_lite0(), (3, 224, 224))
    for name in [layer for layer in linear_layers(net) if net.layer(layer).shape[1:] == (112, 112)]:
        of = spaces.operator(net, name)
        spent, found = seconds(lambda of=of: of.triplets(8, tolerance=1e-4))
        shape = f"{of.shape[0]} x {of.shape[1]}"
        print(
            f"EfficientNet-Lite0 {name} ({shape}): top 8 in {spent:.1f} s, residual {float(found.residual.max()):.1e}"
        )
    spent, found = seconds(lambda: spaces.spectra(net))
    print(f"spectra of its {len(found.singular_values)} layers: {spent:.1f} s")


def nearest_facets():
    """SimpleConvNet, 100 images."""
    net = Network(zoo.simple_conv_net(), (1, 28, 28))
    images = torch.rand(100, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    spent, found = seconds(lambda: spaces.facet_distance(net, images))
    checked = float(found.checked.double().mean())
    print(f"nearest facet of SimpleConvNet, 100 images: {spent:.1f} s, {checked:.0f} gradients an image")
    spent, path = seconds(lambda: spaces.facets_between(net, images[0], images[0] + 0.05 * (images[1] - images[0])))
    print(f"{path.crossed} facets between two near images: {spent:.1f} s")


def main():
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    against_dense()
    large_layers()
    nearest_facets()


if __name__ == "__main__":
    main()
