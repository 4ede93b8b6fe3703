"""How much does it cost to read the values of layers? Beside a plain forward pass, hooks, and hooks that copy.

``python -m benchmarks.values [resnet18 mobilenet_v2]``: four images of 224 x 224, CPU seconds on one thread, in turns.
Hooks that only keep a reference hold a value that the model may overwrite later, as an in-place ReLU does, so that the
hooks that copy are the fair peer.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from benchmarks import turns
from microtome import Network


def hooked(model: nn.Module, images: Tensor, modules: list[nn.Module], *, copy: bool) -> None:
    """A forward pass with a hook on each module that keeps its output."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        kept.append(output.clone() if copy else output)

    handles = [module.register_forward_hook(keep) for module in modules]
    plain(model, images)
    for handle in handles:
        handle.remove()


def plain(model: nn.Module, images: Tensor) -> None:
    """A forward pass."""
    with torch.no_grad():
        model(images)


def rows(name: str, repeat: int = 10) -> list[turns.Row]:
    """All layers, and all convolutions and linear layers."""
    model = turns.build(name).requires_grad_(False)
    net, images = Network(model, (3, 224, 224)), torch.rand(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    every = [layer for layer in net.layers if layer != "input"]
    weighted = [layer for layer in every if isinstance(net.layer(layer).module, nn.Conv2d | nn.Linear)]
    parts = {
        "all layers": (every, [module for module in model.modules() if not [*module.children()]]),
        "convolutions and linear layers": (weighted, [net.module(layer) for layer in weighted]),
    }
    found = []
    for what, (layers, modules) in parts.items():
        times = turns.seconds(
            {
                "ours": lambda layers=layers: net.activations(images, layers),
                "hooks": lambda modules=modules: hooked(model, images, modules, copy=False),
                "hooks that copy": lambda modules=modules: hooked(model, images, modules, copy=True),
                "forward": lambda: plain(model, images),
            },
            repeat,
        )
        found.append(turns.row(f"values of {what}", f"{name} x4", times, "forward", {}))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in turns.chosen(sys.argv[1:], ("resnet18", "mobilenet_v2")):
        turns.keep("values.json", rows(chosen))
