from __future__ import annotations

import asyncio
import signal
import threading
import time

import anyio
import pytest

from penstock import stuck


async def blocks() -> None:
    time.sleep(20)  # noqa: ASYNC251 - the mistake that is tested


async def in_a_task_of_its_own() -> None:
    await asyncio.gather(blocks())


@pytest.mark.parametrize("held_up_by", [blocks, in_a_task_of_its_own])
def test_code_that_holds_everything_up_is_interrupted(
    held_up_by: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the midst of it, in whatever task it runs."""
    monkeypatch.setattr(stuck, "HOLD_S", 0.3)

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stuck.keep_quiet)
            await anyio.sleep(0.1)
            await asyncio.create_task(held_up_by())  # type: ignore[operator]

    began = time.monotonic()
    with stuck.watched(), pytest.raises(BaseExceptionGroup) as raised:
        anyio.run(run)
    assert raised.group_contains(stuck.StuckError)
    assert time.monotonic() - began < 5


def test_code_that_waits_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The alarm is for what blocks, not for what takes its time; and no timer is left set."""
    monkeypatch.setattr(stuck, "HOLD_S", 0.05)

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stuck.keep_quiet)
            await anyio.sleep(0.5)
            tasks.cancel_scope.cancel()

    with stuck.watched():
        anyio.run(run)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_timer_of_a_caller_is_given_back() -> None:
    """A run inside another program ends nothing of that."""
    signal.setitimer(signal.ITIMER_REAL, 50)
    try:
        with stuck.watched():
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 40
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_threads_of_others_are_not_waited_for() -> None:
    """What ran before the run, and runs after it, is the author's affair."""
    go_on = threading.Event()
    thread = threading.Thread(target=go_on.wait)
    thread.start()
    began = time.monotonic()
    assert stuck.wait_for_none(stuck.threads(), 0) is False
    assert time.monotonic() - began < 1
    go_on.set()
    thread.join()
