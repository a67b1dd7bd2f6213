from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # ships no types

from penstock.events import CoverageRead, Event, OutputWritten, StageFinished, TestsRead
from penstock.evidence import FileCoverage, Finding, TestCase
from penstock.model import Outcome, Result
from penstock.replay import read
from penstock.reports.record import LEFT_OUT, MOST_LINE, MOST_OUTPUT, Record
from tests.penstock.hostile import run_of, texts
from tests.penstock.schemas import FOLDER, schemas

RUN = run_of("words")


def recorded(folder: Path, events: list[Event]) -> dict[str, Any]:
    record = Record(folder)
    for event in events:
        record(event)
    run: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return run


def lines(folder: Path) -> list[str]:
    return (folder / "events.jsonl").read_text().splitlines()


@cache
def validator(name: str) -> Draft202012Validator:
    schema = json.loads((FOLDER / f"{name}-1.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_published_schemas_are_those_of_the_code() -> None:
    """`python -m tests.penstock.schemas` writes them; every type in them is described."""
    assert {path.name: path.read_text() for path in FOLDER.iterdir()} == schemas()
    for text in schemas().values():
        described = json.loads(text)["$defs"].values()
        assert all(definition["description"] for definition in described)


@settings(max_examples=40, deadline=None)
@given(text=texts)
def test_record_keeps_to_its_schemas_and_is_made_again_from_its_events(text: str) -> None:
    """Whatever programs print: the files are valid, and the events alone give the same record."""
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        run = recorded(Path(first), run_of(text))
        validator("run").validate(run)
        for line in lines(Path(first)):
            assert line.isascii()
            validator("events").validate(json.loads(line))
        assert recorded(Path(second), list(read(Path(first) / "events.jsonl"))) == run


def test_record_has_tests_coverage_and_what_took_long(tmp_path: Path) -> None:
    """What a dashboard needs stands in `run.json` itself."""
    run = recorded(tmp_path, RUN)
    test = run["stages"][1]
    assert test["tests"] == {"passed": 1, "failed": 1, "skipped": 1}
    assert test["coverage"] == {"percent": 79.5, "threshold": 80}
    assert (test["started_s"], test["findings"][0]["line"]) == (2.0, 9)
    assert (run["critical_path"], run["warnings"]) == (["lint", "test"], ["note"])
    assert [service["result"] for service in run["services"]] == ["success", "error"]


@pytest.mark.parametrize(
    ("name", "change", "is_valid"),
    [
        ("run", {}, True),
        ("run", {"added later": 1}, True),
        ("run", {"result": "green"}, False),
        ("run", {"schema": "penstock.run/2"}, False),
        ("run", {"stages": [{"name": "a"}]}, False),
        ("run", {"exit_code": None}, False),
        ("events", {}, True),
        ("events", {"added later": 1}, True),
        ("events", {"event": "dance"}, False),
        ("events", {"schema": "penstock.events/2"}, False),
        ("events", {"pipeline": 1}, False),
    ],
)
def test_schemas_refuse_what_is_wrong_and_bear_what_is_new(
    tmp_path: Path, name: str, change: dict[str, Any], *, is_valid: bool
) -> None:
    """A later penstock may say more, none may say something else."""
    right = {"run": recorded(tmp_path, RUN), "events": json.loads(lines(tmp_path)[0])}[name]
    assert validator(name).is_valid(right | change) is is_valid


@pytest.mark.parametrize(("name", "at"), [("run", -1), ("events", 0)])
def test_schemas_require_what_cannot_be_missing(tmp_path: Path, name: str, at: int) -> None:
    """Each required field, left out, makes the record a wrong one."""
    right = {"run": recorded(tmp_path, RUN), "events": json.loads(lines(tmp_path)[at])}[name]
    for field in ("schema", "pipeline", "run_id", "commit", "started_at", "stages"):
        assert not validator(name).is_valid({k: v for k, v in right.items() if k != field})


def test_output_of_one_stage_is_recorded_up_to_a_bound(tmp_path: Path) -> None:
    """One note says that there was more; what others print is not affected."""
    mass = OutputWritten(stage="test", text="x" * 1000 + "\n")
    other = OutputWritten(service="db", text="ready\n")
    recorded(tmp_path, [*RUN[:-1], *[mass] * 300, other, RUN[-1]])
    found = [event for event in read(tmp_path / "events.jsonl") if isinstance(event, OutputWritten)]
    text = "".join(event.text for event in found if event.stage == "test")
    assert len(text) == MOST_OUTPUT + len(LEFT_OUT)
    assert text.endswith(LEFT_OUT)
    assert found[-1].text == "ready\n"


LONG = [
    OutputWritten(stage="test", text="é\x00" * 100_000),
    OutputWritten(stage="test", text=("x" * 300 + "\n") * 701),
    TestsRead(stage="test", cases=(TestCase(name="t", detail="x" * 4000),) * 100),
    CoverageRead(
        stage="test",
        percent=1.0,
        files=tuple(FileCoverage(file="f" * 90, percent=1.0, missing=f"{n}") for n in range(900)),
    ),
]


@pytest.mark.parametrize("event", LONG)
def test_long_event_is_recorded_as_several(tmp_path: Path, event: Event) -> None:
    """No line is longer than what readers of JSON Lines bear, and nothing is lost."""
    recorded(tmp_path, [*RUN[:2], event, RUN[-1]])
    assert max(map(len, lines(tmp_path))) < MOST_LINE
    whole = list(read(tmp_path / "events.jsonl"))[2:-1]
    assert len(whole) > 1
    match event:
        case OutputWritten():
            assert "".join(e.text for e in whole if isinstance(e, OutputWritten)) == event.text
        case TestsRead():
            assert sum(len(e.cases) for e in whole if isinstance(e, TestsRead)) == 100
        case CoverageRead():
            assert sum(len(e.files) for e in whole if isinstance(e, CoverageRead)) == 900


def test_lines_of_a_program_are_kept_whole_where_they_can_be(tmp_path: Path) -> None:
    """A long output is parted between its lines."""
    recorded(tmp_path, [*RUN[:2], LONG[1], RUN[-1]])
    parts = [e.text for e in read(tmp_path / "events.jsonl") if isinstance(e, OutputWritten)]
    assert all(part.endswith("\n") for part in parts)


def test_event_that_cannot_be_parted_is_recorded_shorter(tmp_path: Path) -> None:
    """A failure with megabytes of words and thousands of problems still is one line."""
    finding = Finding(message="m" * 500, file="a.py", line=1)
    outcome = Outcome(
        result=Result.FAILURE,
        reason="r" * 1_000_000,
        output="\x00" * 9000,
        findings=(finding,) * 3000,
    )
    run = recorded(tmp_path, [*RUN[:-1], StageFinished(stage="push", outcome=outcome), RUN[-1]])
    assert max(map(len, lines(tmp_path))) < MOST_LINE
    push = run["stages"][2]
    assert (len(push["findings"]), push["notes"]) == (100, ["2900 more problems are not recorded"])
    assert "characters left out" in push["reason"]


@pytest.mark.parametrize(
    "path", ["", ".", "..", "x/..", "/", "\0", 5, None, "x" * 5000, "run.json/x"]
)
def test_record_of_the_last_run_may_name_anything(tmp_path: Path, path: object) -> None:
    """It is deleted itself; of all else only what lies in the reports folder."""
    kept = tmp_path / "reports/kept.txt"
    kept.parent.mkdir()
    kept.touch()
    last = {"stages": [{"artifacts": [{"path": path}]}]}
    (kept.parent / "run.json").write_text(json.dumps(last))
    Record(kept.parent)
    assert {found.name for found in kept.parent.iterdir()} == {"kept.txt", "events.jsonl"}


def test_stage_without_a_recorded_end_is_no_success(tmp_path: Path) -> None:
    """A record that lacks something never reads better than the run was."""
    run = recorded(tmp_path, [RUN[0], replace(RUN[-1])])
    assert {stage["result"] for stage in run["stages"]} == {"error"}
