"""Routes of pictures: facts of the network, images of the data set, and uploads."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel
from torch import Tensor

from microtome.errors import InputError
from microtome.explorer.answers.unit_examples import picture_bytes
from microtome.explorer.frames import Frame, packed
from microtome.explorer.kept_pictures import FORMATS, decoded
from microtome.explorer.live_network import LiveNetwork
from microtome.explorer.server.computations import Turn
from microtome.explorer.server.dispatch import Dispatch
from microtome.explorer.server.route_answers import BINARY, PROBLEMS

__all__ = ["picture_routes"]

_SENT = {
    "requestBody": {
        "required": True,
        "content": {f"image/{name.lower()}": {"schema": {"type": "string", "format": "binary"}} for name in FORMATS},
    }
}


class Kept(BaseModel):
    """The name of an uploaded picture; equal pixels have equal names."""

    picture: str


def picture_routes(dispatch: Dispatch) -> APIRouter:
    """The network's facts, small and whole pictures of the data set, and uploads."""
    router = APIRouter(prefix="/api", tags=["pictures"], responses=PROBLEMS)

    @router.get("/network", summary="The network, its layers and classes, the images, and the kinds of questions")
    async def network() -> dict[str, Any]:
        return await asyncio.to_thread(described, dispatch)

    @router.get(
        "/images",
        summary="Small pictures of the data set, as a frame",
        response_class=Response,
        responses={200: {"content": BINARY}},
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
        responses={200: {"content": BINARY}},
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
            raise InputError(
                f"the upload of the picture took over {limits.upload_seconds:.0f} s; send it again."
            ) from None
        shape = dispatch.networks[0].net.input_shape
        work = dispatch.computations.run(lambda turn: decoded(content, shape, limits.upload_pixels), Turn())
        try:
            pixels = await asyncio.wait_for(work, limits.upload_seconds)
        except (TimeoutError, asyncio.TimeoutError):
            raise InputError(f"decoding the picture takes over {limits.upload_seconds:.0f} s; scale it down.") from None
        return Kept(picture=f"kept:{dispatch.kept.keep(pixels)}")

    return router


def described(dispatch: Dispatch) -> dict[str, Any]:
    """The facts that the page needs before its first question."""
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
