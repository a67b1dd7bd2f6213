"""The engine built from package registries: images, a registry for them, and the container.

No pipeline notices: the CLI lies where the SDK looks for it, the engine's image and container
have the official names, and the base images come from a registry that the engine uses as its
mirror of Docker Hub.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import tomllib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import debian, docker, golang, place, screen, state, venv
from engine.errors import MachineError
from engine.steps import Step

if TYPE_CHECKING:
    from engine.steps import Log

REGISTRY = "penstock-registry"
ENGINE_VOLUME = "penstock-engine"
NEEDED_BYTES = 8_000_000_000
FIRST_PORT = 5000
PORTS = 20
PROGRAMS = {"dockerd": "docker.io", "mmdebstrap": "mmdebstrap"}
STANDARD_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
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


def images() -> dict[str, dict[str, Any]]:
    """Return the table of images."""
    return tomllib.loads((place.HERE / "images.toml").read_text())


def steps() -> list[Step]:
    """Return every step from nothing to a running engine, and the venv beside them."""
    stands = [name for name in images() if name != "engine"]
    others = [name for name in stands if name != "registry"]
    return [
        venv.step(),
        debian.packages_step(PROGRAMS),
        Step(
            "dockerd", "Docker daemon", lambda _: docker.start_daemon(), docker.is_alive, ("apt",)
        ),
        golang.engine_step(),
        _image_step("registry", needs=("dockerd",)),
        Step("registry", "Registry", _start_registry, _registry_runs, ("image-registry",)),
        *(_publish_step(name, needs=(f"image-{name}", "registry")) for name in stands),
        *(_image_step(name, needs=("dockerd",)) for name in ("engine", *others)),
        Step("cli", "Dagger's CLI", _place_cli, _has_cli, ("go-build",)),
        Step(
            "engine",
            "Engine",
            _start_engine,
            _engine_runs,
            ("image-engine", "go-build", "registry"),
        ),
    ]


def check_disk() -> None:
    """Raise when there is no room for a build."""
    place.home().mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place.home()).free
    if free < NEEDED_BYTES:
        message = f"building an engine needs {screen.size(NEEDED_BYTES)} and {place.home()} has "
        advice = "free some space there, or set XDG_CACHE_HOME to a folder on another disk"
        raise MachineError(message + screen.size(free), advice)


# Images


def _wanted(name: str) -> str:
    return place.digest(json.dumps(images()[name]), STANDARD_PATH, place.HERE / "files")


def _local(name: str) -> str:
    return f"penstock/{name}:built"


def _image_step(name: str, *, needs: tuple[str, ...]) -> Step:
    title = f"Image {name}, from Debian packages"
    return Step(
        f"image-{name}", title, partial(_make_image, name), partial(_has_image, name), needs
    )


def _has_image(name: str) -> bool:
    current = state.stamp(f"image-{name}") == _wanted(name)
    return current and docker.image_exists(_local(name))


def _make_image(name: str, log: Log) -> None:
    entry = images()[name]
    root = place.home() / "scratch" / f"{name}.tar"
    hooks = [
        f'install -D -m755 "{place.HERE / "files" / source}" "$1/{target}"'
        for source, target in entry.get("files", {}).items()
    ]
    debian.make_root(entry["packages"], [*hooks, *entry.get("hooks", ())], root, log)
    official = entry.get("references", ["the Dagger engine"])[0].removeprefix("library/")
    words = f"Debian stand-in for {official}, built by penstock"
    changes = (
        f'LABEL org.opencontainers.image.description="{words}"',
        f"ENV PATH={STANDARD_PATH}",
        *entry.get("changes", ()),
    )
    options = [word for change in changes for word in ("--change", change)]
    log.run(["docker", "import", *options, root, _local(name)])
    root.unlink()
    state.set_stamp(f"image-{name}", _wanted(name))


def _publish_step(name: str, *, needs: tuple[str, ...]) -> Step:
    title = f"Image {name}, into the registry"
    return Step(
        f"publish-{name}", title, partial(_publish, name), partial(_is_published, name), needs
    )


def _is_published(name: str) -> bool:
    return (
        state.stamp(f"publish-{name}") == _wanted(name)
        and _registry_runs()
        and all(_registry_has(reference) for reference in images()[name]["references"])
    )


def _publish(name: str, log: Log) -> None:
    for reference in images()[name]["references"]:
        pushed = f"localhost:{_port()}/{reference}"
        log.run(["docker", "tag", _local(name), pushed])
        log.run(["docker", "push", pushed])
        log.run(["docker", "rmi", pushed])
    state.set_stamp(f"publish-{name}", _wanted(name))


# Registry: a container with two listeners, loopback for us and Docker's bridge for the engine.


def _port() -> int:
    return int(state.read().get("registry_port", FIRST_PORT))


def registry_address() -> str:
    """Return where the engine reaches the registry."""
    return f"{docker.bridge_address()}:{_port()}"


def _registry_runs() -> bool:
    return docker.is_running(REGISTRY)


def _registry_has(reference: str) -> bool:
    name, _, tag = reference.rpartition(":")
    connection = http.client.HTTPConnection("127.0.0.1", _port(), timeout=docker.ASK_S)
    try:
        connection.request("HEAD", f"/v2/{name}/manifests/{tag}")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _start_registry(log: Log) -> None:
    if docker.exists(REGISTRY):
        try:
            log.run(["docker", "start", REGISTRY])
        except MachineError:
            log.run(["docker", "rm", "--force", REGISTRY])  # its port was taken meanwhile
        else:
            return
    addresses = ("127.0.0.1", docker.bridge_address())
    port = next((p for p in range(FIRST_PORT, FIRST_PORT + PORTS) if _is_free(p, addresses)), 0)
    if not port:
        message = f"the ports {FIRST_PORT} to {FIRST_PORT + PORTS - 1} are all taken"
        raise MachineError(message, "free one of them (`ss -ltnp` shows who has them)")
    published = [word for address in addresses for word in ("-p", f"{address}:{port}:5000")]
    log.run(
        [
            "docker",
            "run",
            "--detach",
            "--name",
            REGISTRY,
            "--volume",
            f"{REGISTRY}:/var/lib/registry",
            *published,
            _local("registry"),
        ]
    )
    state.remember(registry_port=port)


def _is_free(port: int, addresses: tuple[str, ...]) -> bool:
    for address in addresses:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


# Engine


def _has_cli() -> bool:
    """Return whether a CLI is there: somebody's own, or the one that was built last."""
    ours = state.read().get("made_cli")
    return place.cli().exists() and (not ours or state.stamp("cli") == state.stamp("go-build"))


def _place_cli(_log: Log) -> None:
    target = place.cli()
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy2(golang.binaries() / "dagger", beside)
    beside.replace(target)
    state.remember(made_cli=True)
    state.set_stamp("cli", state.stamp("go-build"))


def _config() -> str:
    """Return the engine's configuration.

    The cache is kept on disks that are fuller than 80 % too, where the engine's own defaults
    would empty it at every command.
    """
    address = registry_address()
    content = {
        "registries": {"docker.io": {"mirrors": [address]}, address: {"http": True}},
        "gc": {"maxUsedSpace": "20GB", "reservedSpace": "5GB", "minFreeSpace": "2GB"},
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
    _docker_quietly("rm", "--force", container())
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
    name = "penstock-assembly"
    _docker_quietly("rm", "--force", name)
    log.run(["docker", "create", "--name", name, _local("engine"), "true"])
    for program, target in programs.items():
        log.run(["docker", "cp", golang.binaries() / program, f"{name}:/usr/local/bin/{target}"])
    log.run(["docker", "cp", golang.binaries() / "dnsname", f"{name}:/opt/cni/bin/dnsname"])
    entrypoint = place.HERE / "files" / "engine-entrypoint.sh"
    log.run(["docker", "cp", entrypoint, f"{name}:/usr/local/bin/dagger-entrypoint.sh"])
    start = 'ENTRYPOINT ["tini", "--", "sh", "/usr/local/bin/dagger-entrypoint.sh"]'
    log.run(["docker", "commit", "--change", start, name, image()])
    log.run(["docker", "rm", name])


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
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        if value := os.environ.get(name) or os.environ.get(name.lower()):
            own = f",localhost,127.0.0.1,{docker.bridge_address()}" if name == "NO_PROXY" else ""
            options += ["--env", f"{name}={value}{own}"]
    return options


def _own_capabilities() -> list[str]:
    """Return the capabilities that this machine can give away at all."""
    lines = Path("/proc/self/status").read_text().splitlines()
    bound = int(next(line.split()[1] for line in lines if line.startswith("CapBnd")), 16)
    return [name for bit, name in enumerate(CAPABILITIES) if bound >> bit & 1]


def _docker_quietly(*words: str) -> None:
    """Run a Docker command whose failure means that there was nothing to do."""
    subprocess.run(["docker", *words], capture_output=True, check=False)


def stop() -> None:
    """Stop the engine and its registry; their data stays."""
    for name in (container(), REGISTRY):
        if docker.is_running(name):
            screen.say(f"  stopping {name}")
            _docker_quietly("stop", "--time", "10", name)


def remove() -> None:
    """Remove every container, volume and image that the steps made."""
    for name in (container(), REGISTRY, "penstock-assembly"):
        _docker_quietly("rm", "--force", "--volumes", name)
    for name in (ENGINE_VOLUME, REGISTRY):
        _docker_quietly("volume", "rm", "--force", name)
    for reference in (image(), *map(_local, images())):
        _docker_quietly("rmi", "--force", reference)
