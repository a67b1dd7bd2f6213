"""Registries that are down, busy or break off, at a pull and at a push, behind a real one."""

from __future__ import annotations

import json
import os
import threading
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import pytest

from tests.engine.between import Between, Fault, start_registry, stop_registry
from tests.engine.own import MIRRORED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.engine.conftest import Project, Run
    from tests.engine.own import OwnEngine

pytestmark = pytest.mark.engine

PULL = """
@pipeline.stage{options}
def pull():
    return dag.container().from_("{image}").with_new_file("/salt", "{salt}")
"""
COMMAND = """
@pipeline.stage{options}
def pull(python):
    data = dag.container().from_("{image}").rootfs()
    return Command(python.with_directory("/data", data), "echo {salt} > /tmp/begun; ls /data")
"""
PUSH = """
import os

@pipeline.stage{options}
async def push(registry):
    layer = dag.directory().with_new_file("data", "{salt}" * 20_000)
    return await registry.push(dag.container().with_directory("/", layer), tags=["one", "latest"])
"""
# What makes a push a real one.
PUSHING = {
    "CI": "true",
    "GITHUB_EVENT_NAME": "push",
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_REF_NAME": "main",
    "IMAGE_NAME": "team/app",
    "REGISTRY_USER": "user",
    "REGISTRY_TOKEN": "token-of-the-registry",
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    """A registry, at a port of the loopback."""
    yield start_registry()
    stop_registry()


@pytest.fixture
def between(own_engine: OwnEngine, upstream: int) -> Iterator[Between]:
    """A proxy before it, where the engine to be hurt speaks plain HTTP."""
    own_engine.ready()
    proxy = Between(own_engine.registry, upstream)
    proxy.up()
    yield proxy
    proxy.down()


def pull(
    project: Project,
    engine: OwnEngine,
    between: Between,
    options: str = "",
    *,
    host: str = "",
    body: str = PULL,
) -> Run:
    image = f"t/{project.salt}"
    between.put(image, "1", os.urandom(200_000))
    body = body.replace("{image}", f"{host or between.address}/{image}:1")
    project.write(body.replace("{salt}", project.salt).replace("{options}", options))
    return project.run("--engine", engine.url)


def push(project: Project, engine: OwnEngine, between: Between, options: str = "") -> Run:
    project.write(PUSH.replace("{salt}", project.salt).replace("{options}", options))
    env = PUSHING | {"REGISTRY": between.address, "IMAGE_NAME": f"team/{project.salt}"}
    return project.run("--engine", engine.url, **env)


@pytest.mark.fault(9)
@pytest.mark.parametrize(("host", "body"), [("", PULL), (MIRRORED, PULL), ("", COMMAND)])
def test_registry_that_is_down_at_a_pull_and_comes_back_is_asked_again(
    project: Project,
    own_engine: OwnEngine,
    between: Between,
    measured: Callable[[str], None],
    *,
    host: str,
    body: str,
) -> None:
    """Unasked, with a growing wait, and every attempt is in the record; for a command's image too."""
    between.down()
    events = project.folder / "reports/events.jsonl"

    def come_back() -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            if events.exists() and events.read_text().count("stage_retried") >= 2:
                between.up()
                return
            time.sleep(0.02)

    watcher = threading.Thread(target=come_back)
    watcher.start()
    run = pull(project, own_engine, between, host=host, body=body)
    watcher.join()
    assert run.code == 0, run.out
    attempts = run.stage("pull")["attempts"]
    assert len(attempts) >= 2
    assert {attempt["fault"] for attempt in attempts} == {"registry"}
    assert f"registry {between.address}: nobody listens" in run.out
    measured("passed after two refusals or more, each in the record; behind a mirror too")


@pytest.mark.fault(10)
def test_layer_that_a_registry_is_too_busy_for_is_pulled_again_before_the_command(
    project: Project, own_engine: OwnEngine, between: Between, measured: Callable[[str], None]
) -> None:
    """Also where the image itself was found at once; the command begins once."""
    image = f"t/{project.salt}"
    between.put(image, "1", os.urandom(200_000))
    manifest = json.loads(between.ask(f"/v2/{image}/manifests/1")[1])
    layer = manifest["layers"][0]["digest"]
    # The engine itself asks again, too.
    between.faults = [Fault(f"GET .*{layer}", status=503, times=5)]
    body = COMMAND.replace("{image}", f"{between.address}/{image}:1").replace("{options}", "")
    project.write(body.replace("{salt}", project.salt))
    run = project.run("--engine", own_engine.url)
    stage = run.stage("pull")
    assert (run.code, stage["exit_code"]) == (0, 0), run.out
    assert stage["attempts"]
    assert {attempt["fault"] for attempt in stage["attempts"]} == {"registry"}
    measured("503 for a layer of a command's image: asked again, then the command ran")


@pytest.mark.fault(9)
def test_registry_that_stays_down_is_an_error_that_names_it(
    project: Project, own_engine: OwnEngine, between: Between, measured: Callable[[str], None]
) -> None:
    """Exit 4, with host and reason; `retries=0` asks once."""
    between.down()
    run = pull(project, own_engine, between, "(retries=0)")
    stage = run.stage("pull")
    assert (run.code, stage["result"], stage["attempts"]) == (4, "error", [])
    assert f"cannot pull {between.address}/t/{project.salt}:1: registry" in stage["reason"]
    assert "nobody listens there" in stage["reason"]
    measured("exit 4, host and reason named; `retries=0` asks once")


@pytest.mark.fault(10)
# So many times, as the engine itself asks again, and two blobs are pushed side by side.
@pytest.mark.parametrize(
    ("to", "status", "times"),
    [("HEAD .*blobs", 429, 11), ("POST .*uploads", 503, 3), ("PUT .*manifests", 500, 2)],
)
def test_busy_registry_is_pushed_to_again(
    project: Project,
    own_engine: OwnEngine,
    between: Between,
    *,
    to: str,
    status: int,
    times: int,
    measured: Callable[[str], None],
) -> None:
    """Wherever in the push it was busy: tried again unasked, with the attempt in the record."""
    headers = {"Retry-After": "1"} if status == HTTPStatus.TOO_MANY_REQUESTS else {}
    between.faults = [Fault(to, status=status, times=times, headers=headers)]
    run = push(project, own_engine, between)
    assert run.code == 0, run.out
    attempts = run.stage("push")["attempts"]
    assert attempts
    assert {attempt["fault"] for attempt in attempts} == {"registry"}
    assert between.whole(f"team/{project.salt}", "latest")
    measured("429, 500 and 503: tried again, then passed")


@pytest.mark.fault(10)
@pytest.mark.parametrize("status", [401, 403, 404])
def test_registry_that_says_no_to_a_push_is_asked_once(
    project: Project,
    own_engine: OwnEngine,
    between: Between,
    *,
    status: int,
    measured: Callable[[str], None],
) -> None:
    """The message names image, host, reason and what to see to."""
    between.faults = [Fault("POST .*uploads", status=status)]
    run = push(project, own_engine, between, "(retries=3)")
    stage = run.stage("push")
    assert (run.code, stage["result"], stage["attempts"]) == (4, "error", [])
    image = f"{between.address}/team/{project.salt}:one"
    start = f"cannot push {image}: registry {between.address}: it answers {status}"
    assert stage["reason"].startswith(start)
    assert "REGISTRY_TOKEN" in stage["reason"]
    measured("401, 403 and 404: exit 4 at once, image, host and reason named")


@pytest.mark.fault(11)
@pytest.mark.parametrize("to", ["PUT .*uploads", "PUT .*manifests"])
def test_push_that_is_cut_is_tried_again_and_no_tag_leads_to_half_an_image(
    project: Project,
    own_engine: OwnEngine,
    between: Between,
    *,
    to: str,
    measured: Callable[[str], None],
) -> None:
    """Every attempt that was cut left no tag, and the last one every blob."""
    image = f"team/{project.salt}"
    between.faults = [Fault(to, cut_after=1000, times=2)]
    cut = push(project, own_engine, between, "(retries=0)")
    assert (cut.code, between.ask(f"/v2/{image}/manifests/one")[0]) == (4, 404)
    assert "the connection ended half way" in cut.stage("push")["reason"]
    between.faults = [Fault(to, cut_after=1000, times=1)]
    run = push(project, own_engine, between)
    assert run.code == 0, run.out
    assert len(run.stage("push")["attempts"]) == 1
    for tag in ("one", "latest"):
        assert len(between.whole(image, tag)) == 3  # manifest, configuration, layer
    measured("cut in a blob or a manifest: no tag; then tried again, and every blob is whole")
