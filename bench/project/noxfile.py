"""The same gates under nox: its sessions run on this host, beside a database made by hand."""

import nox

nox.options.reuse_existing_virtualenvs = True


@nox.session
def lint(session: nox.Session) -> None:
    """Lint with ruff."""
    session.install("-r", "requirements.txt")
    session.run("ruff", "check", "app", "tests")


@nox.session
def test(session: nox.Session) -> None:
    """Test with coverage."""
    session.install("-r", "requirements.txt")
    session.run(
        "pytest", "-q", "-p", "no:cacheprovider", "--cov=app", "--cov-report=term",
        "--cov-report=html", "--cov-report=xml", "--junitxml=r.xml", "--cov-fail-under=80",
    )  # fmt: skip
