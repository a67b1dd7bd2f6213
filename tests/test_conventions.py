"""Rules of this repository that no linter knows."""

from __future__ import annotations

import ast
import doctest
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest

import penstock
from tests import faults

ROOT = Path(__file__).parents[1]
PENSTOCK = ROOT / "ci" / "penstock"
SVG = "http://www.w3.org/2000/svg"


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Return the modules that a file imports when it runs, typing apart."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    nodes = tree.body if top_level_only else ast.walk(tree)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in nodes:
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


NEEDS_ENGINE = {"again", "cache", "command", "execute", "identity", "sdk", "services", "session"}
NEEDS_ENGINE |= {"source", "verdicts"}


@pytest.mark.parametrize(
    "path", [path for path in PENSTOCK.glob("*.py") if path.stem not in NEEDS_ENGINE]
)
def test_pure_modules_never_import_dagger(path: Path) -> None:
    """What decides runs without an engine, so it can be tested without one."""
    assert "dagger" not in imports(path)


def test_nothing_imports_dagger_at_import_time() -> None:
    """`--list` must not pay for the SDK: it is imported where the engine is used."""
    files = [*PENSTOCK.rglob("*.py"), ROOT / "ci" / "main.py"]
    assert [f.name for f in files if "dagger" in imports(f, top_level_only=True)] == []


def test_engine_room_is_standard_library_only() -> None:
    """It runs before anything is installed."""
    files = [*(ROOT / "ci/engine").glob("*.py"), ROOT / "ci/__main__.py"]
    allowed = sys.stdlib_module_names | {"engine"}
    assert {name for f in files for name in imports(f)} <= allowed


def test_public_names_are_few_and_sorted() -> None:
    """At most twelve names, each exported, in order."""
    assert len(penstock.__all__) <= 12
    assert sorted(penstock.__all__) == penstock.__all__
    assert all(hasattr(penstock, name) for name in penstock.__all__)


@pytest.mark.parametrize("name", penstock.__all__)
def test_public_name_has_an_example_that_holds(name: str) -> None:
    """Its docstring shows how to use it, and what it shows is true."""
    public = getattr(penstock, name)
    names = {**vars(penstock), "container": SimpleNamespace(with_exec=None)}
    (test,) = doctest.DocTestFinder(recurse=False).find(public, name, globs=names)
    assert test.examples
    shown: list[str] = []
    ended = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=shown.append)
    assert ended.failed == 0, "".join(shown)


def test_workflow_is_thin_and_runs_the_local_commands() -> None:
    """At most 40 lines, no logic, and only what a person would type."""
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    commands = [line.split(" #")[0].strip() for line in re.findall(r"run: (.*)", text)]
    assert len(text.splitlines()) <= 40
    assert commands == ["python3 -m ci setup", "exec .venv/bin/python ci/main.py"]
    assert "${{" not in " ".join(commands)


def test_engine_version_is_the_same_everywhere() -> None:
    """The SDK's pin, the lock and the Go module name one version."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pinned,) = [d for d in project["dependencies"] if d.startswith("dagger-io")]
    lock = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
    (locked,) = [p["version"] for p in lock["package"] if p["name"] == "dagger-io"]
    module = (ROOT / "ci/engine/go/go.mod").read_text(encoding="utf-8")
    assert pinned == f"dagger-io=={locked}"
    assert f"github.com/dagger/dagger v{locked}\n" in module


def test_no_machine_path_and_no_registry_host_is_committed() -> None:
    """Only the lock files, whose format wants them, and Go's own module names hold hosts."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    hosts = re.compile(
        r"pypi\.org|pythonhosted|proxy\.golang|deb\.debian|npmjs|/work/|/root/\.[pc]"
    )
    exempt = {"uv.lock", "tests/test_conventions.py"}
    guilty = [
        name
        for name in listed
        if name not in exempt
        and hosts.search((ROOT / name).read_text(encoding="utf-8", errors="ignore"))
    ]
    assert guilty == []


def test_every_suppression_has_a_code_and_a_reason() -> None:
    """A silenced finding says which one, and why."""
    bare = re.compile(r"# (?:noqa(?!: [A-Z])|type: ignore(?!\[))")
    files = [f for room in ("ci", "app", "tests") for f in (ROOT / room).rglob("*.py")]
    assert [f.name for f in files if f != Path(__file__) and bare.search(f.read_text())] == []


def test_readme_has_no_placeholder() -> None:
    """What one sees there was seen."""
    assert "@@" not in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "docs/reports.md"])
def test_pictures_are_there_and_load_nothing(page: str) -> None:
    """GitHub shows them as they are: small, well formed, and without anything from elsewhere."""
    file = ROOT / page
    found = re.findall(r"[\w./-]+\.(?:svg|png)", file.read_text(encoding="utf-8"))
    assert found
    for picture in [file.parent / name for name in found]:
        assert picture.stat().st_size < 150_000
        if picture.suffix == ".svg":
            text = picture.read_text(encoding="utf-8").replace(SVG, "")
            ET.fromstring(text)  # noqa: S314 - our own
            assert not re.search(r"https?:|url\(|<script|@import|href", text)


def test_example_in_the_readme_is_a_pipeline_without_findings(tmp_path: Path) -> None:
    """What a new user copies works: the graph resolves and `--list` prints it."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in block.splitlines() if line]) <= 25
    file = tmp_path / "pipeline.py"
    file.write_text(block)
    done = subprocess.run(
        [sys.executable, str(file), "--list"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "ci")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Run the tests  (after lint)" in done.stdout


def test_what_the_page_on_security_promises_has_its_tests() -> None:
    """Each test that it names is there, and each promise names one."""
    page = (ROOT / "docs/security.md").read_text()
    promised = page.partition("## What is promised")[2].partition("\n## ")[0]
    rows = [line for line in promised.splitlines() if line.startswith("| ")][1:]
    assert rows
    for row in rows:
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, name in named:
            functions = ast.walk(ast.parse((ROOT / "tests" / file).read_text()))
            defined = ast.FunctionDef | ast.AsyncFunctionDef
            assert name in [f.name for f in functions if isinstance(f, defined)], (file, name)


def marked_by_row() -> dict[int, set[tuple[str, str]]]:
    """Return the file and name of each test by the rows of faults that it is marked with.

    Soaks are left out: the page is of what every run tests.
    """
    found: dict[int, set[tuple[str, str]]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        if "soak" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fault":
                    for row in mark.args:
                        test = (path.relative_to(ROOT).as_posix(), node.name)
                        found.setdefault(ast.literal_eval(row), set()).add(test)
    return found


def test_every_fault_has_a_test() -> None:
    """Each row is tested, and no test is for a row that is not there."""
    assert sorted(marked_by_row()) == sorted(faults.ROWS)


def test_page_on_faults_names_the_tests_that_there_are() -> None:
    """All rows in their order, in their words; by each the tests that are marked with it."""
    if not faults.PAGE.exists():
        pytest.skip("the page is not written yet")
    lines = faults.PAGE.read_text(encoding="utf-8").removeprefix(faults.HEAD).splitlines()
    marked = marked_by_row()
    assert len(lines) == len(faults.ROWS)
    for line, (number, words) in zip(lines, faults.ROWS.items(), strict=True):
        row = " | ".join((str(number), *(text.replace("|", r"\|") for text in words)))
        assert line.startswith(f"| {row} | ")
        cell = line.rpartition(" | ")[2]
        named = {(file, name) for name, file in re.findall(r"\[(\w+)\]\(\.\./([\w/.]+)\)", cell)}
        assert named == marked[number], number
