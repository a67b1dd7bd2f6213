"""Fetches what a bare machine lacks from the package index, by the hashes of the lock file."""

from __future__ import annotations

import base64
import hashlib
import html
import http.client
import os
import platform
import re
import shutil
import threading
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from configparser import ConfigParser, Error
from pathlib import Path
from typing import TYPE_CHECKING

from engine import place
from engine.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 60
INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
_unpacking = threading.Lock()
NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
)


def unpacked(name: str) -> Path:
    """Return the folder of a locked wheel, fetched and unpacked if it is not there.

    Steps run side by side, and two of them may want the same one.

    Raises:
        MachineError: When there is no wheel for this machine, it cannot be fetched, or its hash
            is not the locked one.
    """
    with _unpacking:
        return _unpacked(name)


def _unpacked(name: str) -> Path:
    entry = place.locked(name)
    folder = place.home() / "wheels" / f"{name}-{entry['version']}"
    if folder.exists():
        return folder
    wheel = _for_this_machine(name, entry["wheels"])
    file = _fetch(name, wheel)
    beside = place.beside(folder)
    shutil.rmtree(beside, ignore_errors=True)
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            target = Path(archive.extract(member, beside))
            if mode := member.external_attr >> 16 & 0o777:
                target.chmod(mode | 0o600)
    file.unlink()
    beside.rename(folder)
    return folder


def _for_this_machine(name: str, wheels: list[dict[str, str]]) -> dict[str, str]:
    machine = platform.machine()
    pattern = re.compile(rf"manylinux[^-]*_{machine}\.whl$|-any\.whl$")
    for wheel in wheels:
        if pattern.search(wheel["url"]):
            return wheel
    message = f"the lock file has no wheel of {name} for Linux on {machine}"
    raise MachineError(message, "use a machine with an x86_64 or aarch64 processor")


def _fetch(name: str, wheel: Mapping[str, str]) -> Path:
    url = _from_own_index(name, wheel["url"]) or wheel["url"]
    host = urllib.parse.urlsplit(url).hostname
    target = place.home() / "wheels" / f"{name}.whl"
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    try:
        with _open(url) as answer, target.open("wb") as file:
            while block := answer.read(1 << 20):
                digest.update(block)
                file.write(block)
    except NETWORK_ERRORS as error:
        advice = "check the network, HTTPS_PROXY, ca-certificates, or set UV_DEFAULT_INDEX"
        message = f"cannot fetch {name} from the package index at {host}: {_reason(error)}"
        raise MachineError(message, advice) from error
    if f"sha256:{digest.hexdigest()}" != wheel["hash"]:
        target.unlink()
        message = f"what {host} sent as {name} does not have the hash of the lock file"
        raise MachineError(message, "do not use that index; tell whoever runs it")
    return target


def _open(url: str) -> http.client.HTTPResponse:
    """Open a URL; what stands before its `@` is sent as a header, to that host only."""
    parts = urllib.parse.urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl())  # noqa: S310 - https or the user's own
    if login:
        encoded = base64.b64encode(urllib.parse.unquote_to_bytes(login)).decode()
        request.add_unredirected_header("Authorization", f"Basic {encoded}")
    answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310 - as above
    return answer


def _reason(error: Exception) -> object:
    return getattr(error, "reason", error)


def own_index() -> str:
    """Return the package index that the user's environment names, or an empty string."""
    named = next((os.environ[v] for v in INDEX_VARIABLES if os.environ.get(v)), _pip_index())
    return re.sub(r"^[\w-]+=", "", named)  # uv's `name=url`


def _from_own_index(name: str, url: str) -> str:
    """Return where the user's own index keeps the file, or an empty string without one."""
    index = own_index()
    if not index:
        return ""
    page = f"{index.rstrip('/')}/{name}/"
    file = url.rpartition("/")[2]
    try:
        with _open(page) as answer:
            links = re.findall(r'href="([^"]+)"', answer.read().decode())
    except NETWORK_ERRORS as error:
        message = f"cannot read the package index {without_login(page)}: {_reason(error)}"
        raise MachineError(message, "check the index that your environment names") from error
    found = [html.unescape(link) for link in links if file in link]
    return _with_login_of(page, urllib.parse.urljoin(page, found[0])) if found else ""


def _with_login_of(page: str, link: str) -> str:
    """Return a link with the page's login if both are on one host."""
    there = urllib.parse.urlsplit(page)
    ours = there.netloc.rpartition("@")[2] == urllib.parse.urlsplit(link).netloc
    return urllib.parse.urlsplit(link)._replace(netloc=there.netloc).geturl() if ours else link


def _pip_index() -> str:
    config = ConfigParser(interpolation=None)
    try:
        config.read(["/etc/pip.conf", Path("~/.config/pip/pip.conf").expanduser()])
    except Error:
        return ""
    return config.get("global", "index-url", fallback="")


def without_login(url: str) -> str:
    """Return a URL that can be shown."""
    return re.sub(r"//[^/@]*@", "//", url)
