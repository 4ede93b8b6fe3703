"""Bounds of the explorer: what one browser may send, and how much may wait."""

from __future__ import annotations

from dataclasses import dataclass, field

from microtome.atlas.engine import available_cores

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """What is admitted.

    Attributes
    ----------
    upload_bytes, upload_pixels, upload_seconds : int
        Of a picture file that is sent: its size, its pixels, and how long it may take to arrive and to be decoded.
    body_bytes : int
        Of any other request.
    computations : int
        Computations at one time.
    waiting : int
        Computations that wait for their turn; beyond that the answer is 503.
    connections : int
        Open sockets.
    questions : int
        Questions of one socket that are not yet answered.
    kept_bytes : int
        Memory for pictures that were sent.
    answer_bytes : int
        Memory for answers, which are kept by content.
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
