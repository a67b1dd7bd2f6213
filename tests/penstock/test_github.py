from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.events import (
    CoverageRead,
    Event,
    OutputWritten,
    RunFinished,
    RunStarted,
    ServiceFailed,
    ServiceStopped,
    StageFinished,
    StageRetried,
    StageStarted,
    Warned,
)
from penstock.evidence import FileCoverage, Finding
from penstock.model import Attempt, Outcome, Result, Stage
from penstock.redact import Redactor
from penstock.reports.annotations import annotate
from penstock.reports.github import GitHubReport
from penstock.reports.literal import literal, one_line
from penstock.reports.view import RunView

if TYPE_CHECKING:
    from pathlib import Path

Command = tuple[str, dict[str, str], str]


class Runner:
    """Reads a step's output as the runner does.

    Source: actions/runner, `ActionCommand.TryParseV2`, `.TryParse` and `ActionCommandManager`.
    """

    COMMANDS = frozenset(
        {"add-mask", "add-matcher", "add-path", "debug", "echo", "endgroup", "error", "group"}
        | {"notice", "remove-matcher", "save-state", "set-env", "set-output", "warning"}
        | {"internal-set-repo-path", "stop-commands"}
    )

    def __init__(self, output: str) -> None:
        self.commands: list[Command] = []
        self.log: list[str] = []
        self.token = ""
        for line in re.split("\r\n|\r|\n", output):  # as .NET reads lines
            if not self._process(line):
                self.log.append(line)

    def _process(self, line: str) -> bool:
        found = self._second(line) or self._first(line)
        if found is None:
            return False
        name, _, data = found
        if self.token:
            if name != self.token:
                return False
            self.token = ""
        elif name == "stop-commands":
            self.token = data
        else:
            self.commands.append(found)
        return True

    def _second(self, line: str) -> Command | None:
        head, found, data = line.lstrip().removeprefix("::").partition("::")
        if not line.lstrip().startswith("::") or not found:
            return None
        escapes = {"%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ",", "%25": "%"}
        return self._command(head, ",", data, escapes, {"%0D": "\r", "%0A": "\n", "%25": "%"})

    def _first(self, line: str) -> Command | None:
        head, found, data = line.partition("##[")[2].partition("]")
        escapes = {"%3B": ";", "%0D": "\r", "%0A": "\n", "%5D": "]", "%25": "%"}
        return self._command(head, ";", data, escapes, escapes) if found else None

    def _command(
        self, head: str, separator: str, data: str, escapes: dict[str, str], of_data: dict[str, str]
    ) -> Command | None:
        name, _, rest = head.partition(" ")
        if name.lower() not in {*self.COMMANDS, self.token}:
            return None
        pairs = [pair.partition("=") for pair in rest.strip().split(separator)]
        given = {key: unescaped(value.lstrip("="), escapes) for key, _, value in pairs if value}
        return name.lower(), given, unescaped(data, of_data)


def unescaped(text: str, escapes: dict[str, str]) -> str:
    for escaped, character in escapes.items():
        text = text.replace(escaped, character)
    return text


def run(text: str) -> list[Event]:
    """Return the events of a failed run in which every word that can be is a given text."""
    found = [
        Finding(file=text, line=3, column=5, message=text, tool="mypy", code=text),
        Finding(file="a.py", line=3, message=text, is_error=False),
    ]
    files = (FileCoverage(file=text, percent=7, missing="3-5"),)
    outcome = Outcome(result=Result.FAILURE, reason=text, findings=tuple(found), duration_s=1)
    return [
        Warned(message=text),
        RunStarted(
            pipeline=text,
            run_id=text,
            commit=text,
            started_at=text,
            stages=(Stage(name="test", title=text),),
            reproduce=text,
        ),
        StageStarted(stage="test"),
        OutputWritten(stage="test", text=f"before{text}"),
        StageRetried(stage="test", attempt=Attempt(result=Result.ERROR, reason=text), delay_s=0.0),
        OutputWritten(stage="test", text=f"{text}behind"),
        ServiceFailed(service=text, what=text, reason=text),
        CoverageRead(stage="test", percent=7, threshold=80, files=files),
        StageFinished(stage="test", outcome=outcome),
        RunFinished(result=Result.FAILURE, reason=text, root="test", exit_code=1, duration_s=2),
    ]


def printed(
    events: list[Event],
    *,
    environ: dict[str, str] | None = None,
    redactor: Redactor | None = None,
    beside: str = "",
) -> str:
    """Return what the step prints, with another listener that prints a text at each event."""
    stream = io.StringIO()
    report = GitHubReport(environ or {}, stream, redactor=redactor)
    for event in events:
        if not isinstance(event, Warned):  # comes before anything untrusted does
            stream.write(f"{beside}\n")
        report(event)
    return stream.getvalue()


EVIL = [
    *("::error file=a.py,line=1::evil", "::warning::", "::add-mask::e", "::stop-commands::t"),
    *("##[group]x", "##[error file=x;]evil", "##[endgroup]", "::endgroup::", "::group::x", "::t::"),
    *("\r::debug::x", "\n::set-output name=a::b", "::", "%0A", "%25", "\n", "\r", " ", ",", "=x"),
    *("\u2028::notice::x", "\x85::notice::x", "\x1b[31m::notice::x", "\udc80", "\u202e"),
]
TEXT = st.lists(st.sampled_from(EVIL)).map("".join) | st.text(st.characters(codec=None))


@pytest.mark.fault(49)
@given(TEXT)
@example("\n::error::evil\n##[error]evil\n")
def test_no_command_but_ours_is_ever_heard_and_ours_say_what_was_meant(text: str) -> None:
    """Neither in a stage's output nor in what others print; properties and messages survive."""
    view, expected = RunView(), list[Command]()
    for event in run(text):
        view(event)
    stage = view.stages["test"]
    again = one_line(f"{stage.title}: ERROR ({text}), trying again")
    title = one_line(f"{stage.title}: {stage.word}, 1.0 s")
    for words in (again, title):
        expected += [("group", {}, words), ("endgroup", {}, "")]
    for note in annotate(view):
        fields = {"title": note.title, "file": note.file, "line": note.line}
        fields |= {"endLine": note.end_line, "col": note.column}
        given_ = {key: str(value).lstrip("=") for key, value in fields.items() if value}
        expected.append((note.kind, given_, note.message))
    heard = Runner(printed(run(text), beside=text))
    assert [c for c in heard.commands if c[0] != "add-mask"] == expected
    assert heard.token == ""


@given(TEXT)
def test_output_is_shown_literally_in_its_fold(text: str) -> None:
    """Each line behind a bar, where the page that shows the log looks for no command."""
    lines = [f"| {line}" for line in literal(f"{text}behind").split("\n")]
    shown = Runner(printed(run(text))).log
    assert any(shown[n : n + len(lines)] == lines for n in range(len(shown)))


@given(st.text(min_size=6), TEXT)
def test_every_form_of_a_secret_is_masked_before_anything_else(secret: str, text: str) -> None:
    """Each line of a multi-line one on its own, and again what was learned later."""
    redactor = Redactor()
    redactor.add(f"{secret}\nsecond-line")
    output = printed(run(text), redactor=redactor)
    heard = Runner(output).commands
    masks = [data for name, _, data in heard if name == "add-mask"]
    assert set(masks) == redactor.needles
    assert "second-line" in masks
    assert [name for name, _, _ in heard[: len(masks)]] == ["add-mask"] * len(masks)
    assert not output.split("::stop-commands::")[0].replace("::add-mask::", "").startswith("::")


@pytest.mark.fault(28)
def test_secret_that_is_learned_later_is_masked_before_the_next_stage() -> None:
    """The token of the registry, say."""
    redactor, stream = Redactor(), io.StringIO()
    report = GitHubReport({}, stream, redactor=redactor)
    report(Warned(message="first"))
    redactor.add("learned-later")
    report(StageStarted(stage="test"))
    report(StageStarted(stage="next"))
    masks = [data for _, _, data in Runner(stream.getvalue()).commands]
    assert sorted(masks) == sorted(redactor.needles)


def test_each_run_has_a_token_of_its_own_that_nobody_guesses() -> None:
    """128 bits; a test that prints an old one commands nothing."""
    tokens = [Runner(printed([Warned(message="x")])).token for _ in range(2)]
    assert tokens[0] != tokens[1]
    assert all(re.fullmatch("[0-9a-f]{32}", token) for token in tokens)


def test_folds_stand_one_after_the_other_in_the_order_of_ending() -> None:
    """Folds cannot be nested, and stages run side by side."""
    stages = tuple(Stage(name=name, title=name) for name in "abc")
    events: list[Event] = [
        RunStarted(
            pipeline="p", run_id="1", commit="c", started_at="t", stages=stages, reproduce="ci"
        ),
        *(OutputWritten(stage=name, text=f"{name} said\n") for name in "abab"),
        *(StageFinished(stage=n, outcome=Outcome(result=Result.SUCCESS)) for n in "bca"),
    ]
    heard = Runner(printed(events))
    assert [(name, data) for name, _, data in heard.commands] == [
        ("group", "b: PASSED, 0.0 s"),
        ("endgroup", ""),
        ("group", "a: PASSED, 0.0 s"),  # c printed nothing
        ("endgroup", ""),
    ]
    assert [line for line in heard.log if line] == ["| b said"] * 2 + ["| a said"] * 2


def test_cut_output_says_how_much_is_missing() -> None:
    """Only its end is kept."""
    start, end = run("x")[1], run("x")[8]
    long = [OutputWritten(stage="test", text=f"{n}".ljust(999) + "\n") for n in range(100)]
    log = [line for line in Runner(printed([start, *long, end])).log if line]
    assert log[0] == "| [36000 characters before]"
    assert log[-1].split() == ["|", "99"]


def test_nothing_is_said_after_the_verdict() -> None:
    """The fence stays down for what else the step runs."""
    events = run("x")
    assert Runner(printed([*events, StageStarted(stage="test")])).token == ""


@pytest.mark.parametrize(("debug", "folds"), [("1", 1), ("", 0)])
def test_output_of_healthy_services_is_shown_when_the_runner_debugs(debug: str, folds: int) -> None:
    """Only then, for it is long."""
    events = [OutputWritten(service="db", text="ready\n"), ServiceStopped(service="db")]
    heard = Runner(printed(events, environ={"RUNNER_DEBUG": debug}))
    assert len([c for c in heard.commands if c[0] == "group"]) == folds


@pytest.mark.parametrize(
    ("value", "wanted"), [("true", True), ("", False), ("false", False), (None, False)]
)
def test_it_speaks_only_to_a_runner(value: str | None, wanted: bool) -> None:
    """At home nobody wants to read commands."""
    assert GitHubReport.wanted({} if value is None else {"GITHUB_ACTIONS": value}) is wanted


def pushed(note: str, result: Result = Result.SUCCESS) -> list[Event]:
    start = run("x")[1]
    outcome = Outcome(result=result, notes=("8 passed", note, f"{note}-2"))
    ended = RunFinished(result=Result.SUCCESS, reason="", exit_code=0, duration_s=2)
    return [start, StageFinished(stage="test", outcome=outcome), ended]


def read_outputs(path: Path) -> dict[str, str]:
    """Read a file of outputs as the runner does: `name<<delimiter`, lines, the delimiter."""
    entries = re.findall(r"^(\w+)<<(\S+)\n(.*?)\n\2$", path.read_text(), re.MULTILINE | re.DOTALL)
    return {name: value for name, _, value in entries}


def test_outputs_and_summary_are_added_to_their_files(tmp_path: Path) -> None:
    """Behind what other commands of the step have said; never instead of it."""
    output, page = tmp_path / "output", tmp_path / "summary"
    output.write_text("earlier<<E\nvalue\nE\n")
    page.write_text("earlier\n")
    environ = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(page)}
    printed(pushed("Pushed: ghcr.io/o/p:1"), environ=environ)
    assert read_outputs(output) == {
        "earlier": "value",
        "result": "success",
        "image": "ghcr.io/o/p:1",
        "images": "ghcr.io/o/p:1\nghcr.io/o/p:1-2",
    }
    assert page.read_text().startswith("earlier\n## All stages passed ✓\n")


@pytest.mark.parametrize(
    ("note", "result"),
    [
        ("Pushed (rehearsal): localhost:5000/p:1", Result.SUCCESS),
        ("Pushed: evil 3% < 80% threshold", Result.SUCCESS),
        ("Pushed: ghcr.io/o/p:1", Result.FAILURE),
    ],
)
def test_only_a_real_push_is_an_output(note: str, result: Result, tmp_path: Path) -> None:
    """Nobody else reaches a rehearsal's registry, and a failed push is none."""
    printed(pushed(note, result), environ={"GITHUB_OUTPUT": str(tmp_path / "output")})
    assert read_outputs(tmp_path / "output") == {"result": "success"}


def test_summary_leaves_room_for_what_is_there(tmp_path: Path) -> None:
    """The runner drops a file of more than 1 MiB whole."""
    page = tmp_path / "summary"
    page.write_text("x" * 990_000)
    events = run("<" * 30_000)
    printed(events, environ={"GITHUB_STEP_SUMMARY": str(page)})
    assert 990_000 < page.stat().st_size < 1024 * 1024


def test_what_cannot_be_written_harms_nothing(tmp_path: Path) -> None:
    """Neither a closed pipe nor a missing folder."""

    class Broken(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    output = tmp_path / "output"
    environ = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(tmp_path / "no/summary")}
    report = GitHubReport(environ, Broken())
    for event in pushed("Pushed: ghcr.io/o/p:1"):
        report(event)
    assert "result" in read_outputs(output)


def test_terminal_of_another_encoding_is_written_too() -> None:
    """The runner's is UTF-8, a container's may be anything."""
    raw = io.BytesIO()
    report = GitHubReport({}, io.TextIOWrapper(raw, encoding="ascii"))
    for event in run("naïve \udc80"):
        report(event)
    assert b"| na\\xefve \\udc80behind\n" in raw.getvalue()
