"""A frozen view holds the same numbers, bit for bit, as the Python code that it names."""

from __future__ import annotations

import re

import pytest
import torch

from microtome.errors import InputError
from microtome.explorer import LiveNetwork, create_app, read_shared
from microtome.explorer.share import SharedView

QUESTION = {
    "picture": "data:3",
    "layer": "conv2",
    "unit": 1,
    "target": 7,
    "method": "saliency",
    "projection": "guided",
    "edits": [{"layer": "conv1", "unit": 2, "scale": 0.0}, {"layer": "conv2", "unit": 5, "clamp": 0.25}],
}


def shared(client, **changed) -> bytes:
    answer = client.post("/api/share", json={**QUESTION, **changed}, params={"address": "#layer=conv2"})
    assert answer.status_code == 200, answer.text
    assert "attachment" in answer.headers["content-disposition"]
    return answer.content


@pytest.mark.parametrize("method", ["saliency", "grad-cam", "lrp", "integrated-gradients"])
def test_the_code_gives_the_same_bits(client, live, tmp_path, monkeypatch, method):
    (tmp_path / "view.html").write_bytes(shared(client, method=method))
    view = read_shared(tmp_path / "view.html")
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    namespace = {}
    code = re.sub(r"^net = \.\.\..*$", "", view.call, flags=re.MULTILINE)
    assert code != view.call  # the network was given as an object, which no code can name
    namespace["net"] = live.net
    try:
        exec(compile(code, "view", "exec"), namespace)
    finally:
        torch.set_num_threads(threads)
    assert set(view.tensors) == {"scores", "activations", "explanation", "projection", "contributions"}
    for name, value in view.tensors.items():
        assert value.dtype == namespace[name].dtype
        assert torch.equal(value, namespace[name]), name


def test_the_code_opens_the_network_by_its_options(tmp_path, monkeypatch):
    """For a network of the command line the code stands alone."""
    pytest.importorskip("sklearn")
    from fastapi.testclient import TestClient

    from microtome.loading import RunConfig

    config = RunConfig("zoo:fcnn1", input_shape=(1, 8, 8), weights="random", data="digits")
    client = TestClient(create_app([LiveNetwork(config.open(), "fcnn1", config)]), base_url="http://localhost")
    layer = client.get("/api/network").json()["layer"]
    content = shared(client, layer=layer, edits=[{"layer": layer, "unit": 1, "scale": 2.0}])
    (tmp_path / "view.html").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    view, threads, namespace = read_shared("view.html"), torch.get_num_threads(), {}
    try:
        exec(compile(view.call, "view", "exec"), namespace)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(value, namespace[name]) for name, value in view.tensors.items())


def test_it_holds_the_picture_and_the_state(client, live):
    view = read_shared(shared(client))
    assert isinstance(view, SharedView)
    assert torch.equal(view.image, live.subject.pictures([3]))
    assert view.state["address"] == "#layer=conv2"
    assert view.state["edits"][0] == {"layer": "conv1", "unit": 2, "scale": 0.0, "clamp": None}


def test_it_asks_nobody_for_anything(client):
    """One file: its policy admits its own script and style by their digests, and no connection."""
    page = shared(client).decode()
    assert "default-src &#39;none&#39;" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert 'src="' not in page
    assert '<link rel="stylesheet"' not in page


@pytest.mark.parametrize("content", [b"", b"<html></html>", b'<script type="application/json" id="view">{}</script>'])
def test_other_files_are_no_view(content):
    with pytest.raises(InputError, match="not a frozen view"):
        read_shared(content)
