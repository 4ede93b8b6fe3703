"""Fifty clients at once on a real port: every question is answered, and none waits for ever."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from explorer.conftest import subject
from microtome.explorer import Limits, LiveNetwork, create_app
from microtome.explorer.frames import unpacked
from microtome.explorer.server.serving import bound

CLIENTS, QUESTIONS = 50, 6


@pytest.fixture(scope="module")
def port():
    import uvicorn

    socket = bound("127.0.0.1", 0)
    app = create_app([LiveNetwork(subject(), "small")], limits=Limits(computations=2))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield socket.getsockname()[1]
    server.should_exit = True
    thread.join(10)
    assert app.state.dispatch.computations.count == 0


async def client(port: int, which: int) -> int:
    from websockets.asyncio.client import connect

    answered = 0
    kinds = [
        ("live", {"layer": "conv1"}),
        ("explain", {"method": "saliency"}),
        ("dissect", {"layer": "conv2", "unit": 1}),
    ]
    async with connect(f"ws://127.0.0.1:{port}/live", max_size=None, open_timeout=60) as socket:
        for number in range(QUESTIONS):
            kind, question = kinds[(which + number) % 3]
            question = {**question, "picture": f"data:{(which + number) % 30}"}
            await socket.send(json.dumps({"id": number, "ask": kind, "question": question}))
            header, _ = unpacked(await asyncio.wait_for(socket.recv(), 60))
            assert header["id"] == number
            assert "error" not in header, header
            answered += 1
    return answered


def test_no_question_is_lost(port):
    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(client(port, which) for which in range(CLIENTS)))

    assert asyncio.run(all_of_them()) == [QUESTIONS] * CLIENTS
