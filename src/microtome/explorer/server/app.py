"""The application: pages, typed endpoints, and the socket, around one dispatch of questions."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError

from microtome.errors import MicrotomeError
from microtome.explorer.atlas_results import AtlasResults
from microtome.explorer.live_network import LiveNetwork
from microtome.explorer.server.computations import BusyError
from microtome.explorer.server.dispatch import Dispatch
from microtome.explorer.server.page_routes import page_routes
from microtome.explorer.server.picture_routes import picture_routes
from microtome.explorer.server.question_routes import question_routes, socket_route
from microtome.explorer.server.request_checks import RequestChecks
from microtome.explorer.server.request_limits import Limits
from microtome.explorer.server.route_answers import busy, malformed, problem
from microtome.version import __version__

__all__ = ["create_app"]


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
        Limits of requests.
    atlas : AtlasResults
        Stored results of the first network, whose pages are served below ``/atlas/``.
    hosts : iterable of str
        Host names under which browsers may connect.
    token : str
        Token that every request must carry; empty if none is needed.
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
    for router in (page_routes(dispatch), picture_routes(dispatch), question_routes(dispatch)):
        app.include_router(router)
    app.add_api_websocket_route("/live", socket_route(dispatch))
    app.add_exception_handler(MicrotomeError, problem)
    app.add_exception_handler(BusyError, busy)
    app.add_exception_handler(RequestValidationError, malformed)
    app.add_middleware(
        RequestChecks,
        hosts=hosts,
        token=token,
        body_bytes=limits.body_bytes,
        uploads={"/api/pictures": limits.upload_bytes},
    )
    return app
