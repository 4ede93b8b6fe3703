"""Routes of questions: one endpoint for each kind, the frozen view, and the socket."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, WebSocket
from fastapi.responses import Response
from pydantic import BaseModel

from microtome.errors import InputError
from microtome.explorer.frames import Frame, packed
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
from microtome.explorer.server.computations import Cancelled, Turn
from microtome.explorer.server.dispatch import Dispatch, until_gone
from microtome.explorer.server.live_socket import LiveSocket
from microtome.explorer.server.route_answers import BINARY, PROBLEMS
from microtome.explorer.share import frozen

__all__ = ["question_routes", "socket_route"]


def question_routes(dispatch: Dispatch) -> APIRouter:
    """One endpoint for each kind of question; all answer with a frame."""
    router = APIRouter(prefix="/api", tags=["answers"], responses=PROBLEMS)
    kinds: list[tuple[str, type[BaseModel]]] = [
        ("live", Live), ("explain", Explained), ("occlusion", Covered), ("project", Projected),
        ("dissect", Dissected), ("sum", Summed), ("examples", Examples),
    ]  # fmt: skip
    for word, kind in kinds:
        summary = " ".join((kind.__doc__ or "").split())
        router.add_api_route(
            f"/{word}", _endpoint(dispatch, kind), methods=["POST"], name=word, summary=summary,
            response_class=Response, responses={200: {"content": BINARY}},
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
        raise InputError("the client left, so the answer was not computed.") from None


def socket_route(dispatch: Dispatch) -> Any:
    """The socket's endpoint; beyond the limit of open sockets it closes immediately."""
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
