"""What users get wrong: each is named with its place and the next step, before anything starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock import Command, Coverage, Health, Pipeline, Report, Secret, Service, Source
from penstock.errors import DefinitionError
from penstock.when import Condition

ROOT = Path(__file__).parents[2]
BOX: Any = SimpleNamespace(with_exec=None)  # which is what a container is known by
NO_ENGINE = "tcp://127.0.0.1:1"
PIPELINE = """
from penstock import Pipeline
pipeline = Pipeline("p\N{UNICORN FACE}")
@pipeline.stage
def lint():
    "Lint \N{UNICORN FACE}"
if __name__ == "__main__":
    raise SystemExit(pipeline.main())
"""


def findings(pipeline: Pipeline) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        pipeline.check()
    return list(caught.value.findings)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"deadline_s": float("nan")}, "has nan as `deadline_s`; write a number of seconds above"),
        ({"deadline_s": float("inf")}, "has inf as `deadline_s`"),
        ({"deadline_s": True}, "has True as `deadline_s`"),
        ({"deadline_s": None}, "has None as `deadline_s`"),
        ({"retries": True}, "has True as `retries`; write a whole number, 0 or more"),
        ({"tags": [5]}, "has [5] as `tags`; write a list of names"),
        ({"tags": ["a\n"]}, "has ['a\\n'] as `tags`"),
        ({"tags": [""]}, "has [''] as `tags`"),
        ({"uses": [None]}, "has [None] as `uses`"),
        ({"retry_on": [2.5]}, "has [2.5] as `retry_on`; write a list of classes of faults"),
        ({"needs": [5]}, "needs '5', which is no stage of this pipeline"),
        ({"exclude": ["x"]}, "has ['x'] as `exclude`; write a list of dicts"),
        ({"matrix": {c: range(100) for c in "abcd"}}, "has a matrix of 100000000 cells"),
        (
            {"matrix": {"a": ["x/y", "x-y"]}},
            "has values on the matrix axis 'a' that are one in the",
        ),
        ({"secrets": {"t": "hunter2"}}, "has {'t': 'str'} as `secrets`; write a dict of `Secret."),
        ({"secrets": {"t": Secret.env("")}}, "has {'t': 'Secret'} as `secrets`"),
    ],
)
def test_wrong_option_is_named_without_what_may_be_secret(
    options: dict[str, Any], words: str
) -> None:
    """One finding for each, with its place; what a dict holds is not printed."""
    pipeline = Pipeline("p")

    @pipeline.stage(**options)
    def lint() -> None: ...

    (finding,) = findings(pipeline)
    assert re.match(r"\S*test_bad_input\.py:\d+: stage 'lint' ", finding)
    assert words in finding
    assert "hunter2" not in finding


def test_wrong_pipeline_is_found_all_at_once() -> None:
    """Name, root and bounds, with the place of the call; the command line still answers."""
    wrong: Any = {"name": "", "root": "/tmp", "deadline_s": -1, "teardown_s": "1"}  # noqa: S108 - a text
    pipeline = Pipeline(**wrong)
    assert [re.sub(r"^\S+test_bad_input\.py:\d+: ", "", line) for line in findings(pipeline)] == [
        "the pipeline has '' as `name`; write a name on one line, in a text",
        "the pipeline has one text as `root`; give the path of a folder",
        "the pipeline has -1 as `deadline_s`; write a number of seconds above 0",
        "the pipeline has one text as `teardown_s`; write a number of seconds above 0",
    ]
    assert pipeline.main([]) == 2


def test_odd_functions_are_refused() -> None:
    """Generators, builtins and what is no function at all, in one go."""
    pipeline = Pipeline("p")
    anything: Any = pipeline

    @pipeline.stage
    def one() -> Any:  # noqa: ANN401 - a generator
        yield 1

    @pipeline.container
    async def two() -> Any:  # noqa: ANN401 - a generator
        yield 1

    @pipeline.service(deadline_s=-1)
    def three() -> None: ...

    pipeline.stage(min)
    anything.stage("text")(lambda: None)
    found = findings(pipeline)
    assert len(found) == 6
    for words in (
        "stage 'one' yields, and is asked only once; return the value",
        "container 'two' yields",
        "service 'three' has -1 as `deadline_s`; write a number of seconds above 0, or leave it",
        "'min' is no named function",
        "'str' is no named function",
        "'<lambda>' is no named function",
    ):
        assert any(words in finding for finding in found), words


@pytest.mark.parametrize("answer", [5, RuntimeError("boom")])
def test_condition_that_cannot_be_decided_is_exit_2(
    answer: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the author's own code, and no bug of ours."""

    def decide(_run: object) -> Any:  # noqa: ANN401 - the point
        if isinstance(answer, Exception):
            raise answer
        return answer

    pipeline = Pipeline("p", root=tmp_path)

    @pipeline.stage(when=Condition(decide, decide))
    def lint() -> None: ...

    assert pipeline.main(["--dry-run"]) == 2
    said = capsys.readouterr().err
    assert "stage 'lint' has a condition that cannot be decided: " in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Report("a\nb"), "the report path 'a\\nb' leaves the working directory, or is"),
        (lambda: Report("x" * 300), "leaves the working directory, or is none"),
        (lambda: Report(5), "the report path 5 leaves"),  # type: ignore[arg-type]  # the point
        (lambda: Coverage("c", at_least=200), "Coverage has 200 as `at_least`; write a number of"),
        (lambda: Coverage("c", files={"a": -1}), "Coverage has {'a': 'int'} as `files`"),
        (lambda: Command(None, "x"), "Command has None as `container`; take a container"),  # type: ignore[arg-type]  # the point
        (lambda: Command(BOX, "a\0"), "Command has 'a\\x00' as `line`; write a line"),
        (lambda: Command(BOX, ["a", 5]), "Command has ['a', 5] as `line`"),  # type: ignore[list-item]  # the point
        (lambda: Command(BOX, "x", env={"A=B": "x"}), "Command has {'A=B': 'str'} as `env`"),
        (lambda: Command(BOX, "x", env={"A": 5}), "Command has {'A': 'int'} as `env`"),  # type: ignore[dict-item]  # the point
        (lambda: Command(BOX, "x", reports=Report("a")), "as `reports`; write a list of"),  # type: ignore[arg-type]  # the point
        (lambda: Service(container=BOX, port=0), "Service has 0 as `port`; write a port, 1 to"),
        (lambda: Service(container=BOX, port=70000), "Service has 70000 as `port`"),
        (lambda: Service(container=BOX, port=True), "Service has True as `port`"),
        (lambda: Service(container=BOX, port=1, args="x"), "Service has one text as `args`"),
        (
            lambda: Health(interval_s=0, retries=0),
            "Health has 0 as `interval_s`; write a number of seconds above 0 and has 0 as `retries`",
        ),
        (lambda: Health(command="true"), "Health has one text as `command`; write a list of"),
        (lambda: Source([]), "Source has [] as `include`; write a list of paths or patterns"),
        (lambda: Source(["../x"]), "Source has ['../x'] as `include`"),
        (lambda: Source(["/etc"]), "Source has ['/etc'] as `include`"),
    ],
)
def test_wrong_value_is_refused_in_the_authors_own_line(make: Any, words: str) -> None:  # noqa: ANN401 - any of them
    """The class, the field, what it was given, and what to write."""
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "path", ["/dev/zero", "~nobody-of-that-name/x", "/", "/missing\N{WAVE DASH}"]
)
def test_secret_of_an_odd_file_has_no_value(path: str) -> None:
    """An endless one is not read to its end."""
    with pytest.raises(LookupError, match="the file "):
        Secret.file(path).read()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "p.py").write_text(PIPELINE, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text("{{{")
    return tmp_path


def shell(project: Path, line: str, **environ: str) -> tuple[int, str]:
    """Return the exit code of a shell line and all that it printed; `$P` is the pipeline."""
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "ci"),
        "P": f"{sys.executable} {project}/p.py",
        "PENSTOCK_PROGRAM": "p",
        **environ,
    }
    done = subprocess.run(
        ["sh", "-c", line],
        cwd=project,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.decode()


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("$P --engine ''", 2, "wants an address like `tcp://host:port` or `container://name`"),
        ("$P --engine nonsense", 2, "not 'nonsense'"),
        ("$P --engine 'tcp://[::'", 2, "not 'tcp://[::'"),
        ('$P -k "$DEEP"', 2, "it has more than 200 words and parentheses"),
        ("PYTHONIOENCODING=ascii $P --help", 0, "p\\U0001f984"),
        ("COLUMNS=0 $P --engine $NO", 4, "PIPELINE STOPPED"),
        ("COLUMNS=abc $P --engine $NO", 4, "PIPELINE STOPPED"),
        ("GITHUB_ACTIONS=true GITHUB_EVENT_PATH=deep $P --engine $NO", 4, "PIPELINE STOPPED"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT=http://[:: $P --engine $NO", 4, "PIPELINE STOPPED"),
        ("TRACEPARENT=x TERM= NO_COLOR=1 FORCE_COLOR=1 $P --engine $NO", 4, "PIPELINE STOPPED"),
        ("env -u HOME TMPDIR=/missing $P --engine $NO", 4, "PIPELINE STOPPED"),
        ("$P --engine $NO >&-", 4, ""),
        ("$P --engine $NO <&- >&- 2>&-", 4, ""),
        ("$P --list >&-", 0, ""),
        ("$P --only x 2>/dev/full", 2, ""),
        ("mkdir gone && cd gone && rmdir ../gone && $P --list", 0, "lint  Lint"),
        ("mkdir gone && cd gone && rmdir ../gone && $P --engine $NO", 4, "PIPELINE STOPPED"),
        ("touch 'a\nb'; mkdir 'x\n y'; cp p.py pyproject.toml x*; ${P%p.py}x*/p.py --list", 0, ""),
        (f"{sys.executable} -m penstock report deep", 2, "deep holds no event of a run"),
    ],
)
def test_odd_call_ends_in_words_and_with_its_code(
    project: Path, line: str, code: int, words: str
) -> None:
    """Whatever the options, the environment and the streams are; never with a traceback."""
    (project / "deep").write_text("[" * 100_000)
    ended, said = shell(project, line, DEEP="(" * 999 + "a" + ")" * 999, NO=NO_ENGINE)
    assert (ended, "Traceback" in said) == (code, False), said
    assert words in said
