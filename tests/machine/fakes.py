"""What stands in for Docker, package indexes and the machine's programs."""

from __future__ import annotations

import base64
import http.server
import json
import shlex
import socketserver
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.steps import Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.steps import Log

ROOT = Path(__file__).parents[2]


def step(name: str, line: str, *needs: str, done: bool = False, disk_bytes: int = 0) -> Step:
    """Return a step that runs a shell line."""

    def run(log: Log) -> None:
        log.run(["sh", "-c", line])

    return Step(name, name.title(), run, lambda: done, needs, disk_bytes=disk_bytes)


class Machine:
    """Programs that note how they are called."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "programs"
        self.programs.mkdir()
        self._calls = folder / "calls"

    def program(self, name: str, then: str = "") -> None:
        """Add a program: a shell script that notes its call and goes on as told."""
        note = f'echo "$(basename "$0") $*" >> {shlex.quote(str(self._calls))}'
        self.script(name, f"#!/bin/sh\n{note}\n{then}\n")

    def script(self, name: str, text: str) -> None:
        """Add a program of any kind."""
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def daemon(self, answers: dict[str, Any]) -> None:
        """Add a `dockerd` that gives these answers on the socket of the environment."""
        code = (
            f"#!{sys.executable}\n"
            f"import os, sys, time; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'ci')!r}]\n"
            "from pathlib import Path\n"
            "from tests.machine.fakes import fake_docker\n"
            f"with fake_docker(Path(os.environ['DOCKER_HOST'][7:]), {answers!r}): time.sleep(30)\n"
        )
        self.script("dockerd", code)

    @property
    def calls(self) -> list[str]:
        """How the programs were called."""
        return self._calls.read_text().splitlines() if self._calls.exists() else []


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def fake_docker(path: Path, answers: dict[str, Any]) -> Iterator[None]:
    """Serve a Docker daemon's answers on a Unix socket."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path)
            body = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

        def address_string(self) -> str:
            return "docker"

    with _Server(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


@contextmanager
def package_index(files: dict[str, bytes], *, login: str = "") -> Iterator[str]:
    """Serve files over HTTP on loopback, to those who know the login."""
    expected = f"Basic {base64.b64encode(login.encode()).decode()}" if login else None

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = files.get(self.path)
            may = self.headers.get("Authorization") == expected
            self.send_response(401 if not may else 404 if found is None else 200)
            self.end_headers()
            self.wfile.write(found if found and may else b"")

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
