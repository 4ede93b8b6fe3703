"""Speed of singular triplets of a convolution, compared with a dense decomposition, and of the nearest facet."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from torch import nn

from microtome import Network, data, spaces, zoo
from microtome.spaces.operators.linear_layer import linear_layers

RESULTS = Path(__file__).parent / "results" / "spaces.json"


def seconds(run):
    """Processor seconds of all threads: on a shared machine wall-clock time says little."""
    started = time.process_time()
    value = run()
    return time.process_time() - started, value


def convolution(side):
    torch.manual_seed(0)
    return Network(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False)), (16, side, side))


def against_dense():
    """Top 32 triplets at 32 x 32 against a dense decomposition at 16 x 16, of cubic cost."""
    small = spaces.operator(convolution(16), "0")
    dense, values = seconds(lambda: torch.linalg.svd(small.dense(), full_matrices=False)[1])
    agree = float((small.singular_values(32) - values[:32]).abs().max())
    large = spaces.operator(convolution(32), "0")
    ours, found = seconds(lambda: large.triplets(32))
    whole = dense * (large.shape[0] / small.shape[0]) ** 3
    print(f"dense SVD, 16 x 16 x 16 ({small.shape[0]} values): {dense:.1f} s; times 4^3: {whole:.0f} s (cubic)")
    print(f"top 32 triplets at 32 x 32: {ours:.2f} s, residual {float(found.residual.max()):.1e}: {whole / ours:.0f} x")
    print(f"largest difference from the dense values at 16 x 16: {agree:.1e}")
    return {
        "dense_16x16_s": dense,
        "dense_32x32_cubic_s": whole,
        "top_32_at_32x32_s": ours,
        "times_faster": whole / ours,
        "residual": float(found.residual.max()),
        "difference_from_dense": agree,
    }


def large_layers():
    """Layers of EfficientNet-Lite0 at 112 x 112."""
    net, table = Network(zoo.efficientnet_lite0(), (3, 224, 224)), {}
    for name in [layer for layer in linear_layers(net) if net.layer(layer).shape[1:] == (112, 112)]:
        of = spaces.operator(net, name)
        spent, found = seconds(lambda of=of: of.triplets(8, tolerance=1e-4))
        shape = f"{of.shape[0]} x {of.shape[1]}"
        table[name] = {"shape": of.shape, "s": spent, "residual": float(found.residual.max())}
        print(
            f"EfficientNet-Lite0 {name} ({shape}): top 8 in {spent:.1f} s, residual {float(found.residual.max()):.1e}"
        )
    spent, found = seconds(lambda: spaces.spectra(net))
    print(f"spectra of its {len(found.singular_values)} layers: {spent:.1f} s")
    return table | {"spectra_of_all_layers_s": spent}


def nearest_facets():
    """SimpleConvNet, 100 images."""
    net = Network(zoo.simple_conv_net(), (1, 28, 28))
    images = torch.rand(100, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    spent, found = seconds(lambda: spaces.facet_distance(net, images))
    checked = float(found.checked.double().mean())
    print(f"nearest facet of SimpleConvNet, 100 images: {spent:.1f} s, {checked:.0f} gradients an image")
    digits = data.mnist("test").images[:2]
    longer, path = seconds(lambda: spaces.facets_between(net, digits[0], digits[1]))
    print(f"{path.crossed} facets between two digits: {longer:.1f} s, straight between them to {path.error:.1e}")
    return {"nearest_of_100_s": spent, "gradients": checked, "between_two_digits": path.crossed, "between_s": longer}


def main():
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; processor seconds")
    found = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    for name, part in (("dense", against_dense), ("layers", large_layers), ("facets", nearest_facets)):
        found[name] = part()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
