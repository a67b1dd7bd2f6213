from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock import Command, Coverage, Health, JUnit, Report, Service, Source
from penstock.model import Origin, Outcome, Provider, Result
from penstock.place import project_root

BOX: Any = SimpleNamespace(with_exec=None)  # which is what a container is known by


def service(**options: Any) -> Service:  # noqa: ANN401 - of the service
    return Service(container=BOX, port=80, **options)


@pytest.mark.parametrize(
    ("line", "shell", "argv"),
    [
        ("pytest -k 'not slow'", False, ["pytest", "-k", "not slow"]),
        (["pytest", "a b"], False, ["pytest", "a b"]),
        ("a && b", True, ["sh", "-ec", "a && b"]),
        (["echo", "a b"], True, ["sh", "-ec", "echo 'a b'"]),
        ("echo $HOME", False, ["echo", "$HOME"]),
    ],
)
def test_line_reaches_a_shell_only_when_asked(line: Any, shell: bool, argv: list[str]) -> None:  # noqa: ANN401 - both kinds
    """A string is split like a shell would, and given to one only by `shell=True`."""
    assert Command(BOX, line, shell=shell).argv == argv


def test_last_word_may_be_empty() -> None:
    """Only the program has to be something."""
    assert Command(BOX, "test -z ''").argv == ["test", "-z", ""]


def test_report_within_another_is_refused() -> None:
    """Keeping the one would delete the other."""
    reports = [Coverage("out/coverage.xml", html="html"), Report("html/index.html")]
    with pytest.raises(ValueError, match=r"'html/index\.html' lies within the report 'html'"):
        Command(BOX, "true", reports=reports)
    Command(BOX, "true", reports=[Report("html"), Report("html2/x")])


@pytest.mark.parametrize("line", ["", "  ", [], "''"])
def test_empty_command_is_refused(line: Any) -> None:  # noqa: ANN401 - both kinds
    """There is nothing to judge."""
    with pytest.raises(ValueError, match="the command is empty"):
        Command(BOX, line)


def test_open_quote_is_refused_with_the_line() -> None:
    """The message shows what could not be split."""
    with pytest.raises(ValueError, match=r"cannot split the line \"echo 'open\": No closing"):
        Command(BOX, "echo 'open")


def test_function_instead_of_its_result_is_refused() -> None:
    """Whoever forgets the parameter is told to add it."""

    def postgres() -> None: ...

    function: Any = postgres
    with pytest.raises(
        TypeError, match=r"has \[the function 'postgres'\] as `services`; .* taken as param"
    ):
        Command(BOX, "true", services=[function])
    with pytest.raises(TypeError, match="has the function 'postgres' as `container`; take"):
        Command(function, "true")


@pytest.mark.parametrize("options", [{"services": ["postgres"]}, {"reports": ["junit.xml"]}])
def test_other_values_are_no_services_and_no_reports(options: dict[str, Any]) -> None:
    """A name is not enough."""
    with pytest.raises(
        TypeError, match=r"has \['(postgres|junit.xml)'\] as `(services|reports)`; write a list of"
    ):
        Command(BOX, "true", **options)


def test_service_waits_as_long_as_its_health_or_its_deadline_says() -> None:
    """The decorator's deadline replaces interval times retries."""
    patient = service(health=Health(interval_s=2, retries=3))
    assert patient.patience_s == 6
    assert service(deadline_s=0.5).patience_s == 0.5


def test_service_of_a_cell_is_another_one() -> None:
    """Its key tells it apart, its host name stays."""
    assert service(name="db").key == "db"
    assert service(name="db", cell="[python=3.12]").key == "db[python=3.12]"


def test_source_is_rooted_at_the_project() -> None:
    """Patterns are relative to the folder with pyproject.toml, wherever the process runs."""
    assert Source(["app"]).root == Path(__file__).parents[2]


def test_project_root_falls_back_to_the_own_folder(tmp_path: Path) -> None:
    """A file in no project is its own project."""
    assert project_root(tmp_path / "pipeline.py") == tmp_path
    (tmp_path / "pyproject.toml").touch()
    assert project_root(tmp_path / "ci/deep/pipeline.py") == tmp_path


def test_results_have_their_words_on_screen() -> None:
    """OpenTelemetry's six, in the words of the design."""
    words = ["PASSED", "FAILED", "ERROR", "TIMED OUT", "CANCELLED", "SKIPPED"]
    assert [result.label for result in Result] == words


def test_verdict_of_another_run_is_told_from_what_the_engine_had() -> None:
    """On screen in one word, and in a sentence that leads to that run."""
    origin = Origin(run_id="f" * 32, commit="c" * 40, passed_at="2026-11-26", duration_s=8.24)
    labels = [
        Outcome(result=Result.SUCCESS).label,
        Outcome(result=Result.SUCCESS, cached=True).label,
    ]
    labels += [Outcome(result=Result.SUCCESS, cached=True, origin=origin).label]
    assert labels == ["PASSED", "PASSED (cached)", "PASSED (reused)"]
    assert str(origin) == "passed in run ffffffff of commit cccccccccccc, 2026-11-26, in 8.2 s"
    assert str(replace(origin, url="https://ci/1")) == f"{origin}: https://ci/1"


def test_value_is_no_part_of_an_outcome_s_repr_or_equality() -> None:
    """It may be anything, a secret included."""
    outcome = Outcome(result=Result.SUCCESS, value="hidden")
    assert "hidden" not in repr(outcome)
    assert outcome == Outcome(result=Result.SUCCESS)
    assert outcome.passed


def test_provider_reads_names_and_title_once() -> None:
    """Parameters without a default, the first line of the docstring without its full stop."""

    def shop(db: object, *, level: int = 3) -> None:
        """Run the shop.

        And more.
        """

    provider = Provider(name="shop", kind="container", function=shop)
    assert (provider.takes, provider.by_position, provider.title) == (("db",), (), "Run the shop")


def test_reports_say_all_their_paths() -> None:
    """A JUnit file is one."""
    assert JUnit("a/b.xml").paths == ("a/b.xml",)


def test_source_asks_for_its_files_only() -> None:
    """The engine is sent what the patterns match, and nothing is evaluated by saying so."""
    source = Source(["app", "uv.lock"], exclude=["**/x"])
    host, directory = source.directory()._ctx.selections
    assert (host.name, directory.name) == ("host", "directory")
    assert directory.args["include"] == ["app", "uv.lock"]
    assert directory.args["exclude"] == ["**/x"]
    assert directory.args["path"] == str(source.root)
