"""The cases: what is done before each round, and by whom it is measured."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.sitting import PYTHON, ROOT, Bench, Numbers, Result, Taken

sys.path.insert(0, str(ROOT))

from engine import wheels
from tests.engine.own import OwnEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OURS, BARE, PLAIN = "penstock", "bare Dagger", "penstock, SDK loaded its own way"
HAND, POLLED, NOX, ACT = "by hand, 10 s interval", "by hand, polled", "nox", "act"
RED = "\n\ndef test_red() -> None:\n    assert len(__name__) == 1\n"
ENGINE = "_EXPERIMENTAL_DAGGER_RUNNER_HOST"


@dataclass(frozen=True)
class Case:
    """What is measured in rounds, one contender after the other in each.

    Args:
        name: In the page's words.
        rounds: How many.
        contenders: What gives the value of one round, by name.
        note: What has to be known to read the figures.
        unit: Of the values.
        is_quick: Whether it is part of the smoke test.
        first: Done once, before the first round of a sitting.
        is_ordered: Whether a contender needs what the one before it left.
    """

    name: str
    rounds: int
    contenders: dict[str, Callable[[Bench], float]]
    note: str = ""
    unit: str = "s"
    is_quick: bool = False
    first: Callable[[Bench], object] = field(default=lambda _: None)
    is_ordered: bool = False

    def measure(self, bench: Bench, rounds: int | None = None) -> Result:
        """Measure every contender in every round, in turned order."""
        self.first(bench)
        numbers = {name: Numbers(name, unit=self.unit) for name in self.contenders}
        names = list(self.contenders)
        for number in range(rounds or self.rounds):
            turn = 0 if self.is_ordered else number % len(names)
            for name in names[turn:] + names[:turn]:
                numbers[name].values.append(self.contenders[name](bench))
            told = ", ".join(f"{one.name} {one.values[-1]:.2f}" for one in numbers.values())
            print(f"{self.name}, round {number + 1}: {told}", flush=True)
        return Result(self.name, list(numbers.values()), self.note)


def program(contender: str) -> list[str]:
    """Return the words by which a contender's work is started."""
    return {
        OURS: [str(PYTHON), "pipeline.py"],
        PLAIN: [str(PYTHON), "pipeline.py"],
        BARE: [str(PYTHON), "bare.py"],
        HAND: ["sh", "by_hand.sh", "10"],
        POLLED: ["sh", "by_hand.sh", "poll"],
        NOX: ["sh", "by_hand.sh", "poll"],
        ACT: ["act", "push", "--platform", "ubuntu-latest=-self-hosted"],
    }[contender]


def folder(contender: str) -> str:
    """Return a name that paths and image references can have."""
    return contender.lower().replace(" ", "-").replace(",", "")


def run(bench: Bench, contender: str, **options: object) -> Taken:
    """Run a contender's whole work."""
    env = {"PENSTOCK_PLAIN_SDK": "1"} if contender == PLAIN else {}
    if contender == NOX:
        env["BENCH_GATES"] = f"{bench.folder}/tools/bin/nox -R"
    words = program(contender)
    if more := options.pop("argument", ""):
        words.append(str(more))
    if contender == ACT:
        told = bench.environment(folder(contender)) | {"BENCH_HOME": str(bench.copy(contender))}
        words += [
            w for k, v in told.items() if k.startswith("BENCH_") for w in ("--env", f"{k}={v}")
        ]
    return bench.run(folder(contender), words, **(env | options))  # type: ignore[arg-type]  # by names


def warmed(*contenders: str) -> Callable[[Bench], None]:
    """Return what has everything run once, so that all caches are there."""

    def warm(bench: Bench) -> None:
        if NOX in contenders and not (bench.folder / "tools").exists():
            _install(bench, "nox", "tools")
            first = f"{bench.folder}/tools/bin/nox"
            bench.run(folder(NOX), program(NOX), BENCH_GATES=first)
        for contender in contenders:
            run(bench, contender)

    return warm


def _install(bench: Bench, package: str, name: str) -> None:
    uv = next(wheels.unpacked("uv").glob("uv-*.data/scripts/uv"))
    place = bench.folder / name
    certain = os.environ | {"UV_SYSTEM_CERTS": "1"}  # as behind many a proxy
    subprocess.run([uv, "venv", "--quiet", place], check=True)
    words = [str(uv), "pip", "install", "--quiet", "--python", f"{place}/bin/python", package]
    subprocess.run(words, check=True, env=certain)


def after(
    file: str, text: str = "", value: Callable[[Taken], float] = lambda taken: taken.wall_s
) -> Callable[[str], Callable[[Bench], float]]:
    """Return what measures a contender after an edit of a file; without a file, as it is."""

    def of(contender: str) -> Callable[[Bench], float]:
        def measured(bench: Bench) -> float:
            if file:
                bench.edit(folder(contender), file, text)
            return value(run(bench, contender))

        return measured

    return of


def red(contender: str) -> Callable[[Bench], float]:
    """Return what measures how soon a test that an edit broke is FAILED on the screen."""

    def measured(bench: Bench) -> float:
        path = bench.copy(folder(contender)) / "tests/test_app.py"
        before = path.read_text()
        bench.edit(folder(contender), "tests/test_app.py", RED)
        taken = run(bench, contender, until="FAILED", code=None)
        path.write_text(before)
        return taken.wall_s

    return measured


def looking(*words: str) -> Callable[[Bench], float]:
    """Return what measures a look at the pipeline, which runs nothing."""
    return lambda bench: bench.run(folder(OURS), [PYTHON, "pipeline.py", *words]).wall_s


def ended_after(
    words: Sequence[str], end: Callable[[subprocess.Popen[bytes]], None], **env: str
) -> Callable[..., float]:
    """Return what measures how long a program lives after something was done to it, in seconds.

    Args:
        words: The program, which says `asleep` when it may be done.
        end: Does it, to this process.
        **env: Variables added.
    """

    def measured(bench: Bench) -> float:
        done: list[float] = []

        def follow(child: subprocess.Popen[bytes]) -> None:
            def strike() -> None:
                time.sleep(4)
                done.append(time.perf_counter())
                end(child)

            threading.Thread(target=strike, daemon=True).start()

        bench.run(folder(OURS), words, during=follow, code=None, **env)
        return time.perf_counter() - done[0]

    return measured


def interrupted(script: Sequence[str]) -> Callable[[Bench], float]:
    """Return what measures how soon a program ends after Ctrl-C."""
    return ended_after([str(PYTHON), *script], lambda child: os.kill(child.pid, signal.SIGINT))


def lost(script: Sequence[str], bound_s: float) -> Callable[[Bench], float]:
    """Return what measures how soon a program ends after its engine was killed."""

    def measured(bench: Bench) -> float:
        engine = OwnEngine(name="penstock-bench-engine")
        engine.ready()

        def kill(child: subprocess.Popen[bytes]) -> None:
            engine.kill()
            time.sleep(bound_s)
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)  # its CLI too, which holds the output open

        try:
            return ended_after([str(PYTHON), *script], kill, **{ENGINE: engine.url})(bench)
        finally:
            engine.remove()

    return measured


def sibling(bench: Bench) -> float:
    """Measure how soon what runs beside a stage that fails has ended."""
    bench.run(folder(OURS), [PYTHON, "sleeping.py", "--only", "red,long"], code=1)
    events = (bench.copy(folder(OURS)) / "reports/events.jsonl").read_text().splitlines()
    ends = [e["at_s"] for e in map(json.loads, events) if e["event"] == "stage_finished"]
    return float(ends[1] - ends[0])


def first(contender: str, **env: str) -> Callable[[Bench], float]:
    """Return what measures a first run: images are near, the engine has nothing."""

    def measured(bench: Bench) -> float:
        engine = OwnEngine(name="penstock-bench-engine")
        engine.remove()
        engine.ready()
        try:
            return run(bench, contender, **{ENGINE: engine.url}, **env).wall_s
        finally:
            engine.remove()

    return measured


IMAGE = (str(PYTHON), "sleeping.py", "--only", "image")
COUNTER = """#!{python}
import os, subprocess, sys, threading
child = subprocess.Popen(["{docker}", *sys.argv[1:]], stdin=subprocess.PIPE if "-i" in sys.argv else None)
sent = 0
def feed():
    global sent
    while piece := sys.stdin.buffer.raw.read(1 << 16):
        sent += len(piece)
        open("{count}/" + str(os.getpid()), "w").write(str(sent))
        child.stdin.write(piece)
        child.stdin.flush()
    child.stdin.close()
if child.stdin:
    threading.Thread(target=feed, daemon=True).start()
sys.exit(child.wait())
"""


def uploaded(contender: str) -> Callable[[Bench], float]:
    """Return what counts the bytes that go to the engine after an edit of one file."""

    def measured(bench: Bench) -> float:
        counter, count = bench.folder / "counter", bench.folder / "count"
        counter.mkdir(exist_ok=True)
        script = counter / "docker"
        facts = {"python": sys.executable, "docker": shutil.which("docker"), "count": count}
        script.write_text(COUNTER.format(**facts))
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        path = f"{counter}{os.pathsep}{bench.environment(contender)['PATH']}"
        sent = []
        for file in ("", "app/main.py"):
            if file:
                bench.edit(folder(contender), file)
            shutil.rmtree(count, ignore_errors=True)
            count.mkdir()
            run(bench, contender, PATH=path)
            time.sleep(0.5)  # the last of them may still be at it
            sent.append(sum(int(one.read_text() or 0) for one in count.iterdir()))
        return (sent[1] - sent[0]) / 1024

    return measured


def busy(bench: Bench) -> float:
    """Measure how much of one core the client takes while a stage runs, in percent."""
    ticks: list[int] = []

    def follow(child: subprocess.Popen[bytes]) -> None:
        def look() -> None:
            for wait_s in (4, 6):
                time.sleep(wait_s)
                fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
                ticks.append(int(fields[11]) + int(fields[12]))

        threading.Thread(target=look, daemon=True).start()

    bench.run(folder(OURS), [PYTHON, "sleeping.py", "--only", "short"], during=follow)
    return 100 * (ticks[1] - ticks[0]) / os.sysconf("SC_CLK_TCK") / 6


def on_empty_engine(contender: str, *, begins: bool, **env: str) -> Callable[[Bench], float]:
    """Return what measures a run on a new engine, beside a cache that is new or was just filled.

    Args:
        contender: Who runs.
        begins: Whether the cache is new.
        **env: Variables added.
    """

    def measured(bench: Bench) -> float:
        if begins:
            bench.nonce = time.time_ns()
            bench.edit(folder(contender), "requirements.txt")
        cache = f"{bench.registry}/bench/cache-{bench.nonce}"
        return first(contender, PENSTOCK_CACHE=cache, **env)(bench)

    return measured


def watched(bench: Bench) -> float:
    """Measure a watched run from a saved file to the test stage's end, beyond pytest's own time."""
    name = folder(OURS)
    child = subprocess.Popen(
        [PYTHON, "pipeline.py", "--watch", "--json"],
        cwd=bench.copy(name),
        env=bench.environment(name),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None  # noqa: S101 - what mypy cannot know
    tested = (
        e for e in map(json.loads, child.stdout) if e["event"] in ("stage_finished", "run_finished")
    )
    over = 0.0
    for is_edited in (False, True):
        if is_edited:
            time.sleep(1)
            bench.edit(name, "app/main.py")
        saved = time.monotonic()
        for event in tested:
            if event.get("stage") == "test":
                took = re.search(r" passed.* in ([\d.]+)s", event["outcome"]["output"])
                over = time.monotonic() - saved - float(took[1] if took else "nan")
            if event["event"] == "run_finished":
                break
    child.send_signal(signal.SIGINT)
    child.communicate()
    return over


def own(bench: Bench) -> float:
    """Measure this repository's own pipeline, nothing changed."""
    return bench.run(folder(OURS), [PYTHON, ROOT / "ci/main.py"]).wall_s


ALL = (OURS, BARE, POLLED, HAND)
OWN = "penstock, this repository's own pipeline of seven stages"
NEW, AGAIN, AGAIN_RUN = (
    "first run, cache empty",
    "second run, another engine",
    "the same with --no-reuse",
)
warm, app, tests = after(""), after("app/main.py"), after("tests/test_app.py")
package = after("requirements.txt", "tabulate==0.9.0\n")
CASES = (
    Case(
        "Nothing changed",
        7,
        {name: warm(name) for name in (OURS, BARE, PLAIN)} | {OWN: own},
        first=lambda bench: (warmed(OURS, BARE, PLAIN)(bench), own(bench)),
    ),
    Case(
        "Nothing changed: processor time",
        5,
        {name: after("", value=lambda taken: taken.cpu_s)(name) for name in (OURS, PLAIN, BARE)},
        "of the client and its CLI",
        first=warmed(OURS, BARE, PLAIN),
    ),
    Case(
        "Nothing changed, beside tools that keep no results",
        1,
        {name: warm(name) for name in (OURS, POLLED, NOX, ACT)},
        "these test and build again; nox with `-R`, which installs nothing",
        first=warmed(OURS, POLLED, NOX, ACT),
    ),
    Case("One app file changed", 3, {n: app(n) for n in ALL}, first=warmed(*ALL)),
    Case(
        "One test changed",
        2,
        {name: tests(name) for name in (OURS, BARE, POLLED)},
        first=warmed(OURS, BARE, POLLED),
    ),
    Case("One dependency added", 1, {name: package(name) for name in (OURS, BARE)}),
    Case(
        "Red test: to the word FAILED",
        4,
        {name: red(name) for name in (OURS, BARE, POLLED)},
        first=warmed(OURS, BARE, POLLED),
    ),
    Case("First run, engine empty", 1, {name: first(name) for name in (OURS, BARE)}),
    Case(
        "Runner that begins empty, with PENSTOCK_CACHE",
        1,
        {
            NEW: on_empty_engine(OURS, begins=True),
            AGAIN_RUN: on_empty_engine(OURS, begins=False, argument="--no-reuse"),
            AGAIN: on_empty_engine(OURS, begins=False),
        },
        "to the end of the program, what is published included",
        is_ordered=True,
    ),
    Case(
        "Gate of 4 s in front of an image of 4 s",
        1,
        {
            OURS: lambda bench: bench.run(folder(OURS), [*IMAGE]).wall_s,
            "penstock --speculate": lambda bench: (
                bench.run(folder(OURS), [*IMAGE, "--speculate"]).wall_s
            ),
        },
    ),
    Case(
        "Watched: from a saved file to the tests' result, beyond pytest's own time",
        3,
        {OURS: watched},
        "pytest's time as it prints it, so without its start",
        first=warmed(OURS),
    ),
    Case(
        "Look and run nothing",
        9,
        {"--list": looking("--list"), "--dry-run": looking("--dry-run")},
        is_quick=True,
    ),
    Case(
        "Ctrl-C to the end of the program",
        3,
        {
            OURS: interrupted(["sleeping.py", "--only", "long"]),
            BARE: interrupted(["bare_sleeping.py"]),
        },
        is_quick=True,
    ),
    Case("Red stage to the end of its sibling", 3, {OURS: sibling}, is_quick=True),
    Case(
        "Engine killed, to the end of the program",
        1,
        {
            OURS: lost(["sleeping.py", "--only", "long"], 20),
            BARE: lost(["bare_sleeping.py"], 20),
        },
        "20 s and more: ended from outside, it would have gone on",
    ),
    Case(
        "Bytes to the engine for one changed file",
        3,
        {name: uploaded(name) for name in (OURS, BARE)},
        "more than in a run with nothing changed",
        unit="KiB",
        first=warmed(OURS, BARE),
    ),
    Case(
        "Peak memory of the client",
        3,
        {name: after("", value=lambda taken: taken.peak_mb)(name) for name in (OURS, BARE)},
        "or of its CLI, whichever is more",
        unit="MB",
        first=warmed(OURS, BARE),
        is_quick=True,
    ),
    Case("Processor of the client while a stage runs", 2, {OURS: busy}, unit="% of one core"),
)


def chosen(names: Sequence[str] | None, *, quick: bool) -> list[Case]:
    """Return the cases that are wanted.

    Raises:
        SystemExit: When there is none of a name.
    """
    for name in names or ():
        if not any(name.lower() in case.name.lower() for case in CASES):
            words = f"error: no case '{name}': {', '.join(c.name for c in CASES)}"
            raise SystemExit(words)
    return [
        case
        for case in CASES
        if (not quick or case.is_quick)
        and (not names or any(name.lower() in case.name.lower() for name in names))
    ]
