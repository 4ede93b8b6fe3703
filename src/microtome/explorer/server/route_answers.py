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
    413: {"model": Problem, "description": "More than is taken"},
    422: {"model": Problem, "description": "The question is not well formed"},
    503: {"model": Problem, "description": "Too much waits already"},
}


async def problem(_: Request, error: Exception) -> Response:
    """A question that cannot be answered: why, in words."""
    return JSONResponse({"detail": str(error)}, 400)


async def busy(*_: Any) -> Response:
    """Too much waits: ask again in a second."""
    detail = "too much waits already; try again in a moment."
    return JSONResponse({"detail": detail}, 503, headers={"retry-after": "1"})


async def malformed(_: Request, error: Any) -> Response:
    """A question that is not well formed: the first place that is wrong."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first.get("loc", ()))
    return JSONResponse({"detail": f"{where}: {first.get('msg', 'not well formed')}"[:500]}, 422)
