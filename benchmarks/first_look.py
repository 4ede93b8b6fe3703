"""Cost of the first look at the images: time and memory of a pass over all layers, and its speed with two workers.

``python -m benchmarks.first_look`` writes ``benchmarks/results/first_look.json``. Times of one process are processor
seconds on one thread; those with workers are on the clock and need as many free cores.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from microtome.atlas.engine import executor
from microtome.atlas.planning import first_look
from microtome.atlas.planning.budget import budget
from microtome.atlas.planning.network_summary import convolutions, network_summary
from microtome.atlas.planning.plan import Plan
from microtome.atlas.store import Store
from microtome.atlas.task_execution import Execution
from microtome.data import Images
from microtome.loading import RunConfig
from microtome.units.streaming import streaming_pass
from microtome.units.streaming.patch_survey import PatchSurvey

RESULTS = Path(__file__).parent / "results" / "first_look.json"
_SHARD = 4096


def digits(images: int) -> dict[str, Any]:
    """SimpleConvNet, all layers, in shards that are merged; memory of a process that does nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_digits, (images,))


def _digits(images: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    net = RunConfig("zoo:simple-convnet", weights="random").network()
    data = Images(torch.randint(0, 256, (images, 1, 28, 28), dtype=torch.uint8))
    begun = time.process_time()
    total = PatchSurvey(net, images)
    for number in range(-(-images // _SHARD)):
        shard = PatchSurvey(net, images, shard=(number, _SHARD))
        streaming_pass.read(net, data, shard.readers, batch=64, within=shard.within)
        total.absorb(shard.summary())
    total.result(None, 9, None)
    spent = time.process_time() - begun
    return {"images": images, "seconds": spent, "peak GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def photos(repeat: int) -> dict[str, Any]:
    """ResNet18 at 224 x 224: a look at an image beside a plain forward pass, and the summary of a shard."""
    net = RunConfig("zoo:resnet18", weights="random").network()
    layers = [layer.name for layer in convolutions(net)]
    x = torch.rand(4, 3, 224, 224)
    survey = PatchSurvey(net, len(x), layers)
    looks, plains = [], []
    for _ in range(repeat + 1):
        begun = time.process_time()
        streaming_pass.read(net, list(x), {**survey.readers, "logits": lambda value, _: None}, batch=len(x))
        looks.append((time.process_time() - begun) / len(x))
        begun = time.process_time()
        net.logits(x)
        plains.append((time.process_time() - begun) / len(x))
        survey = PatchSurvey(net, len(x), layers)
    streaming_pass.read(net, list(x), survey.readers, batch=len(x))
    summary, whole = survey.summary(), PatchSurvey(net, len(x), layers)
    begun = time.process_time()
    whole.absorb(summary)
    merged = time.process_time() - begun
    units = sum(net.layer(name).units for name in layers)
    return {"seconds": min(looks[1:]), "forward": min(plains[1:]), "units": units,
            "summary MB": len(summary.to_bytes()) / 1e6, "merge": merged}  # fmt: skip


def workers(images: int, repeat: int) -> dict[str, float]:
    """Seconds on the clock of the first look of ResNet18 with one worker, two, and two of Dask, in turns; the least."""
    turns = {"1 worker": ("processes", 1), "2 workers": ("processes", 2), "2 workers of Dask": ("dask", 2)}
    found: dict[str, list[float]] = {name: [] for name in turns}
    with tempfile.TemporaryDirectory() as folder:
        draws = np.random.default_rng(0)
        for number in range(images):
            pixels = draws.integers(0, 255, (30, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((256, 256)).save(Path(folder, f"{number}.jpg"))
        config = RunConfig("zoo:resnet18", weights="random", data=folder)
        subject = config.open()
        plan = Plan(network_summary(subject, budget("quick")), subject)
        for _ in range(repeat):
            for name, (engine, count) in turns.items():
                with executor(engine, count) as pool, tempfile.TemporaryDirectory() as out:
                    for ready in [pool.submit(_import) for _ in range(count)]:
                        ready.result()
                    begun = time.monotonic()
                    work = Execution(config, subject, Store(out), pool, None, count, first_look.JOBS)
                    work.execute("", first_look.first_tasks(plan))
                    found[name].append(time.monotonic() - begun)
    least = {name: min(times) for name, times in found.items()}
    return {**least, "images": images, "times faster": least["1 worker"] / least["2 workers"],
            "Dask's overhead": least["2 workers of Dask"] / least["2 workers"] - 1}  # fmt: skip


def _import() -> None:
    """Import torch in a worker, and keep the worker busy until the next call has gone to another one."""
    import microtome.atlas.task_execution  # noqa: F401

    time.sleep(3)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_look", description=__doc__)
    parser.add_argument("--images", type=int, default=50_000, help="digits")
    parser.add_argument("--photos", type=int, default=96, help="with workers")
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = {
        "simple-convnet, all layers": digits(asked.images),
        "resnet18, one image": photos(asked.repeat),
        "resnet18, first look": workers(asked.photos, asked.repeat),
    }
    for name, numbers in found.items():
        print(name, ", ".join(f"{key} {value:.4g}" for key, value in numbers.items()))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
