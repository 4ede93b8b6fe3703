"""What is refused: other hosts and origins, no token, too much, hostile files, questions that do not fit."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from fastapi import WebSocketDisconnect
from fastapi.testclient import TestClient
from PIL import Image

from explorer.conftest import opened
from microtome.explorer import Limits, create_app
from microtome.explorer.server.serving import is_loopback

LIVE = {"picture": "data:0", "layer": "conv1"}


def png(width: int, height: int, kind: str = "L") -> bytes:
    content = io.BytesIO()
    Image.new(kind, (width, height), 77 if kind == "L" else None).save(content, "PNG")
    return content.getvalue()


def noise() -> bytes:
    """A JPEG that no cut leaves whole."""
    content = io.BytesIO()
    Image.effect_noise((200, 200), 90).save(content, "JPEG")
    return content.getvalue()


def bomb(side: int) -> bytes:
    """A PNG of side x side pixels in a few bytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "[::2]:8765"])
def test_other_hosts_are_refused(client, host):
    assert client.get("/", headers={"host": host}).status_code == 421
    assert client.post("/api/live", json=LIVE, headers={"host": host}).status_code == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "https://localhost"])
def test_pages_of_other_sites_are_refused(client, origin):
    assert client.post("/api/live", json=LIVE, headers={"origin": origin}).status_code == 403
    assert client.post("/api/pictures", content=png(14, 14), headers={"origin": origin}).status_code == 403
    with pytest.raises(WebSocketDisconnect), opened(client, origin=origin):
        pass


def test_a_page_of_another_site_is_known_by_its_fetch_header(client):
    assert client.post("/api/live", json=LIVE, headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.post("/api/live", json=LIVE, headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_every_answer_says_what_a_page_may_do(client):
    for address in ("/", "/assets/explorer.js", "/api/network", "/nothing"):
        headers = client.get(address).headers
        policy = headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    page = client.get("/").text
    assert "<script>" not in page
    assert "onclick" not in page
    assert "style=" not in page


def test_no_state_changes_by_get(client):
    for route in client.app.openapi()["paths"].items():
        address, methods = route
        if "get" in methods:
            assert address in ("/api/network", "/api/images", "/api/picture"), address
    for kind in ("live", "pictures", "share", "examples", "occlusion"):
        assert client.get(f"/api/{kind}").status_code == 405


@pytest.mark.parametrize(
    "address", ["/assets/../app.py", "/assets/%2e%2e/app.py", "/assets/..%2f..%2fapp.py", "/atlas/../../etc/passwd"]
)
def test_no_path_reaches_the_file_system(client, address):
    answer = client.get(address)
    assert answer.status_code == 404
    assert "import" not in answer.text


def test_a_token_is_asked_for_and_remembered(live):
    app = create_app([live], token="secret", hosts=["127.0.0.1"])
    fresh = TestClient(app, base_url="http://127.0.0.1:8765")
    assert fresh.get("/").status_code == 401
    assert fresh.get("/?token=wrong").status_code == 401
    assert fresh.post("/api/live", json=LIVE).status_code == 401
    with pytest.raises(WebSocketDisconnect), opened(fresh):
        pass
    assert fresh.post("/api/live", json=LIVE, headers={"authorization": "Bearer secret"}).status_code == 200
    first = fresh.get("/?token=secret")
    assert first.status_code == 200
    assert "HttpOnly" in first.headers["set-cookie"]
    assert "SameSite=Strict" in first.headers["set-cookie"]
    assert fresh.post("/api/live", json=LIVE).status_code == 200  # by the cookie
    with opened(fresh, origin="http://127.0.0.1:8765", cookie="microtome-token=secret"):
        pass


def test_only_loopback_needs_no_token():
    assert [is_loopback(host) for host in ("127.0.0.1", "127.8.0.1", "::1", "localhost")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.2", "example.org", "")] == [False] * 5


@pytest.mark.parametrize("kind", ["L", "RGB", "RGBA", "P", "1", "I;16", "CMYK"])
def test_pictures_of_all_kinds_are_taken(client, kind):
    content = io.BytesIO()
    Image.new(kind, (40, 30)).save(content, "TIFF" if kind == "CMYK" else "PNG")
    answer = client.post("/api/pictures", content=content.getvalue())
    assert answer.status_code == 200, answer.text
    name = answer.json()["picture"]
    assert client.post("/api/live", json={**LIVE, "picture": name}).status_code == 200
    assert client.post("/api/pictures", content=content.getvalue()).json()["picture"] == name  # named by content


HOSTILE = {
    "empty": b"",
    "text": b"<svg onload=alert(1)>",
    "pickle": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n.",
    "truncated png": png(64, 64)[:60],
    "truncated later": noise()[:4000],
    "bomb": bomb(30_000),
    "huge bomb": bomb(2_000_000),
    "broken crc": png(20, 20)[:30] + b"\0\0\0\0" + png(20, 20)[34:],
    "gif head": b"GIF89a" + b"\xff" * 50,
    "jpeg head": b"\xff\xd8\xff\xe0" + bytes(200),
    "webp head": b"RIFF\x20\0\0\0WEBPVP8 " + b"\xff" * 32,
    "bmp head": b"BM" + b"\xff" * 60,
    "tiff loop": b"II*\0\x08\0\0\0\xff\xff" + b"\x01" * 400,
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "icns": b"icns" + b"\0" * 64,
    "no pixels": struct.pack(">8sI4sIIBBBBBI", b"\x89PNG\r\n\x1a\n", 13, b"IHDR", 0, 0, 8, 0, 0, 0, 0, 0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_sentence(client, name, caplog):
    answer = client.post("/api/pictures", content=HOSTILE[name])
    assert answer.status_code == 400, answer.text
    assert answer.json()["detail"].endswith((".", ")."))
    assert "Traceback" not in answer.text + caplog.text
    assert client.post("/api/live", json=LIVE).status_code == 200


def test_too_much_is_refused(live):
    app = create_app([live], limits=Limits(upload_bytes=1000, body_bytes=2000, upload_pixels=100))
    small = TestClient(app, base_url="http://127.0.0.1:8765")
    assert small.post("/api/pictures", content=bytes(1001)).status_code == 413
    assert small.post("/api/pictures", content=iter([bytes(600), bytes(600)])).status_code == 413  # length not said
    assert small.post("/api/live", json={**LIVE, "layer": "x" * 3000}).status_code == 413
    answer = small.post("/api/pictures", content=png(11, 10))
    assert answer.status_code == 400
    assert "110" not in answer.json()["detail"] or "pixels" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("kind", "question", "status", "says"),
    [
        ("live", {"picture": "data:0", "layer": "conv9"}, 400, "Nearest"),
        ("live", {"picture": "data:99", "layer": "conv1"}, 400, "30 images"),
        ("live", {"picture": "kept:" + "0" * 32, "layer": "conv1"}, 400, "send it again"),
        ("live", {"picture": "../../etc/passwd", "layer": "conv1"}, 422, "picture"),
        ("live", {"picture": "data:0", "layer": "conv1", "network": 2}, 422, "network"),
        ("live", {"picture": "data:0", "layer": "conv1", "more": 1}, 422, "more"),
        ("live", {"picture": "data:0", "layer": "conv1", "edits": [{"layer": "conv1", "unit": 0}]}, 422, "scale"),
        ("live", {**LIVE, "edits": [{"layer": "conv1", "unit": 60, "scale": 0}]}, 400, "units 0 to 5"),
        ("live", {**LIVE, "edits": [{"layer": "conv1", "unit": 0, "scale": 1e39}]}, 422, "scale"),
        ("explain", {"picture": "data:0", "method": "magic"}, 400, "Nearest"),
        ("explain", {"picture": "data:0", "method": "saliency", "target": 10}, 400, "10 classes"),
        ("explain", {"picture": "data:0", "method": "occlusion"}, 400, "occlusion"),
        ("occlusion", {"picture": "data:0", "window": 50}, 400, "larger"),
        ("dissect", {"picture": "data:0", "layer": "conv1", "unit": 6}, 400, "units 0 to 5"),
        ("project", {"picture": "data:0", "layer": "conv1", "unit": 0, "method": "magic"}, 422, "method"),
        ("examples", {"layer": "conv1", "unit": 900}, 400, "units 0 to 5"),
    ],
)
def test_questions_that_do_not_fit_say_what_is_wrong(client, kind, question, status, says):
    answer = client.post(f"/api/{kind}", json=question)
    assert answer.status_code == status, answer.text
    assert says in answer.json()["detail"]


def test_names_of_a_model_are_escaped(live):
    from explorer.conftest import subject
    from microtome.explorer import LiveNetwork

    nasty = "</script><img src=x onerror=alert(1)>"
    own = LiveNetwork(subject(classes=[nasty, *"123456789"]), nasty)
    page = TestClient(create_app([own]), base_url="http://localhost")
    assert nasty not in page.get("/").text
    asked = {"picture": "data:0", "layer": "conv1", "method": "saliency"}
    shared = page.post("/api/share", json=asked).text
    assert nasty not in shared
    assert shared.count("</script>") == 2
