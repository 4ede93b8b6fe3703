"""The application: pages, typed endpoints, and the socket, around one dispatch of questions."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, Query, Request, WebSocket
from fastapi.responses import JSONResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel
from torch import Tensor

from microtome.errors import InputError, MicrotomeError
from microtome.explorer.answers.unit_examples import picture_bytes
from microtome.explorer.atlas_results import AtlasResults
from microtome.explorer.frames import Frame, packed
from microtome.explorer.kept_pictures import FORMATS, decoded
from microtome.explorer.live_network import LiveNetwork
from microtome.explorer.questions import (
    Covered,
    Dissected,
    Examples,
    Explained,
    Live,
    Projected,
    Shared,
    Summed,
)
from microtome.explorer.server.computations import BusyError, Cancelled, Turn
from microtome.explorer.server.dispatch import Dispatch, until_gone
from microtome.explorer.server.live_socket import LiveSocket
from microtome.explorer.server.request_checks import POLICY, RequestChecks
from microtome.explorer.server.request_limits import Limits
from microtome.explorer.share import asset, frozen
from microtome.version import __version__

__all__ = ["ASSETS", "create_app"]

ASSETS = {
    "style.css": "text/css; charset=utf-8",
    "explorer.css": "text/css; charset=utf-8",
    "colours.js": "text/javascript; charset=utf-8",
    "frames.js": "text/javascript; charset=utf-8",
    "picture_input.js": "text/javascript; charset=utf-8",
    "unit_grid.js": "text/javascript; charset=utf-8",
    "unit_panel.js": "text/javascript; charset=utf-8",
    "class_panel.js": "text/javascript; charset=utf-8",
    "view_state.js": "text/javascript; charset=utf-8",
    "explorer.js": "text/javascript; charset=utf-8",
    "theme.js": "text/javascript; charset=utf-8",
}
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_SENT = {
    "requestBody": {
        "required": True,
        "content": {f"image/{name.lower()}": {"schema": {"type": "string", "format": "binary"}} for name in FORMATS},
    }
}


class Problem(BaseModel):
    """Why a question cannot be answered."""

    detail: str


class Kept(BaseModel):
    """The name of a picture that was sent; equal pixels have equal names."""

    picture: str


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The question does not fit the network"},
    413: {"model": Problem, "description": "More than is taken"},
    422: {"model": Problem, "description": "The question is not well formed"},
    503: {"model": Problem, "description": "Too much waits already"},
}


def create_app(
    networks: list[LiveNetwork],
    *,
    limits: Limits | None = None,
    atlas: AtlasResults | None = None,
    hosts: Iterable[str] = ("127.0.0.1", "localhost", "[::1]"),
    token: str = "",
) -> FastAPI:
    """The explorer as an ASGI application.

    Parameters
    ----------
    networks : list of LiveNetwork
        The network, and one to compare it with.
    limits : Limits
        What is admitted.
    atlas : AtlasResults
        Stored results of the first network, whose pages are served below ``/atlas/``.
    hosts : iterable of str
        Names by which browsers may ask.
    token : str
        What every request must bring; empty where none is needed.
    """
    limits = limits or Limits()
    dispatch = Dispatch(networks, limits, atlas)
    app = FastAPI(
        title="microtome explorer",
        version=__version__,
        description="Activations, maps and dissections of a network on any picture. Answers are frames: see /frames.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.dispatch = dispatch
    for router in (_pages(dispatch), _pictures(dispatch), _answers(dispatch)):
        app.include_router(router)
    app.add_api_websocket_route("/live", _socket(dispatch))
    app.add_exception_handler(MicrotomeError, _problem)
    app.add_exception_handler(BusyError, _busy)
    from fastapi.exceptions import RequestValidationError

    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_middleware(
        RequestChecks,
        hosts=hosts,
        token=token,
        body_bytes=limits.body_bytes,
        uploads={"/api/pictures": limits.upload_bytes},
    )
    return app


def _pages(dispatch: Dispatch) -> APIRouter:
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
        if found[0].suffix == ".html":  # pages that also open from disk have their theme and sprites inline
            headers["content-security-policy"] = _atlas_policy(content.decode())
        return Response(content, headers=headers)

    return router


def _atlas_policy(page: str) -> str:
    """The policy of a page of the atlas: its own inline scripts by their digests, and no others."""
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
    admitted = " ".join(["'self'", *(f"'sha256-{digest}'" for digest in digests)])
    return POLICY.replace("script-src 'self'", f"script-src {admitted}").replace(
        "style-src 'self'", "style-src 'self' 'unsafe-inline'"
    )


def _pictures(dispatch: Dispatch) -> APIRouter:
    router = APIRouter(prefix="/api", tags=["pictures"], responses=_PROBLEMS)

    @router.get("/network", summary="The network, its layers and classes, the images, and what can be asked")
    async def network() -> dict[str, Any]:
        return await asyncio.to_thread(described, dispatch)

    @router.get(
        "/images",
        summary="Small pictures of the data set, as a frame",
        response_class=Response,
        responses={200: {"content": _BINARY}},
    )
    async def images(
        start: Annotated[int, Query(ge=0, le=10**9)] = 0, count: Annotated[int, Query(ge=1, le=60)] = 24
    ) -> Response:
        frame = await dispatch.computations.run(lambda turn: thumbnails(dispatch.networks[0], start, count), Turn())
        return Response(packed(frame), media_type="application/octet-stream")

    @router.get(
        "/picture",
        summary="A picture as the network takes it, as a frame",
        response_class=Response,
        responses={200: {"content": _BINARY}},
    )
    async def picture(
        name: Annotated[str, Query(pattern=r"^(data:[0-9]{1,9}|kept:[0-9a-f]{32})$")],
    ) -> Response:
        frame = await dispatch.computations.run(lambda turn: whole_picture(dispatch, name), Turn())
        return Response(packed(frame), media_type="application/octet-stream")

    @router.post("/pictures", summary="Send a picture file", openapi_extra=_SENT)
    async def send(request: Request) -> Kept:
        limits = dispatch.limits
        try:
            content = await asyncio.wait_for(request.body(), limits.upload_seconds)
        except (TimeoutError, asyncio.TimeoutError):
            raise InputError(f"the picture took over {limits.upload_seconds:.0f} s to arrive; send it again.") from None
        shape = dispatch.networks[0].net.input_shape
        work = dispatch.computations.run(lambda turn: decoded(content, shape, limits.upload_pixels), Turn())
        try:
            pixels = await asyncio.wait_for(work, limits.upload_seconds)
        except (TimeoutError, asyncio.TimeoutError):
            raise InputError(
                f"the picture takes over {limits.upload_seconds:.0f} s to decode; scale it down."
            ) from None
        return Kept(picture=f"kept:{dispatch.kept.keep(pixels)}")

    return router


def _answers(dispatch: Dispatch) -> APIRouter:
    """One endpoint for each kind of question; all answer with a frame."""
    router = APIRouter(prefix="/api", tags=["answers"], responses=_PROBLEMS)
    kinds: list[tuple[str, type[BaseModel]]] = [
        ("live", Live), ("explain", Explained), ("occlusion", Covered), ("project", Projected),
        ("dissect", Dissected), ("sum", Summed), ("examples", Examples),
    ]  # fmt: skip
    for word, kind in kinds:
        summary = " ".join((kind.__doc__ or "").split())
        router.add_api_route(
            f"/{word}", _endpoint(dispatch, kind), methods=["POST"], name=word, summary=summary,
            response_class=Response, responses={200: {"content": _BINARY}},
        )  # fmt: skip

    @router.post(
        "/share",
        summary="A frozen view: one HTML file that opens from disk",
        response_class=Response,
        responses={200: {"content": {"text/html": {}}}},
    )
    async def share(
        question: Shared, request: Request, address: Annotated[str, Query(max_length=8000)] = ""
    ) -> Response:
        def work(_: Turn) -> Frame:
            live = dispatch.network(question)
            image = live.image(question.picture, dispatch.kept)
            return Frame({"page": frozen(live, image, question, address).decode()})

        frame = await _while_there(request, dispatch.computations.run(work, Turn()))
        headers = {"content-disposition": 'attachment; filename="view.html"'}
        return Response(frame.header["page"], media_type="text/html; charset=utf-8", headers=headers)

    return router


def _endpoint(dispatch: Dispatch, kind: type[BaseModel]) -> Any:
    async def answer(request: Request, question: Any) -> Response:
        frame = await _while_there(request, dispatch.answer(question))
        return Response(packed(frame), media_type="application/octet-stream")

    answer.__annotations__ = {"request": Request, "question": Annotated[kind, Body()], "return": Response}
    return answer


async def _while_there(request: Request, work: Any) -> Frame:
    """The result of some work; it is cancelled when the client leaves."""
    try:
        return await until_gone(work, request.is_disconnected)
    except (asyncio.CancelledError, Cancelled):
        raise InputError("nobody waited for the answer, so it was not computed.") from None


def _socket(dispatch: Dispatch) -> Any:
    opened: set[LiveSocket] = set()

    async def live(socket: WebSocket) -> None:
        if len(opened) >= dispatch.limits.connections:
            await socket.close(1013, "too many sockets are open; try again later")
            return
        connection = LiveSocket(socket, dispatch)
        opened.add(connection)
        try:
            await connection.serve()
        finally:
            opened.discard(connection)

    return live


async def _problem(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 400)


async def _busy(*_: Any) -> Response:
    detail = "too much waits already; try again in a moment."
    return JSONResponse({"detail": detail}, 503, headers={"retry-after": "1"})


async def _malformed(_: Request, error: Any) -> Response:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first.get("loc", ()))
    return JSONResponse({"detail": f"{where}: {first.get('msg', 'not well formed')}"[:500]}, 422)


# -- what there is -----------------------------------------------------------------------------------------------------


def described(dispatch: Dispatch) -> dict[str, Any]:
    """What the page has to know before it asks anything."""
    first = dispatch.networks[0]
    net, images = first.net, first.subject.images
    known = dispatch.atlas.page if dispatch.atlas is not None else None
    layers = [
        {
            "name": layer.name,
            "kind": layer.kind,
            "units": layer.units,
            "grid": list(layer.axes.grid),
            "shape": list(layer.shape),
            "field": None if layer.field is None else list(layer.field.size),
        }
        for layer in first.layers
    ]
    window, stride = first.window()
    return {
        "networks": [{"name": one.name, "fingerprint": one.net.fingerprint} for one in dispatch.networks],
        "input_shape": list(net.input_shape),
        "pixels": None if net.pixels is None else list(net.pixels),
        "small": first.small,
        "output": net.output,
        "classes": net.classes or [str(index) for index in range(net.head.classes)],
        "named": net.classes is not None,
        "layers": layers,
        "layer": first.first_layer,
        "images": len(images),
        "methods": first.methods,
        "projections": ["gradient", "deconvnet", "guided", "relevance"],
        "window": window,
        "stride": stride,
        "atlas": known is not None,
        "draw": net.input_shape[0] == 1 and first.small,
        "send": net.input_shape[0] in (1, 3),
        "upload_bytes": dispatch.limits.upload_bytes,
        "notes": net.notes,
    }


def thumbnails(live: LiveNetwork, start: int, count: int) -> Frame:
    """Small pictures of some images, with their labels."""
    total = len(live.subject.images)
    indices = list(range(min(start, total), min(start + count, total)))
    header: dict[str, Any] = {"start": start, "total": total, "labels": [], "names": []}
    for index in indices:
        number, name = live.label(f"data:{index}")
        header["labels"].append(number)
        header["names"].append(name)
    blocks: dict[str, Tensor] = {}
    if indices:
        blocks["pictures"] = picture_bytes(live.subject.pictures(indices), live.net, 96)
    return Frame(header, blocks)


def whole_picture(dispatch: Dispatch, name: str) -> Frame:
    """A picture at the network's own size, with what is known of it."""
    live = dispatch.networks[0]
    image = live.image(name, dispatch.kept)
    number, title = live.label(name)
    side = max(live.net.input_shape[1:])
    return Frame({"picture": name, "label": number, "name": title}, {"pixels": picture_bytes(image, live.net, side)[0]})
