"""How many kernels does a method start, and how long does it take where the kernels are too small to count?

``python -m benchmarks.launches [resnet50 mobilenet_v2]``: two images of 32 x 32, CPU seconds on one thread, in turns.
On a GPU a kernel of a few images takes less time than its start, so that the number of kernels and the work in Python
decide. Both are measured here without one, beside a plain forward and backward pass and beside captum.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import turns
from microtome import Network, attribution
from oracles.kernel_counts import kernels

try:
    import captum.attr as captum
except ImportError:
    captum = None

Run = Callable[[], object]
PATH = 8  # points of the path and noisy copies: all in one pass


def plain(model: nn.Module, images: Tensor) -> None:
    """A forward and a backward pass to the pixels."""
    leaf = images.clone().requires_grad_()
    torch.autograd.grad(model(leaf)[:, 3].sum(), leaf)


def methods(model: nn.Module, images: Tensor) -> dict[str, tuple[Run, Run | None]]:
    """Ours and captum's, by method."""
    net, one = Network(model, tuple(images.shape[1:])), images[:1]

    def peer(name: str, on: Tensor, **options: int) -> Run | None:
        if captum is None:
            return None
        return lambda: getattr(captum, name)(model).attribute(on.clone().requires_grad_(), target=3, **options)

    def noisy() -> None:
        captum.NoiseTunnel(captum.Saliency(model)).attribute(
            one.clone().requires_grad_(), nt_samples=PATH, target=3, abs=False
        )

    return {
        "saliency": (partial(attribution.saliency, net, images, 3), peer("Saliency", images)),
        "guided backpropagation": (
            partial(attribution.guided_backprop, net, images, 3),
            peer("GuidedBackprop", images),
        ),
        "integrated gradients": (
            partial(attribution.integrated_gradients, net, one, 3, steps=PATH, batch=PATH),
            peer("IntegratedGradients", one, n_steps=PATH),
        ),
        "SmoothGrad": (
            partial(attribution.smooth_grad, net, one, 3, samples=PATH, batch=PATH),
            None if captum is None else noisy,
        ),
        "LRP, epsilon": (partial(attribution.lrp, net, images, 3, rules="epsilon"), None),
        "LRP, epsilon-gamma-box": (partial(attribution.lrp, net, images, 3, rules="epsilon-gamma-box"), None),
    }  # fmt: skip


def rows(name: str, repeat: int = 25) -> list[turns.Row]:
    """One row for each method: seconds, and kernels beside those of the plain pass."""
    model = turns.build(name).requires_grad_(False)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    floor = partial(plain, model, images)
    found = []
    for what, (ours, theirs) in methods(model, images).items():
        ours()  # what is read once and kept does not count
        runs = {"ours": ours, "plain": floor} | ({} if theirs is None else {"captum": theirs})
        counts = {f"{who}, kernels": float(kernels(run).total()) for who, run in runs.items()}
        found.append(turns.row(f"{what}, 2 x 32 px", name, turns.seconds(runs, repeat), "plain", {}) | counts)
        print(counts, flush=True)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for chosen in turns.chosen(sys.argv[1:], ("resnet50", "mobilenet_v2")):
        turns.keep("launches.json", rows(chosen))
