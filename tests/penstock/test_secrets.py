from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from penstock import Secret
from penstock.errors import MissingSecretError

if TYPE_CHECKING:
    from pathlib import Path


def test_env_secret_is_read_from_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The value of the variable, and nothing of it in the repr."""
    monkeypatch.setenv("TOKEN", "s3cret-value")
    assert Secret.env("TOKEN").read("token") == "s3cret-value"
    assert "s3cret-value" not in repr(Secret.env("TOKEN"))


def test_file_secret_drops_one_trailing_newline(tmp_path: Path) -> None:
    """Files written by editors end in a newline that is no part of the secret."""
    (tmp_path / "token").write_text("from-file\n")
    assert Secret.file(str(tmp_path / "token")).read("token") == "from-file"


def test_command_secret_is_what_the_command_prints() -> None:
    """The output of the command, which no shell has touched."""
    assert Secret.command(f"{sys.executable} -c \"print('from $HOME')\"").read("t") == "from $HOME"


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
    """The message names the parameter and the next step."""
    with pytest.raises(MissingSecretError, match=f"secret 'token' has no value: .*{problem}") as e:
        secret.read("token")
    assert e.value.exit_code == 2
