"""What the engine's complaints mean: in plain words, and whether asking again may help."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.errors import plain_words

if TYPE_CHECKING:
    from penstock.model import Fault

# The last one is what the engine makes of an exit code that it had no room to write down.
FULL = re.compile(
    r"no space left on device|disk quota exceeded|could not parse exit code \"\"", re.IGNORECASE
)
FULL_DISK = (
    "the engine's disk is full; empty its cache (`dagger core engine local-cache prune`, or "
    "`python3 -m ci engine prune` where there is one), or enlarge the disk"
)
# What nobody but a registry's client says: an author's own words, or the engine's of a file, may
# hold an address with `/v2/` or a copy that failed, too.
_REGISTRY = re.compile(
    r"https?://[^\s/\"]+/v2/[^\s\"]+/(?:manifests|blobs)/|resolve image |failed commit on ref"
    r"|(?:pull|push) access denied, repository|httpReadSeeker"
)
_NO_NAME = re.compile(r"invalid reference|failed parsing")
_OF_A_PUSH = re.compile(rf"{_NO_NAME.pattern}|short read: expected")
_PULLED = re.compile(r"resolve image \"([^\"]+)\"")
_HOST = re.compile(r"https?://(?:[^\s/@\"]*@)?([^\s/\"]+)/v2/")
_STATUS = re.compile(r"unexpected status[^\n]*?: (?P<code>\d{3}) (?P<words>[A-Z][A-Za-z ]+)")
_PASSING = {"408", "425", "429"}  # and all from 500 on
_ACCESS = "see to the name and to who may do that (`REGISTRY_USER`, `REGISTRY_TOKEN`, or a login)"
# What a registry, or the way to it, ends with: a reason in words, and the next step where asking
# again is in vain.
_ENDS: tuple[tuple[str, str, str], ...] = (
    (r"connection refused", "nobody listens there", ""),
    (r"connection reset by peer|broken pipe", "the connection broke", ""),
    (r"i/o timeout|deadline exceeded|handshake timeout|timed out", "it did not answer in time", ""),
    (r"server misbehaving|temporary failure in name", "its name could not be looked up", ""),
    (r"network is unreachable|no route to host", "it cannot be reached from the engine", ""),
    (r"\bEOF\b|short read: expected", "the connection ended half way", ""),
    (r"no such host", "nobody knows its name", "see to its spelling"),
    (
        r"HTTP response to HTTPS client",
        "it speaks plain HTTP",
        'say so in the engine\'s configuration (`"http": true`)',
    ),
    (
        r"x509:|certificate",
        "its certificate is not trusted",
        "give the engine the authority's certificate",
    ),
    (
        r"access denied|authorization failed|unauthorized|authentication required|denied",
        "it refuses access",
        _ACCESS,
    ),
    (r"not found|unknown", "it has no such image", "see to the name and the tag"),
    (_NO_NAME.pattern, "that is no name of an image", "see to the name and the tag"),
)
_IN_VAIN = (
    "not found",
    "no such file",
    "unauthorized",
    "denied",
    "forbidden",
    "invalid reference",
    "cannot query field",
)


@dataclass(frozen=True)
class Cause:
    """Why the engine could not go on.

    Args:
        words: For people, with the next step where there is one.
        fault: The class by which a stage may be tried again; `None` where that is in vain.
    """

    words: str
    fault: Fault | None


def cause(text: str, pushed: str = "") -> Cause:
    """Return what an error of the engine comes from.

    Args:
        text: All that it says.
        pushed: The reference that was being pushed, which the engine often does not name.

    Example:
        >>> cause('resolve image "host/x:1": connect: connection refused').words
        'cannot pull host/x:1: registry host: nobody listens there (connection refused)'
    """
    if FULL.search(text):
        return Cause(FULL_DISK, None)
    words = plain_words(text)
    if _REGISTRY.search(text) or (pushed and _OF_A_PUSH.search(text)):
        return _of_registry(text, words, pushed)
    is_in_vain = any(final in text.lower() for final in _IN_VAIN)
    return Cause(words, None if is_in_vain else "engine")


def _of_registry(text: str, words: str, pushed: str) -> Cause:
    pulled = _PULLED.search(text)
    reference = pushed or (pulled[1] if pulled else "")
    asked = _HOST.search(text)
    host = asked[1] if asked else reference.partition("/")[0] if "/" in reference else ""
    what = f"cannot {'push' if pushed else 'pull'} {reference}: " if reference else ""
    where = f"{what}registry {host}: " if host else what
    if answered := _STATUS.search(text):
        code, said = answered["code"], f"{answered['code']} {answered['words'].strip()}"
        if code in _PASSING or code >= "500":
            return Cause(f"{where}it answers {said}", "registry")
        return Cause(f"{where}it answers {said}; {_ACCESS}", None)
    for pattern, reason, step in _ENDS:
        if found := re.search(pattern, text):
            told = f"{where}{reason} ({found[0]})"
            return Cause(f"{told}; {step}", None) if step else Cause(told, "registry")
    return Cause(words, "registry")
