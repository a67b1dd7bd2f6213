"""What may be printed where: colours, widths, and untrusted text that cannot act."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
from typing import TYPE_CHECKING, Literal, NoReturn

from rich.cells import cell_len, set_cell_size
from rich.console import Console

from penstock.config import is_set
from penstock.reports.literal import ANSI

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import IO, TextIO

logger = logging.getLogger(__name__)

Color = Literal["auto", "always", "never"]

# Controls, separators, what reorders or hides text, halves of characters: all but the tab.
_UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


def printable(text: str) -> str:
    r"""Return one line of untrusted text so that a terminal shows it and does nothing else.

    Example:
        >>> print(printable("\x1b[31mred\x1b[0m \x1b[2J \u202eabc\r\n"))
        red  \u202eabc\r\n
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), ANSI.sub("", text))


def is_colored(color: Color, environ: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Return whether to use colours: the option, then the usual variables, then the terminal."""
    if color != "auto":
        return color == "always"
    if environ.get("NO_COLOR"):
        return False
    if is_set(environ.get("FORCE_COLOR", "")):
        return True
    return is_terminal and environ.get("TERM") != "dumb"


def is_watched(environ: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Return whether someone looks at a terminal on which lines can be drawn again."""
    return is_terminal and environ.get("TERM") != "dumb" and not is_set(environ.get("CI", ""))


class Terminal(Console):
    """rich's console, told what it may do and with the ends of streams left to us.

    Args:
        stream: Where it writes; what its encoding does not have is escaped.
        colored: Whether it uses colours: the sixteen that every terminal has.
        live: Whether lines are drawn again.
        environ: For the size of the terminal.
    """

    def __init__(
        self, stream: TextIO, *, colored: bool, live: bool, environ: Mapping[str, str]
    ) -> None:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
        self.is_live = live
        self.is_bounded = live or stream.isatty()
        self.knows_unicode = (getattr(stream, "encoding", None) or "").lower().startswith("utf")
        self.yes, self.no, self.ellipsis = (
            (" ✓", " ✗", "…") if self.knows_unicode else ("", "", "...")
        )
        super().__init__(
            file=stream,
            force_terminal=live,
            force_interactive=live,
            color_system="standard" if colored else None,
            no_color=not colored,
            highlight=False,
            soft_wrap=True,
            emoji=False,
            legacy_windows=False,
            _environ={n: v for n, v in environ.items() if n != "COLUMNS" or v.strip("0")},
        )

    def printable(self, text: str) -> str:
        """Return one line of untrusted text as this terminal shows it, and harmless."""
        safe = printable(text)
        if self.knows_unicode:
            return safe
        return safe.encode(self.encoding, "backslashreplace").decode(self.encoding)

    def glimpse(self, text: str, cells: int) -> str:
        """Return the beginning of an untrusted line of any length, for a place of that many cells."""
        if cells <= 0:
            return ""
        # More has no place, however many combining characters and colours there are.
        shown = " ".join(self.printable(text[: 10 * cells + 200]).split())
        if cell_len(shown) <= cells:
            return shown
        room = cells - len(self.ellipsis)
        return set_cell_size(shown, room).rstrip() + self.ellipsis if room > 0 else ""

    def on_broken_pipe(self) -> NoReturn:
        """Leave it to whoever prints; rich itself would end the process."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def show_cursor(self, show: bool = True) -> bool:  # noqa: FBT002 - as rich has it
        """Never hide it: a process that is killed could not show it again."""
        del show
        return False


def abandon(stream: IO[str], error: OSError) -> None:
    """Print nothing any more: the reader has gone or the disk is full, and the run goes on."""
    # What is still buffered would fail once more when Python ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if not isinstance(error, BrokenPipeError):
        logger.warning("WARNING: cannot print any more (%s); the run goes on", error.strerror)
