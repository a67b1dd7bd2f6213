"""The engine built from package registries: its CLI, its container, and all that they need.

No pipeline notices: the CLI lies where the SDK looks for it, the engine's image and container
have the official names, and the base images come from a registry that the engine uses as its
mirror of Docker Hub.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from engine import debian, docker, golang, images, place, registry, screen, state, venv
from engine.errors import MachineError
from engine.steps import Step

if TYPE_CHECKING:
    from engine.steps import Log

ENGINE_VOLUME = "penstock-engine"
GC = {"maxUsedSpace": "20GB", "reservedSpace": "5GB", "minFreeSpace": "2GB"}
ASSEMBLY = "penstock-assembly"
PROGRAMS = {"dockerd": "docker.io", "mmdebstrap": "mmdebstrap"}
CERTIFICATES = Path("/usr/local/share/ca-certificates")
CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
]


def container() -> str:
    """Return the name under which the CLI looks for the engine's container."""
    return f"dagger-engine-v{place.dagger_version()}"


def image() -> str:
    """Return the engine's official image name."""
    return f"registry.dagger.io/engine:v{place.dagger_version()}"


def steps() -> list[Step]:
    """Return every step from nothing to a running engine, and the venv beside them."""
    stands = [name for name in images.table() if name != "engine"]
    others = [name for name in stands if name != "registry"]
    needs = ("image-engine", "go-build", "registry")
    return [
        venv.step(),
        debian.packages_step(_lacking()),
        docker.daemon_step(docker.is_alive),
        golang.engine_step(),
        images.step("registry"),
        registry.step(),
        *map(registry.publish_step, stands),
        *map(images.step, ("engine", *others)),
        Step("cli", "Dagger's CLI", _place_cli, _has_cli, ("go-build",)),
        Step("engine", "Engine", _start_engine, _engine_runs, needs, usual_s=3),
    ]


def _lacking() -> dict[str, str]:
    """Return what must be on PATH, and the package that has it; an answering daemon need not."""
    needless = "dockerd" if docker.is_alive() else ""
    return {name: package for name, package in PROGRAMS.items() if name != needless}


def _has_cli() -> bool:
    """Return whether a CLI is there: somebody's own, or the one that was built last."""
    ours = state.read().get("made_cli")
    return place.cli().exists() and (not ours or state.stamp("cli") == state.stamp("go-build"))


def _place_cli(_log: Log) -> None:
    target = place.cli()
    target.parent.mkdir(parents=True, exist_ok=True)
    state.remember(made_cli=True)
    shutil.copy2(golang.binaries() / "dagger", place.beside(target))
    place.beside(target).replace(target)
    state.set_stamp("cli", state.stamp("go-build"))


def _config() -> str:
    """Return the engine's configuration.

    The cache is kept on disks that are fuller than 80 % too, where the engine's own defaults
    would empty it at every command.
    """
    address = registry.address()
    content = {
        "registries": {"docker.io": {"mirrors": [address]}, address: {"http": True}},
        "gc": GC,
    }
    return json.dumps(content, indent=2)


def _engine_wanted() -> str:
    return place.digest(_config(), state.stamp("image-engine"), state.stamp("go-build"))


def _engine_runs() -> bool:
    return docker.is_running(container()) and state.stamp("engine") == _engine_wanted()


def _start_engine(log: Log) -> None:
    if docker.exists(container()) and state.stamp("engine") == _engine_wanted():
        log.run(["docker", "start", container()])
        return
    _assemble(log)
    configuration = place.home() / "engine.json"
    place.write_whole(configuration, _config())
    docker.run_quietly("rm", "--force", container())
    log.run(["docker", "create", "--name", container(), *_engine_options(configuration), image()])
    log.run(["docker", "start", container()])
    state.set_stamp("engine", _engine_wanted())


def _assemble(log: Log) -> None:
    """Put the engine's programs into its root, under the official name."""
    programs = {
        "engine": "dagger-engine",
        "init": "dagger-init",
        "dialstdio": "buildctl",
    }
    docker.run_quietly("rm", "--force", ASSEMBLY)
    log.run(["docker", "create", "--name", ASSEMBLY, images.local("engine"), "true"])
    for program, target in programs.items():
        log.run(
            ["docker", "cp", golang.binaries() / program, f"{ASSEMBLY}:/usr/local/bin/{target}"]
        )
    log.run(["docker", "cp", golang.binaries() / "dnsname", f"{ASSEMBLY}:/opt/cni/bin/dnsname"])
    entrypoint = place.HERE / "files" / "engine-entrypoint.sh"
    log.run(["docker", "cp", entrypoint, f"{ASSEMBLY}:/usr/local/bin/dagger-entrypoint.sh"])
    start = 'ENTRYPOINT ["tini", "--", "sh", "/usr/local/bin/dagger-entrypoint.sh"]'
    log.run(["docker", "commit", "--change", start, ASSEMBLY, image()])
    images.remember(image())
    log.run(["docker", "rm", ASSEMBLY])


def _engine_options(configuration: Path) -> list[str]:
    """Return how the container is created.

    Not `--privileged`: that asks for every capability there is, and fails on machines that have
    been given all but one.
    """
    options = ["--volume", f"{ENGINE_VOLUME}:/var/lib/dagger"]
    options += ["--volume", f"{configuration}:/etc/dagger/engine.json:ro"]
    options += ["--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw"]
    options += ["--cap-drop", "ALL"]
    options += [word for name in _own_capabilities() for word in ("--cap-add", name)]
    for profile in ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"):
        options += ["--security-opt", profile]
    options += ["--device-cgroup-rule", "a *:* rwm"]
    if CERTIFICATES.is_dir() and any(CERTIFICATES.iterdir()):
        options += ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
    return options + [word for pair in _proxies() for word in ("--env", pair)]


def _proxies() -> list[str]:
    """Return the proxies of this machine, never asked for the engine's own registry."""
    found = {
        name: os.environ.get(name) or os.environ.get(name.lower())
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    }
    if not found["HTTP_PROXY"] and not found["HTTPS_PROXY"]:
        return []
    own = ("localhost", "127.0.0.1", docker.bridge_address())
    found["NO_PROXY"] = ",".join(filter(None, (found["NO_PROXY"], *own)))
    return [f"{name}={value}" for name, value in found.items() if value]


def _own_capabilities() -> list[str]:
    """Return the capabilities that this machine can give away at all."""
    lines = Path("/proc/self/status").read_text().splitlines()
    bound = int(next(line.split()[1] for line in lines if line.startswith("CapBnd")), 16)
    return [name for bit, name in enumerate(CAPABILITIES) if bound >> bit & 1]


def stop() -> None:
    """Stop the engine and its registry; their data stays."""
    for name in (container(), registry.NAME):
        if docker.is_running(name):
            screen.say(f"  stopping {name}")
            docker.run_quietly("stop", "--time", "10", name)


def remove() -> None:
    """Remove every container, volume and image that the steps made.

    Raises:
        MachineError: When Docker is needed for that and cannot be started, or keeps something.
    """
    if not docker.is_alive():
        if not _has_begun():
            return
        docker.start_daemon()
    containers = (container(), registry.NAME, ASSEMBLY)
    volumes = (ENGINE_VOLUME, registry.NAME)
    current = map(docker.image_id, (image(), *map(images.local, images.table())))
    older = reversed(state.read().get("images", {}))  # what was made from another comes first
    found = dict.fromkeys(filter(docker.image_exists, filter(None, (*current, *older))))
    for name in containers:
        docker.run_quietly("rm", "--force", "--volumes", name)
    for name in volumes:
        docker.run_quietly("volume", "rm", "--force", name)
    for name in found:
        docker.run_quietly("rmi", "--force", name)
    left = [
        *filter(docker.exists, containers),
        *filter(docker.volume_exists, volumes),
        *filter(docker.image_exists, found),
    ]
    if left:
        message = f"Docker keeps {', '.join(left)}"
        advice = "`docker rm -f`, `docker volume rm` or `docker rmi -f` says why; run this again"
        raise MachineError(message, advice)


def _has_begun() -> bool:
    """Return whether a step ever put something into Docker; its log is there from its start."""
    logs = place.home() / "logs"
    official = shutil.which("docker") and (logs / "official.log").exists()
    return bool(official) or any(logs.glob("image-*.log"))
