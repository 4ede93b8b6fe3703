"""Does a GPU give the processor's results, and how fast is it, compared with the peers in the same run?

``python -m benchmarks.gpu [--device cuda] [--reference cpu]`` runs every registered method on a small network, a
ResNet18 with batch norm and a small vision transformer on both devices and compares all tensors of the results, with
TF32 off, so that a difference is a fault and not rounding. The gradient methods also run in half precision and under
autocast, and the model must be left as found. Then the methods are timed on ResNet50, MobileNetV2 and ViT-B/16 beside
captum and zennit where they are installed, with TF32 as torch has it. The tables are printed and written to
``benchmarks/results/gpu.json``, with the name of the card. Under five minutes on one card and eight cores.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import multiprocessing
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import gpu_options
from benchmarks.gpu_cases import SIDE, Subject, cases, images, subjects
from benchmarks.gpu_speed import speeds
from microtome import Network, attribution
from microtome.errors import MicrotomeError
from microtome.results import Result

RESULTS = Path(__file__).parent / "results" / "gpu.json"
TOLERANCE = 2e-3  # of the largest number of a tensor: sums in other orders, through many layers
DOUBLE = {"lrp", "deep-taylor", "exit-distance", "facet-distance", "facets-between", "linear-region", "weight-vectors"}
CONDITIONS = ("float16", "bfloat16", "autocast to bfloat16", "autocast inside the model", "TF32")
NOISE = 1e-4  # of the largest number of a result: what is below it in a whole tensor is rounding, such as a bound of it
SIGNLESS = {"signal", "signal_output"}
# Minutes on a processor; the small network has them, too.
SLOW = {("ResNet18", name) for name in ("compress", "lossless", "prune", "randomisation", "invertibility")}
ALIKE = 0.9  # cosine of a map in half precision and in single precision


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """All floating tensors of a result, by the path of their fields; singular vectors and weights of fits apart."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            # A singular vector has no sign of its own.
            yield path, value.detach().cpu().double().abs() if path in SIGNLESS else value.detach().cpu().double()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if field.name not in ("provenance", "net", "network", "model"):
                yield from tensors(getattr(value, field.name, None), f"{path}.{field.name}".strip("."))
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from tensors(one, f"{path}[{key}]")
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from tensors(one, f"{path}[{number}]")


def results(value: Any) -> Iterator[Result]:
    """The results of a call, which may give several."""
    if isinstance(value, Result):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from results(one)


def devices(value: Any) -> Iterator[str]:
    """The device of each tensor of a result."""
    if isinstance(value, Tensor):
        yield str(value.device)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from devices(getattr(value, field.name))
    elif isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from devices(one)


def difference(first: Any, second: Any) -> float:
    """The largest difference of any two numbers, as a share of the largest number of their tensor; inf for shapes."""
    a, b = dict(tensors(first)), dict(tensors(second))
    if a.keys() != b.keys() or any(a[path].shape != b[path].shape for path in a):
        return math.inf
    worst = 0.0
    largest = [float(one[one.isfinite()].abs().max()) for one in a.values() if bool(one.isfinite().any())]
    floor = NOISE * max(largest, default=1.0)
    for path, one in a.items():
        if not torch.equal(one.isfinite(), b[path].isfinite()):
            return math.inf
        kept = one.isfinite()
        if bool(kept.any()):
            scale = max(float(one[kept].abs().max()), floor) or 1.0
            if path.endswith("error"):  # a bound of what rounding has left: beside the largest number of the result
                scale = max([scale, *largest])
            if "p_value" in path:  # shares of a few hundred permutations, of which one may fall on the other side
                scale = max(scale, 0.01 / TOLERANCE)
            worst = max(worst, float((one[kept] - b[path][kept]).abs().max()) / scale)
    return worst


def outcome(name: str, on: Subject, device: str) -> tuple[Any, str]:
    """A result, or the refusal in words; refusals of the library are outcomes that both devices must share."""
    model = copy.deepcopy(on.model).to(device)
    model = model.double() if name in DOUBLE else model
    before = state(model)
    net = Network(model, (3, SIDE, SIDE), classes=tuple("abcd"), device=device)
    if net.device.type != torch.device(device).type:
        raise AssertionError(f"the network lies on {net.device}, not on {device}")
    try:
        found = (cases() | gpu_options.options())[name](net, on)
        for result in results(found):
            if len(where := {place.split(":")[0] for place in devices(result)}) > 1:
                raise AssertionError(
                    f"a {type(result).__name__} of {name} holds tensors on {' and on '.join(sorted(where))}"
                )
        return found, ""
    except MicrotomeError as error:
        return None, f"{type(error).__name__}: {error}"
    finally:
        if any(not torch.equal(old, new) for old, new in zip(before, state(model), strict=True)):
            raise AssertionError(f"{name} has changed the model")


def state(model: torch.nn.Module) -> list[Tensor]:
    """All that a model holds: tensors, flags, and the random state of its device."""
    flags = [module.training for module in model.modules()] + [p.requires_grad for p in model.parameters()]
    held = [value.detach().clone() for value in (*model.parameters(), *model.buffers())]
    device = next(model.parameters()).device
    random = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
    return [*held, torch.tensor(flags), random]


def exact() -> None:
    """One thread, and no TF32: what differs then differs by more than rounding."""
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def one_row(network: str, name: str, reference: str, device: str) -> dict[str, Any]:
    """The difference of one method on one network, or why there is none."""
    began, on = time.perf_counter(), (subjects() | gpu_options.subjects())[network]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected, refusal = outcome(name, on, reference)
            found, refused = outcome(name, on, device)
        except Exception as error:
            row: dict[str, Any] = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        else:
            if refusal or refused:
                same = without_numbers(refusal) == without_numbers(refused)
                row = {"refused": refusal} if same else {"error": f"{refusal!r} and {refused!r}"}
            else:
                row = {"difference": difference(expected, found)}
    return {"network": network, "method": name, **row, "seconds": round(time.perf_counter() - began, 2)}


def without_numbers(text: str) -> str:
    """A refusal with its measured numbers removed."""
    return "".join(letter for letter in text if letter not in "0123456789.e-+")


def compared(reference: str, device: str, only: str = "", workers: int = 0) -> Iterator[dict[str, Any]]:
    """One row for each network and method; by several processes where ``workers`` says so."""
    asked = [*((network, name) for network in subjects() for name in cases()), *gpu_options.pairs()]
    asked = [pair for pair in asked if pair not in SLOW and only in " ".join(pair)]
    if not workers:
        for network, name in asked:
            yield one_row(network, name, reference, device)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=exact) as pool:
        rows = [pool.submit(one_row, network, name, reference, device) for network, name in asked]
        for row in as_completed(rows):  # in the order in which they end, so that a slow one delays no other
            yield row.result()


def conditions(device: str) -> list[dict[str, Any]]:
    """Gradient methods of a ResNet18 in half precision, under autocast and with TF32, beside single precision."""
    on, x = subjects()["ResNet18"], images().images[:2]
    runs = {
        "saliency": lambda net: attribution.saliency(net, x, 1).values,
        "grad-cam": lambda net: attribution.grad_cam(net, x, 1).values,
        "integrated-gradients": lambda net: attribution.integrated_gradients(net, x, 1, steps=4).values,
        "lrp": lambda net: attribution.lrp(net, x, 1).values,
        "occlusion": lambda net: attribution.occlusion(net, x, 1, window=4, stride=4).values,
    }
    plain = Network(copy.deepcopy(on.model).to(device), (3, SIDE, SIDE))
    expected = {name: run(plain) for name, run in runs.items()}
    rows = []
    for condition in CONDITIONS:
        model = copy.deepcopy(on.model).to(device)
        if condition in ("float16", "bfloat16"):
            model = model.to(getattr(torch, condition))
        if condition == "autocast inside the model":
            model = Autocast(model, device)
        for name, run in runs.items():
            row: dict[str, Any] = {"network": "ResNet18", "method": name, "condition": condition}
            try:
                with around(condition, device):
                    found = run(Network(model, (3, SIDE, SIDE)))
                a, b = found.double().flatten(), expected[name].double().flatten()
                row["cosine"] = round(float(torch.nn.functional.cosine_similarity(a, b, dim=0)), 5)
            except Exception as error:
                row["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            rows.append(row)
    return rows


class Autocast(torch.nn.Module):
    """A model that runs its inside under autocast."""

    def __init__(self, model: torch.nn.Module, device: str) -> None:
        super().__init__()
        self.model, self.kind = model, torch.device(device).type

    def forward(self, x: Tensor) -> Tensor:
        """The scores, in single precision."""
        with torch.autocast(self.kind, torch.bfloat16):
            scores: Tensor = self.model(x)
        return scores.float()


class around:  # noqa: N801 - read as a verb
    """A context with autocast or TF32 on."""

    def __init__(self, condition: str, device: str) -> None:
        self.tf32 = condition == "TF32"
        on = condition == "autocast to bfloat16"
        self.autocast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=on)

    def __enter__(self) -> None:
        """Begin."""
        self.before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        if self.tf32:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
        self.autocast.__enter__()

    def __exit__(self, *error: object) -> None:
        """End."""
        self.autocast.__exit__(*error)
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = self.before


def wrong(row: Mapping[str, Any]) -> bool:
    """Whether the devices disagree."""
    return "error" in row or row.get("difference", 0.0) > TOLERANCE or not row.get("cosine", 1.0) > ALIKE


def card(device: str) -> str:
    """The name of the device, as the tables name it."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or "processor"


def main(arguments: list[str] | None = None) -> int:
    """Print and write both tables; 1 where a method differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--reference", default="cpu")
    parser.add_argument("--only", default="", help="part of 'network method'")
    parser.add_argument("--speed-only", action="store_true", help="compare nothing")
    parser.add_argument("--networks", default="resnet50,mobilenet_v2,vit_b_16", help="networks that are timed")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0, help="processes that compare; 0 for this one")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    if asked.device.startswith("cuda") and not torch.cuda.is_available():
        print("there is no CUDA device; --device cpu tests the harness alone", file=sys.stderr)
        return 2
    made = {"device": card(asked.device), "torch": torch.__version__, "tf32": torch.backends.cudnn.allow_tf32}
    rows: list[dict[str, Any]] = []
    times: list[dict[str, Any]] = []

    def keep() -> None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps({**made, "parity": rows, "speed": times}, indent=1) + "\n")

    flags = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.get_num_threads()
    names = tuple(name for name in asked.networks.split(",") if name)
    for row in speeds(asked.device, names, asked.side, asked.images, asked.repeat):
        times.append(row)
        print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)
        keep()
    exact()
    for row in [] if asked.speed_only else compared(asked.reference, asked.device, asked.only, asked.workers):
        rows.append(row)
        print("  ".join(f"{key}={value}" for key, value in row.items()), "<-- DIFFERS" * wrong(row), flush=True)
    for row in [] if asked.only or asked.speed_only else conditions(asked.device):
        rows.append(row)
        print("  ".join(f"{key}={value}" for key, value in row.items()), "<-- DIFFERS" * wrong(row), flush=True)
    keep()
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = flags[:2]
    torch.set_num_threads(flags[2])
    print(f"{len(rows)} comparisons, {sum(map(wrong, rows))} differ; {made}; {os.fspath(asked.out)}")
    return int(any(map(wrong, rows)))


if __name__ == "__main__":
    raise SystemExit(main())
