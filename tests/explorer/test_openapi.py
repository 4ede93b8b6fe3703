"""Schemathesis asks what the OpenAPI document admits and what it does not: no fault of ours may come back."""

from __future__ import annotations

import pytest

schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis")

from hypothesis import HealthCheck, settings  # noqa: E402

from explorer.conftest import subject  # noqa: E402
from microtome.explorer import Limits, LiveNetwork, create_app  # noqa: E402

app = create_app(
    [LiveNetwork(subject(), "small")], hosts=["testserver", "localhost", "127.0.0.1"], limits=Limits(computations=1)
)
schema = schemathesis.openapi.from_asgi("/openapi.json", app)


@schema.parametrize()
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_no_question_makes_a_fault_of_ours(case):
    answer = case.call()
    assert answer.status_code < 500 or answer.status_code == 503, answer.content
    if answer.status_code >= 400:
        assert "detail" in answer.json()
    assert b"Traceback" not in answer.content


def test_every_endpoint_is_described():
    paths = app.openapi()["paths"]
    assert {"/api/live", "/api/explain", "/api/occlusion", "/api/share", "/api/pictures"} <= set(paths)
    for address, methods in paths.items():
        for method, described in methods.items():
            assert described["summary"], address
            if method == "post":
                assert "requestBody" in described, address
