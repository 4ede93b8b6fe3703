"""Routes of the page, its scripts and styles, and the atlas; every path is looked up in a table."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from microtome.explorer.server.dispatch import Dispatch
from microtome.explorer.server.request_checks import POLICY
from microtome.explorer.share import asset

__all__ = ["ASSETS", "page_routes"]

_SCRIPTS = (
    "theme", "colours", "frames", "picture_input", "unit_grid", "unit_panel", "class_panel", "view_state", "sides",
    "side_questions", "side_view", "picture_source", "choices", "examples_panel", "covering", "page_controls",
    "explorer",
)  # fmt: skip
ASSETS = {
    "style.css": "text/css; charset=utf-8",
    "explorer.css": "text/css; charset=utf-8",
    **{f"{name}.js": "text/javascript; charset=utf-8" for name in _SCRIPTS},
}


def page_routes(dispatch: Dispatch) -> APIRouter:
    """The page, its scripts and styles, and the atlas; every path is looked up in a table, none in the file system."""
    router = APIRouter()
    environment = Environment(
        loader=PackageLoader("microtome.explorer.site"), autoescape=True, undefined=StrictUndefined
    )
    files = {name: asset(name).encode() for name in ASSETS}
    atlas = dispatch.atlas

    @router.get("/", include_in_schema=False)
    async def page() -> Response:
        text = environment.get_template("explorer.html").render(
            network=dispatch.networks[0], compared=dispatch.networks[1:], atlas=atlas is not None
        )
        return Response(text, media_type="text/html; charset=utf-8")

    @router.get("/assets/{name}", include_in_schema=False)
    async def script(name: str) -> Response:
        if name not in files:
            return JSONResponse({"detail": "there is no such file."}, 404)
        return Response(files[name], headers={"content-type": ASSETS[name]})

    @router.get("/atlas/{address:path}", include_in_schema=False)
    async def atlas_page(address: str) -> Response:
        found = atlas.files.get(address or "index.html") if atlas is not None else None
        if found is None:
            return JSONResponse({"detail": "there is no such page of an atlas."}, 404)
        content = await asyncio.to_thread(found[0].read_bytes)
        headers = {"content-type": found[1]}
        if found[0].suffix == ".html":  # pages that also open from disk hold their theme and sprites inline
            headers["content-security-policy"] = _atlas_policy(content.decode())
        return Response(content, headers=headers)

    return router


def _atlas_policy(page: str) -> str:
    """The content security policy of an atlas page: only its own inline scripts, by their digests."""
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    admitted = " ".join(["'self'", *(f"'sha256-{digest}'" for digest in digests)])
    return POLICY.replace("script-src 'self'", f"script-src {admitted}").replace(
        "style-src 'self'", "style-src 'self' 'unsafe-inline'"
    )
