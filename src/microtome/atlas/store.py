"""The store of a run: one file for each result, named by a hash of its inputs, written atomically."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from microtome.checksum import sound
from microtome.errors import StoreError, StoreWarning
from microtome.results import Result, write_atomically

__all__ = ["MARK", "OPTIONS", "OWNER", "Store", "digest", "recall", "recall_small"]

MARK = "atlas.json"  # the network that the folder belongs to
OPTIONS = "options.json"  # the command-line options, to open the same network again
OWNER = "owner.json"  # the run that works in the folder now
_PART = re.compile(r"\..+\.(\d+)\.part")  # unfinished files of a killed write_atomically


def digest(content: Any) -> str:
    """A name for content that can be written as JSON: equal content, equal name.

    Examples
    --------
    >>> digest({"layer": "conv1", "units": [0, 1]}) == digest({"units": [0, 1], "layer": "conv1"})
    True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Store:
    """A folder of files that are written atomically.

    Parameters
    ----------
    root : str or Path
        A local folder, or any address that fsspec knows (``s3://bucket/atlas``, ``memory://atlas``).

    Raises
    ------
    StoreError
        The address cannot be opened.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.address = os.fspath(root)
        try:
            self._files, self.root = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError, OSError) as error:
            raise StoreError(f"{self.address} cannot be opened: {error}.") from error
        self.local = isinstance(self._files, LocalFileSystem)

    def path(self, name: str) -> str:
        """The full path of a file by its name in the store."""
        return f"{self.root.rstrip('/')}/{name}"

    def __contains__(self, name: str) -> bool:
        return Path(self.path(name)).is_file() if self.local else bool(self._files.exists(self.path(name)))

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically; on a disk it is flushed before it gets its final name.

        Raises
        ------
        StoreError
            The folder cannot be written, or has no room.
        """
        if self.local:
            write_atomically(self.path(name), content)
            return
        try:
            self._files.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)
            self._files.pipe(self.path(name), content)
        except Exception as error:  # every kind of storage has errors of its own
            raise StoreError(f"{self.path(name)} cannot be written: {error}.") from error

    def write_if_changed(self, name: str, content: bytes) -> bool:
        """Write a file that can be recomputed, unless it exists with these bytes; returns whether it was written.

        It is not flushed to the disk: the next writer compares the bytes.
        """
        if name in self and self.read(name) == content:
            return False
        if not self.local:
            self.write(name, content)
            return True
        file = Path(self.path(name))
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        except OSError as error:
            raise StoreError(
                f"{file} cannot be written: {error.strerror or error}. Choose a writable folder that has room."
            ) from error
        return True

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises
        ------
        StoreError
            The file does not exist or cannot be read.
        """
        try:
            return bytes(Path(self.path(name)).read_bytes() if self.local else self._files.cat_file(self.path(name)))
        except Exception as error:
            raise StoreError(f"{self.path(name)} cannot be read: {error}.") from error

    def save(self, key: str, result: Result) -> None:
        """Store the result of a task under its key."""
        self.write(result_name(key), result.to_bytes())

    def load(self, key: str) -> Result:
        """The result of a task."""
        name = result_name(key)
        return Result.from_bytes(self.read(name), self.path(name))

    def whole(self, key: str) -> bool:
        """Whether the result of a task is stored undamaged; a damaged one is removed.

        Warns
        -----
        StoreWarning
            A file is truncated or changed, and its result is computed again.
        """
        if not self.done(key):
            return False
        if sound(self.read(result_name(key))):
            return True
        warnings.warn(
            f"{self.path(result_name(key))} is truncated or changed; it is computed again.",
            StoreWarning,
            stacklevel=2,
        )
        self.remove(key)
        return False

    def remove(self, key: str) -> None:
        """Remove the result of a task, if there is one."""
        self.remove_file(result_name(key))

    def remove_file(self, name: str) -> None:
        """Remove a file, if there is one."""
        place = self.path(name)
        try:
            if self.local:
                Path(place).unlink(missing_ok=True)
            elif self._files.exists(place):
                self._files.rm_file(place)
        except OSError as error:
            raise StoreError(f"{place} cannot be removed: {error.strerror or error}.") from error

    def done(self, key: str) -> bool:
        """Whether the result of a task is stored."""
        return result_name(key) in self

    def claim(self, identity: dict[str, Any]) -> None:
        """Reserve the folder for this network, or check that it belongs to it.

        Raises
        ------
        StoreError
            The folder holds the atlas of another network, or other files. Nothing in it is changed.
        """
        if MARK in self:
            self._compare(identity)
        elif others := sorted(name for name in self._names() if name != OWNER and not _PART.fullmatch(name)):
            raise StoreError(
                f"the output folder {self.address} holds {len(others)} files that are no atlas ({others[0]}); "
                "choose a new or empty folder. Nothing was changed."
            )
        else:
            self.write(MARK, (json.dumps(identity, sort_keys=True, indent=1) + "\n").encode())
        self.clean()

    def _compare(self, identity: dict[str, Any]) -> None:
        try:
            found = json.loads(self.read(MARK))
        except ValueError as error:
            raise StoreError(f"{self.path(MARK)} is broken: {error}. Choose another output folder.") from error
        if found.get("fingerprint") != identity["fingerprint"]:
            raise StoreError(
                f"the output folder {self.address} holds the atlas of another model: {found.get('network')} "
                f"with fingerprint {found.get('fingerprint')}, this is {identity['network']} with "
                f"{identity['fingerprint']}. Choose another output folder; nothing was changed."
            )

    def clean(self) -> None:
        """Remove unfinished files of killed writers; those of running writers stay."""
        if not self.local or not Path(self.root).is_dir():
            return
        for part in Path(self.root).rglob(".*.part"):
            match = _PART.fullmatch(part.name)
            if match and not _alive(int(match[1])):
                part.unlink(missing_ok=True)

    def _names(self) -> Iterator[str]:
        try:
            if not self._files.exists(self.root):
                return
            if not self._files.isdir(self.root):
                raise StoreError(f"the output {self.address} is a file; a folder is expected.")
            for entry in self._files.ls(self.root, detail=False):
                yield str(entry).rstrip("/").rpartition("/")[2]
        except OSError as error:
            raise StoreError(f"the output folder {self.address} cannot be read: {error.strerror or error}.") from error


@functools.lru_cache(maxsize=16)
def recall(address: str, key: str) -> Result:
    """A stored result; the last few are cached, since all units of a layer read the same ones."""
    return Store(address).load(key)


@functools.lru_cache(maxsize=128)
def recall_small(address: str, key: str) -> Result:
    """A stored result for few images; one page needs dozens of them."""
    return Store(address).load(key)


def result_name(key: str) -> str:
    """The file of a result; results are spread over folders to keep them small."""
    return f"results/{key[:2]}/{key}.safetensors"


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # this process writes nothing while it cleans
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
