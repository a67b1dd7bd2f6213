"""Nobody beyond this machine can connect to what a run, or the engine room, has started."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.docker import bridge_address
from tests.engine.own import docker

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.conftest import Project

pytestmark = pytest.mark.engine

LISTENS, UNCONNECTED = "0A", "07"
REGISTRY = "penstock-registry"
STATE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock/state.json"


def tree(pid: int) -> set[int]:
    """Return a process and all below it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it ended meanwhile
        children.setdefault(parent, []).append(int(folder.name))
    found, queue = set(), [pid]
    while queue:
        found.add(one := queue.pop())
        queue += children.get(one, [])
    return found


def sockets(pids: set[int]) -> set[str]:
    """Return the inodes of the sockets that some processes hold."""
    held = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                held.add(str(link.readlink()))
            except OSError:
                continue
    return {name.removeprefix("socket:[").removesuffix("]") for name in held if "socket:" in name}


def listeners(pids: set[int]) -> Iterator[tuple[str, str]]:
    """Yield protocol and address of whatever takes connections, or datagrams, of anybody."""
    held = sockets(pids)
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{protocol}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == (LISTENS if "tcp" in protocol else UNCONNECTED) and rest[5] in held:
                # Words of four bytes, each in the order of this machine.
                raw = bytes.fromhex(local.partition(":")[0])
                words = [raw[at : at + 4][::-1] for at in range(0, len(raw), 4)]
                yield protocol, str(ipaddress.ip_address(b"".join(words)))


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def test_a_run_listens_on_the_loopback_only(project: Project) -> None:
    """Our process and the session of Dagger's CLI, while a stage with a service runs."""
    project.write("""
@pipeline.service
def web(python) -> Service:
    return Service(container=python, port=8000, args=["python", "-m", "http.server", "8000"])

@pipeline.stage
def slow(python, web: Service) -> Command:
    return Command(python, "echo begun; sleep 3", shell=True, services=[web])
""")
    child = project.start("-v")
    events = project.folder / "reports/events.jsonl"
    seen: set[tuple[str, str]] = set()
    while child.poll() is None:
        if events.exists() and "begun" in events.read_text():
            seen |= set(listeners(tree(child.pid)))
        time.sleep(0.05)
    out, _ = child.communicate()
    assert child.returncode == 0, out
    assert seen  # the session's own port at least
    assert [found for found in seen if not is_loopback(found[1])] == []


def test_the_engine_room_listens_where_containers_need_it_and_nowhere_else() -> None:
    """Its registry is there for the engine on Docker's bridge; its daemon takes no connections."""
    if not STATE.exists():
        pytest.skip("this machine's engine is not ours: nothing was started")
    allowed = {"127.0.0.1", "::1", bridge_address()}
    if REGISTRY in docker("ps", "--format", "{{.Names}}").split():
        (facts,) = json.loads(docker("inspect", REGISTRY))
        ports = [b["HostIp"] for bound in facts["NetworkSettings"]["Ports"].values() for b in bound]
        assert ports
        assert set(ports) <= allowed
    daemon = json.loads(STATE.read_text()).get("dockerd_pid")
    if daemon and Path(f"/proc/{daemon}").exists():
        # Not what is below it: those listen for containers, also for somebody else's.
        assert {address for _, address in listeners({daemon})} <= allowed
