from __future__ import annotations

import subprocess
import sys
import time
import unicodedata
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.evidence import Finding
from penstock.reports.literal import literal, one_line
from penstock.reports.problems import LONGEST_LINE, MOST_FINDINGS, problems

if TYPE_CHECKING:
    from pathlib import Path

BAD = """\
import os
x: int = "a"
def f(n: int) -> str:
    return n + undefined
"""
TOOLS = {
    "ruff": [
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--no-cache",
        "--select=F",
        "--output-format=full",
    ],
    "concise": [
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--no-cache",
        "--select=F",
        "--output-format=concise",
    ],
    "mypy": ["-m", "mypy", "--config-file=", "--cache-dir=/dev/null"],
    "pretty": ["-m", "mypy", "--config-file=", "--cache-dir=/dev/null", "--pretty"],
    "pyright": ["-m", "basedpyright"],
}


def printed(tool: str, folder: Path, color: str) -> str:
    (folder / "app").mkdir()
    (folder / "app/bad.py").write_text(BAD)
    done = subprocess.run(
        [sys.executable, *TOOLS[tool], "app/bad.py"],
        cwd=folder,
        env={"FORCE_COLOR": color, "HOME": str(folder), "TERM": "xterm", "MYPY_FORCE_COLOR": color},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout


def said(found: list[Finding]) -> list[tuple[str, int, str, str]]:
    return [(f.file, f.line, f.tool, f.code) for f in found]


@pytest.mark.parametrize("color", ["", "1"])
@pytest.mark.parametrize("tool", ["ruff", "concise"])
def test_what_ruff_prints_is_understood(tool: str, color: str, tmp_path: Path) -> None:
    """The real tool, in both of its forms for people, with and without colour."""
    found = list(problems(printed(tool, tmp_path, color)))
    assert said(found) == [("app/bad.py", 1, "ruff", "F401"), ("app/bad.py", 4, "ruff", "F821")]
    assert [(f.column, f.message) for f in found] == [
        (8, "`os` imported but unused"),
        (16, "Undefined name `undefined`"),
    ]


@pytest.mark.parametrize("tool", ["mypy", "pretty"])
def test_what_mypy_prints_is_understood(tool: str, tmp_path: Path) -> None:
    """The real tool, also where it wraps lines and shows the source."""
    found = list(problems(printed(tool, tmp_path, "")))
    assert [(f.file, f.line, f.tool) for f in found] == [
        ("app/bad.py", 2, "mypy"),
        ("app/bad.py", 4, "mypy"),
    ]
    assert found[1].code == "name-defined"
    assert found[1].message == 'Name "undefined" is not defined'


def test_what_pyright_prints_is_understood(tmp_path: Path) -> None:
    """The real tool: absolute paths, warnings, and the rule behind the last of several lines."""
    found = list(problems(printed("pyright", tmp_path, ""), workdir=str(tmp_path)))
    assert (
        Finding(
            file="app/bad.py",
            line=2,
            column=10,
            tool="pyright",
            code="reportAssignmentType",
            message="""Type "Literal['a']" is not assignable to declared type "int\"""",
        )
        in found
    )
    assert ("app/bad.py", 4, "pyright", "reportUndefinedVariable") in said(found)
    assert any(not f.is_error for f in found)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.c:3:5: fatal error: no.h: No such file", Finding(file="a.c", line=3, column=5, message="no.h: No such file")),
        ("./a//b.py:3: error: x  [misc]", Finding(file="a/b.py", line=3, message="x", tool="mypy", code="misc")),
        ("a.py:3: note: See there", Finding(file="a.py", line=3, message="See there", tool="mypy", is_error=False)),
        ("/src/a.py:3:1 - error: x\n    y", Finding(file="a.py", line=3, column=1, message="x", tool="pyright")),
        ("a.go:3:1: warning: x", Finding(file="a.go", line=3, column=1, message="x", is_error=False)),
        ("a.py:1:1: invalid-syntax: Expected", Finding(file="a.py", line=1, column=1, message="Expected", tool="ruff", code="invalid-syntax")),
        ("error[E0308]: mismatched types\n   --> src/main.rs:2:5", Finding(file="src/main.rs", line=2, column=5, message="mismatched types", code="E0308")),
        ("/src/Dockerfile:3: error: x", Finding(file="Dockerfile", line=3, message="x")),
        ("/opt/venv/x.py:3: error: x", Finding(file="/opt/venv/x.py", line=3, message="x", tool="mypy")),
    ],
)  # fmt: skip
def test_form_of_compilers_is_understood(line: str, expected: Finding) -> None:
    """A severity, or a rule with a column; a path relative to where the tool ran."""
    assert list(problems(f"before\n{line}", workdir="/src")) == [expected]


@pytest.mark.parametrize(
    "line",
    [
        "12:00:01: error: the clock is no file",
        "2026-01-01 12:00:01: error: neither is a date",
        "localhost:5432: error: nor a host",
        "a.py:0: error: there is no line 0",
        "a.py:3: AssertionError",
        "a.py:3:1: said something",
        "   --> a.py:3:1",
        "",
    ],
)
def test_other_lines_are_no_problems(line: str) -> None:
    """What only looks like a place does not become one."""
    assert list(problems(line)) == []


def test_the_same_problem_is_told_once_and_the_number_is_bounded() -> None:
    """Retries print everything again, and nobody reads ten thousand."""
    assert len(list(problems("a.py:1: error: x\n" * 10))) == 1
    many = "".join(f"a.py:{n}: error: x\n" for n in range(1, 10_000))
    assert len(list(problems(many))) == MOST_FINDINGS


@pytest.mark.parametrize(
    "evil",
    [
        "a" * 100_000,
        ":" * 100_000,
        " " * 100_000,
        "\n" * 100_000,
        "\r" * 100_000,
        "\x1b]" * 50_000,
        "\x1b[1" * 30_000,
        "a.py:1:1: error: " + "  [" * 30_000,
        "a.py:1:1 - error: " + " (report" * 10_000,
        "a.py:1:1: " + "A" * 100_000,
        "./" * 50_000 + "a.py:1: error: x",
    ],
)
def test_hostile_output_takes_linear_time(evil: str) -> None:
    """Quadratic time would be minutes."""
    began = time.process_time()
    for _ in problems(evil + "\n" + (evil[:LONGEST_LINE] + "\n") * 100):
        pass
    literal(evil)
    assert time.process_time() - began < 5


@given(st.text(), st.text(), st.integers(1, 99_999))
def test_any_text_is_read_and_what_comes_out_is_one_clean_line(
    before: str, message: str, line: int
) -> None:
    """Whatever surrounds it, a problem's message is short, printable and in one line."""
    for finding in problems(f"{before}\na.py:{line}:1: error: {message}\n"):
        assert finding.message == one_line(finding.message)


@given(st.text(st.characters(codec=None)))
def test_literal_text_holds_nothing_that_acts(text: str) -> None:
    """No control, format or unpaired character is left but line feeds and tabs."""
    shown = literal(text)
    assert {unicodedata.category(c) for c in shown.replace("\n", "").replace("\t", "")} <= {
        "Ll", "Lm", "Lo", "Lt", "Lu", "Mc", "Me", "Mn", "Nd", "Nl", "No",
        "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So", "Zs",
    }  # fmt: skip


def test_every_character_is_shown_as_it_is_or_spelled_out() -> None:
    """Whatever is printable or a space stays, and it is the same when it comes again."""
    for character in map(chr, range(ord(" "), sys.maxunicode + 1)):
        kept = character.isprintable() or unicodedata.category(character) == "Zs"
        shown = character if kept else character.encode("unicode_escape").decode()
        assert literal(character) == literal(character) == shown


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    """In any script."""
    assert literal(text) == text
