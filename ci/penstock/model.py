"""The values of the language: what a pipeline says and what a run answers. Pure, no Dagger."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagger

    from penstock.secrets import Secret

Function = Callable[..., Any]

_OWN_FOLDER = str(Path(__file__).parent)


class Result(StrEnum):
    """How a stage or a run ended: OpenTelemetry's six words for CI/CD results.

    Source: OpenTelemetry semantic conventions 1.44, `cicd.pipeline.task.run.result`.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLATION = "cancellation"
    SKIP = "skip"

    @property
    def label(self) -> str:
        """The word on screen."""
        return _LABELS[self]


_LABELS = {
    Result.SUCCESS: "PASSED",
    Result.FAILURE: "FAILED",
    Result.ERROR: "ERROR",
    Result.TIMEOUT: "TIMED OUT",
    Result.CANCELLATION: "CANCELLED",
    Result.SKIP: "SKIPPED",
}


@dataclass(frozen=True, slots=True)
class Artifact:
    """A regular file that a run left in the reports folder.

    Args:
        path: Relative to the reports folder, with forward slashes.
        size_bytes: Size of the file.
    """

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one stage.

    Args:
        result: One of the six words.
        reason: Why, in words, when it did not simply pass: `because lint failed`.
        root: The stage at fault when it was skipped or cancelled.
        cached: The engine had the result already.
        duration_s: Wall time, from the monotonic clock.
        exit_code: Of the command, where a command ran to its end.
        notes: Facts worth a line: `8 passed, coverage 85% >= 80% threshold`.
        findings: One line each, `file:line: message`, for what failed.
        output: The last lines of what failed.
        artifacts: What was kept of it in the reports folder.
        is_bug: The fault lies in penstock itself.
        value: What the stage hands to its dependants; never part of a record.
    """

    result: Result
    reason: str = ""
    root: str = ""
    cached: bool = False
    duration_s: float = 0.0
    exit_code: int | None = None
    notes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    output: str = ""
    artifacts: tuple[Artifact, ...] = ()
    is_bug: bool = False
    value: Any = field(default=None, repr=False, compare=False)

    @property
    def passed(self) -> bool:
        """Whether dependants may start."""
        return self.result is Result.SUCCESS


@dataclass(frozen=True)
class Source:
    """Files of the project that a container gets, by an include list.

    Args:
        include: Patterns relative to the project's folder; an edit of any other file keeps the
            cache.
        exclude: Patterns left out again.
        root: The project's folder; by default the nearest folder above the file in which the
            source is written that holds `pyproject.toml` or `.git`.
    """

    include: Sequence[str]
    _: KW_ONLY
    exclude: Sequence[str] = ("**/__pycache__", "**/*.pyc", "**/.*_cache")
    root: Path = field(default_factory=lambda: project_root(calling_file()))

    def directory(self) -> dagger.Directory:
        """Return the files as a Dagger directory (needs an open session)."""
        from dagger import dag

        return dag.host().directory(
            str(self.root), include=list(self.include), exclude=list(self.exclude)
        )


@dataclass(frozen=True)
class Report:
    """A file or folder of the working directory that is kept whatever the command's exit code.

    Args:
        path: Relative to the container's working directory, and again to the reports folder.
    """

    path: str

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that belongs to the report."""
        return (self.path,)


@dataclass(frozen=True)
class JUnit(Report):
    """Test results in JUnit's XML form, shown in the summary: counts and failing tests."""


@dataclass(frozen=True)
class Coverage(Report):
    """A Cobertura file, and the gate on it.

    Args:
        path: The XML file that `coverage xml` wrote.
        html: Folder of the browsable report, if there is one.
        at_least: Threshold in percent of lines (and branches, when they were measured); no gate
            when absent.
    """

    _: KW_ONLY
    html: str | None = None
    at_least: float | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that belongs to the report."""
        return (self.path, self.html) if self.html else (self.path,)


@dataclass(frozen=True)
class Command:
    """A command in a container, judged by its exit code.

    Args:
        container: Where it runs, in that container's working directory.
        line: A string is split by shlex and never given to a shell; a sequence is taken as it is.
        services: Bound under their own names, each with its variables.
        reports: Kept whatever the exit code.
        env: Variables for this command only.
        shell: Give the line to `sh -e` instead.
    """

    container: dagger.Container
    line: str | Sequence[str]
    _: KW_ONLY
    services: Sequence[Service] = ()
    reports: Sequence[Report] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    shell: bool = False

    @property
    def argv(self) -> list[str]:
        """The words that are executed."""
        if self.shell:
            return ["sh", "-ec", self.line if isinstance(self.line, str) else shlex.join(self.line)]
        return shlex.split(self.line) if isinstance(self.line, str) else list(self.line)


@dataclass(frozen=True, kw_only=True)
class Health:
    """How a service shows that it is ready; polled every 100 ms until the first success.

    Args:
        command: Run inside the service's container; none means that its port answers.
        interval_s: The author's interval; with `retries` it bounds the wait, `interval_s * retries`.
        timeout_s: Bound of a single try.
        retries: Tries before the service counts as never healthy.
    """

    command: Sequence[str] = ()
    interval_s: float = 10.0
    timeout_s: float = 5.0
    retries: int = 5

    @property
    def patience_s(self) -> float:
        """Longest wait for the first success."""
        return self.interval_s * self.retries


@dataclass(frozen=True, kw_only=True)
class Service:
    """A server that runs beside the commands which list it.

    Args:
        container: What runs; its entry point and default arguments are used.
        port: Where it listens.
        health: When it counts as ready.
        variables: Given to every command that lists it; `{host}` stands for its name.
        args: Words to run instead of the container's default arguments.
        services: Servers that it needs itself.
        prepares: What evaluating `container` does for it (a schema, say), in words for the screen.
        name: Its host name; the pipeline sets it to the function's name.
    """

    container: dagger.Container
    port: int
    health: Health = field(default_factory=Health)
    variables: Mapping[str, str] = field(default_factory=dict)
    args: Sequence[str] | None = None
    services: Sequence[Service] = ()
    prepares: str = ""
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A function of the pipeline that makes what others take by name.

    Args:
        name: The function's name.
        kind: `container`, `service` or `stage`.
        function: As the author wrote it.
    """

    name: str
    kind: str
    function: Function

    @cached_property
    def takes(self) -> tuple[str, ...]:
        """Parameters without a default, by name: read from the signature, never from annotations."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in parameters if p.default is p.empty)

    @property
    def place(self) -> str:
        """`file:line` of the decorator."""
        return place_of(self.function)

    @property
    def title(self) -> str:
        """First line of the docstring, or the name."""
        lines = (inspect.getdoc(self.function) or "").splitlines()
        return lines[0].strip().rstrip(".") if lines else self.name.replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class Stage(Provider):
    """A gate or a step of the pipeline.

    Args:
        needs: Names of the stages that must have passed before it starts.
        deadline_s: Bound of its run, in seconds.
        secrets: What it takes by parameter name and nobody may see.
    """

    kind: str = "stage"
    needs: tuple[str, ...] = ()
    deadline_s: float = 600.0
    secrets: Mapping[str, Secret] = field(default_factory=dict)


def place_of(function: Function) -> str:
    """Return `file:line` of a function's first decorator, relative to the current folder if below it."""
    code = inspect.unwrap(function).__code__
    path = Path(code.co_filename)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}:{code.co_firstlineno}"


def calling_file() -> Path:
    """Return the file of the nearest caller outside penstock."""
    frame = sys._getframe(1)  # noqa: SLF001 - inspect.stack reads every source file
    while frame.f_back and (
        frame.f_code.co_filename.startswith((_OWN_FOLDER, "<"))
        or not Path(frame.f_code.co_filename).exists()
    ):
        frame = frame.f_back
    return Path(frame.f_code.co_filename).resolve()


def project_root(file: Path) -> Path:
    """Return the nearest folder above a file that holds `pyproject.toml` or `.git`, or its own."""
    for folder in file.parents:
        if (folder / "pyproject.toml").exists() or (folder / ".git").exists():
            return folder
    return file.parent
