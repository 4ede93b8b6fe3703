"""How routes answer: the documents of their frames and problems, and problems as JSON."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

__all__ = ["BINARY", "PROBLEMS", "busy", "malformed", "problem"]

BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


class Problem(BaseModel):
    """Why a question cannot be answered."""

    detail: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The question does not fit the network"},
    413: {"model": Problem, "description": "The request is too large"},
    422: {"model": Problem, "description": "The question is malformed"},
    503: {"model": Problem, "description": "The server is busy"},
}


async def problem(_: Request, error: Exception) -> Response:
    """A question that cannot be answered, with the reason."""
    return JSONResponse({"detail": str(error)}, 400)


async def busy(*_: Any) -> Response:
    """The server is busy: retry after a second."""
    detail = "the server is busy; try again in a moment."
    return JSONResponse({"detail": detail}, 503, headers={"retry-after": "1"})


async def malformed(_: Request, error: Any) -> Response:
    """A malformed question: the first field that is wrong."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first.get("loc", ()))
    return JSONResponse({"detail": f"{where}: {first.get('msg', 'not well formed')}"[:500]}, 422)
