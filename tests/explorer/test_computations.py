"""The queue: so many at a time, so many waiting, urgent ones first, cancelled ones never begun."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from microtome.explorer.server.computations import BusyError, Cancelled, Computations, Turn
from microtome.explorer.server.request_limits import Limits


def run(work):
    return asyncio.run(work)


def test_as_many_at_a_time_as_there_are_cores():
    running, most, lock = [0], [0], threading.Lock()

    def work(turn):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return 1

    async def many():
        computations = Computations(Limits(computations=3, waiting=100))
        found = await asyncio.gather(*(computations.run(work, Turn()) for _ in range(20)))
        return sum(found), computations.count

    assert run(many()) == (20, 0)
    assert most[0] == 3


def test_beyond_the_limit_the_answer_is_busy():
    async def many():
        computations = Computations(Limits(computations=1, waiting=2))
        tasks = [asyncio.create_task(computations.run(lambda turn: time.sleep(0.1), Turn())) for _ in range(6)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = run(many())
    assert [type(one) for one in found] == [type(None)] * 3 + [BusyError] * 3


def test_one_that_is_cancelled_before_its_turn_never_begins():
    begun = []

    async def many():
        computations = Computations(Limits(computations=1, waiting=5))
        first = asyncio.create_task(computations.run(lambda turn: time.sleep(0.2), Turn()))
        second = asyncio.create_task(computations.run(lambda turn: begun.append(1), Turn()))
        await asyncio.sleep(0.05)
        second.cancel()
        await first
        await asyncio.sleep(0.05)
        return computations.count

    assert run(many()) == 0
    assert begun == []


def test_one_that_runs_ends_at_its_next_pause():
    passes = []

    def work(turn):
        for number in range(1000):
            turn.pause()
            passes.append(number)
            time.sleep(0.01)

    async def one():
        computations = Computations(Limits(computations=1))
        turn = Turn()
        task = asyncio.create_task(computations.run(work, turn))
        await asyncio.sleep(0.1)
        turn.cancel()
        with pytest.raises(Cancelled):
            await task

    run(one())
    assert 0 < len(passes) < 100


def test_long_work_lets_urgent_work_go_first():
    order = []

    def long(turn):
        for number in range(4):
            turn.pause()
            order.append(f"long {number}")
            time.sleep(0.03)

    def urgent(turn):
        time.sleep(0.1)
        order.append("urgent")

    async def both():
        computations = Computations(Limits(computations=2))
        slow = asyncio.create_task(computations.run(long, Turn(urgent=False)))
        await asyncio.sleep(0.02)
        await computations.run(urgent, Turn())
        await slow

    run(both())
    assert order.index("urgent") < order.index("long 2")
    assert order[-1] == "long 3"
