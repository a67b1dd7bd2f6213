from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from penstock import Coverage, JUnit, Report
from penstock.reports.reading import coverage_by_file, coverage_percent, read

if TYPE_CHECKING:
    from pathlib import Path

COBERTURA = (
    '<coverage lines-valid="{lines}" lines-covered="{covered}" branches-valid="{branches}" '
    'branches-covered="{taken}"></coverage>'
)
JUNIT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_ok" file="tests/test_a.py" line="3"/>
<testcase classname="tests.test_a" name="test_bad" file="tests/test_a.py" line="9">
<failure message="assert 1 == 2&#10;more">trace</failure></testcase>
<testcase classname="tests.test_a" name="test_off"><skipped/></testcase>
<testcase classname="tests.test_a"><error>boom</error></testcase>
</testsuite></testsuites>"""


def cobertura(
    folder: Path, covered: int, lines: int = 100, branches: tuple[int, int] = (0, 0)
) -> None:
    taken, valid = branches
    text = COBERTURA.format(lines=lines, covered=covered, branches=valid, taken=taken)
    (folder / "coverage.xml").write_text(text)


@pytest.mark.parametrize(
    ("covered", "summary", "gates"),
    [
        (85, ("coverage 85% >= 80% threshold",), ()),
        (80, ("coverage 80% >= 80% threshold",), ()),
        (79, (), ("79% < 80% threshold",)),
    ],
)
def test_coverage_gate(
    tmp_path: Path, covered: int, summary: tuple[str, ...], gates: tuple[str, ...]
) -> None:
    """At the threshold the gate opens, below it says by how much."""
    cobertura(tmp_path, covered)
    reading = read([Coverage("coverage.xml", at_least=80)], tmp_path)
    assert (reading.summary, reading.gates) == (summary, gates)


def test_coverage_is_never_rounded_up_into_passing(tmp_path: Path) -> None:
    """79.99 % is 79 %."""
    cobertura(tmp_path, 7999, 10000)
    assert read([Coverage("coverage.xml", at_least=80)], tmp_path).gates == ("79% < 80% threshold",)


def test_branches_count_as_in_coverage_py(tmp_path: Path) -> None:
    """The total is that of coverage.py: lines and branches together."""
    cobertura(tmp_path, 80, 100, (10, 20))
    assert coverage_percent(tmp_path / "coverage.xml") == 75.0


def test_coverage_without_a_threshold_is_only_shown(tmp_path: Path) -> None:
    """No gate was declared, so none fails."""
    cobertura(tmp_path, 10)
    reading = read([Coverage("coverage.xml")], tmp_path)
    assert (reading.summary, reading.gates) == (("coverage 10%",), ())


def test_nothing_to_cover_is_fully_covered(tmp_path: Path) -> None:
    """An empty package divides by nothing."""
    cobertura(tmp_path, 0, 0)
    assert coverage_percent(tmp_path / "coverage.xml") == 100.0


BY_FILE = """<coverage lines-valid="4" lines-covered="3" branches-valid="2" branches-covered="1">
<sources><source>SOURCE</source></sources>
<packages><package><classes>
<class filename="core.py"><lines><line number="1" hits="1"/>
<line number="2" hits="1" branch="true" condition-coverage="50% (1/2)"/></lines></class>
<class filename="edge.py"><lines><line number="1" hits="1"/><line number="2" hits="0"/></lines></class>
<class filename="empty.py"><lines/></class>
</classes></package></packages></coverage>"""


@pytest.mark.parametrize(
    ("files", "gates"),
    [
        ({"app/core.py": 75}, ()),
        ({"app/core.py": 76}, ("app/core.py 75% < 76% threshold",)),
        ({"app/edge.py": 50, "app/empty.py": 100}, ()),
        ({"app/*": 100}, ("app/core.py 75% < 100%", "app/edge.py 50% < 100% threshold")),
        ({"core.py": 1}, ("no file in c.xml matches 'core.py', which has a threshold",)),
    ],
)
def test_single_files_have_thresholds_of_their_own(
    tmp_path: Path, files: dict[str, float], gates: tuple[str, ...]
) -> None:
    """Lines and branches count together, paths are those of the checkout, none passes unseen."""
    (tmp_path / "c.xml").write_text(BY_FILE.replace("SOURCE", "app"))
    found = read([Coverage("c.xml", files=files)], tmp_path).gates
    assert len(found) == len(gates)
    assert all(gate in line for gate, line in zip(gates, found, strict=True))


@pytest.mark.parametrize("source", ["/src/app", ""])
def test_file_thresholds_without_a_relative_source(tmp_path: Path, source: str) -> None:
    """An absolute source is the container's business: names then stand as they are."""
    (tmp_path / "c.xml").write_text(BY_FILE.replace("SOURCE", source))
    assert read([Coverage("c.xml", files={"core.py": 75})], tmp_path).gates == ()
    (tmp_path / "c.xml").unlink()
    missing = read([Coverage("c.xml", files={"core.py": 75})], tmp_path).gates
    assert missing == ("no coverage: c.xml is missing",)


def test_missing_coverage_fails_the_gate(tmp_path: Path) -> None:
    """A gate whose report is not there is closed, not open."""
    reading = read([Coverage("coverage.xml", at_least=80)], tmp_path)
    assert reading.gates == ("no coverage: coverage.xml is missing",)
    assert read([Coverage("coverage.xml")], tmp_path).gates == ()


def test_junit_counts_and_names_the_failing_tests(tmp_path: Path) -> None:
    """Each failing test is a line with file:line and the first line of its message."""
    (tmp_path / "junit.xml").write_text(JUNIT)
    reading = read([JUnit("junit.xml")], tmp_path)
    assert reading.summary == ("1 passed, 2 failed, 1 skipped",)
    assert str(reading.findings[0]) == "tests/test_a.py:10: test_bad: assert 1 == 2"
    assert str(reading.findings[1]) == "tests.test_a: boom"


@pytest.mark.parametrize("report", [JUnit("report.xml"), Coverage("report.xml")])
def test_unreadable_report_closes_the_gate(tmp_path: Path, report: Report) -> None:
    """A report is untrusted input: broken XML is named and fails the stage."""
    (tmp_path / "report.xml").write_text("<a><b></a>")
    assert read([report], tmp_path).gates == ("report.xml cannot be read (ParseError)",)


@pytest.mark.parametrize("report", [JUnit("out"), Coverage("out", at_least=80)])
def test_folder_is_no_report_to_be_read(tmp_path: Path, report: Report) -> None:
    """It is said in words that tell what to write instead."""
    (tmp_path / "out").mkdir()
    assert read([report], tmp_path).gates == ("out is a folder; name the file in it",)


def test_plain_report_is_only_kept(tmp_path: Path) -> None:
    """A report of no known kind says nothing."""
    assert read([Report("anything")], tmp_path).summary == ()


def test_names_of_several_sources_are_found_in_the_checkout(tmp_path: Path) -> None:
    """Coverage.py does not say of which source a name is."""
    (tmp_path / "two").mkdir()
    (tmp_path / "two/core.py").touch()
    (tmp_path / "c.xml").write_text(BY_FILE.replace("SOURCE", "one</source><source>two"))
    assert "one/core.py" in {f.file for f in coverage_by_file(tmp_path / "c.xml")}
    found = {f.file for f in coverage_by_file(tmp_path / "c.xml", tmp_path)}
    assert {"two/core.py", "one/edge.py"} <= found
    assert "one/core.py" not in found


def test_failing_test_is_shown_where_it_went_wrong(tmp_path: Path) -> None:
    """The last line of its own file in the traceback; where it begins, when there is none."""
    trace = (
        "def test_bad():\n&gt; assert f()\n\ntests/test_a.py:14: \n_ _\nlib/x.py:3: AssertionError"
    )
    (tmp_path / "junit.xml").write_text(JUNIT.replace(">trace<", f">{trace}<"))
    assert read([JUnit("junit.xml")], tmp_path).findings[0].line == 14
    (tmp_path / "junit.xml").write_text(JUNIT)
    assert read([JUnit("junit.xml")], tmp_path).findings[0].line == 10
