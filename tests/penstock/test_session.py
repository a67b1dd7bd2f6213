"""What the session makes of an answer that the engine gives once in a while only."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from gql.transport.exceptions import TransportQueryError

from penstock.session import Session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def asking(*answers: str) -> tuple[Session, Callable[[], Awaitable[str]], list[str]]:
    """Return a session whose engine complains in these words, how to ask it, and the words left."""
    left = list(answers)

    async def send() -> str:
        if left:
            raise TransportQueryError(left.pop(0))
        return "done"

    client = SimpleNamespace(execute=send)
    made = Session(on_lost=pytest.fail)
    made.take_over(client)
    return made, client.execute, left


KILLED = "exit code: 137: context canceled"


async def test_what_is_being_killed_is_asked_for_again_after_a_run_was_cut_off() -> None:
    session, ask, left = asking(KILLED, KILLED)
    session.cut_at = time.monotonic()
    assert await ask() == "done"
    assert left == []


@pytest.mark.parametrize(
    ("cut_s", "words"), [(None, KILLED), (10, KILLED), (0, "exit code: 1")], ids=str
)
async def test_any_other_complaint_is_handed_on_at_once(cut_s: float | None, words: str) -> None:
    """In a run that follows none, nothing is ever sent twice."""
    session, ask, left = asking(words, words)
    if cut_s is not None:
        session.cut_at = time.monotonic() - cut_s
    with pytest.raises(TransportQueryError, match=words):
        await ask()
    assert left == [words]
