"""What a command is doing and how long it will take: a line that is overwritten on a terminal, lines elsewhere.

Each command has it: the library's long work reports its steps, and a thread says for how long the command has run where
work cannot be divided into steps.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

from microtome.progress import Progress, in_words, listening

__all__ = ["WorkLine", "shown"]

_FIRST, _NEXT = 1.0, 0.2  # seconds before the first line and between lines, on a terminal
_FIRST_APART, _NEXT_APART = 5.0, 30.0  # the same where lines cannot be overwritten
_BEAT = 0.5  # seconds between two looks whether a line is due
_CLEAR = "\r\033[K"


class WorkLine:
    """Says what a command is doing, if that takes longer than some seconds.

    Parameters
    ----------
    stream : text file
        Where the lines are written. On a terminal each overwrites the last.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._columns = stream, shutil.get_terminal_size().columns
        self._over = stream.isatty()
        self._first, self._next = (_FIRST, _NEXT) if self._over else (_FIRST_APART, _NEXT_APART)
        self._began = self._read = time.monotonic()
        self._written: float | None = None
        self._open = False  # whether a line stands on the terminal
        self._at: Progress | None = None
        self._lock = threading.RLock()
        self._end = threading.Event()

    def __call__(self, at: Progress) -> None:
        """Take a report of a step, and write it if a line is due."""
        with self._lock:
            self._at, self._read = at, time.monotonic()
        self.beat()

    def beat(self) -> None:
        """Write a line if one is due."""
        with self._lock:
            now = time.monotonic()
            last = self._began if self._written is None else self._written
            if now - last < (self._first if self._written is None else self._next):
                return
            self._written = now
            text = self._text(now)
            self._stream.write(f"{_CLEAR}{text[: self._columns - 1]}" if self._over else f"{text}\n")
            self._stream.flush()
            self._open = self._over

    def clear(self) -> None:
        """Remove the line from the terminal, before anything else is written."""
        with self._lock:
            if self._open:
                self._stream.write(_CLEAR)
                self._stream.flush()
                self._open = False

    def run(self) -> None:
        """Write lines until :meth:`stop`."""
        while not self._end.wait(_BEAT):
            self.beat()

    def stop(self) -> None:
        """Write no more lines."""
        self._end.set()
        self.clear()

    def _text(self, now: float) -> str:
        """The last report, or how long the command has run."""
        if self._at is None or self._at.done >= self._at.total:
            return f"at work for {in_words(now - self._began)}"
        since = now - self._read
        left = max(self._at.remaining - since, 0.0)
        numbers = "".join(f", {name} {value:.4g}" for name, value in self._at.numbers.items())
        done = f"{self._at.stage}: {self._at.done:,} of {self._at.total:,} steps done{numbers}"
        return f"{done}, about {in_words(left)} remain" if left else done


class _ClearsFirst:
    """A stream that removes the line of work before it writes."""

    def __init__(self, stream: TextIO, line: WorkLine) -> None:
        self._stream, self._line = stream, line

    def write(self, text: str) -> int:
        self._line.clear()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextlib.contextmanager
def shown(stream: TextIO) -> Iterator[None]:
    """Say on a stream what the block is doing, if it takes longer than some seconds."""
    line = WorkLine(stream)
    thread = threading.Thread(target=line.run, daemon=True, name="line of work")
    thread.start()
    swapped = [name for name in ("stdout", "stderr") if stream.isatty() and getattr(sys, name).isatty()]
    before = {name: getattr(sys, name) for name in swapped}
    for name, value in before.items():
        setattr(sys, name, _ClearsFirst(value, line))
    try:
        with listening(line):
            yield
    finally:
        line.stop()
        thread.join()
        for name, value in before.items():
            setattr(sys, name, value)
