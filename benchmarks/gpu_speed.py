"""How fast are the methods on a GPU, beside captum and zennit where installed, and beside the plain passes?"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import gpu_cases  # makes torchvision importable  # noqa: F401  # isort: skip
import torchvision.models as models

from microtome import Network, attribution, synthesis, zoo
from microtome.attribution.occlusion import windows as places
from microtome.errors import ModelError
from microtome.trace import cuda_graph

try:
    import captum.attr as captum
except ImportError:
    captum = None
try:
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonGammaBox
    from zennit.torchvision import ResNetCanonizer
except ImportError:
    Gradient = None

Run = Callable[[], object]


def least(run: Run, device: str, repeat: int = 5) -> float:
    """Milliseconds, the least of some runs after two to warm up; the device is synchronised."""
    times = []
    for _ in range(repeat + 2):
        began = time.perf_counter()
        run()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return 1000 * min(times[2:])


def speeds(device: str, names: tuple[str, ...], side: int, count: int, repeat: int) -> Iterator[dict[str, Any]]:
    """One row for each network and method."""
    for name in names:
        torch.manual_seed(0)
        model = getattr(models, name)(**({"image_size": side} if name.startswith("vit") else {})).to(device).eval()
        for what, ours, theirs in pairs(model, side, count, device, name):
            row: dict[str, Any] = {"network": name, "what": what}
            row["ours [ms]"] = timed(ours, device, repeat)
            if theirs is not None:
                row["peer [ms]"] = timed(theirs, device, repeat)
            yield row
    if "resnet50" in names or not names:
        yield from superstimuli(device)


def timed(run: Run, device: str, repeat: int) -> float | str:
    """Milliseconds, or the reason why there are none: a peer may refuse a network."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return round(least(run, device, repeat), 2)
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:80]


def pairs(model: nn.Module, side: int, count: int, device: str, name: str) -> Iterator[tuple[str, Run, Run | None]]:
    """The timed calls, ours and the peer's; for plain passes only the plain one."""
    net = Network(model, (3, side, side))
    x = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    few, window, stride = x[:1], side // 7, side // 28
    windows = places((side, side), (window, window), (stride, stride))[..., 0].numel()

    def both(x: Tensor) -> None:
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(model(leaf)[:, 3].sum(), leaf)

    def forwards(layout: torch.memory_format) -> None:
        with torch.no_grad():
            for start in range(0, windows, 256):
                here = few.expand(min(256, windows - start), -1, -1, -1).contiguous(memory_format=layout)
                model(here)

    def peer(method: str, on: Tensor, **options: Any) -> Run | None:
        if captum is None:
            return None
        return lambda: getattr(captum, method)(model).attribute(on.clone().requires_grad_(), target=3, **options)

    yield f"forward + backward, {count} images", partial(both, x), None
    yield "forward + backward, 1 image", partial(both, few), None
    yield f"{windows} forwards, 256 a pass", partial(forwards, torch.contiguous_format), None
    yield f"{windows} forwards, 256 a pass, channels last", partial(forwards, torch.channels_last), None
    yield f"saliency, {count} images", lambda: attribution.saliency(net, x, 3), peer("Saliency", x)
    yield "saliency, 1 image", lambda: attribution.saliency(net, few, 3), peer("Saliency", few)
    yield f"guided, {count} images", lambda: attribution.guided_backprop(net, x, 3), peer("GuidedBackprop", x)
    yield f"grad-cam, {count} images", lambda: attribution.grad_cam(net, x, 3), None
    yield (
        "integrated gradients, 1 image, 50 steps",
        lambda: attribution.integrated_gradients(net, few, 3, steps=50),
        peer("IntegratedGradients", few, n_steps=50),
    )
    noisy = (
        None if captum is None else lambda: captum.NoiseTunnel(captum.Saliency(model)).attribute(
            few.clone().requires_grad_(), nt_samples=25, target=3, abs=False
        )
    )  # fmt: skip
    yield "smooth-grad, 1 image, 25 samples", lambda: attribution.smooth_grad(net, few, 3, samples=25), noisy
    yield (
        f"occlusion, 1 image, {window}/{stride}, {windows} windows",
        lambda: attribution.occlusion(net, few, 3, window=window, stride=stride),
        peer("Occlusion", few, sliding_window_shapes=(3, window, window), strides=(3, stride, stride),
             perturbations_per_eval=256, baselines=0.5),
    )  # fmt: skip
    relevance = None
    if Gradient is not None and name.startswith("resnet"):

        def relevance() -> None:
            composite = EpsilonGammaBox(low=0.0, high=1.0, canonizers=[ResNetCanonizer()])
            with Gradient(model, composite) as made:
                made(x, lambda output: torch.eye(output.shape[1], device=output.device)[[3] * len(output)] * output)

    yield f"lrp epsilon, {count} images", lambda: attribution.lrp(net, x, 3, rules="epsilon"), None
    yield f"lrp, {count} images, EpsilonGammaBox", (
        lambda: attribution.lrp(net, x, 3, rules="epsilon-gamma-box")
    ), relevance  # fmt: skip


def superstimuli(device: str, steps: int = 64, units: int = 32) -> Iterator[dict[str, Any]]:
    """Milliseconds of a step for each image, replayed as a graph and by plain calls, and the activations reached."""
    try:
        model = zoo.build("efficientnet-lite0").to(device).eval()
    except ModelError as error:
        yield {"what": "superstimuli", "error": str(error)}
        return
    net, layer = Network(model, (3, 224, 224)), "_blocks.7"
    reached: dict[str, float] = {}
    times: dict[str, float] = {}
    plain = cuda_graph._PLAIN_CALLS
    for how, calls in {"replayed": plain, "plain": 10**9}.items():
        cuda_graph._PLAIN_CALLS = calls
        made = synthesis.maximize(net, layer, channels=range(units), steps=4, size=128)  # to warm up
        began = time.perf_counter()
        made = synthesis.maximize(net, layer, channels=range(units), steps=steps, size=128)
        reached[how] = float(made.activation.mean())
        times[how] = 1000 * (time.perf_counter() - began) / steps / units
    cuda_graph._PLAIN_CALLS = plain
    yield {
        "network": "efficientnet-lite0", "what": f"superstimuli, {units} units of {layer}, 128 px, an image-step",
        "ours [ms]": round(times["replayed"], 4), "by plain calls [ms]": round(times["plain"], 4),
        "activation": round(reached["replayed"], 4), "by plain calls": round(reached["plain"], 4),
    }  # fmt: skip
