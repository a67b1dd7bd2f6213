"""What needs the host's own git, which the pipeline's images do not have."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import dagger
import pytest

from penstock import Service
from penstock.config import RunInfo
from penstock.reports.annotations import changed_lines
from penstock.when import changed

if TYPE_CHECKING:
    from collections.abc import Callable

    Git = Callable[..., str]

ROOT = Path(__file__).parents[1]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Return git in a new repository on `main`, with one commit of one file."""
    for variable in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")

    def run(*words: str) -> str:
        own = ["-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
        done = subprocess.run(
            ["git", *own, *words], check=True, capture_output=True, text=True, timeout=10
        )
        return done.stdout.strip()

    run("init", "-q", "-b", "main")
    write(tmp_path, "app/main.py")
    run("add", ".")
    run("commit", "-q", "-m", "first")
    return run


def write(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def commit(git: Git, root: Path, path: str, text: str = "") -> str:
    write(root, path, text)
    git("add", ".")
    git("commit", "-q", "-m", path)
    return git("rev-parse", "HEAD")


def test_commit_and_branch_come_from_git(git: Git, tmp_path: Path) -> None:
    """On a laptop the checkout itself is asked."""
    git("switch", "-q", "-c", "topic/a")
    run = RunInfo.discover(tmp_path, {})
    assert run.commit == git("rev-parse", "HEAD")
    assert (run.branch, run.ci, run.on_default_branch) == ("topic/a", False, False)


def test_branch_is_known_beside_a_tag_of_the_same_name(git: Git, tmp_path: Path) -> None:
    """Git itself would write `heads/main`."""
    git("tag", "main")
    assert RunInfo.discover(tmp_path, {}).branch == "main"


def test_detached_checkout_has_no_branch(git: Git, tmp_path: Path) -> None:
    """`HEAD` is not the name of one."""
    git("checkout", "-q", "--detach")
    run = RunInfo.discover(tmp_path, {})
    assert (run.commit, run.branch) == (git("rev-parse", "HEAD"), "")


def test_repository_without_a_commit_has_a_branch(tmp_path: Path) -> None:
    """The very first run may come before the first commit."""
    subprocess.run(["git", "-C", str(tmp_path), "init", "-q", "-b", "main"], check=True, timeout=10)
    run = RunInfo.discover(tmp_path, {})
    assert (run.commit, run.branch) == ("uncommitted", "main")


@pytest.mark.parametrize(
    ("path", "patterns", "expected"),
    [
        ("app/x.py", ["app/**"], True),
        ("app/deep/x.py", ["app/**"], True),
        ("app/x.py", ["app"], True),
        ("app/x.py", ["lib/**"], False),
        ("app/x.py", ["lib/**", "app/*.py"], True),
        ("app/deep/x.py", ["app/*.py"], False),
        ("docs/x.md", ["**/*.md"], True),
        ("x.md", ["**/*.md"], True),
        ("caf\u00e9/x.md", ["caf\u00e9/**"], True),
    ],
)
@pytest.mark.parametrize("how", ["committed", "added", "untracked"])
def test_change_is_found_by_git_s_globs(
    git: Git, tmp_path: Path, *, path: str, patterns: list[str], expected: bool, how: str
) -> None:
    """A file counts that differs from where the branch began, whatever git knows of it yet."""
    git("switch", "-q", "-c", "topic")
    write(tmp_path, path)
    if how != "untracked":
        git("add", ".")
    if how == "committed":
        git("commit", "-q", "-m", "change")
    assert RunInfo.discover(tmp_path, {}).has_changed(patterns) is expected


@pytest.mark.parametrize("pattern", ["app/**", "lib/**"])
def test_moved_and_deleted_files_are_changes(git: Git, tmp_path: Path, pattern: str) -> None:
    """Where a file was and where it is now, something changed."""
    git("switch", "-q", "-c", "topic")
    (tmp_path / "lib").mkdir()
    git("mv", "app/main.py", "lib/main.py")
    assert RunInfo.discover(tmp_path, {}).has_changed([pattern])


def test_ignored_files_are_no_changes(git: Git, tmp_path: Path) -> None:
    """What git ignores is no part of the project."""
    commit(git, tmp_path, ".gitignore", "*.log\n")
    git("switch", "-q", "-c", "topic")
    write(tmp_path, "app/x.log")
    assert not RunInfo.discover(tmp_path, {}).has_changed(["app/**"])


def test_project_in_a_folder_of_the_repository_has_its_own_patterns(
    git: Git, tmp_path: Path
) -> None:
    """Patterns are relative to the project's folder, not to the repository's."""
    git("switch", "-q", "-c", "topic")
    commit(git, tmp_path, "shop/app/x.py")
    run = RunInfo.discover(tmp_path / "shop", {})
    assert (run.has_changed(["app/**"]), run.has_changed(["shop/**"])) == (True, False)


def test_names_that_are_no_text_are_no_bug(git: Git, tmp_path: Path) -> None:
    """A file's name is bytes; git may be told to print them as they are."""
    git("config", "core.quotepath", "false")
    git("switch", "-q", "-c", "topic")
    (tmp_path / os.fsdecode(b"app/\xff.py")).write_text("")
    assert RunInfo.discover(tmp_path, {}).has_changed(["app/**"])


def test_on_the_default_branch_everything_counts_as_changed(git: Git, tmp_path: Path) -> None:
    """There is nothing to compare with."""
    assert git("branch", "--show-current") == "main"
    run = RunInfo.discover(tmp_path, {})
    assert (run.base, run.has_changed(["nowhere/**"])) == ("", True)


def test_default_branch_is_the_one_that_the_remote_names(git: Git, tmp_path: Path) -> None:
    """A clone knows it, `main` is only the guess without one."""
    first = git("rev-parse", "HEAD")
    git("branch", "-m", "trunk")
    git("update-ref", "refs/remotes/origin/trunk", first)
    git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk")
    assert RunInfo.discover(tmp_path, {}).base == ""
    git("switch", "-q", "-c", "topic")
    commit(git, tmp_path, "lib/x.py")
    assert RunInfo.discover(tmp_path, {}).base == first


def test_ci_host_says_where_a_change_begins(git: Git, tmp_path: Path) -> None:
    """A push begins at what was there before, a pull request where it left its target."""
    first = git("rev-parse", "HEAD")
    git("update-ref", "refs/remotes/origin/main", first)
    second = commit(git, tmp_path, "app/x.py")
    commit(git, tmp_path, "lib/x.py")
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"before": second}))
    push = RunInfo.discover(tmp_path, {"CI": "true", "GITHUB_EVENT_PATH": str(event)})
    assert push.base == second
    assert RunInfo.discover(tmp_path, {"CI": "true", "GITHUB_BASE_REF": "main"}).base == first


@pytest.mark.parametrize("before", ["", "0" * 40, "f" * 40, "nonsense"])
def test_without_a_commit_to_compare_with_everything_counts_as_changed(
    git: Git, tmp_path: Path, before: str
) -> None:
    """A new branch, a shallow clone and an unknown host skip nothing."""
    git("switch", "-q", "-c", "topic")
    event = tmp_path / "event.json"
    event.write_text(json.dumps({"before": before}))
    run = RunInfo.discover(tmp_path, {"CI": "true", "GITHUB_EVENT_PATH": str(event)})
    assert (run.base, run.has_changed(["nowhere/**"])) == ("", True)


def test_git_that_fails_skips_nothing(git: Git, tmp_path: Path) -> None:
    """A repository that cannot be read counts as changed."""
    git("switch", "-q", "-c", "topic")
    run = RunInfo.discover(tmp_path, {})
    assert not run.has_changed(["lib/**"])
    (tmp_path / ".git/index").write_text("broken")
    assert run.has_changed(["lib/**"])


def test_stage_is_skipped_because_nothing_changed(git: Git, tmp_path: Path) -> None:
    """`when=changed(...)` asks git and says what did not change."""
    git("switch", "-q", "-c", "topic")
    run = RunInfo.discover(tmp_path, {})
    skip = changed("lib/**").unmet(run)
    assert skip
    assert (skip.reason, skip.holds) == ("nothing changed in lib/**", False)
    write(tmp_path, "lib/x.py")
    assert changed("lib/**").unmet(run) is None


def test_coverage_report_opens_in_the_checkout(git: Git, tmp_path: Path) -> None:
    """What this repository's own command writes in a container, diff-cover reads outside of it."""
    code = "def f(x):\n    if x:\n        return 1\n    return 2\n"
    container = tmp_path / "container"
    write(container, "app/__init__.py")
    write(container, "app/main.py", code)
    write(container, "tests/app/test_f.py", "from app.main import f\ndef test_f(): assert f(1)\n")
    shutil.copy(ROOT / "pyproject.toml", container)
    main = runpy.run_path(str(ROOT / "ci" / "main.py"))
    unused = dagger.dag.container()
    server = Service(container=unused, port=1)
    python(container, *main["test"](unused, server, server).argv)
    report = container / "coverage.xml"
    assert report.read_text().count("<source>") == 1

    shutil.copy(report, tmp_path)
    write(tmp_path, "app/main.py", code)
    options = ["--compare-branch=main", "--format", "json:diff.json"]
    python(tmp_path, "diff_cover.diff_cover_tool", "coverage.xml", *options)
    found = json.loads((tmp_path / "diff.json").read_text())["src_stats"]
    assert found["app/main.py"]["violation_lines"] == [4]
    assert git("diff", "--name-only") == "app/main.py"


def python(folder: Path, *module: str) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-m", *module]
    subprocess.run(command, cwd=folder, env=environ, check=True, timeout=60)


def test_changed_lines_are_read_from_what_git_itself_prints(git: Git, tmp_path: Path) -> None:
    """New, changed, lost and deleted lines, hard names, and lines that look like a diff's own."""
    before = {"a.py": "1\n2\n3\n4\n", "gone.py": "x\n", "less.py": "1\n2\n", "end": "1\n2"}
    after = {"a.py": "0\n1\n2\nB\n4\n++ b/fake.py\n@@ -1 +9 @@\n", "less.py": "2\n", "end": "1\n3"}
    names = ['na\u00efve "x".py', "two words.py", "b/b.py", 'quoted"', "back\\"]
    for name, text in before.items():
        write(tmp_path, name, text)
    git("add", "-A")
    git("commit", "-qm", "before")
    (tmp_path / "gone.py").unlink()
    for name, text in after.items() | {(name, "1\n2\n") for name in names}:
        write(tmp_path, name, text)
    git("add", "-A")
    for context in ("-U0", "-U3"):
        assert changed_lines(git("diff", context, "HEAD")) == {
            "a.py": {1, 4, 6, 7},
            "less.py": set(),
            "end": {2},
            **{name: {1, 2} for name in names},
        }


def test_run_knows_the_lines_that_changed(git: Git, tmp_path: Path) -> None:
    """Whatever the user's own git likes to show; without a base it knows none."""
    git("config", "diff.noprefix", "true")
    git("config", "color.diff", "always")
    git("switch", "-q", "-c", "topic")
    write(tmp_path, "app/main.py", "one\n")
    assert changed_lines(RunInfo.discover(tmp_path, {}).diff()) == {"app/main.py": {1}}
    assert RunInfo.discover(tmp_path, {"CI": "true"}).diff() == ""


def test_run_knows_where_it_was_cloned_from(git: Git, tmp_path: Path) -> None:
    """If it was."""
    assert RunInfo.discover(tmp_path, {}).remote() == ""
    git("remote", "add", "origin", "https://example.org/a.git")
    assert RunInfo.discover(tmp_path, {}).remote() == "https://example.org/a.git"
