from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from penstock import Pipeline, Secret

ROOT = Path(__file__).parents[2]


def small() -> Pipeline:
    pipeline = Pipeline("small")

    @pipeline.stage
    def lint() -> None:
        """Lint."""

    @pipeline.stage(needs=[lint], secrets={"token": Secret.env("PENSTOCK_UNSET")})
    def push(token: object) -> None: ...

    return pipeline


def test_list_prints_stages_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    """Names, titles and needs, and nothing runs."""
    assert small().main(["--list"]) == 0
    assert capsys.readouterr().out == "lint  Lint\npush  push  (after lint)\n"


def test_list_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Machines get the same."""
    assert small().main(["--list", "--json", "--only", "lint"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "lint", "title": "Lint", "needs": []}]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--only", "pusch"], "no stage is named 'pusch'; did you mean 'push'?"),
        (["--only", "push"], "secret 'token' has no value: set the environment variable"),
        (["--only", ""], "no stage is selected"),
    ],
)
def test_wrong_use_is_exit_2_and_names_the_next_step(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any engine is asked, the error says what to do."""
    assert small().main(argv) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["-j", "0"], ["--nonsense"], ["-j", "x"]])
def test_unreadable_options_are_exit_2(argv: list[str]) -> None:
    """argparse's own refusals have the same code."""
    with pytest.raises(SystemExit) as caught:
        small().main(argv)
    assert caught.value.code == 2


def test_wrong_definition_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    """Definition errors are printed with their place."""
    pipeline = Pipeline("wrong")

    @pipeline.stage
    def lint(nothing: object) -> None: ...

    assert pipeline.main([]) == 2
    assert "test_cli.py:" in capsys.readouterr().err


def test_list_does_not_import_dagger() -> None:
    """A list costs no second: the SDK is not even looked at."""
    code = (
        "import sys, runpy; sys.argv=['ci/main.py', '--list']\n"
        "try: runpy.run_path('ci/main.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "sys.exit('dagger' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": "ci"}, check=False
    )
    assert done.returncode == 0
