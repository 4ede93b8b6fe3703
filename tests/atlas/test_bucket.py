"""An atlas in a bucket: a real S3-compatible server on this machine, and uploads that break off."""

from __future__ import annotations

import random
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from atlas import small
from microtome.atlas import build
from microtome.atlas.store import Store
from microtome.errors import StoreError
from microtome.loading import RunConfig, Subject

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    small.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("nets", None)
    return RunConfig("nets:build", input_shape=(1, 12, 10), data=str(tmp_path / "images")).open()


class Gate:
    """Hands connections on to a server; while ``breaks`` is set, some end in the middle of what is sent."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server, self._numbers = server, random.Random(3)
        self.breaks, self.broken = False, 0
        self._open = socket.create_server(("127.0.0.1", 0))
        self.port = self._open.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._open.accept()
            except OSError:
                return
            far = socket.create_connection(self._server)
            threading.Thread(target=self._pass, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(far, near, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, sends: bool) -> None:
        left = None
        try:
            while part := source.recv(4096):
                if sends and self.breaks and part.startswith(b"PUT") and self._numbers.random() < 0.5:
                    left = self._numbers.randrange(1, len(part))
                if left is not None:
                    self.broken += 1
                    sink.sendall(part[:left])
                    break
                sink.sendall(part)
        except OSError:
            pass
        for one in (source, sink):
            one.close()

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    gate = Gate(server.get_host_and_port())
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{gate.port}"), ("AWS_MAX_ATTEMPTS", "1"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("atlases")
    yield gate
    s3fs.S3FileSystem.clear_instance_cache()
    gate.close()
    server.stop()


def contents(address: str) -> dict[str, bytes]:
    store = Store(address)
    root = store.path("")
    return {name.removeprefix(root): store.read(name.removeprefix(root)) for name in store._files.find(store.root)}


def test_a_bucket_ends_with_the_bytes_of_a_folder_though_uploads_break_off(
    subject: Subject, tmp_path: Path, gate: Gate
) -> None:
    build(subject, tmp_path / "out", size=small.TINY)
    expected = {
        file.relative_to(tmp_path / "out").as_posix(): file.read_bytes()
        for file in (tmp_path / "out").rglob("*")
        if file.is_file()
    }
    broken = 0
    for _ in range(5):
        gate.breaks = True
        with pytest.raises(StoreError, match="cannot be"):
            build(subject, "s3://atlases/out", size=small.TINY)
        broken += 1
    gate.breaks = False
    assert broken == 5
    assert gate.broken >= 5
    assert build(subject, "s3://atlases/out", size=small.TINY).pages > 0
    assert contents("s3://atlases/out") == expected
