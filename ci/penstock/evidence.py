"""What a stage's output and reports say, as values: problems, tests, coverage."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A problem at a place, found by a tool or a test.

    Args:
        message: One line.
        file: Relative to the checkout, with forward slashes; empty when unknown.
        line: From 1; 0 when unknown.
        column: From 1; 0 when unknown.
        tool: `ruff`, `mypy`, `pytest`, `coverage`, ...; empty when unknown.
        code: The tool's name of the rule; the test's name for pytest.
        is_error: Whether it fails the stage; a warning does not.
    """

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    tool: str = ""
    code: str = ""
    is_error: bool = True

    def __str__(self) -> str:
        """Return it as compilers write it, `file:line: message`."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.code, self.message) if part)


class TestResult(StrEnum):
    """How a test ended, in JUnit's words."""

    __test__ = False

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"


FAILED = frozenset({TestResult.FAILED, TestResult.ERROR})


@dataclass(frozen=True, slots=True, kw_only=True)
class TestCase:
    """One test of a stage.

    Args:
        name: Of the test, with its parameters.
        suite: What it belongs to: JUnit's `classname`.
        result: How it ended.
        file: Where it stands, relative to the checkout; empty when unknown.
        line: From 1; 0 when unknown.
        duration_s: Wall time.
        message: Why it failed or was skipped, one line.
        detail: The traceback or what else there is, shortened in the middle when it is long.
    """

    __test__ = False

    name: str
    suite: str = ""
    result: TestResult = TestResult.PASSED
    file: str = ""
    line: int = 0
    duration_s: float = 0.0
    message: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileCoverage:
    """How much of one file was executed.

    Args:
        file: Relative to the checkout.
        percent: Of its lines, and of its branches where these were measured.
        missing: Lines that were not executed, as ranges: `3-5, 9`.
    """

    file: str
    percent: float
    missing: str = ""
