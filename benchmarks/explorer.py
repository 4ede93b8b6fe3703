"""How fast does the explorer answer? The benchmark queries its own server over a socket, as a browser would.

``python -m benchmarks.explorer [drawing webcam clicks clients]``:

- drawing: SimpleConvNet while a digit is drawn, one frame after another, the maps of conv2;
- webcam: MobileNetV2 on replayed frames of 224 x 224, with the maps of one layer;
- clicks: EfficientNet-Lite0, units ablated one by one: scores and maps of a layer, in milliseconds;
- clients: 50 at once for a minute, each with different questions: lost answers, and the server's memory.

Each time is given by the clock, and as processor seconds of the server, which other work on the machine hardly changes.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from websockets.sync.client import ClientConnection, connect

from microtome.explorer.frames import unpacked

RESULTS = Path(__file__).parent / "results" / "explorer.json"
PARTS = ("drawing", "webcam", "clicks", "clients")
Row = dict[str, float | int | str]


@contextmanager
def served(*options: str) -> Iterator[tuple[str, int]]:
    """A server in a separate process: its address and process id."""
    command = [sys.executable, "-m", "microtome", "serve", "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            yield line.split()[1], process.pid
        finally:
            process.terminate()


def opened(address: str) -> ClientConnection:
    """A socket to it."""
    return connect(address.replace("http", "ws") + "live", max_size=None, compression=None, open_timeout=60)


def ask(socket: ClientConnection, number: int, kind: str, pixels: bytes | None = None, **question: object) -> dict:
    """One question and its answer."""
    text = json.dumps({"id": number, "ask": kind, "question": question}).encode()
    socket.send(text.decode() if pixels is None else struct.pack("<I", len(text)) + text + pixels)
    while True:
        header, blocks = unpacked(socket.recv())
        if header["id"] == number and not header.get("progress"):
            if "error" in header:
                raise RuntimeError(header["error"])
            return {**header, "arrays": blocks}


def processor(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """Memory that a process holds, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def timed(pid: int, count: int, work: Callable[[int], object]) -> Row:
    """Milliseconds of each piece of work after a few to warm up, and the server's processor time for each."""
    for number in range(5):
        work(-1 - number)
    before, walls = processor(pid), []
    for number in range(count):
        began = time.perf_counter()
        work(number)
        walls.append(1000 * (time.perf_counter() - began))
    used = 1000 * (processor(pid) - before) / count
    return {
        "answers": count,
        "median [ms]": round(float(np.median(walls)), 1),
        "95th percentile [ms]": round(float(np.percentile(walls, 95)), 1),
        "least [ms]": round(min(walls), 1),
        "processor time each [ms]": round(used, 1),
        "a second": round(1000 * count / sum(walls), 1),
    }


def drawing() -> Row:
    """A stroke that grows by a pixel a frame."""
    with served("--model", "zoo:simple-convnet", "--weights", "random", "--data", "digits") as (address, pid):
        canvas = np.zeros((28, 28), dtype=np.uint8)
        with opened(address) as socket:

            def stroke(number: int) -> object:
                canvas[4 + number % 20, 6 + (7 * number) % 15] = number % 251  # no two frames are equal
                return ask(socket, number + 100, "live", canvas.tobytes(), picture="sent", layer="conv2")

            return {"what": "drawing", "network": "simple-convnet", "layer": "conv2", **timed(pid, 200, stroke)}


def webcam() -> Row:
    """Frames of a camera that pans over noise."""
    scene = np.random.default_rng(0).integers(0, 256, (224, 448, 3), dtype=np.uint8)
    layer = "features.4.conv.1.0"
    with served("--model", "zoo:mobilenet_v2", "--weights", "random", "--data", "digits") as (address, pid):
        layer = _middle(address)
        with opened(address) as socket:

            def frame(number: int) -> object:
                left = (3 * number) % 224
                pixels = np.ascontiguousarray(scene[:, left : left + 224]).tobytes()
                return ask(socket, number + 100, "live", pixels, picture="sent", layer=layer)

            return {"what": "webcam", "network": "mobilenet_v2", "layer": layer, **timed(pid, 100, frame)}


def clicks() -> Row:
    """Another unit is ablated at each click."""
    with served("--model", "zoo:efficientnet-lite0", "--data", "digits") as (address, pid):
        layer = _middle(address)
        with opened(address) as socket:

            def click(number: int) -> object:
                edits = [{"layer": layer, "unit": (number * 7) % 40, "scale": 0.0 if number % 3 else 2.0}]
                picture = f"data:{number % 50 + 50}"
                return ask(socket, number + 100, "live", picture=picture, layer=layer, edits=edits)

            return {"what": "clicks", "network": "efficientnet-lite0", "layer": layer, **timed(pid, 100, click)}


def _middle(address: str) -> str:
    """A convolution in the middle of the network."""
    import urllib.request

    with urllib.request.urlopen(address + "api/network") as answer:
        layers = json.load(answer)["layers"]
    convolutions = [layer["name"] for layer in layers if "conv" in layer["kind"].lower() and layer["units"] >= 40]
    return convolutions[len(convolutions) // 2]


def clients(count: int = 50, seconds: float = 60.0) -> Row:
    """Many browsers at once."""
    kinds = (
        ("live", {"layer": "conv1"}),
        ("live", {"layer": "conv2"}),
        ("explain", {"method": "grad-cam", "target": 3}),
        ("explain", {"method": "saliency"}),
        ("dissect", {"layer": "conv2", "unit": 5}),
        ("project", {"layer": "conv2", "unit": 7, "method": "guided"}),
    )
    asked, answered, refused, faults = [0] * count, [0] * count, [0] * count, []

    with served("--model", "zoo:simple-convnet", "--weights", "random", "--data", "digits") as (address, pid):
        until = time.monotonic() + seconds

        def browse(which: int) -> None:
            number = 0
            with opened(address) as socket:
                while time.monotonic() < until:
                    kind, question = kinds[(which + number) % len(kinds)]
                    number, asked[which] = number + 1, asked[which] + 1
                    try:
                        picture = f"data:{(17 * which + number) % 1700}"
                        ask(socket, number, kind, picture=picture, **question)
                        answered[which] += 1
                    except RuntimeError as error:
                        refused[which] += "waits" in str(error)
                        faults.extend([str(error)] if "waits" not in str(error) else [])

        with opened(address) as socket:
            ask(socket, 1, "live", picture="data:0", layer="conv1")
        begun = resident(pid)
        threads = [threading.Thread(target=browse, args=(which,)) for which in range(count)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 2)
        half = resident(pid)
        for thread in threads:
            thread.join()
        return {
            "what": "clients", "network": "simple-convnet", "clients": count, "seconds": seconds,
            "asked": sum(asked), "answered": sum(answered), "refused": sum(refused), "faults": len(faults),
            "lost": sum(asked) - sum(answered) - sum(refused) - len(faults), "fewest of one client": min(answered),
            "memory at first [MB]": round(begun), "after half [MB]": round(half), "at last [MB]": round(resident(pid)),
        }  # fmt: skip


def keep(row: Row) -> None:
    """Write a row; it replaces an older row of the same part."""
    old = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    load = round(os.getloadavg()[0], 1)
    rows = [one for one in old if one["what"] != row["what"]] + [{**row, "cores": os.cpu_count() or 1, "load": load}]
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print("  ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)


if __name__ == "__main__":
    wanted = sys.argv[1:] or PARTS
    if unknown := [name for name in wanted if name not in PARTS]:
        print(f"there is no part {unknown[0]}; known: {', '.join(PARTS)}", file=sys.stderr)
        raise SystemExit(2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    for name in wanted:
        keep({"drawing": drawing, "webcam": webcam, "clicks": clicks, "clients": clients}[name]())
