"""The explorer's number of threads is the one that was fastest, and torch's own comes back."""

import socket
from collections.abc import Iterator

import pytest
import torch

from microtome.data import Images
from microtome.explorer.live_network import LiveNetwork
from microtome.explorer.server import serving, thread_count
from microtome.loading import Subject
from microtome.network import Network


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def net() -> Network:
    return Network(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)), input_shape=(3, 2, 2))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [({1: 3.0, 2: 2.0, 4: 1.0}, 4), ({1: 3.0, 2: 2.0, 4: 2.5}, 2), ({1: 1.0, 2: 0.98, 4: 0.97}, 1)],
)
def test_the_fastest_number_is_taken_and_the_smaller_of_equal_ones(
    four_threads: None, net: Network, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], expected: int
) -> None:
    monkeypatch.setattr(thread_count, "_median_time", lambda *_: seconds[torch.get_num_threads()])
    assert thread_count.fastest_thread_count(net) == expected
    assert torch.get_num_threads() == 4
    with thread_count.fastest_threads(net):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 4


def test_the_number_before_comes_back_when_a_pass_fails(
    four_threads: None, net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> float:
        raise RuntimeError("no pass")

    monkeypatch.setattr(thread_count, "_median_time", fail)
    with pytest.raises(RuntimeError, match="no pass"):
        thread_count.fastest_thread_count(net)
    assert torch.get_num_threads() == 4


def test_the_server_computes_with_that_number(
    four_threads: None, net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    live = LiveNetwork(Subject(net, Images(torch.zeros(1, 3, 2, 2, dtype=torch.uint8))), "small")
    monkeypatch.setattr(thread_count, "_median_time", lambda *_: abs(torch.get_num_threads() - 2.0))

    def run(server: object, sockets: list[socket.socket]) -> None:
        seen.append(torch.get_num_threads())
        sockets[0].close()

    monkeypatch.setattr(serving._Server, "run", run)
    serving.serve([live], port=0)
    assert seen == [2]
    assert torch.get_num_threads() == 4
