"""Proxies and collectors of the surroundings, with a whole run between them."""

from __future__ import annotations

import math
import socket
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.penstock.collector import Collector, collecting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.engine.conftest import Project

pytestmark = pytest.mark.engine

GREEN = """
@pipeline.stage
def green(python):
    return Command(python, "echo live words")
"""
ROUNDS = 2  # the faster of which is compared: others use this machine, too
MOST_LATE_S = 2.0
TELEMETRY = {"DO_NOT_TRACK": "", "OTEL_SDK_DISABLED": ""}


@contextmanager
def refusing() -> Iterator[tuple[str, list[str]]]:
    """Serve a proxy that lets nothing through; yield its URL and what it is asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def refuse(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_error(403)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Say nothing."""

    for method in ("GET", "POST", "CONNECT", "HEAD"):
        setattr(Handler, f"do_{method}", Handler.refuse)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.fault(48)
@pytest.mark.parametrize("upper", [True, False])
def test_proxy_is_never_asked_for_the_loopback(
    project: Project, measured: Callable[[str], None], *, upper: bool
) -> None:
    """Neither by the SDK, nor by the live view, nor for a collector on this machine."""
    project.write(GREEN)
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    with refusing() as (url, asked), collecting(Collector()) as collector:
        proxies = {name if upper else name.lower(): url for name in names}
        env = proxies | TELEMETRY | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        run = project.run("-v", **env, NO_PROXY="example.org", no_proxy="")
        assert run.code == 0, run.out
        assert "live words" in run.out
        assert "green" in collector.spans
    assert not [words for words in asked if "127.0.0.1" in words or "localhost" in words]
    measured("a whole run, with telemetry, asked the proxy for nothing on the loopback")


@pytest.mark.fault(33)
def test_run_is_what_it_is_without_its_collector(
    project: Project, measured: Callable[[str], None]
) -> None:
    """Same result and same reports, one line that says so, and hardly a wait, to the very end."""
    project.write(GREEN)
    with socket.socket() as nobody, ExitStack() as served:
        nobody.bind(("127.0.0.1", 0))  # and does not listen: the port is closed, and stays so
        collectors = [Collector(status=503), Collector(hangs=True)]
        urls = [served.enter_context(collecting(one)).url for one in collectors]
        urls += [f"http://127.0.0.1:{nobody.getsockname()[1]}", ""]
        took_s, kept = dict.fromkeys(urls, math.inf), set()
        for url in urls * ROUNDS:
            run = project.run(**TELEMETRY, **({"OTEL_EXPORTER_OTLP_ENDPOINT": url} if url else {}))
            assert (run.code, run.stage("green")["result"]) == (0, "success"), run.out
            warned = run.out.count("WARNING: not all telemetry could be delivered")
            assert warned == bool(url), run.out
            took_s[url] = min(took_s[url], run.took_s)
            files = (project.folder / "reports").rglob("*")
            kept.add(tuple(sorted(path.name for path in files)))
    assert len(kept) == 1
    without_s = took_s.pop("")
    late_s = [took - without_s for took in took_s.values()]
    assert max(late_s) < MOST_LATE_S, (without_s, took_s)  # the engine's CLI alone would take ten
    measured("closed port, silence or 503: exit 0, every report, a warning, less than 2 s more")
