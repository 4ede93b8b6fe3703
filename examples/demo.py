"""A whole demonstration: train a network on MNIST, build its atlas, and say where to open it.

It prints and runs the two commands that a user would type.
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
    """Run the commands one after the other; stop at the first that fails."""
    began = time.monotonic()
    for command in COMMANDS:
        print(f"$ microtome {command}", flush=True)
        status = run(shlex.split(command))
        if status:
            return status
    print(f"Everything took {time.monotonic() - began:.0f} s.")
    return 0


if __name__ == "__main__":  # workers of the atlas import this file
    sys.exit(main())
