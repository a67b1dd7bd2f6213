"""An engine for tests that hurt it: made like the one that runs here, with a cache of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.built import GC
from engine.docker import bridge_address

NAME = os.environ.get("HURT_ENGINE", "penstock-hurt-engine")
READY_S = 60.0
MIRRORED = "mirrored.invalid"  # reached by the mirror only, as Docker Hub is from many a network
# As our engine's own, for a disk of some hundred MB.
SMALL_GC = {"maxUsedSpace": "450MB", "reservedSpace": "50MB", "minFreeSpace": "20MB"}


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass
class OwnEngine:
    """A second engine; whoever hurts it leaves it to `ready()` to mend."""

    name: str = NAME
    disk: str = ""
    """Of its cache, as `350m`, in memory; by default all that there is."""
    most: str = ""
    """That its cache may take, as `900MB`; by default as much as our own engine's."""
    shares: str = ""
    """The registry of another engine, to speak plain HTTP to that one."""

    @property
    def url(self) -> str:
        return f"container://{self.name}"

    def make(self) -> None:
        """Create it beside the engine that runs, from the same image and with the same rights."""
        docker("rm", "--force", "--volumes", self.name) if self.exists() else None
        names = docker("ps", "--all", "--format", "{{.Names}}").split()
        (model,) = [name for name in names if name.startswith("dagger-engine-")]
        facts: dict[str, Any] = json.loads(docker("inspect", model))[0]
        host = facts["HostConfig"]
        options = ["--privileged"] if host["Privileged"] else []
        for bind in host["Binds"] or ():
            is_own = ":/var/lib/dagger" in bind or ":/etc/dagger" in bind
            options += [] if is_own else ["--volume", bind]
        options += ["--volume", f"{self._cache()}/var/lib/dagger"]
        options += [word for name in host["CapDrop"] or () for word in ("--cap-drop", name)]
        options += [word for name in host["CapAdd"] or () for word in ("--cap-add", name)]
        options += [word for rule in host["SecurityOpt"] or () for word in ("--security-opt", rule)]
        # `systempaths=unconfined` is not told as an option, but as what it leads to.
        options += [] if host["MaskedPaths"] else ["--security-opt", "systempaths=unconfined"]
        options += [w for r in host["DeviceCgroupRules"] or () for w in ("--device-cgroup-rule", r)]
        options += [word for pair in facts["Config"]["Env"] for word in ("--env", pair)]
        address = bridge_address()
        registry = self.shares or f"{address}:{_free_port(address)}"
        options += ["--label", f"registry={registry}"]
        docker("create", "--name", self.name, *options, facts["Config"]["Image"])
        self._configure(model, registry)

    @property
    def registry(self) -> str:
        """Where it speaks plain HTTP to a registry, whoever listens there."""
        return docker("inspect", "--format", '{{index .Config.Labels "registry"}}', self.name)

    def _configure(self, model: str, registry: str) -> None:
        words = ["docker", "exec", model, "cat", "/etc/dagger/engine.json"]
        found = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        content: dict[str, Any] = json.loads(found or "{}")
        content.setdefault("registries", {})[registry] = {"http": True}
        content["registries"][MIRRORED] = {"mirrors": [registry]}
        content["gc"] = SMALL_GC if self.disk else GC
        if self.most:
            content["gc"] = {"maxUsedSpace": self.most, "reservedSpace": "50MB"}
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "dagger").mkdir(mode=0o755)
            (Path(folder) / "dagger/engine.json").write_text(json.dumps(content))
            docker("cp", f"{folder}/dagger", f"{self.name}:/etc/")

    def _cache(self) -> str:
        """Return the volume of its cache, as the beginning of an option."""
        if not self.disk:
            return ""
        in_memory = ["type=tmpfs", "device=tmpfs", f"o=size={self.disk}"]
        options = [word for option in in_memory for word in ("--opt", option)]
        return docker("volume", "create", *options, self.name) + ":"

    def exists(self) -> bool:
        return self.name in docker("ps", "--all", "--format", "{{.Names}}").split()

    def state(self) -> str:
        return docker("inspect", "--format", "{{.State.Status}}", self.name)

    def ready(self) -> None:
        """Have it running, whatever was done to it, and answering."""
        if not self.exists():
            self.make()
        match self.state():
            case "paused":
                docker("unpause", self.name)
            case "running":
                pass
            case _:
                docker("start", self.name)
        end = time.monotonic() + READY_S
        while "/run/dagger/engine.sock" not in self.sockets():
            assert time.monotonic() < end, docker("logs", "--tail", "20", self.name)
            time.sleep(0.1)

    def sockets(self) -> str:
        words = ["docker", "exec", self.name, "cat", "/proc/net/unix"]
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout

    def kill(self) -> None:
        docker("kill", "--signal", "KILL", self.name)

    def restart(self) -> None:
        docker("restart", "--time", "20", self.name)
        self.ready()

    def pause(self) -> None:
        docker("pause", self.name)

    def processes(self) -> str:
        return docker("exec", self.name, "ps", "-eo", "args")

    def remove(self) -> None:
        if self.exists():
            if self.state() == "paused":
                docker("unpause", self.name)
            docker("rm", "--force", "--volumes", self.name)
        if self.disk:
            docker("volume", "rm", "--force", self.name)


def _free_port(address: str) -> int:
    """Return a port below those that the system gives to whoever asks for any."""
    for port in range(15100, 15200):
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return port
    raise AssertionError(address)
