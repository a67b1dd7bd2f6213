"""Fetches what a bare machine lacks from the package index, by the hashes of the lock file."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
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


def unpacked(name: str) -> Path:
    """Return the folder of a locked wheel, fetched and unpacked if it is not there.

    Raises:
        MachineError: When there is no wheel for this machine, it cannot be fetched, or its hash
            is not the locked one.
    """
    entry = place.locked(name)
    folder = place.home() / "wheels" / f"{name}-{entry['version']}"
    if folder.exists():
        return folder
    wheel = _for_this_machine(name, entry["wheels"])
    file = _fetch(name, wheel)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
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
    raise MachineError(message, f"install {name} by hand and put it on PATH")


def _fetch(name: str, wheel: Mapping[str, str]) -> Path:
    url = _from_own_index(name, wheel["url"]) or wheel["url"]
    host = urllib.parse.urlsplit(url).hostname
    target = place.home() / "wheels" / f"{name}.{os.getpid()}.whl"
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    try:
        with (
            urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer,  # noqa: S310 - from the lock
            target.open("wb") as file,
        ):
            while block := answer.read(1 << 20):
                digest.update(block)
                file.write(block)
    except urllib.error.URLError as error:
        advice = "check the network, HTTPS_PROXY, ca-certificates, or set UV_DEFAULT_INDEX"
        message = f"cannot fetch {name} from the package index at {host}: {error.reason}"
        raise MachineError(message, advice) from error
    if f"sha256:{digest.hexdigest()}" != wheel["hash"]:
        target.unlink()
        message = f"what {host} sent as {name} does not have the hash of the lock file"
        raise MachineError(message, "do not use that index; tell whoever runs it")
    return target


def _from_own_index(name: str, url: str) -> str:
    """Return where the user's own index keeps the file, or an empty string without one."""
    index = next((os.environ[v] for v in INDEX_VARIABLES if os.environ.get(v)), _pip_index())
    if not index:
        return ""
    page = f"{index.rstrip('/')}/{name}/"
    file = url.rpartition("/")[2]
    try:
        with urllib.request.urlopen(page, timeout=TIMEOUT_S) as answer:  # noqa: S310 - the user's own
            links = re.findall(r'href="([^"]+)"', answer.read().decode())
    except urllib.error.URLError as error:
        message = f"cannot read the package index {_without_password(page)}: {error.reason}"
        raise MachineError(message, "check the index that your environment names") from error
    found = [link for link in links if file in link]
    return urllib.parse.urljoin(page, found[0]) if found else ""


def _pip_index() -> str:
    config = ConfigParser(interpolation=None)
    try:
        config.read(["/etc/pip.conf", Path("~/.config/pip/pip.conf").expanduser()])
    except Error:
        return ""
    return config.get("global", "index-url", fallback="")


def _without_password(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//", url)
