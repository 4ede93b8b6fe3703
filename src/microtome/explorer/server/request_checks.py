"""Checks of every request before it is answered: host, origin, token, size; and the headers of every answer."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["COOKIE", "POLICY", "RequestChecks"]

COOKIE = "microtome-token"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_SAFE = ("GET", "HEAD", "OPTIONS")


class _TooLargeError(Exception):
    """A request body is larger than allowed."""


class RequestChecks:
    """Middleware around the whole application, sockets included.

    Parameters
    ----------
    app : ASGI application
    hosts : iterable of str
        Host names under which the server answers, without a port. A page of another site whose name points
        here (DNS rebinding) uses its own host name, and is refused.
    token : str
        Token that every request must carry, once in the address and then in a cookie; empty if none is needed.
    body_bytes : int
        Of a request.
    uploads : mapping of str to int
        Paths that admit more bytes.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Iterable[str], token: str, body_bytes: int, uploads: dict[str, int]
    ) -> None:
        self._app, self._hosts, self._token = app, frozenset(hosts), token
        self._body_bytes, self._uploads = body_bytes, dict(uploads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refused(scope, headers)
        if refusal is not None:
            await _refuse(scope, receive, send, *refusal)
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        limit = self._uploads.get(scope["path"], self._body_bytes)
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            await _refuse(scope, receive, send, 413, f"at most {limit:,} bytes are allowed here.")
            return
        await self._answer(scope, _bounded(receive, limit), send, self._given(scope), limit)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, given: str, limit: int) -> None:
        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                there = {name for name, _ in message["headers"]}
                more = [(name, value) for name, value in _HEADERS if name not in there]
                if b"content-security-policy" not in there:
                    more.append((b"content-security-policy", POLICY.encode()))
                if self._token and given:
                    cookie = f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict"
                    more.append((b"set-cookie", cookie.encode()))
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            await self._app(scope, receive, with_headers)
        except _TooLargeError:
            if not begun:
                await _refuse(scope, receive, send, 413, f"at most {limit:,} bytes are allowed here.")

    def _refused(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = _name(headers.get("host", ""))
        if host not in self._hosts:
            return 421, "this server does not answer under that host name; open the address that it printed."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return 403, "requests from pages of other sites are refused."
        asked_by_page = headers.get("sec-fetch-site", "same-origin")
        unsafe = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if unsafe and asked_by_page not in ("same-origin", "none"):
            return 403, "requests from pages of other sites are refused."
        if self._token and not self._knows_token(scope, headers):
            return 401, "open the complete address that the server printed: it ends with a token."
        return None

    def _given(self, scope: Scope) -> str:
        query: bytes = scope.get("query_string", b"")
        return parse_qs(query.decode("latin-1")).get("token", [""])[0]

    def _knows_token(self, scope: Scope, headers: dict[str, str]) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        tries = (self._given(scope), bearer, cookie.value if cookie is not None else "")
        return any(hmac.compare_digest(one.encode(), self._token.encode()) for one in tries)


def _name(host: str) -> str:
    """The name in a Host header, without the port; brackets of IPv6 stay.

    Examples
    --------
    >>> _name("localhost:8000"), _name("[::1]:8000"), _name("::1")
    ('localhost', '[::1]', '::1')
    """
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.rpartition(":")[0].lower() if host.count(":") == 1 else host.lower()


def _bounded(receive: Receive, limit: int) -> Receive:
    """The body as it arrives, ended when it exceeds the limit although its length was not announced."""
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise _TooLargeError
        return message

    return bounded


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, why: str) -> None:
    if scope["type"] == "websocket":
        await receive()  # the connection request
        await send({"type": "websocket.close", "code": 1008, "reason": why[:120]})
        return
    content = json.dumps({"detail": why}).encode()
    headers: list[tuple[bytes, Any]] = [(b"content-type", b"application/json"), *_HEADERS]
    headers.append((b"content-length", str(len(content)).encode()))
    headers.append((b"content-security-policy", POLICY.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
