"""One page of each kind, for tests that ask the same of all."""

from __future__ import annotations

from pathlib import Path


def kinds(site: Path) -> list[str]:
    """One page of each kind, and the second of images: pages with and without a dissection."""
    images = sorted(str(p.relative_to(site)) for p in site.glob("images/*.html"))
    return [
        "index.html",
        "layers/conv2.html",
        "units/conv1/2.html",
        "units/conv2/3.html",
        *images[:2],
        "classes/5.html",
    ]
