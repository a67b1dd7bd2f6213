"""Every error that penstock raises on purpose.

PipelineError           exit 2  a definition or a call is wrong
├── DefinitionError     exit 2  the pipeline's own file is wrong (all findings at once)
│   └── MissingSecretError      declared secrets have no value
├── FolderError         exit 2  a folder of the project cannot be written
└── UsageError          exit 2  the command line is wrong
EngineError             exit 4  the engine, a service or a registry broke
├── RegistryError       exit 4  a registry took or gave something else than it should
└── ServiceError        exit 4  a service died or never became healthy
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from penstock.model import Fault

SIGNALLED_CODE = 128  # and the signal's number, as shells have it
# Of a long message: Go's errors begin with what was tried and end with the cause.
HEAD_CHARACTERS, TAIL_CHARACTERS = 200, 300
_NOISE = re.compile(
    r"\x1b\[[\d;?]*[A-Za-z]|\s*\[traceparent:[^\]]*\]"
    r"| for url '[^']*'\s+For more information check: \S+"  # of httpx, on our own loopback
)
_LOG_LINE = re.compile(r"^[\d/:. -]*(?:WARN|INFO|DEBUG)\b.*$", re.MULTILINE)
_PROGRESS_LINE = re.compile(r"^\d+ +:[ │]*(?:! (.*)|.*)$", re.MULTILINE)


class PenstockError(Exception):
    """Base of every error that penstock raises on purpose; carries the exit code.

    Example:
        >>> PenstockError("never raised itself").exit_code
        3
    """

    exit_code: ClassVar[int] = 3


class PipelineError(PenstockError):
    """Raised when a definition or a call is wrong, before anything runs."""

    exit_code = 2


class DefinitionError(PipelineError):
    """Raised when the pipeline's own file is wrong; holds every finding.

    Args:
        findings: One line each, beginning with `file:line:`.
    """

    def __init__(self, findings: Sequence[str]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(self.findings))


class UsageError(PipelineError):
    """Raised when the command line names what does not exist."""


class FolderError(PipelineError):
    """Raised when a folder that every run writes cannot be written.

    Args:
        folder: Which one.
        error: What the system says.
    """

    def __init__(self, folder: Path, error: OSError) -> None:
        self.folder = folder
        is_other = folder.exists() and not folder.is_dir()
        why = "it is no folder" if is_other else error.strerror or str(error)
        super().__init__(
            f"cannot write the folder {folder}: {why}; move it away or make it writable, and make "
            f"sure that the disk is not full"
        )


class MissingSecretError(DefinitionError):
    """Raised when declared secrets have no value; holds a finding for each."""


class EngineError(PenstockError):
    """Raised when the engine, a service or a registry broke, not the code under test.

    Attributes:
        fault: The class by which a stage may be tried again; `None` where that is in vain.
        output: The last lines of what broke, as far as the engine gave them.
    """

    exit_code = 4
    fault: Fault | None = "engine"
    output = ""


class RegistryError(EngineError):
    """Raised when a registry refuses, or took or gave something else than it should.

    Args:
        reason: What happened, in words.
        fault: `None` where trying again is in vain.
    """

    def __init__(self, reason: str, fault: Fault | None = "registry") -> None:
        self.fault = fault
        super().__init__(reason)


class ServiceError(EngineError):
    """Raised when a service died or never became healthy.

    Args:
        name: The service's name in the pipeline.
        reason: What happened, in words.
        output: The last lines that it printed, as far as the engine gave them.
    """

    fault = "service"

    def __init__(self, name: str, reason: str, output: str = "") -> None:
        self.name = name
        self.reason = reason
        self.output = output
        super().__init__(f"service '{name}' {reason}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known name, or an empty string."""
    nearest = get_close_matches(name, list(known), n=1)
    return f"; did you mean '{nearest[0]}'?" if nearest else ""


def plain_words(text: str) -> str:
    """Return the cause in what the engine or its CLI says, on one line.

    Left out are colours, trace ids, log lines and progress, and the middle of a long message; it is
    cut between words, so that half a secret never gets past the mask.
    """
    clean = _LOG_LINE.sub("", _NOISE.sub("", text))
    _, is_told, told = f"\n{clean}".rpartition("\nError: ")
    causes = [cause for cause in _PROGRESS_LINE.findall(clean) if cause]
    if not is_told:
        told = causes[-1] if causes else _PROGRESS_LINE.sub("", clean)
    words = " ".join(told.split())
    if len(words) <= HEAD_CHARACTERS + TAIL_CHARACTERS:
        return words
    head = words[:HEAD_CHARACTERS].rpartition(" ")[0]
    return f"{head} ... {words[-TAIL_CHARACTERS:].partition(' ')[2]}"
