"""The public types, held by two checkers: what is right passes, what is wrong does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def mypy(file: Path) -> set[int]:
    """Return the lines in which mypy finds an error."""
    words = ["-m", "mypy", "--no-incremental", "--output=json", str(file)]
    shown = run(words).splitlines()
    found = [json.loads(line) for line in shown if line.startswith("{")]
    return {
        e["line"] for e in found if Path(e["file"]).name == file.name and e["severity"] == "error"
    }


def pyright(file: Path) -> set[int]:
    """Return the lines in which pyright finds an error."""
    shown = json.loads(run(["-m", "basedpyright", "--outputjson", str(file)]))
    found = [d for d in shown["generalDiagnostics"] if d["severity"] == "error"]
    return {d["range"]["start"]["line"] + 1 for d in found}


def run(words: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return done.stdout


@pytest.mark.parametrize("checker", [mypy, pyright])
@pytest.mark.parametrize("name", ["accepted.py", "rejected.py"])
def test_checkers_agree_on_what_is_wrong(name: str, checker: object) -> None:
    """The lines marked as rejected are refused, and no other line is."""
    assert callable(checker)
    file = HERE / name
    lines = enumerate(file.read_text().splitlines(), start=1)
    assert checker(file) == {number for number, line in lines if line.endswith("# REJECTED")}
