"""A checksum inside the file that it protects: the digest of all bytes, with its own place blank."""

from __future__ import annotations

import hashlib

__all__ = ["BLANK", "KEY", "signed", "sound"]

KEY = "blake2b"
BLANK = "0" * 32

# As escaped in the JSON header: the first key of the stored result.
_BEFORE = b'{\\"blake2b\\": \\"'


def signed(content: bytes) -> bytes:
    """Write the digest into its blank place."""
    at = _place(content)
    return content[:at] + _digest(content, at) + content[at + len(BLANK) :]


def sound(content: bytes) -> bool | None:
    """Whether the bytes match their checksum; None if there is none."""
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
