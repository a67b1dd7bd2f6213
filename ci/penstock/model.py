"""The values of the language: what a pipeline says and what a run answers. Pure, no Dagger."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import permutations
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, Self

from penstock.evidence import Finding  # noqa: TC001 - a record is read by its annotations
from penstock.kinds import (
    BOOL,
    CONTAINER,
    MAYBE_SECONDS,
    PORT,
    SECONDS,
    TRIES,
    VARIABLES,
    WORDS,
    Kind,
    is_below,
    is_number,
    is_text,
    mapping,
    require,
    sequence,
)
from penstock.place import place_of

if TYPE_CHECKING:
    import dagger


Function = Callable[..., Any]

# Classes of faults that are not the author's: the only ones that are tried again unasked.
Fault = Literal["engine", "registry", "service"]
FAULTS: tuple[Fault, ...] = ("engine", "registry", "service")
MOST_ARGUMENT = 131_071  # bytes that Linux takes as one argument or variable
UNRECORDED = {"recorded": False}


class Result(StrEnum):
    """How a stage or a run ended: OpenTelemetry's six words for CI/CD results.

    Source: OpenTelemetry semantic conventions 1.44, `cicd.pipeline.task.run.result`.

    Attributes:
        label: The word on screen.
    """

    label: str

    def __new__(cls, value: str, label: str = "") -> Self:
        """Make a result, whose value is the word in records."""
        result = str.__new__(cls, value)
        result._value_ = value
        result.label = label
        return result

    SUCCESS = "success", "PASSED"
    FAILURE = "failure", "FAILED"
    ERROR = "error", "ERROR"
    TIMEOUT = "timeout", "TIMED OUT"
    CANCELLATION = "cancellation", "CANCELLED"
    SKIP = "skip", "SKIPPED"


BROKEN = frozenset({Result.FAILURE, Result.ERROR, Result.TIMEOUT})


@dataclass(frozen=True, slots=True)
class Artifact:
    """A regular file that a run left in the reports folder.

    Args:
        path: Relative to the reports folder, with forward slashes.
        size_bytes: Size of the file.
        sha256: Of its content, in hex.
    """

    path: str
    size_bytes: int
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """A decision, made before the run, that a stage does not run.

    Args:
        reason: In words: `not on branch main`.
        holds: Whether what needs the stage is held back too.
    """

    reason: str
    holds: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A stage as the runner sees it: plain data, so that a recorded run can be played again.

    Args:
        name: Unique; a cell of a matrix carries its values, `test[python=3.12]`.
        family: The name of the function behind it.
        title: First line of the function's docstring.
        place: `file:line` of the decorator.
        needs: Names of the stages that come before it.
        takes: Those of them whose result it takes.
        gate: What needs it never runs without it having passed.
        allow_failure: Its failure is a warning and stops nothing.
        always: A teardown stage: it runs whatever became of what it needs.
        deadline_s: Bound of one attempt, in seconds.
        retries: Most further attempts after a fault of a class in `retry_on`.
        retry_on: `engine`, `registry`, `service`, and exit codes of its command.
        uses: Named locks that it holds while it runs.
        tags: Words to select it by.
        skip: Why it does not run, decided beforehand.
        expected_s: How long it took when it last passed, in seconds; 0 when unknown.
        cell: Its values on the axes of the matrix; never part of a record.
    """

    name: str
    family: str = ""
    title: str = ""
    place: str = ""
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    gate: bool = False
    allow_failure: bool = False
    always: bool = False
    deadline_s: float = 600.0
    retries: int = 0
    retry_on: tuple[Fault | int, ...] = FAULTS
    uses: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    skip: Skip | None = None
    expected_s: float = 0.0
    cell: Mapping[str, Any] = field(default_factory=dict, compare=False, metadata=UNRECORDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A try of a stage that failed and was followed by another one.

    Args:
        result: One of the six words.
        reason: Why, in words.
        exit_code: Of the command, where a command ran to its end.
        fault: What broke when it was not the author's code.
        duration_s: Wall time, from the monotonic clock.
    """

    result: Result
    reason: str
    exit_code: int | None = None
    fault: Fault | None = None
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a verdict comes from that is another run's.

    Args:
        run_id: Of the run in which the stage passed.
        commit: What was under test there.
        passed_at: When, in ISO 8601.
        duration_s: How long it took there.
        url: Of that run on its CI host, if it has one.
    """

    run_id: str
    commit: str
    passed_at: str
    duration_s: float
    url: str = ""

    def __str__(self) -> str:
        """Return it in words."""
        words = (
            f"passed in run {self.run_id[:8]} of commit {self.commit[:12]}, {self.passed_at}, "
            f"in {self.duration_s:.1f} s"
        )
        return f"{words}: {self.url}" if self.url else words


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one stage.

    Args:
        result: One of the six words.
        reason: Why, in words, when it did not simply pass: `because lint failed`.
        root: The stage at fault when it was skipped or cancelled.
        allowed: It failed, and its author had allowed that.
        cached: It was not executed: the engine had the result already, or another run had.
        origin: That other run; none when the result is the engine's, or new.
        duration_s: Wall time of the last attempt, from the monotonic clock.
        exit_code: Of the command, where a command ran to its end.
        fault: What broke when it was not the author's code: `engine`, `registry` or `service`.
        attempts: The tries before the last one, oldest first.
        notes: Facts worth a line: `8 passed, coverage 85% >= 80% threshold`.
        findings: Problems at a place, for what failed.
        output: The last lines of what failed.
        artifacts: What was kept of it in the reports folder.
        why: Why it was executed, or was not, one reason each.
        spawned: Stages that it has found out; what needs it waits for them too.
        is_bug: The fault lies in penstock itself.
        value: What the stage hands to its dependants; never part of a record.
    """

    result: Result
    reason: str = ""
    root: str = ""
    allowed: bool = False
    cached: bool = False
    origin: Origin | None = None
    duration_s: float = 0.0
    exit_code: int | None = None
    fault: Fault | None = None
    attempts: tuple[Attempt, ...] = ()
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    output: str = ""
    artifacts: tuple[Artifact, ...] = ()
    why: tuple[str, ...] = ()
    spawned: tuple[Stage, ...] = ()
    is_bug: bool = False
    value: Any = field(default=None, repr=False, compare=False, metadata=UNRECORDED)

    @property
    def passed(self) -> bool:
        """Whether the stage did what it should."""
        return self.result is Result.SUCCESS

    @property
    def label(self) -> str:
        """The result on screen, and where it was taken from when it passed: `PASSED (cached)`."""
        if not (self.passed and self.cached):
            return self.result.label
        return f"{self.result.label} ({'reused' if self.origin else 'cached'})"


PERCENT = Kind(
    "write a number of percent, 0 to 100",
    lambda value: value is None or (is_number(value) and 0 <= value <= 100),  # noqa: PLR2004 - percent
)
PERCENTAGES = mapping("write a dict of percent, 0 to 100, by pattern", is_text, PERCENT.holds)


@dataclass(frozen=True)
class Report:
    """A file or folder of the working directory that is kept whatever the command's exit code.

    Args:
        path: Relative to the container's working directory, and again to the reports folder.
        most_bytes: Most that each of its paths may have, in bytes, on disk too; what is larger is
            left out, by name.

    Example:
        >>> Report("dist/report.html").paths
        ('dist/report.html',)
        >>> Report("../elsewhere")
        Traceback (most recent call last):
        ValueError: the report path '../elsewhere' leaves the working directory, or is none; write a path below it
    """

    path: str
    most_bytes: int = field(default=1 << 30, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        """Refuse a path that would reach something else on the host."""
        for path in self.paths:
            if not is_below(path):
                message = (
                    f"the report path {path!r:.80} leaves the working directory, or is none; write "
                    f"a path below it"
                )
                raise ValueError(message)

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that belongs to the report."""
        return (self.path,)


@dataclass(frozen=True)
class JUnit(Report):
    """Test results in JUnit's XML form, shown in the summary: counts and failing tests.

    Example:
        >>> JUnit("junit.xml")
        JUnit(path='junit.xml')
    """


@dataclass(frozen=True)
class Coverage(Report):
    """A Cobertura file, and the gate on it.

    Args:
        path: The XML file that `coverage xml` wrote.
        html: Folder of the browsable report, if there is one.
        at_least: Threshold in percent of lines (and branches, when they were measured); no gate
            when absent.
        files: Thresholds for single files, by shell pattern: `{"app/core/*.py": 100}`.

    Example:
        >>> Coverage("coverage.xml", html="htmlcov", at_least=80).paths
        ('coverage.xml', 'htmlcov')
    """

    _: KW_ONLY
    html: str | None = None
    at_least: float | None = None
    files: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse thresholds that nothing could reach, or miss."""
        super().__post_init__()
        require(self, at_least=PERCENT, files=PERCENTAGES)

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

    Example:
        >>> Command(container, "pytest -k 'not slow'").argv
        ['pytest', '-k', 'not slow']
        >>> Command(container, "ruff check . && mypy", shell=True).argv
        ['sh', '-ec', 'ruff check . && mypy']
    """

    container: dagger.Container
    line: str | Sequence[str]
    _: KW_ONLY
    services: Sequence[Service] = ()
    reports: Sequence[Report] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    shell: bool = False

    def __post_init__(self) -> None:
        """Refuse at once, in the author's own line, what could only fail later.

        Raises:
            TypeError: When something else was given than a container, services or reports.
            ValueError: When there is nothing to run, a quote is not closed, or no program could be
                given such an argument or variable.
        """
        require(
            self,
            container=CONTAINER,
            line=LINE,
            services=SERVICES,
            reports=REPORTS,
            env=VARIABLES,
            shell=BOOL,
        )
        try:
            # With a shell the last word is the whole line, without one the first is the program.
            is_empty = not self.argv or not self.argv[-1 if self.shell else 0].strip()
        except ValueError as error:
            message = f"cannot split the line {self.line!r}: {error}"
            raise ValueError(message) from error
        if is_empty:
            message = "the command is empty; give it a line to run"
            raise ValueError(message)
        words = [(f"the argument '{word[:20]}...'", word) for word in self.argv]
        words += [(f"the variable '{n}'", f"{n}={value}") for n, value in self.env.items()]
        for which, word in words:
            if len(word.encode(errors="surrogateescape")) > MOST_ARGUMENT:
                message = f"{which} is longer than {MOST_ARGUMENT:,} bytes; hand it over as a file"
                raise ValueError(message)
        paths = [PurePosixPath(path) for report in self.reports for path in report.paths]
        for inner, outer in permutations(paths, 2):
            if inner.is_relative_to(outer):
                message = f"the report '{inner}' lies within the report '{outer}'; keep one of them"
                raise ValueError(message)

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

    Example:
        >>> Health(command=["pg_isready"], interval_s=2, retries=5).patience_s
        10
    """

    command: Sequence[str] = ()
    interval_s: float = 10.0
    timeout_s: float = 5.0
    retries: int = 5

    def __post_init__(self) -> None:
        """Refuse a check that could never succeed."""
        require(self, command=WORDS, interval_s=SECONDS, timeout_s=SECONDS, retries=TRIES)

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
        cell: The matrix cell whose own it is; the pipeline sets it.
        deadline_s: Bound of its start, in seconds; by default what its health check allows.

    Example:
        >>> service = Service(
        ...     container=container,
        ...     port=8080,
        ...     variables={"API_URL": "http://{host}:8080"},
        ... )
        >>> service.patience_s
        50.0
    """

    container: dagger.Container
    port: int
    health: Health = field(default_factory=Health)
    variables: Mapping[str, str] = field(default_factory=dict)
    args: Sequence[str] | None = None
    services: Sequence[Service] = ()
    prepares: str = ""
    name: str = ""
    cell: str = ""
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse at once what the engine would refuse in words of its own."""
        require(
            self,
            container=CONTAINER,
            port=PORT,
            health=HEALTH,
            variables=VARIABLES,
            args=ARGUMENTS,
            services=SERVICES,
            deadline_s=MAYBE_SECONDS,
        )

    @property
    def key(self) -> str:
        """Tells it from the service of the same name in another cell."""
        return service_key(self.name, self.cell)

    @property
    def patience_s(self) -> float:
        """Longest wait until it is healthy."""
        return self.health.patience_s if self.deadline_s is None else self.deadline_s


LINE = Kind(
    "write a line in a text without NUL, or a list of such texts",
    lambda value: is_text(value) or WORDS.holds(value),
)
ARGUMENTS = Kind(WORDS.words, lambda value: value is None or WORDS.holds(value))
HEALTH = Kind("write `Health(...)`", lambda value: isinstance(value, Health))
SERVICES = sequence(
    "write a list of services, which functions of `service` make, taken as parameters",
    lambda value: isinstance(value, Service),
)
REPORTS = sequence(
    "write a list of `Report(...)`, `JUnit(...)` or `Coverage(...)`",
    lambda value: isinstance(value, Report),
)


def service_key(name: str, cell: str) -> str:
    """Return what tells a service from the one of the same name in another cell: `db[python=3.12]`."""
    return f"{name}{cell}"


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A function of the pipeline that makes what others take by name.

    Args:
        name: The function's name.
        kind: `container`, `service` or `stage`.
        function: As the author wrote it.
        deadline_s: Bound of a service's start, when the author gave one.
    """

    name: str
    kind: str
    function: Function
    deadline_s: float | None = None

    @cached_property
    def takes(self) -> tuple[str, ...]:
        """Parameters without a default, by name: read from the signature, never from annotations."""
        return tuple(
            p.name for p in self._parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        )

    @property
    def by_position(self) -> tuple[str, ...]:
        """Those of them that cannot be given by name."""
        return tuple(p.name for p in self._parameters if p.kind is p.POSITIONAL_ONLY)

    @cached_property
    def _parameters(self) -> tuple[inspect.Parameter, ...]:
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(p for p in parameters if p.default is p.empty)

    @property
    def place(self) -> str:
        """`file:line` of the decorator."""
        return place_of(self.function)

    def finding(self, words: str) -> str:
        """Return words about it, behind its place and its name."""
        return f"{self.place}: {self.kind} '{self.name}' {words}"

    @property
    def title(self) -> str:
        """First line of the docstring, or the name."""
        lines = (inspect.getdoc(self.function) or "").splitlines()
        return lines[0].strip().rstrip(".") if lines else self.name.replace("_", " ")
