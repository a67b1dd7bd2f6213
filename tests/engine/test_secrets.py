"""No secret leaves: every byte that a run writes or sends is read after a pipeline that prints them."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.engine.conftest import ROOT, Project, laptop
from tests.forms import traces
from tests.penstock.collector import Collector, collecting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.engine

TOKEN = "pa'ss/wo+rd \"&<[*.^$]>\\é-A1"
LINES = ("-----BEGIN KEY-----", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "x8/+second/line+of/it==")
LEAF = "leaf-of-a-json-text"
SECRETS = {
    "TOKEN": TOKEN,
    "KEY": "\n".join(LINES),
    "CONFIG": json.dumps({"user": 1, "password": LEAF}),
}
PIPELINE = '''
import os, sys
sys.path.insert(0, os.environ["REPOSITORY"])
from tests.forms import shown

LEAK = """
import json, os, pathlib, sys, time
from tests.forms import shown
secrets = [os.environ[n] for n in ("TOKEN", "KEY", "CONFIG")]
secrets += [*os.environ["KEY"].split(chr(10)), json.loads(secrets[2])["password"]]
for text in [form for secret in secrets for form in shown(secret)]:
    print(text)
    print("in words:", text, "and on", file=sys.stderr)
for secret in secrets[:1]:
    for piece in (secret[:5], secret[5:9], secret[9:] + chr(10)):
        sys.stdout.write(piece); sys.stdout.flush(); time.sleep(0.1)
"""
KEEP = LEAK + """
from xml.sax.saxutils import quoteattr
out = pathlib.Path("out"); out.mkdir()
every = [form for secret in secrets for form in shown(secret)]
(out / "all.txt").write_text("".join(every) + chr(10).join(every))
(out / os.environ["TOKEN"].replace("/", "")).write_text("a name")
(out / os.environ["KEY"].split(chr(10))[1]).write_text("a name")
cases = "".join(f"<testcase classname={quoteattr(t)} name={quoteattr(t)}><failure message={quoteattr(t)}/>"
                f"<system-out>{t.replace('&', '').replace('<', '')}</system-out></testcase>" for t in every)
pathlib.Path("junit.xml").write_text(f"<testsuite name='x'>{cases}</testsuite>")
files = "".join(f"<class filename={quoteattr(t + '.py')}><lines><line number='1' hits='0'/></lines></class>" for t in every)
pathlib.Path("coverage.xml").write_text(f"<coverage line-rate='0.9'><packages><package><classes>{files}</classes></package></packages></coverage>")
sys.exit(3)
"""

def given(container, token, key, config):
    for name, value in {"TOKEN": token, "KEY": key, "CONFIG": config}.items():
        container = container.with_secret_variable(name, value)
    return container.with_new_file("/w/tests/forms.py", open(os.environ["REPOSITORY"] + "/tests/forms.py").read())

secrets = {name.lower(): Secret.env(name) for name in ("TOKEN", "KEY", "CONFIG")}

@pipeline.stage(secrets=secrets)
def printing(python, token, key, config) -> Command:
    container = given(python, token, key, config)
    serve = "echo \\"$TOKEN\\"; echo \\"$KEY\\"; python -m http.server 8000"
    talker = Service(container=container, name="talker", port=8000, args=["sh", "-c", serve])
    return Command(container, ["python", "-c", LEAK], services=[talker])

@pipeline.stage(secrets=secrets)
def failing(python, token, key, config) -> Command:
    container = given(python, token, key, config)
    reports = [JUnit("junit.xml"), Coverage("coverage.xml"), Report("out")]
    return Command(container, ["python", "-c", KEEP], reports=reports)

@pipeline.stage(secrets=secrets)
async def raising(token, key, config) -> None:
    texts = [await secret.plaintext() for secret in (token, key, config)]
    raise ValueError("\\n".join(form for text in texts for form in shown(text)))

@pipeline.stage(secrets=secrets)
def build(python, token, key, config) -> Command:
    plain = python.with_secret_variable("TOKEN", token).with_secret_variable("KEY", key)
    return Command(plain, "test -n \\"$TOKEN\\" && echo $TOKEN", shell=True)

@pipeline.stage(needs=[build])
async def push(build, registry):
    await build.as_tarball().export("image.tar")
    return await registry.push(build, tags=["latest"])
'''
MODES = {
    "python": [sys.executable],
    "dagger-run": ["dagger", "run", sys.executable],
    "terminal": ["script", "-qec"],
}
PROGRESS: dict[str, dict[str, str]] = {
    "python": {},
    "dagger-run": {"DAGGER_PROGRESS": "plain"},
    "terminal": {"DAGGER_PROGRESS": "dots"},
}


def contents(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield a file and, of an archive or of what is compressed, all that is in it."""
    yield name, data
    if data.startswith(b"\x1f\x8b"):
        yield from contents(f"{name}:gz", gzip.decompress(data))
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                yield f"{name}:{member.name}", member.name.encode()
                if member.isreg() and (file := archive.extractfile(member)):
                    yield from contents(f"{name}:{member.name}", file.read())


def leaks(project: Project, streams: dict[str, bytes]) -> list[str]:
    """Return where a form of a secret stands."""
    known = [*SECRETS.values(), *LINES, LEAF]
    needles = {trace for secret in known for trace in traces(secret)}
    files = [
        path
        for path in project.folder.rglob("*")
        if path.is_file() and path.name != "pipeline.py" and "__pycache__" not in path.parts
    ]
    named = {f"name of {path}": os.fsencode(path.relative_to(project.folder)) for path in files}
    read = {str(path): path.read_bytes() for path in files}
    return [
        f"{where}: {needle!r} in {data[max(0, data.find(needle) - 60) : data.find(needle) + 60]!r}"
        for name, given in {**streams, **named, **read}.items()
        for where, data in contents(name, given)
        for needle in needles
        if needle in data
    ]


@pytest.mark.fault(22)
@pytest.mark.parametrize("mode", MODES)
def test_no_form_of_a_secret_is_in_anything_that_is_written_or_sent(
    project: Project, mode: str, measured: Callable[[str], None]
) -> None:
    """Files, names, terminal, `--json`, telemetry, GitHub's files and the pushed image hold none."""
    project.write(PIPELINE)
    options = ["-v", "--json"] if mode == "python" else ["--skip", "push"]
    words = ["pipeline.py", "--keep-going", *options]
    command = [*MODES[mode], *words]
    if mode == "terminal":
        command = [*MODES[mode], f"dagger run {sys.executable} {' '.join(words)}", "/dev/null"]
    files = {name: str(project.folder / name) for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT")}
    github = {"GITHUB_ACTIONS": "true", **files} if mode == "python" else {}
    own = Path.home() / ".cache/penstock/bin"
    with collecting(Collector()) as collector:
        env = laptop() | SECRETS | github
        env |= {
            "PYTHONPATH": str(ROOT / "ci"),
            "REPOSITORY": str(ROOT),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "PATH": f"{own}:{os.environ['PATH']}",
            "TERM": "xterm-256color",
        } | PROGRESS[mode]
        done = subprocess.run(
            command, cwd=project.folder, env=env, capture_output=True, check=False, timeout=180
        )
    # GitHub's runner is told the secrets by these very lines, and shows none of them.
    out = re.sub(rb"(?m)^::add-mask::.*\n", b"", done.stdout)
    err = re.sub(rb"(?m)^::add-mask::.*\n", b"", done.stderr)
    sent = {f"telemetry {n} {path}": body for n, (path, body) in enumerate(collector.bodies)}
    assert sent
    record = json.loads((project.folder / "reports/run.json").read_bytes())
    results = {stage["name"]: stage["result"] for stage in record["stages"]}
    expected = dict.fromkeys(("printing", "build", "push"), "success")
    expected |= dict.fromkeys(("failing", "raising"), "failure")
    if mode != "python":
        expected["push"] = "skip"  # a rehearsal takes seconds, and prints nothing of its own
    assert results == expected
    assert mode != "python" or (project.folder / "image.tar").stat().st_size > 1_000_000
    assert leaks(project, {"stdout": out, "stderr": err, **sent}) == []
    measured("no form of it in files, their names, both streams, telemetry or image layers")


def test_no_memory_makes_a_stage_pass(project: Project) -> None:
    """Whatever is checked in as `.penstock/`, the engine is asked, and what failed is executed."""
    body = """
@pipeline.stage(gate=True)
def test(python) -> Command:
    return Command(python, "exit {code}", shell=True)
"""
    project.write(body.replace("{code}", "0"))
    assert project.run().code == 0
    memory = (project.folder / ".penstock/state.json").read_text()
    project.write(body.replace("{code}", "1"))
    for _ in range(2):
        assert project.run().code == 1
        (project.folder / ".penstock/state.json").write_text(memory)


def test_secret_of_an_earlier_run_is_not_shown_from_the_cache(project: Project) -> None:
    """What a command printed is kept by the engine masked, so a value that nobody knows now is too."""
    project.write("""
@pipeline.stage(secrets={"token": Secret.env("DEMO_TOKEN")})
def test(python, token) -> Command:
    container = python.with_secret_variable("T", token)
    return Command(container, 'echo "<$(echo $T | base64)>"; echo "<$(echo $T | rev)>"', shell=True)
""")
    first = project.run(DEMO_TOKEN="the-first-of-two")
    second = project.run("-v", DEMO_TOKEN="another-value")
    assert (first.code, second.code) == (0, 0), second.out
    assert second.stage("test")["cached"] is True
    assert second.stage("test")["output"].count("***") == 2
    log = (project.folder / "reports/logs/test.txt").read_text()
    assert "owt-fo-tsrif" not in log + second.out
    assert "dGhlLWZpcnN0LW9mL" not in log + second.out
