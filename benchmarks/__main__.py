"""Run all benchmarks, or those named: ``python -m benchmarks [attribution occlusion conservation ...]``."""

import importlib.util
import runpy
import sys

ALL = (
    "attribution",
    "occlusion",
    "conservation",
    "conformance",
    "spaces",
    "synthesis",
    "pruning",
    "landscape",
    "loss_bands",
    "curvature",
    "maps",
    "values",
    "launches",
    "information",
)

if __name__ == "__main__":
    chosen = sys.argv[1:] or [name for name in ALL if importlib.util.find_spec(f"benchmarks.{name}")]
    unknown = [name for name in chosen if name not in ALL]
    if unknown:
        print(f"there is no benchmark {unknown[0]}; known: {', '.join(ALL)}", file=sys.stderr)
        raise SystemExit(2)
    ended = []
    for name in [*chosen, "speed_page"]:
        sys.argv = [f"benchmarks.{name}"]
        try:
            runpy.run_module(f"benchmarks.{name}", run_name="__main__")
        except SystemExit as end:  # such as a peer that is not installed; the others run
            if end.code:
                ended.append(f"{name}: {end.code}")
    raise SystemExit("\n".join(ended) or 0)
