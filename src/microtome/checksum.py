"""Checksum of a file that stands inside of the file: the digest of all bytes, its own place left blank."""

from __future__ import annotations

import hashlib

__all__ = ["BLANK", "KEY", "signed", "sound"]

KEY = "blake2b"
BLANK = "0" * 32

# As JSON inside of a JSON header has it: the first key of what the header holds of a result.
_BEFORE = b'{\\"blake2b\\": \\"'


def signed(content: bytes) -> bytes:
    """Write the digest into the blank."""
    at = _place(content)
    return content[:at] + _digest(content, at) + content[at + len(BLANK) :]


def sound(content: bytes) -> bool | None:
    """Whether the bytes are those that were signed; None where there is no signature."""
    at = _place(content)
    return None if at < 0 else content[at : at + len(BLANK)] == _digest(content, at)


def _place(content: bytes) -> int:
    found = content.find(_BEFORE, 0, 8 + int.from_bytes(content[:8], "little"))
    return found + len(_BEFORE) if found >= 0 else -1


def _digest(content: bytes, at: int) -> bytes:
    found = hashlib.blake2b(digest_size=len(BLANK) // 2)
    view = memoryview(content)
    for part in (view[:at], BLANK.encode(), view[at + len(BLANK) :]):
        found.update(part)
    return found.hexdigest().encode()
