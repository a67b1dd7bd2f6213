"""Where a secret's value comes from. Declared per stage, read once, before anything starts."""

from __future__ import annotations

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import MissingSecretError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.pipeline import Definition

MOST_BYTES = 1_000_000  # of a secret; what is longer is none


@dataclass(frozen=True)
class Secret:
    """A value that nobody may see; made by `Secret.env`, `Secret.file` or `Secret.command`.

    Args:
        kind: `env`, `file` or `command`.
        source: The variable, the path or the command line.

    Example:
        >>> Secret.env("REGISTRY_TOKEN")
        Secret(kind='env', source='REGISTRY_TOKEN')
    """

    kind: str
    source: str

    @classmethod
    def env(cls, variable: str) -> Secret:
        """Take it from an environment variable."""
        return cls("env", variable)

    @classmethod
    def file(cls, path: str) -> Secret:
        """Take it from a file; one trailing newline is dropped."""
        return cls("file", path)

    @classmethod
    def command(cls, line: str) -> Secret:
        """Take it from what a command prints (split by shlex); one trailing newline is dropped."""
        return cls("command", line)

    def read(self) -> str:
        """Return the value.

        Raises:
            LookupError: When there is none, saying what to do.
        """
        match self.kind:
            case "env":
                value = os.environ.get(self.source, "")
                problem = f"set the environment variable {self.source}"
            case "file":
                value, problem = _from_file(Path(self.source))
            case _:
                value, problem = _from_command(self.source)
        value = value.removesuffix("\n").removesuffix("\r")
        if not value:
            raise LookupError(problem)
        return value


def read_all(definitions: Iterable[Definition]) -> dict[tuple[str, str], str]:
    """Return the value of every secret of some stages, by stage and parameter name.

    Raises:
        MissingSecretError: When any has none; it names all of them.
    """
    values: dict[tuple[str, str], str] = {}
    findings: list[str] = []
    for definition in definitions:
        for name, secret in definition.secrets.items():
            try:
                values[definition.name, name] = secret.read()
            except LookupError as error:
                findings.append(
                    f"{definition.place}: stage '{definition.name}' takes the secret '{name}', "
                    f"which has no value: {error.args[0]}"
                )
    if findings:
        raise MissingSecretError(findings)
    return values


def _from_file(path: Path) -> tuple[str, str]:
    try:
        with path.expanduser().open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            return "", f"the file {path} is longer than {MOST_BYTES} bytes"
        return content.decode(), f"the file {path} is empty"
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: of `~nobody`
        return "", f"the file {path} cannot be read ({type(error).__name__})"


def _from_command(line: str) -> tuple[str, str]:
    try:
        done = subprocess.run(
            shlex.split(line), capture_output=True, check=True, text=True, timeout=30
        )
    except subprocess.CalledProcessError as error:
        return "", f"`{line}` ended with exit code {error.returncode}"
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return "", f"`{line}` could not be run ({type(error).__name__})"
    return done.stdout, f"`{line}` printed nothing"
