"""Problems at a place, found in what tools print for people."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from typing import TYPE_CHECKING

from penstock.evidence import Finding
from penstock.reports.literal import ANSI, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_FINDINGS = 1_000
LONGEST_LINE = 2_000  # characters that are looked at

# Every pattern is anchored, and its parts cannot match the same character: they take linear time.
# `app/a.py:3:5: error: ...`, `app/a.py:3:5 - error: ...`; without a column, and without a severity
_PROBLEM = re.compile(
    r"(?P<file>[^\s:]{1,500}):(?P<line>\d{1,9})(?::(?P<column>\d{1,9}))?(?P<colon>: | - )"
    r"(?:(?:fatal )?(?P<severity>error|warning|note|information): +)?(?P<message>.+)"
)
# The same place below its message: ruff's full form, rustc
_ARROW = re.compile(r"-+> (?P<file>[^:]{1,500}):(?P<line>\d{1,9}):(?P<column>\d{1,9})$")
_HEADING = re.compile(
    r"(?:(?P<severity>error|warning|note|info)(?:\[(?P<code>[^\]]{1,100})\])?: +)?(?P<message>.+)"
)
_RULE = re.compile(r"(?:(?P<code>[A-Z]{1,7}\d{2,5}):?|(?P<word>[a-z-]{1,40}):) (?:\[\*\] )?(?=\S)")
# A clock or a host with a port is no place: a file has an extension or one of a few names.
_FILE = re.compile(r"(?:.*/)?(?:[^/]*\.[A-Za-z]\w*|\w*(?:Docker|Make)file)$")
_PYTHON = (".py", ".pyi", ".ipynb")


def problems(output: str, *, workdir: str = "") -> Iterator[Finding]:
    """Yield each problem in an output once, at most a thousand.

    Understood are ruff (full and concise), mypy, pyright and basedpyright, and the form of
    compilers, `file:line:column: error: message`.

    Args:
        output: What the tool printed.
        workdir: Where it ran: absolute paths below it become relative ones.
    """
    seen: set[Finding] = set()
    for finding in _all(output):
        placed = dataclasses.replace(finding, file=_relative(finding.file, workdir))
        if placed in seen or not placed.line or not _FILE.match(placed.file):
            continue
        seen.add(placed)
        yield placed
        if len(seen) == MOST_FINDINGS:
            return


def _all(output: str) -> Iterator[Finding]:
    heading = ""
    open_: Finding | None = None  # of pyright, which names the rule behind the last of more lines
    for line in _lines(output):
        words = line.strip()
        finding = _finding(words, heading)
        if open_ and (finding or not line[:4].isspace()):
            yield open_
            open_ = None
        if open_:
            open_ = _with_code(open_, words, keep=open_.message)
        elif finding and finding.tool == "pyright" and not finding.code:
            open_ = finding
        elif finding:
            yield finding
        heading = words
    if open_:
        yield open_


def _lines(output: str) -> Iterator[str]:
    start = 0
    while start < len(output):
        end = output.find("\n", start)
        end = len(output) if end < 0 else end
        line = output[start : min(end, start + LONGEST_LINE)]
        yield ANSI.sub("", line) if "\x1b" in line else line
        start = end + 1


def _finding(line: str, heading: str) -> Finding | None:
    """Return the problem of a line, if it tells of one; the heading is the line above."""
    if found := _ARROW.match(line):
        about = _HEADING.match(heading)
        return about and _ruled(found, about["message"], about["severity"], about["code"] or "")
    if not (found := _PROBLEM.match(line)):
        return None
    if not (severity := found["severity"]):
        rule = found["column"] and _RULE.match(found["message"])
        return _ruled(found, found["message"]) if rule else None
    tool = ""
    if found["file"].endswith(_PYTHON):
        tool = "pyright" if found["colon"] == " - " else "mypy"
    return _with_code(_made(found, found["message"], severity, tool), found["message"])


def _ruled(
    place: re.Match[str], message: str, severity: str | None = None, code: str = ""
) -> Finding:
    """Return a problem whose message begins with the rule, as ruff writes it."""
    tool = "ruff" if place["file"].endswith((*_PYTHON, ".toml")) else ""
    rule = None if code else _RULE.match(message)
    if rule:
        code, message = rule["code"] or rule["word"], message[rule.end() :]
    return dataclasses.replace(_made(place, message, severity or "error", tool), code=code)


def _with_code(finding: Finding, words: str, keep: str = "") -> Finding:
    """Return a problem with the rule that stands behind its message, `  [code]` or ` (code)`."""
    opening, closing = (" (report", ")") if finding.tool == "pyright" else ("  [", "]")
    message, opened, code = words.rpartition(opening)
    if not opened or not code.endswith(closing) or " " in code:
        return finding
    code = f"{opening.strip(' ([')}{code.removesuffix(closing)}"
    return dataclasses.replace(finding, message=keep or one_line(message), code=code)


def _made(place: re.Match[str], message: str, severity: str, tool: str) -> Finding:
    return Finding(
        file=place["file"],
        line=int(place["line"]),
        column=int(place["column"] or 0),
        message=one_line(message),
        tool=tool,
        is_error=severity == "error",
    )


def _relative(file: str, workdir: str) -> str:
    path = posixpath.normpath(file.replace("\\", "/"))
    return path.removeprefix(f"{workdir.rstrip('/')}/") if workdir else path
