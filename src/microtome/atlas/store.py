"""Where do a run's results lie, and which are done? A file each, named by what determines it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from microtome.errors import StoreError
from microtome.results import Result, write_atomically

__all__ = ["MARK", "Store", "digest"]

MARK = "atlas.json"  # says whose folder this is
_PART = re.compile(r"\..+\.(\d+)\.part")  # what write_atomically leaves when it is killed


def digest(content: Any) -> str:
    """A name for what can be written as JSON: equal content, equal name.

    Examples
    --------
    >>> digest({"layer": "conv1", "units": [0, 1]}) == digest({"units": [0, 1], "layer": "conv1"})
    True
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Store:
    """A folder of files that are there whole or not at all.

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
        """Write a file whole or not at all; on a disk it is flushed before it gets its name.

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
        """Write what can be made again, unless it is there with these bytes; tells whether it wrote.

        It is not flushed to the disk: whoever writes it again sees by the bytes whether it is whole.
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
        """A file's content.

        Raises
        ------
        StoreError
            It is not there or cannot be read.
        """
        try:
            return bytes(Path(self.path(name)).read_bytes() if self.local else self._files.cat_file(self.path(name)))
        except Exception as error:
            raise StoreError(f"{self.path(name)} cannot be read: {error}.") from error

    def save(self, key: str, result: Result) -> None:
        """Keep a task's result under its name."""
        self.write(result_name(key), result.to_bytes())

    def load(self, key: str) -> Result:
        """A task's result."""
        if self.local:
            return Result.load(self.path(result_name(key)))
        with tempfile.NamedTemporaryFile(suffix=".safetensors") as copy:
            copy.write(self.read(result_name(key)))
            copy.flush()
            return Result.load(copy.name)

    def done(self, key: str) -> bool:
        """Whether a task's result is there."""
        return result_name(key) in self

    def claim(self, identity: dict[str, Any]) -> None:
        """Make the folder this model's, or see that it is.

        Raises
        ------
        StoreError
            The folder holds the atlas of another model, or files that are no atlas. Nothing in it is changed.
        """
        if MARK in self:
            self._compare(identity)
        elif others := sorted(name for name in self._names() if not _PART.fullmatch(name)):
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
        """Remove what killed writers left behind; the files of writers that still live stay."""
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


def result_name(key: str) -> str:
    """The file of a result: spread over folders, so that none grows too long to list."""
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
