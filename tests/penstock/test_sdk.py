"""The SDK is imported without what a run does not need, and checks what it is given all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LOADED = "from penstock import sdk; sdk.load(); import dagger; from dagger import dag\n"
CI = Path(__file__).parents[2] / "ci"
PLAIN = {"PENSTOCK_PLAIN_SDK": "1"}


def said(code: str, **env: str) -> str:
    """Return what a program prints that has loaded the SDK, its own way or ours."""
    words = [sys.executable, "-c", LOADED + code]
    env = os.environ | {"PYTHONPATH": str(CI)} | env
    return subprocess.run(words, capture_output=True, text=True, check=True, env=env).stdout


def test_wrong_arguments_are_refused_in_the_same_words() -> None:
    code = """
for call in (
    lambda: dag.container().with_env_variable('A', 5),
    lambda: dag.container().with_exec('ls'),
    lambda: dag.directory().with_new_file(1, 'b'),
    lambda: dag.container().from_(),
    lambda: dagger.BuildArg(name='a'),
):
    try:
        print(call())
    except TypeError as error:
        print(str(error).replace("dagger.client.gen.", "dagger."))
"""
    ours = said(code)
    assert ours.startswith("Method dagger.Container.with_env_variable() parameter value=5 violates")
    assert ours == said(code, **PLAIN)


def test_every_method_can_be_checked() -> None:
    """None of the hints needs what beartype knows only while the class is made."""
    code = """
import inspect
from dagger.client import gen
tried = 0
for cls in list(vars(gen).values()):
    if not inspect.isclass(cls) or cls.__module__ not in ("dagger", gen.__name__):
        continue
    for name, method in list(vars(cls).items()):
        if inspect.isfunction(method) and hasattr(method, "__wrapped__"):
            try:
                answer = method()
                answer.close()
            except (TypeError, AttributeError) as error:
                assert "argument" in str(error), (cls, name, error)
            assert vars(cls)[name] is not method, (cls, name)
            tried += 1
print(tried)
"""
    assert int(said(code)) > 700
    assert said("print(hasattr(dagger.Container.from_, '__wrapped__'))", **PLAIN) == "True\n"


def test_method_is_checked_when_it_is_called_first() -> None:
    """Not when the SDK is imported, which would take half of the time."""
    code = """
before = dagger.Container.from_, dagger.Container.with_exec
dag.container().from_("a")
print(dagger.Container.from_ is before[0], dagger.Container.with_exec is before[1])
"""
    assert said(code) == "False True\n"
    assert said(code, **PLAIN) == "True True\n"


def test_what_is_put_around_a_method_stays_there() -> None:
    """The watch does so, to have folders read anew: it must not be lost at the first call."""
    code = """
inner = dagger.Host.directory
def outer(self, path, **options):
    print("asked", path)
    return inner(self, path, **options)
dagger.Host.directory = outer
for path in "ab":
    dag.host().directory(path)
print(dagger.Host.directory is outer)
"""
    assert said(code) == said(code, **PLAIN) == "asked a\nasked b\nTrue\n"


def test_what_was_left_out_can_be_imported_later() -> None:
    code = """
import beartype, sys
print("dagger.mod" in sys.modules, "httpx._main" in sys.modules)
import dagger.mod, httpx._main
print(beartype.beartype(lambda: 1)())
"""
    assert said(code) == "False False\n1\n"
