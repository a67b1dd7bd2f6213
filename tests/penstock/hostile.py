"""What untrusted programs print, and a run that is made of it."""

from __future__ import annotations

from hypothesis import strategies as st

from penstock.events import (
    CoverageRead,
    EngineConnected,
    Event,
    OutputWritten,
    RunFinished,
    RunStarted,
    ServiceFailed,
    ServicePrepared,
    ServiceStarted,
    ServiceStopped,
    StageFinished,
    StageRetried,
    StageStarted,
    TestsRead,
    Warned,
)
from penstock.evidence import FileCoverage, Finding, TestCase, TestResult
from penstock.model import Artifact, Attempt, Outcome, Result, Stage

WORDS = (
    "<script>alert(1)</script>",
    "]]>",
    "--><!--",
    "&amp;",
    "\x1b[31m\x1b]0;title\x07",
    "::error file=a::b",
    "\u202eabc\u202c",
    "\u2028\u0085\x0b",
    "\udcff",
    "\ufffe\x00",
    "\r\n",
    '"',
    "größer ✗ 😀",
)
texts = st.lists(st.sampled_from(WORDS) | st.text(st.characters(), max_size=8), max_size=6).map(
    "".join
)


def run_of(text: str) -> list[Event]:
    """Return a run in which everything that others may have written is this text."""
    stages = (
        Stage(name="lint", title=text, place="ci/main.py:7"),
        Stage(name="test", title="Run pytest", needs=("lint",)),
        Stage(name="push", title="Push", needs=("test",), tags=("deploy",)),
        Stage(name="note", title="Say so", allow_failure=True),
    )
    failed = TestCase(
        name=f"test_b[{text}]",
        suite="tests.test_a",
        result=TestResult.FAILED,
        file="tests/test_a.py",
        line=9,
        duration_s=0.5,
        message=text,
        detail=text,
    )
    passed = TestCase(name="test_a", suite=text, duration_s=0.25)
    skipped = TestCase(name="test_c", result=TestResult.SKIPPED, message=text)
    red = Outcome(
        result=Result.FAILURE,
        reason=f"exit code 1 {text}",
        exit_code=1,
        duration_s=2.0,
        notes=(text,),
        findings=(Finding(message=text, file="tests/test_a.py", line=9),),
        output=text,
        artifacts=(Artifact("coverage.xml", 10),),
    )
    attempt = Attempt(result=Result.ERROR, reason=text, fault="registry", duration_s=0.5)
    noted = Outcome(result=Result.FAILURE, reason=text, allowed=True, output=text, exit_code=1)
    return [
        RunStarted(
            at_s=0.1,
            pipeline="p",
            run_id="1",
            commit="c" * 40,
            branch=f"b{text}",
            started_at="2026-11-25T01:17:21+00:00",
            stages=stages,
            reproduce="python ci/main.py",
            environment=(("python", text),),
        ),
        Warned(at_s=0.2, message=text),
        EngineConnected(at_s=0.5, version="v0.21.8", duration_s=0.4),
        StageStarted(at_s=1.0, stage="lint"),
        OutputWritten(at_s=1.1, stage="lint", text=text),
        StageFinished(
            at_s=2.0, stage="lint", outcome=Outcome(result=Result.SUCCESS, duration_s=1.0)
        ),
        ServicePrepared(at_s=2.0, service="db", what=text, duration_s=0.1),
        ServicePrepared(at_s=2.0, service="unused", what="image", duration_s=0.1),
        ServiceStarted(at_s=2.1, service="db", duration_s=0.1),
        OutputWritten(at_s=2.2, service="db", text=text),
        ServiceFailed(at_s=2.3, service="cache", what="health check", reason=text),
        StageStarted(at_s=2.0, stage="test"),
        StageRetried(at_s=2.5, stage="test", attempt=attempt, delay_s=0.5),
        TestsRead(at_s=4.0, stage="test", cases=(passed, failed, skipped)),
        CoverageRead(
            at_s=4.0,
            stage="test",
            percent=79.5,
            threshold=80,
            files=(FileCoverage(file=text, percent=79.5, missing="3-5"),),
        ),
        StageFinished(at_s=5.0, stage="test", outcome=red),
        StageFinished(
            at_s=5.0,
            stage="push",
            outcome=Outcome(result=Result.SKIP, reason="because test failed", root="test"),
        ),
        StageStarted(at_s=1.0, stage="note"),
        StageFinished(at_s=1.5, stage="note", outcome=noted),
        ServiceStopped(at_s=5.1, service="db"),
        RunFinished(
            at_s=5.2,
            result=Result.FAILURE,
            reason="exit code 1",
            root="test",
            exit_code=1,
            duration_s=5.1,
            warnings=("note",),
        ),
    ]
