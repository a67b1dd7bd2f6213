from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

import pytest

from penstock import Pipeline, Secret
from penstock.errors import MissingSecretError
from penstock.secrets import read_all

if TYPE_CHECKING:
    from pathlib import Path


def test_env_secret_is_read_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value of the variable, and nothing of it in the repr."""
    monkeypatch.setenv("TOKEN", "s3cret-value")
    assert Secret.env("TOKEN").read() == "s3cret-value"
    assert "s3cret-value" not in repr(Secret.env("TOKEN"))


def test_file_secret_drops_one_trailing_newline(tmp_path: Path) -> None:
    """Files written by editors end in a newline that is no part of the secret."""
    (tmp_path / "token").write_text("from-file\n")
    assert Secret.file(str(tmp_path / "token")).read() == "from-file"


def test_command_secret_is_what_the_command_prints() -> None:
    """The output of the command, which no shell has touched."""
    assert Secret.command(f"{sys.executable} -c \"print('from $HOME')\"").read() == "from $HOME"


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        (Secret.env("PENSTOCK_UNSET"), "set the environment variable PENSTOCK_UNSET"),
        (Secret.file("/nowhere/token"), "the file /nowhere/token cannot be read"),
        (Secret.file("/dev/null"), "the file /dev/null is empty"),
        (Secret.command("false"), "`false` ended with exit code 1"),
        (Secret.command("no-such-program-here"), "could not be run"),
        (Secret.command("true"), "`true` printed nothing"),
    ],
)
def test_missing_secret_says_where_it_was_looked_for(secret: Secret, problem: str) -> None:
    """The message names the next step."""
    with pytest.raises(LookupError, match=problem):
        secret.read()


def test_every_missing_secret_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the place of the stage that takes it, and nothing has started."""
    monkeypatch.setenv("GIVEN", "a-value")
    pipeline = Pipeline("p")

    @pipeline.stage(
        secrets={
            "one": Secret.env("GIVEN"),
            "two": Secret.env("UNSET"),
            "three": Secret.file("/no"),
        }
    )
    def push(one: object, two: object, three: object) -> None: ...

    with pytest.raises(MissingSecretError) as caught:
        read_all(pipeline.definitions.values())
    assert caught.value.exit_code == 2
    two, three = caught.value.findings
    assert re.search(r"test_secrets\.py:\d+: stage 'push' takes the secret 'two', which has", two)
    assert two.endswith("no value: set the environment variable UNSET")
    assert three.endswith("the file /no cannot be read (FileNotFoundError)")
    del pipeline.definitions["push"].options["secrets"]["two"]  # type: ignore[attr-defined]  # a dict
    del pipeline.definitions["push"].options["secrets"]["three"]  # type: ignore[attr-defined]  # a dict
    assert read_all(pipeline.definitions.values()) == {("push", "one"): "a-value"}
