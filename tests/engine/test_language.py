"""What the language promises beyond the basic rules, on the real engine."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.engine.conftest import settled

if TYPE_CHECKING:
    from tests.engine.conftest import Project

pytestmark = pytest.mark.engine

SECRET = 'correct-horse "battery" <staple>'


def test_report_never_reaches_outside(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A report's path that leads out of the reports folder is the author's mistake, and harmless."""
    victim = tmp_path_factory.mktemp("victim")
    (victim / "file").write_text("mine")
    project.write(f"""
@pipeline.stage
def absolute(python):
    return Command(python, "true", reports=[Report("{victim}")])

@pipeline.stage
def upwards(python):
    return Command(python, "true", reports=[Coverage("c.xml", html="../html")])

@pipeline.stage
def everything(python):
    return Command(python, "true", reports=[JUnit(".")])
""")
    run = project.run("--keep-going")
    assert run.code == 1
    assert {stage["result"] for stage in run.record["stages"]} == {"failure"}
    assert run.out.count("leaves the working directory, or is none; write a path") >= 3
    assert re.search(r"pipeline\.py:\d+: stage 'absolute' raised ValueError", run.out)
    assert (victim / "file").read_text() == "mine"


def test_report_of_an_earlier_run_never_passes_for_this_one(project: Project) -> None:
    """A gate whose report is missing is closed, whatever lies in the folder from before."""
    body = """
@pipeline.stage
def test(python):
    return Command(python, 'LINE', shell=True, reports=[Coverage("c.xml", at_least=80)])
"""
    green = """echo "<coverage lines-valid=\\\\"100\\\\" lines-covered=\\\\"95\\\\"/>" > c.xml"""
    project.write(body.replace("LINE", green))
    assert project.run().code == 0
    (project.folder / "reports/run.json").unlink()
    project.write(body.replace("LINE", "true"))
    run = project.run()
    assert run.code == 1
    assert "no coverage: c.xml is missing" in run.out


def test_closed_gate_is_executed_again(project: Project) -> None:
    """The command passed, its coverage did not: that failure is not taken from the cache either."""
    project.write("""
@pipeline.stage
def test(python):
    line = 'echo "<coverage lines-valid=\\"100\\" lines-covered=\\"7\\"/>" > c.xml; date +%s%N'
    return Command(python, line, shell=True, reports=[Coverage("c.xml", at_least=80)])
""")
    runs = [project.run() for _ in range(2)]
    assert [run.stage("test")["cached"] for run in runs] == [False, False]
    clocks = [re.findall(r"\| (\d{19})", run.out) for run in runs]
    assert clocks[0] != clocks[1]


def test_two_stages_cannot_keep_a_report_under_one_name(project: Project) -> None:
    """One would silently replace the other."""
    project.write("""
@pipeline.stage
def one(python):
    return Command(python, "touch a.txt", reports=[Report("a.txt")])

@pipeline.stage(needs=[one])
def two(python):
    return Command(python, "touch a.txt", reports=[Report("a.txt")])
""")
    run = project.run()
    assert run.code == 1
    assert "stage 'one' keeps a report as 'a.txt' too; give one another path" in run.out


def test_author_s_mistakes_are_failures_with_their_line(project: Project) -> None:
    """A wrong argument, an unreadable line, a missing file: exit 1 and the author's own line."""
    project.write("""
@pipeline.service
def postgres():
    return postgres_service("15-alpine", database="x")

@pipeline.stage
def function(python):
    return Command(python, "true", services=[postgres])

@pipeline.stage
def quote(python):
    return Command(python, "echo 'open")

@pipeline.stage
def empty(python):
    return Command(python, "")

@pipeline.stage
def file(python):
    return open("/nowhere/at/all")
""")
    run = project.run("--keep-going")
    assert run.code == 1
    assert {stage["result"] for stage in run.record["stages"]} == {"failure"}
    for name, words in {
        "function": "has [the function 'postgres'] as `services`; write a list of services",
        "quote": 'cannot split the line "echo \'open"',
        "empty": "the command is empty",
        "file": "FileNotFoundError",
    }.items():
        assert re.search(rf"pipeline\.py:\d+: stage '{name}' raised", run.out)
        assert words in run.stage(name)["reason"]


def test_command_that_leaves_no_marker_is_judged_like_any_other(project: Project) -> None:
    """Without a `sh`, or with a `/tmp` of its own: its exit code and its words are shown."""
    project.write("""
@pipeline.stage
def bare(python):
    return Command(dag.container().with_new_file("/x", "y"), "true")

@pipeline.stage
def mounted(python):
    return Command(python.with_mounted_temp("/tmp"), "date +%s%N; exit 7", shell=True)
""")
    runs = [project.run("--keep-going") for _ in range(2)]
    assert [run.stage("mounted")["exit_code"] for run in runs] == [7, 7]
    assert [run.stage("mounted")["cached"] for run in runs] == [False, False]
    clocks = [re.findall(r"\| (\d{19})", run.out) for run in runs]
    assert clocks[0] != clocks[1]
    assert runs[0].stage("bare")["reason"].startswith("exit code")


@pytest.mark.fault(15)
def test_container_and_async_stages_heed_their_deadlines_at_once(project: Project) -> None:
    """Only a command gets time beyond its deadline, to keep its reports."""
    project.write("""
import anyio

@pipeline.stage(deadline_s=1)
def image(python):
    return python.with_exec(["sleep", "65"])

@pipeline.stage(deadline_s=1)
async def value(python):
    await anyio.sleep(60)
""")
    run = project.run("--keep-going")
    assert run.code == 1
    for name in ("image", "value"):
        stage = run.stage(name)
        assert stage["result"] == "timeout"
        assert stage["reason"] == "ran longer than its deadline of 1 s"
        assert stage["duration_s"] < 4
    assert settled("sleep 65")


@pytest.mark.fault(16)
def test_deadline_of_the_run_keeps_reports_and_leaves_time_for_teardown(project: Project) -> None:
    """Exit 124; what ran is a timeout with its reports; the clean-up still runs."""
    project.write("""
pipeline.deadline_s = 4

@pipeline.stage
def slow(python):
    return Command(python, "echo half > half.txt; exec sleep 66", shell=True, reports=[Report("half.txt")])

@pipeline.stage(needs=[slow])
def after(python):
    return Command(python, "true")

@pipeline.stage(needs=[after], always=True)
def clean(python):
    return Command(python, "echo cleaned")
""")
    run = project.run()
    assert run.code == 124
    assert [stage["result"] for stage in run.record["stages"]] == ["timeout", "skip", "success"]
    assert run.stage("after")["reason"] == "because the run's deadline of 4 s passed"
    assert (project.folder / "reports/half.txt").read_text() == "half\n"
    assert settled("sleep 66")


def test_pushes_side_by_side_share_one_rehearsal_after_the_other(project: Project) -> None:
    """Two images are pushed in one run, and neither stops the other's registry."""
    project.write(
        """
@pipeline.stage
async def one(python, registry):
    return await registry.push(python.with_new_file("/one", "{salt}"), tags=["one"])

@pipeline.stage
async def two(python, registry):
    return await registry.push(python.with_new_file("/two", "{salt}"), tags=["two"])
""".replace("{salt}", project.salt)
    )
    run = project.run()
    assert run.code == 0, run.out
    assert "Pushed (rehearsal): localhost:5000/demo:one" in run.out
    assert "Pushed (rehearsal): localhost:5000/demo:two" in run.out
    again = project.run()
    assert [again.stage(name)["cached"] for name in ("one", "two")] == [True, True]


def test_secret_is_masked_in_reports_and_in_no_cache_key(project: Project) -> None:
    """What a test writes into its reports is masked; a new value does not spoil the cache."""
    project.write("""
@pipeline.stage(secrets={"token": Secret.env("DEMO_TOKEN")})
def test(python, token):
    line = 'printf "<testsuite><testcase name=\\\\"%s\\\\"/></testsuite>" x > j.xml; echo "$T" > plain.txt; printf "%s" "$T" | base64 > b.txt'
    container = python.with_secret_variable("T", token)
    return Command(container, line, shell=True, reports=[JUnit("j.xml"), Report("plain.txt"), Report("b.txt")])
""")
    first = project.run(DEMO_TOKEN=SECRET)
    assert first.code == 0, first.out
    kept = project.folder / "reports"
    assert (kept / "plain.txt").read_text() == "***\n"
    assert "Y29ycmVjdC1ob3JzZ" not in (kept / "b.txt").read_text()
    files = [path for path in project.folder.rglob("*") if path.is_file()]
    assert [path.name for path in files if "horse" in path.read_text(errors="replace")] == []
    second = project.run(DEMO_TOKEN=SECRET.upper())
    assert second.stage("test")["cached"] is True


def test_stages_found_out_are_run_and_drawn(project: Project) -> None:
    """A dict of commands becomes stages side by side, which what needs the finder waits for."""
    project.write("""
@pipeline.stage
def packages(python):
    return {name: Command(python, f"echo {name}") for name in ("alpha", "beta")}

@pipeline.stage(needs=[packages])
async def count(packages):
    return [await done.stdout() for done in packages.values()]
""")
    run = project.run()
    assert run.code == 0, run.out
    names = [stage["name"] for stage in run.record["stages"]]
    assert names == ["packages", "count", "packages[alpha]", "packages[beta]"]
    assert run.out.count("PASSED") == 4


@pytest.mark.fault(21)
def test_service_that_fails_once_is_tried_again(project: Project) -> None:
    """A retry after a service's fault starts another server; both attempts are recorded."""
    project.write(
        """
@pipeline.service
def moody(python):
    cache = dag.cache_volume("moody-{salt}")
    line = "if [ -e /c/x ]; then exec python -m http.server 8000; fi; touch /c/x; echo not today; exit 9"
    return Service(container=python.with_mounted_cache("/c", cache), port=8000, args=["sh", "-c", line])

@pipeline.stage(retries=2)
def test(python, moody):
    return Command(python, "true", services=[moody])
""".replace("{salt}", project.salt)
    )
    run = project.run()
    assert run.code == 0, run.out
    (attempt,) = run.stage("test")["attempts"]
    assert (attempt["result"], attempt["fault"]) == ("error", "service")
    assert "trying again in" in run.out


def test_start_of_a_service_has_a_deadline_of_its_own(project: Project) -> None:
    """Given at its decorator, it replaces what the health check would allow."""
    project.write("""
@pipeline.service(deadline_s=1.5)
def sleeper(python):
    return Service(container=python, port=1, args=["sleep", "67"], health=Health(command=["false"]))

@pipeline.stage
def test(python, sleeper):
    return Command(python, "true", services=[sleeper])
""")
    run = project.run()
    assert run.code == 4
    assert "service 'sleeper' never became healthy within 1.5 s" in run.stage("test")["reason"]
    assert settled("sleep 67")


def test_dry_run_knows_images_and_times_of_the_last_run(project: Project) -> None:
    """After one run the plan shows from which images a stage is made, and how long it took."""
    project.write("""
@pipeline.service
def postgres():
    return postgres_service("15-alpine", database="dry")

@pipeline.stage
def test(python, postgres):
    return Command(python, "sleep 0.2", services=[postgres])
""")
    before = project.run("--dry-run")
    assert "images known after the first run" in before.out
    assert project.run().code == 0
    after = project.run("--dry-run")
    assert re.search(
        r"1  test\s+test\s+\d+\.\d s\s+postgres:15-alpine, python:3.11-slim", after.out
    )


def test_output_is_told_while_it_comes(project: Project) -> None:
    """Lines of a stage and of its service are events before the stage has ended, secrets masked."""
    project.write("""
@pipeline.service
def talker(python) -> Service:
    line = "while true; do echo alive $SALT; sleep 0.2; done & python -m http.server 8000"
    return Service(container=python, port=8000, args=["sh", "-c", line])

@pipeline.service
def worker(python) -> Service:
    line = "while true; do echo at work $SALT; sleep 0.2; done & python -m http.server 8000"
    made = python.with_exec(["touch", "/made"])
    return Service(container=made, port=8000, args=["sh", "-c", line])

@pipeline.stage(secrets={"key": Secret.env("KEY")})
def slow(python, key, talker: Service, worker: Service) -> Command:
    line = 'printf "%s\\n" "$KEY"; echo one; sleep 1; printf tw; sleep 1; echo o'
    with_key = python.with_secret_variable("KEY", key)
    return Command(with_key, line, shell=True, services=[talker, worker])
""")
    run = project.run(KEY="hunter2-hunter2")
    assert run.code == 0, run.out
    lines = (project.folder / "reports/events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    told = [e for e in events if e["event"] == "output_written" and e["stage"] == "slow"]
    assert "".join(e["text"] for e in told) == "***\none\ntwo\n"
    (ended,) = [e["at_s"] for e in events if e["event"] == "stage_finished"]
    assert told[0]["at_s"] < ended - 1
    heard = [e["text"] for e in events if e["event"] == "output_written" and e["service"]]
    assert any("alive" in text for text in heard)
    assert any("at work" in text for text in heard)


@pytest.mark.fault(15)
def test_stages_side_by_side_have_their_own_deadlines(project: Project) -> None:
    """The engine takes volatile variables of one name to be equal, whatever their values."""
    project.write("""
def add(n):
    def stage(python) -> Command:
        line = "tr '\\\\0' ' ' < /proc/$PPID/cmdline"
        return Command(python, f"{line} # {n}", shell=True)
    stage.__name__ = f"stage{n}"
    pipeline.stage(deadline_s=100 + n)(stage)

for n in range(6):
    add(n)
""")
    run = project.run("-j", "6")
    assert run.code == 0, run.out
    for n in range(6):
        output = run.stage(f"stage{n}")["output"]
        assert f"timeout -s INT -k 5 10{n}.000" in output, run.out


def test_command_sees_the_variables_that_its_author_gave(project: Project) -> None:
    """Whatever they are called, with secrets and without, and no other ones of ours."""
    project.write("""
OWN = {name: "own" for name in "run deadline code sed limit pipe one two one_ mask".split()}
LINE = "env | sort | grep -v -e ^PENSTOCK_AGAIN | grep -i -e =own -e penstock"

@pipeline.stage
def plain(python):
    return Command(python, LINE, shell=True, env=OWN)

@pipeline.stage(secrets={"token": Secret.env("DEMO_TOKEN")})
def masked(python, token):
    return Command(python.with_secret_variable("T", token), LINE, shell=True, env=OWN)
""")
    run = project.run("-v", DEMO_TOKEN="correct-horse-battery")
    assert run.code == 0, run.out
    names = ["run", "deadline", "code", "sed", "limit", "pipe", "one", "two", "one_", "mask"]
    for stage in ("plain", "masked"):
        log = (project.folder / f"reports/logs/{stage}.txt").read_text().splitlines()
        assert sorted(log) == sorted(f"{name}=own" for name in names), stage
