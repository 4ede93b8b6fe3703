"""Limits of the explorer: the size of requests, and the length of queues."""

from __future__ import annotations

from dataclasses import dataclass, field

from microtome.atlas.engine import available_cores

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Limits of requests.

    Attributes
    ----------
    upload_bytes, upload_pixels, upload_seconds : int
        Of an uploaded picture file: its size, its pixels, and the time to arrive and to be decoded.
    body_bytes : int
        Size of any other request.
    computations : int
        Number of computations at the same time.
    waiting : int
        Number of waiting computations; beyond that the answer is 503.
    connections : int
        Number of open sockets.
    questions : int
        Number of unanswered questions of one socket.
    kept_bytes : int
        Memory for uploaded pictures.
    answer_bytes : int
        Memory for the cache of answers.
    """

    upload_bytes: int = 16 << 20
    upload_pixels: int = 40_000_000
    upload_seconds: float = 20.0
    body_bytes: int = 1 << 16
    computations: int = field(default_factory=available_cores)
    waiting: int = 128
    connections: int = 128
    questions: int = 16
    kept_bytes: int = 64 << 20
    answer_bytes: int = 96 << 20
