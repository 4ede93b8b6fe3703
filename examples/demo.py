"""From nothing to a network one can walk through: train on MNIST, build the atlas, say where to open it.

It only gives the two commands that a person would give, and shows them.
"""

from __future__ import annotations

import shlex
import sys
import time

from microtome.cli.main import run

FOLDER = "demo"
COMMANDS = (
    f"train simple-convnet --data mnist --out {FOLDER}/run",
    (
        f"atlas --model zoo:simple-convnet --weights {FOLDER}/run/weights.safetensors --data mnist "
        f"--images 60 --engine processes --out {FOLDER}/atlas"
    ),
)


def main() -> int:
    """Run the commands one after the other; the first that fails ends it."""
    began = time.monotonic()
    for command in COMMANDS:
        print(f"$ microtome {command}", flush=True)
        status = run(shlex.split(command))
        if status:
            return status
    print(f"The whole took {time.monotonic() - began:.0f} s.")
    return 0


if __name__ == "__main__":  # workers of the atlas import this file
    sys.exit(main())
