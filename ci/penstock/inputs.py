"""What a stage is made from, and so why it ran: files, images, arguments, variables.

Read from the query that the SDK has built up, so nothing is evaluated. It explains and decides
nothing: what is cached is the engine's business.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from penstock.affected import HostFolder
from penstock.model import Command, Service
from penstock.query import Queries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MOST_FILES = 20_000  # of one directory; what is beyond is not worth its reading
MOST_REASONS = 8
LONGEST_COMMAND = 60  # characters of it that are shown


def inputs(
    value: object,
    queries: Queries | None = None,
    folders: dict[HostFolder, dict[str, str]] | None = None,
) -> dict[str, str]:
    """Return what containers, commands and services are made from.

    Args:
        value: One of them, or a collection.
        queries: What is known of them from before the engine was asked.
        folders: Gets those of the host that are among it.

    Returns:
        Digests by what they are of: `file app/main.py`, `image python:3.11-slim`, `variable MODE`.
    """
    return dict(_inputs(value, queries or Queries(), {} if folders is None else folders))


def images(found: Iterable[str]) -> list[str]:
    """Return the names of the images among inputs."""
    return sorted({name for what in found if (name := _name("image", what))})


def digest(value: object) -> str:
    """Return a short digest of any value that JSON knows."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def why(before: Mapping[str, str] | None, now: Mapping[str, str], *, cached: bool) -> list[str]:
    """Return the reasons why a stage was executed, or why not, in words.

    Args:
        before: Its inputs when it was last executed and passed; nothing when that is not known.
        now: Its inputs.
        cached: Whether the engine had its result.
    """
    if cached:
        files = sum(bool(_name("file", what)) for what in now)
        return [f"the same {files} files and {len(now) - files} other inputs as when it passed"]
    if before is None:
        return ["it has not passed here before"]
    reasons = [f"{what} changed" for what in now if before.get(what, now[what]) != now[what]]
    reasons += [f"{what} is new" for what in now if what not in before]
    reasons += [f"{what} is gone" for what in before if what not in now]
    if not reasons:
        return ["nothing of its own changed: the engine had its result no more"]
    if (more := len(reasons) - MOST_REASONS) > 0:
        reasons[MOST_REASONS:] = [f"and {more} more"]
    return reasons


def _name(kind: str, what: str) -> str:
    """Return the name of an input of a kind, also of a service's; nothing of another kind."""
    found = re.fullmatch(rf"(?:\S+: )*{kind} (.+)", what, re.DOTALL)
    return found[1] if found else ""


def _inputs(
    value: object, queries: Queries, seen: dict[HostFolder, dict[str, str]]
) -> Iterator[tuple[str, str]]:
    match value:
        case Mapping():
            yield from _inputs(tuple(value.values()), queries, seen)
        case list() | tuple():
            for item in value:
                yield from _inputs(item, queries, seen)
        case Command():
            yield from _inputs(value.container, queries, seen)
            yield _command(value.argv)
            yield from ((f"variable {name}", digest(text)) for name, text in value.env.items())
            yield from _inputs(tuple(value.services), queries, seen)
        case Service():
            own = (value.container, *value.services)
            yield from (
                (f"{value.name}: {what}", made) for what, made in _inputs(own, queries, seen)
            )
            yield f"{value.name}: settings", digest([value.port, value.args, value.variables])
        case _ if context := getattr(value, "_ctx", None):
            for step in context.selections:
                name = f"host {step.name}" if step.type_name == "Host" else step.name
                yield from _step(name, queries.given(step), queries, seen)


def _step(
    name: str, given: Mapping[str, Any], queries: Queries, seen: dict[HostFolder, dict[str, str]]
) -> Iterator[tuple[str, str]]:
    """Return the inputs of one step of a query."""
    plain = {key: value for key, value in given.items() if not hasattr(value, "_ctx")}
    match name:
        case "from":
            yield f"image {given['address']}", ""
        case "withExec":
            yield _command(given["args"])
        case "withEnvVariable":
            yield f"variable {given['name']}", digest(plain)
        case "withNewFile":
            yield f"file {given['path']} (written)", digest(plain)
        case "host directory" | "host file":
            include, exclude = (tuple(plain.get(key, ())) for key in ("include", "exclude"))
            folder = HostFolder(Path(plain["path"]).absolute(), include, exclude)
            if folder not in seen:
                seen[folder] = dict(_files(**plain))
            yield from seen[folder].items()
        case "setSecret":
            return  # a digest of what is short can be guessed
        case _ if plain and not name.startswith(("load", "withSecret", "cacheVolume")):
            yield f"{name} {next(iter(plain.values()))!s:.60}", digest(plain)
    yield from _inputs(tuple(given.values()), queries, seen)


def _command(argv: Sequence[str]) -> tuple[str, str]:
    line = " ".join(shlex.join(argv).split())
    shown = line if len(line) <= LONGEST_COMMAND else f"{line[: LONGEST_COMMAND - 3]}..."
    return f"command `{shown}`", digest(list(argv))


def _files(
    path: str, include: Sequence[str] = ("*",), exclude: Sequence[str] = (), **_options: object
) -> Iterator[tuple[str, str]]:
    """Return the files of the host that the engine is given; nearly by its rules for patterns."""
    root = Path(path)
    if root.is_file():
        yield f"file {root.name}", _content(root)
        return
    tops = {top for pattern in include for top in _matching(root, pattern)}
    found = {f for top in tops for f in ([top] if not top.is_dir() else top.rglob("*"))}
    for file in sorted(found)[:MOST_FILES]:
        name = file.relative_to(root).as_posix()
        parts = [*Path(name).parts, name]
        left_out = (p.removeprefix("**/") for p in exclude)
        if file.is_file() and not any(fnmatchcase(part, p) for p in left_out for part in parts):
            yield f"file {name}", _content(file)


def _matching(root: Path, pattern: str) -> Iterable[Path]:
    try:
        return list(root.glob(pattern.lstrip("/")))
    except ValueError:  # of `**.py`, which the engine knows
        names = (path.relative_to(root) for path in root.rglob("*"))
        return [root / name for name in names if fnmatchcase(name.as_posix(), pattern)]


def _content(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()[:16]
    except OSError as error:
        return error.strerror or "unreadable"
