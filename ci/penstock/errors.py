"""Every error that penstock raises on purpose.

PipelineError           exit 2  a definition or a call is wrong
├── DefinitionError     exit 2  the pipeline's own file is wrong (all findings at once)
│   └── MissingSecretError      declared secrets have no value
└── UsageError          exit 2  the command line is wrong
EngineError             exit 4  the engine, a service or a registry broke
├── EngineLostError     exit 4  the engine stopped answering
├── RegistryError       exit 4  a registry took or gave something else than it should
└── ServiceError        exit 4  a service died or never became healthy
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from penstock.model import Fault


class PenstockError(Exception):
    """Base of every error that penstock raises on purpose; carries the exit code."""

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


class MissingSecretError(DefinitionError):
    """Raised when declared secrets have no value; holds a finding for each."""


class EngineError(PenstockError):
    """Raised when the engine, a service or a registry broke, not the code under test.

    Attributes:
        fault: The class by which a stage may be tried again.
    """

    exit_code = 4
    fault: ClassVar[Fault] = "engine"


class EngineLostError(EngineError):
    """Raised when the engine stopped answering."""


class RegistryError(EngineError):
    """Raised when a registry took or gave something else than it should."""

    fault = "registry"


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
