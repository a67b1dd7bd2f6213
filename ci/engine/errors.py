"""What can go wrong with a machine, each with the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class MachineError(Exception):
    """Raised when the machine lacks something.

    Args:
        problem: What is wrong, naming the thing and the place.
        advice: What to do next.
        exit_code: 2 for wrong use, 4 for the machine.
    """

    def __init__(self, problem: str, advice: str, *, exit_code: int = 4) -> None:
        self.problem = problem
        self.advice = advice
        self.exit_code = exit_code
        super().__init__(f"{problem}\n  next: {advice}")


class StepError(MachineError):
    """Raised when a command of a step failed.

    Args:
        command: As it was run.
        code: Its exit code.
        tail: Its last lines.
        log: Where all of them are.
    """

    def __init__(self, command: str, code: int, tail: str, log: Path) -> None:
        self.tail = tail
        problem = f"`{command}` ended with exit code {code}; its last lines:\n{tail}\n  log: {log}"
        if "No space left" in tail:
            advice = f"the disk is full: free some space (`df -h {log.parent}`), then run it again"
        elif any(words in tail for words in NETWORK_WORDS):
            advice = (
                "a package registry could not be reached: check network and proxy, run it again"
            )
        else:
            advice = "run it again: finished steps are kept; `python3 -m ci doctor` looks closer"
        super().__init__(problem, advice)


NETWORK_WORDS = (
    "Temporary failure resolving",
    "Could not resolve",
    "no such host",
    "connection refused",
    "Connection refused",
    "i/o timeout",
    "TLS handshake timeout",
    "dns error",
    "network is unreachable",
)
