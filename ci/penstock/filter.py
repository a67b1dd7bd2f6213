"""Masking inside the container: what a command prints is masked before the engine hears of it.

The engine itself replaces plain values only. Whatever else stands in a command's output stays in its
cache, goes to whoever follows the session, and is on the screen of `dagger run`. So the output of a
stage with secrets goes through `sed` there, which knows all their forms that fit on a line, and
holds a line whole, however long it is.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from penstock.redact import MASK, Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable

SCRIPT = "/tmp/.penstock-mask"  # noqa: S108 - inside the container
PIPE = "/tmp/.penstock-pipe"  # noqa: S108 - inside the container
MOST_SCRIPT = 400_000  # bytes; the engine takes no secret above 500 kB
DRAIN_S = 3  # for what is still in the pipes, when a child that stays keeps them open
_SPECIAL = re.compile(r"[\\.*\[^$/]")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")

# Takes the command as its arguments, as the wrapper without secrets does, and ends with its code.
# GNU's sed writes line by line only if told so, and is 17 times as fast when the C library is told
# (`stdbuf`); busybox knows neither and needs none. Where nothing masks, nothing is shown. One `sed`
# takes both streams: two would lose the order in which they were written.
RUN_FILTERED = (
    'for penstock_sed in "stdbuf -oL sed" "sed -u" sed ""; do '
    f'[ "$(echo a | $penstock_sed -f {SCRIPT} 2>/dev/null)" = a ] && break; done; '
    'penstock_limit="timeout -s INT -k 5 $penstock_deadline"; '
    f'if [ ! "$penstock_sed" ] || ! mkfifo -m 600 {PIPE} 2>/dev/null; then '
    'echo "[not shown: a stage has secrets, and its image no sed and /tmp to mask them]"; '
    'exec $penstock_limit "$@" >/dev/null 2>&1; fi; '
    f"LC_ALL=C $penstock_sed -f {SCRIPT} <{PIPE} & penstock_1=$!; "
    f"exec 8>{PIPE} 2>/dev/null; rm {PIPE}; "
    '(exec >&8 2>&8 8>&- $penstock_limit "$@"); code=$?; exec 8>&-; '
    f"{{ sleep {DRAIN_S}; kill $penstock_1; }} >/dev/null 2>&1 & wait $penstock_1; exit $code"
)


def script(values: Iterable[str]) -> str:
    """Return the script for `sed` that masks some secrets; empty when there is nothing to mask.

    Longest forms first, as shorter ones may lie within them. Forms that would make it longer than
    the engine bears are left out, the longest first: those are masked in our own outputs only.
    """
    redactor = Redactor()
    for value in values:
        redactor.add(value)
    lines: list[str] = []
    size = 0
    for needle in sorted(redactor.needles, key=lambda needle: (len(needle), needle)):
        pattern = _NO_TEXT.sub(".", _SPECIAL.sub(r"\\\g<0>", needle))
        line = f"s/{pattern}/{MASK}/g\n"
        size += len(line.encode())
        if size > MOST_SCRIPT:
            break
        lines.append("" if "\n" in needle else line)
    return "".join(reversed(lines))
