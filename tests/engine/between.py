"""A real registry behind a proxy that refuses, answers for it, dawdles and cuts, as it is told."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import re
import socket
import tarfile
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.engine.own import NAME, docker

if TYPE_CHECKING:
    from collections.abc import Iterator

REGISTRY = f"{NAME}-registry"
MANIFESTS = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
]
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}
PIECE = 1 << 16


@dataclass
class Fault:
    """What becomes of the next requests of a kind.

    Args:
        to: Matches `METHOD /path`.
        times: How many of them.
        status: The answer, in place of the registry's; 0 leaves that to the registry.
        headers: Of the answer.
        cut_after: Bytes of the request's body after which the connection breaks.
        cut_answer_after: Bytes of the answer's body after which it breaks.
        wait_s: Seconds before it goes on.
    """

    to: str
    times: int = 1 << 30
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    cut_answer_after: int | None = None
    wait_s: float = 0.0


class Between:
    """A proxy before a registry.

    Args:
        address: Where it listens, as `host:port`.
        upstream: The port of the registry on the loopback.
    """

    def __init__(self, address: str, upstream: int) -> None:
        self.address = address
        self.upstream = upstream
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str]] = []
        self._server: ThreadingHTTPServer | None = None

    def up(self) -> None:
        """Listen."""
        host, _, port = self.address.partition(":")
        self._server = _Server((host, int(port)), self)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def ask(self, path: str) -> tuple[int, bytes]:
        """Ask the registry itself."""
        status, content, _ = _exchange(self.upstream, "GET", path, Accept=", ".join(MANIFESTS))
        return status, content

    def put(self, repository: str, tag: str, layer: bytes) -> None:
        """Put an image of one layer into the registry itself, past every engine."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            entry = tarfile.TarInfo("layer")
            entry.size = len(layer)
            archive.addfile(entry, io.BytesIO(layer))
        diff = f"sha256:{hashlib.sha256(gzip.decompress(packed.getvalue())).hexdigest()}"
        config = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [diff]},
        }
        kind = "application/vnd.oci.image"
        parts = [
            (json.dumps(config).encode(), f"{kind}.config.v1+json"),
            (packed.getvalue(), f"{kind}.layer.v1.tar+gzip"),
        ]
        told = []
        for content, media in parts:
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
            told.append({"mediaType": media, "digest": digest, "size": len(content)})
            location = self._send("POST", f"/v2/{repository}/blobs/uploads/", b"")
            mark = "&" if "?" in location else "?"
            self._send("PUT", f"{location}{mark}digest={digest}", content)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFESTS[1],
            "config": told[0],
            "layers": told[1:],
        }
        self._send("PUT", f"/v2/{repository}/manifests/{tag}", json.dumps(manifest).encode())

    def _send(self, method: str, path: str, content: bytes) -> str:
        kind = MANIFESTS[1] if "/manifests/" in path else "application/octet-stream"
        headers = {"Content-Type": kind}
        status, said, location = _exchange(self.upstream, method, path, content, **headers)
        assert status < HTTPStatus.BAD_REQUEST, said
        return location.removeprefix(f"http://127.0.0.1:{self.upstream}")

    def whole(self, repository: str, tag: str) -> list[str]:
        """Return the digests of all that a tag leads to, each read and found to be what it says."""
        found: list[str] = []
        for digest, content in self._walk(repository, tag):
            assert digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
            found.append(digest)
        return found

    def _walk(self, repository: str, reference: str) -> Iterator[tuple[str, bytes]]:
        status, content = self.ask(f"/v2/{repository}/manifests/{reference}")
        assert status == HTTPStatus.OK, (reference, status)
        named = reference.startswith("sha256:")
        yield reference if named else f"sha256:{hashlib.sha256(content).hexdigest()}", content
        manifest: dict[str, Any] = json.loads(content)
        for below in manifest.get("manifests", ()):
            yield from self._walk(repository, below["digest"])
        for blob in filter(None, [manifest.get("config"), *manifest.get("layers", ())]):
            status, content = self.ask(f"/v2/{repository}/blobs/{blob['digest']}")
            assert (status, len(content)) == (HTTPStatus.OK, blob["size"])
            yield blob["digest"], content

    def take(self, request: str) -> Fault:
        """Return what becomes of a request."""
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.to, request):
                fault.times -= 1
                return fault
        return Fault("")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], between: Between) -> None:
        self.between = between
        self.open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def server_close(self) -> None:
        """End what is open too, as a process that ends does."""
        super().server_close()
        for connection in tuple(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """Say nothing: connections break here on purpose."""


class _Handler(BaseHTTPRequestHandler):
    """Passes requests on, or not."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""

    def setup(self) -> None:
        """Remember the connection, so that it can be broken."""
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        """Forget it."""
        self.server.open.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def pass_on(self) -> None:
        request = f"{self.command} {self.path}"
        fault = self.server.between.take(request)
        time.sleep(fault.wait_s)
        if fault.cut_after is not None:
            self.server.between.seen.append((request, "cut"))
            length = int(self.headers.get("Content-Length") or fault.cut_after)
            self.rfile.read(min(fault.cut_after, length // 2))
            self._break()
            return
        body = self._body()
        if fault.status:
            self.server.between.seen.append((request, str(fault.status)))
            self._answer(fault.status, fault.headers, b'{"errors":[]}')
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
        real = http.client.HTTPConnection("127.0.0.1", self.server.between.upstream, timeout=60)
        with closing(real) as upstream:
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            content = answer.read()
        cut = fault.cut_answer_after
        self.server.between.seen.append(
            (request, str(answer.status) if cut is None else "answer cut")
        )
        self._answer(answer.status, dict(answer.getheaders()), content, cut)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(
        self, status: int, headers: dict[str, str], content: bytes, cut: int | None = None
    ) -> None:
        self.send_response(status)
        own = {k: v for k, v in headers.items() if k.lower() not in HOP_BY_HOP}
        length = len(content)
        if self.command == "HEAD":
            length = int(headers.get("Content-Length", 0))
        for name, value in own.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if cut is None else content[:cut])
        if cut is not None:
            self._break()

    def _break(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


for _method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"):
    setattr(_Handler, f"do_{_method}", _Handler.pass_on)


def registry_image() -> str:
    """Return the image of a registry that is here, or that Docker knows where to get."""
    built = "penstock/registry:built"
    return built if docker("images", "--quiet", built) else "registry:2"


def start_registry() -> int:
    """Start an empty registry and return its port on the loopback."""
    stop_registry()
    docker("run", "--detach", "--name", REGISTRY, "-p", "127.0.0.1::5000", registry_image())
    port = int(docker("port", REGISTRY, "5000/tcp").rpartition(":")[2])
    end = time.monotonic() + 30
    while True:
        try:
            _exchange(port, "GET", "/v2/")
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < end
            time.sleep(0.1)
        else:
            return port


def _exchange(
    port: int, method: str, path: str, content: bytes = b"", **headers: str
) -> tuple[int, bytes, str]:
    """Return status, body and location of an answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.getheader("Location") or ""


def stop_registry() -> None:
    if REGISTRY in docker("ps", "--all", "--format", "{{.Names}}").split():
        docker("rm", "--force", "--volumes", REGISTRY)
