"""Ownership of an output folder: one run at a time; a second run is refused with the name of the first."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from microtome.atlas.store import OWNER, Store
from microtome.errors import StoreError

# Windows has none: there the owner's name counts as long as it is renewed.
fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

__all__ = ["owned"]

_RENEWED, _STALE = 30.0, 120.0  # seconds between two renewals, and until an owner without renewal counts as gone


@contextlib.contextmanager
def owned(store: Store) -> Iterator[None]:
    """Own the folder inside the block.

    A folder on a disk is locked by the system, which frees it however the run ends. In a bucket the owner's name is
    renewed every 30 seconds, and is valid for two minutes; of two runs that begin there at the same moment, the one
    whose name stays is the owner.

    Raises
    ------
    StoreError
        Another run owns it.
    """
    if store.local and fcntl is not None:
        lock = _locked(store)
        if lock is not None:
            try:
                yield
            finally:
                Path(store.path(OWNER)).unlink(missing_ok=True)
                os.close(lock)
            return
    with _named(store):
        yield


def _locked(store: Store) -> int | None:
    """The open and locked file; None if the file system has no locks."""
    place = store.path(OWNER)
    while True:
        try:
            file = os.open(place, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(f"{place} cannot be written: {error.strerror or error}.") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(place) and os.fstat(file).st_ino == os.stat(place).st_ino:
                os.ftruncate(file, 0)
                os.write(file, json.dumps(_me()).encode())
                return file
        except OSError as error:
            os.close(file)
            if error.errno in (errno.ENOLCK, errno.ENOTSUP):
                return None
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise StoreError(f"{place} cannot be locked: {error.strerror or error}.") from error
            raise _refusal(store, _owner(store)) from error
        os.close(file)  # the previous owner has removed the file meanwhile


@contextlib.contextmanager
def _named(store: Store) -> Iterator[None]:
    """Own the folder by a name that is renewed."""
    found = _owner(store)
    if found and not _gone(found):
        raise _refusal(store, found)
    me = {**_me(), "run": uuid.uuid4().hex}
    store.write(OWNER, json.dumps({**me, "seen": time.time()}).encode())
    if (now := _owner(store)).get("run") != me["run"]:
        raise _refusal(store, now)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(_RENEWED):
            with contextlib.suppress(StoreError):  # the next renewal may succeed
                store.write(OWNER, json.dumps({**me, "seen": time.time()}).encode())

    thread = threading.Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(StoreError):
            store.remove_file(OWNER)


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}


def _owner(store: Store) -> dict[str, Any]:
    try:
        found = json.loads(store.read(OWNER))
    except (StoreError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _gone(owner: dict[str, Any]) -> bool:
    """Whether the owner was not renewed for long, or was a process of this machine that has ended."""
    if time.time() - owner.get("seen", 0.0) > _STALE:
        return True
    if owner.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(owner["process"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, KeyError, ValueError):
        return False
    return False


def _refusal(store: Store, owner: dict[str, Any]) -> StoreError:
    who = (
        f"process {owner.get('process')} on {owner.get('host')}, since {owner.get('since')}"
        if owner
        else "a process that has not given its name yet"
    )
    return StoreError(
        f"another run works in {store.address}: {who}. Wait for its end, or choose another folder; nothing was changed."
    )
