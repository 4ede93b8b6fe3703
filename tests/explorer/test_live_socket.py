"""The socket: answers by number, pictures that come along, progress, cancelling, and what it refuses."""

from __future__ import annotations

import json
import struct
import time

import pytest
import torch
from fastapi import WebSocketDisconnect
from fastapi.testclient import TestClient

from explorer.conftest import opened
from microtome.explorer import Limits, LiveNetwork, create_app
from microtome.explorer.frames import unpacked


def send(socket, number, ask, pixels=None, **question):
    text = json.dumps({"id": number, "ask": ask, "question": question}).encode()
    if pixels is None:
        socket.send_text(text.decode())
    else:
        socket.send_bytes(struct.pack("<I", len(text)) + text + pixels)


def receive(socket):
    return unpacked(socket.receive_bytes())


def test_answers_come_with_their_numbers(client):
    with opened(client) as socket:
        send(socket, 1, "live", picture="data:0", layer="conv1")
        send(socket, 2, "explain", picture="data:0", method="saliency")
        found = dict(sorted((header["id"], blocks) for header, blocks in (receive(socket), receive(socket))))
    assert "scores" in found[1]
    assert "map" in found[2]


def test_pixels_that_come_along_are_what_the_network_sees(client, live):
    pixels = torch.randint(0, 256, (14, 14), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    with opened(client) as socket:
        send(socket, 7, "live", pixels=pixels.numpy().tobytes(), picture="sent", layer="conv2")
        header, blocks = receive(socket)
        expected = live.net.logits(pixels[None, None].float() / 255)[0]
        torch.testing.assert_close(torch.tensor(blocks["scores"]), expected, rtol=1e-5, atol=1e-6)
        send(socket, 8, "live", picture=header["picture"], layer="conv2")  # by its name from now on
        assert receive(socket)[1]["scores"].tolist() == blocks["scores"].tolist()


def test_occlusion_tells_its_progress(client):
    with opened(client) as socket:
        send(socket, 1, "occlusion", picture="data:1", window=3, stride=1)
        done, boxes = [], 0
        while True:
            header, blocks = receive(socket)
            if not header.get("progress"):
                break
            done.append(header["done"])
            boxes += len(blocks["boxes"])
    assert done == sorted(done)
    assert done[-1] == boxes == 144
    assert "map" in blocks


def test_a_cancelled_question_ends(client, live):
    """The work stops long before it would be done, and the queue is empty."""
    with opened(client) as socket:
        send(socket, 1, "examples", layer="conv2", unit=1, compute="superstimulus")
        time.sleep(0.2)
        socket.send_text(json.dumps({"id": 1, "cancel": True}))
        header, _ = receive(socket)
    assert header["id"] == 1
    assert header.get("cancelled") or "error" not in header


def test_work_ends_when_the_browser_leaves(live):
    app = create_app([live], limits=Limits(computations=1))
    computations = app.state.dispatch.computations
    with TestClient(app, base_url="http://localhost") as client:
        with opened(client) as socket:
            for unit in range(5):
                send(socket, unit, "examples", layer="conv1", unit=unit, compute="superstimulus")
            time.sleep(0.3)
            assert computations.count > 0
        until = time.monotonic() + 20
        while computations.count and time.monotonic() < until:
            time.sleep(0.05)
        assert computations.count == 0


def test_bad_messages_are_answered_and_the_socket_stays(client):
    with opened(client) as socket:
        for text in (
            "",
            "{",
            "[]",
            '{"id": "x"}',
            '{"id": 1, "ask": "magic"}',
            '{"id": 1, "ask": "live"}',
            "x" * 70_000,
        ):
            socket.send_text(text)
            assert "error" in receive(socket)[0]
        for content in (b"", b"\xff\xff\xff\xff", struct.pack("<I", 5) + b"\xff\xfe\xfd\xfc\xfb"):
            socket.send_bytes(content)
            assert "error" in receive(socket)[0]
        send(socket, 3, "live", pixels=bytes(13), picture="sent", layer="conv1")
        assert "196 bytes were expected" in receive(socket)[0]["error"]
        send(socket, 4, "live", picture="data:0", layer="conv1")
        assert "error" not in receive(socket)[0]


def test_one_socket_may_ask_so_much_only(live):
    app = create_app([live], limits=Limits(computations=1, questions=2))
    client = TestClient(app, base_url="http://localhost")
    with opened(client) as socket:
        for number in range(6):
            send(socket, number, "explain", picture=f"data:{number}", method="integrated-gradients")
        found = [receive(socket)[0] for _ in range(6)]
    assert any(header.get("busy") for header in found)
    assert sum("error" not in header for header in found) >= 2


def test_so_many_sockets_only(live):
    client = TestClient(create_app([live], limits=Limits(connections=1)), base_url="http://localhost")
    with opened(client) as socket:
        send(socket, 1, "live", picture="data:0", layer="conv1")
        receive(socket)
        with pytest.raises(WebSocketDisconnect), opened(client) as second:
            second.receive_bytes()


def test_a_second_network_must_take_the_same_pictures(live):
    from explorer.conftest import subject
    from microtome import Network
    from microtome.errors import InputError
    from microtome.loading import Subject

    other = Subject(
        Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 2)), (1, 3, 3)), subject().images
    )
    with pytest.raises(InputError, match="the same shape"):
        create_app([live, LiveNetwork(other, "other")])
