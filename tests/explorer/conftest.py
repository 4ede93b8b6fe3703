"""A small network with its images behind the real application; no test here needs a port."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microtome import Network, data
from microtome.loading import Subject

pytest.importorskip("fastapi", reason="the explorer needs FastAPI: pip install 'microtome[explorer]'")

from fastapi.testclient import TestClient

from microtome.explorer import Limits, LiveNetwork, create_app


class Small(nn.Module):
    """Modules and functions, a norm, a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6 * 7 * 7, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv1(x)))
        x = nn.functional.max_pool2d(x + torch.relu(self.conv2(x)), 2)
        return self.fc(x.flatten(1))


def subject(seed: int = 0, classes: list[str] | None = None) -> Subject:
    torch.manual_seed(seed)
    pixels = torch.randint(0, 256, (30, 1, 14, 14), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    images = data.Images(pixels, torch.arange(30) % 10, source="noise")
    return Subject(Network(Small().eval(), (1, 14, 14), classes=classes), images)


def opened(client: TestClient, **headers: str):
    """A socket, asked for by the name of the client's own address, which the test client would leave out."""
    return client.websocket_connect("/live", headers={"host": client.base_url.netloc.decode(), **headers})


@pytest.fixture(scope="module")
def live() -> LiveNetwork:
    return LiveNetwork(subject(), "small")


@pytest.fixture(scope="module")
def client(live: LiveNetwork) -> TestClient:
    app = create_app([live, LiveNetwork(subject(1), "other")], limits=Limits(computations=2))
    return TestClient(app, base_url="http://127.0.0.1:8765", raise_server_exceptions=True)
