"""The command line of a pipeline: `python ci/main.py [--only STAGE] [--list] ...`."""

from __future__ import annotations

import argparse
import io
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO
from urllib.parse import urlsplit

import anyio

from penstock import stuck
from penstock.cache import VARIABLE
from penstock.config import REPORTS, RunInfo, spare_loopback
from penstock.errors import SIGNALLED_CODE, PenstockError, UsageError
from penstock.plan import Plan
from penstock.redact import Redactor
from penstock.runner import BUG_CODE, NOTHING_CODE
from penstock.secrets import read_all
from penstock.select import Selection, named
from penstock.session import ENGINE_VARIABLE
from penstock.state import State, alone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from penstock.pipeline import Pipeline
    from penstock.reports import Look

LEFT_BEHIND = "WARNING: a {} that a stage left behind would not end; not waited for"
PROGRAM_VARIABLE = "PENSTOCK_PROGRAM"  # the words that started this, where others than ours did


def main(pipeline: Pipeline, argv: Sequence[str] | None = None) -> int:
    """Run a pipeline's command line and return the exit code.

    0 passed, 1 a stage failed or ran out of time, 2 definition, usage or surroundings wrong, 3 a
    bug of ours, 4 engine, service or registry broke, 5 nothing selected or nothing required ran,
    124 deadline of the run, 129, 130 and 143 interrupted.
    """
    redactor = Redactor()
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by who started us, `>&-`
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - as long as we live
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _terminable():
            return _carry_out(pipeline, _parser(pipeline).parse_args(argv), redactor)
    except PenstockError as error:
        _complain(redactor, f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt as error:
        received = signal.Signals(error.args[0] if error.args else signal.SIGINT)
        _complain(redactor, f"interrupted by {received.name}")
        return SIGNALLED_CODE + received
    except Exception:  # noqa: BLE001 - the last place where a secret can be kept out of a traceback
        words = "error: penstock itself failed, as shown above"
        _complain(redactor, f"{traceback.format_exc()}{words}")
        return BUG_CODE
    finally:
        # What nobody can read any more, Python would try once more, and end with 120 for it.
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                _silence(stream)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let other signals raise what Ctrl-C raises, where no run listens to signals itself."""

    def end(number: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt(number)

    numbers = [signal.SIGTERM, signal.SIGHUP] if _is_main_thread() else []
    wanted = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _carry_out(pipeline: Pipeline, options: argparse.Namespace, redactor: Redactor) -> int:
    if options.watch and (options.list or options.graph or options.dry_run or options.explain):
        message = "--watch runs stages; --list, --graph, --dry-run and --explain run nothing"
        raise UsageError(message)
    if options.list or options.graph or options.dry_run:
        _print(_shown(_plan(pipeline, options), options))
        return 0
    if options.explain:
        _print(_explained(pipeline, options.explain))
        return 0
    if not _is_main_thread():
        message = "a run hears signals, which Python gives to the main thread only: start it there"
        raise UsageError(message)
    spare_loopback(os.environ)
    if options.engine:
        os.environ[ENGINE_VARIABLE] = options.engine
    threads = stuck.threads()
    code = (_watch if options.watch else _run)(pipeline, options, redactor)
    if stuck.wait_for_none(threads, code):
        _complain(redactor, LEFT_BEHIND.format("thread"))
    return code


def _run(pipeline: Pipeline, options: argparse.Namespace, redactor: Redactor) -> int:
    plan, secrets = _prepared(pipeline, options)
    reports = pipeline.root / REPORTS
    with alone(pipeline.root, reports, partial(_complain, redactor)) as waited:
        if waited:
            plan, secrets = _prepared(pipeline, options)  # with what that run has left
        from penstock.reports import shown
        from penstock.run import run

        with ExitStack() as afterwards, shown(_look(options), plan.run, redactor) as listeners:
            work = partial(run, plan, secrets, redactor, listeners, afterwards)
            return _on_loop(work, redactor)


def _watch(pipeline: Pipeline, options: argparse.Namespace, redactor: Redactor) -> int:
    from penstock import watch
    from penstock.reports import shown

    plan = _plan(pipeline, options)
    if os.environ.get(watch.LOAD_VARIABLE):
        return 0
    if plan.run.ci:
        message = "--watch has no end, and CI waits for one: leave it out, or unset `CI`"
        raise UsageError(message)
    if options.rerun_failed:  # those of now, in every round
        options.only, options.rerun_failed = list(plan.stages), False
    secrets: dict[tuple[str, str], str] = {}
    told: set[str] = set()

    def prepare() -> tuple[Plan, Mapping[tuple[str, str], str]]:
        """Read a secret once: a command that tells it may ask people."""
        plan = _plan(pipeline, options)
        new = [name for name in plan.families if name not in told]
        secrets.update(read_all(pipeline.definitions[name] for name in new))
        told.update(new)
        return plan, secrets

    prepare()  # what is missing is told before anything starts
    look = _look(options)
    watching = watch.Watch(
        pipeline,
        prepare=prepare,
        show=lambda info: shown(look, info, redactor),
        say=partial(_tell, redactor, look),
        complain=partial(_complain, redactor),
        redactor=redactor,
    )
    with ExitStack() as afterwards:
        code = _on_loop(partial(watching.run, afterwards), redactor)
    if watching.is_new:
        watch.start_anew()
    return code


def _on_loop(work: Callable[[], Awaitable[int]], redactor: Redactor) -> int:
    """Return what a coroutine returns, and do not wait for a task that it leaves behind."""
    ended: list[int] = []

    async def go() -> None:
        ended.append(await work())
        stuck.leave()

    with stuck.watched():
        try:
            anyio.run(go)
        except stuck.StuckError:
            _complain(redactor, LEFT_BEHIND.format("task"))
    return ended[0]


def _prepared(
    pipeline: Pipeline, options: argparse.Namespace
) -> tuple[Plan, Mapping[tuple[str, str], str]]:
    plan = _plan(pipeline, options)
    return plan, read_all(pipeline.definitions[name] for name in plan.families)


def _plan(pipeline: Pipeline, options: argparse.Namespace) -> Plan:
    stages = pipeline.check()
    state = State.load(pipeline.root)
    if options.rerun_failed and state.failed is None:
        message = "--rerun-failed: nothing ran here before; run without it first"
        raise UsageError(message)
    selection = Selection(
        only=options.only or (),
        until=options.until or (),
        skip=options.skip or (),
        keywords=options.keywords,
        tags=options.tags or (),
        failed=state.failed if options.rerun_failed else None,
    )
    chosen = selection.apply(stages)
    if not chosen or [] in (options.only, options.until):
        none_failed = "none of them failed in the last run"
        why = f": {none_failed}" if options.rerun_failed else "; `--list` shows what there is"
        message = f"no stage is selected{why}"
        raise NothingSelectedError(message)
    run = RunInfo.discover(pipeline.root)
    plan = Plan.make(
        pipeline,
        chosen,
        run,
        state,
        jobs=options.jobs,
        keep_going=options.keep_going,
        speculate=options.speculate,
        reuse=options.reuse,
    )
    if options.reuse and not plan.cache:
        message = f"--reuse: nothing is kept anywhere; name a repository in {VARIABLE}"
        raise UsageError(message)
    return plan


def _explained(pipeline: Pipeline, names: Sequence[str]) -> str:
    from penstock.reports import listing
    from penstock.reports.record import RUN

    stages = pipeline.check()
    wanted = named(names, stages)
    path = pipeline.root / REPORTS / RUN
    return listing.explain(path, [name for name in stages if name in wanted])


def _shown(plan: Plan, options: argparse.Namespace) -> str:
    from penstock.reports import drawing, listing

    if options.graph:
        return drawing.FORMATS[options.graph](plan)
    if options.list:
        return listing.stages(plan, as_json=options.json)
    return listing.dry_run(plan, as_json=options.json)


def _look(options: argparse.Namespace) -> Look:
    from penstock.reports import Look

    verbosity = options.verbose - options.quiet
    return Look(verbosity=verbosity, color=options.color, json=options.json)


def _tell(redactor: Redactor, look: Look, text: str) -> None:
    """Say something between two runs to people who want words."""
    if look.json:
        _complain(redactor, text)
    elif look.verbosity >= 0:
        _print(redactor.mask(text))


def _print(text: str) -> None:
    """Print for people and pipes: what the terminal cannot show is escaped, `| head` is no error."""
    try:
        print(text, flush=True)  # noqa: T201 - the command line speaks here
    except OSError as error:
        _silence(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            message = f"cannot print: {error.strerror}"
            raise UsageError(message) from error


def _complain(redactor: Redactor, text: str) -> None:
    try:
        print(redactor.mask(text), file=sys.stderr, flush=True)  # noqa: T201 - the command line speaks here
    except OSError:  # nobody can be told; the exit code still says it
        _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """Let nothing fail again, when Python ends, that is still buffered."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class NothingSelectedError(PenstockError):
    """Raised when a selection leaves no stage."""

    exit_code = NOTHING_CODE


def _parser(pipeline: Pipeline) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program(pipeline),
        description=f"Run the pipeline '{pipeline.name}'.",
        allow_abbrev=False,
    )
    names: Any = {"metavar": "STAGE[,STAGE]", "type": _names, "action": "extend"}
    switch: Any = {"action": "store_true"}
    select = parser.add_argument_group("which stages (each option narrows the others)")
    select.add_argument("--only", **names, help="these, and what they need")
    select.add_argument("--until", **names, help="nothing that stands behind these")
    select.add_argument("--skip", **names, help="not these; what needs a gate is skipped too")
    select.add_argument(
        "-k", dest="keywords", metavar="EXPR", default="", help="by name: `unit and not slow`"
    )
    select.add_argument("-t", dest="tags", metavar="TAG", action="append", help="with this tag")
    select.add_argument("--rerun-failed", **switch, help="those that did not pass in the last run")
    show = parser.add_argument_group("look, and run nothing")
    show.add_argument("--list", **switch, help="print the stages")
    show.add_argument("--graph", choices=("text", "mermaid", "svg"), help="draw them")
    show.add_argument(
        "--dry-run",
        **switch,
        help="print what would run, in which order, from which images, with which secrets",
    )
    show.add_argument(
        "--explain", **names, help="say why these ran in the last run, or came from the cache"
    )
    how = parser.add_argument_group("how")
    how.add_argument("-j", "--jobs", type=_positive, metavar="N", help="most stages at a time")
    how.add_argument(
        "--keep-going", **switch, help="after a failure run all that is still possible"
    )
    how.add_argument(
        "--speculate",
        **switch,
        help="begin what only makes a container beside its gates; thrown away when one fails",
    )
    how.add_argument(
        "--watch", **switch, help="again whenever a file changes that a stage is made from"
    )
    how.add_argument(
        "--reuse",
        action=argparse.BooleanOptionalAction,
        help=f"take over what passed with the same inputs in another run, from {VARIABLE}; by "
        "default, but not in CI on the default branch",
    )
    how.add_argument(
        "--engine",
        type=_url,
        metavar="URL",
        help="use this engine (tcp, unix, ssh, tls, container, ...)",
    )
    see = parser.add_argument_group("what is printed")
    see.add_argument("-q", "--quiet", **switch, help="failures and the verdict only")
    see.add_argument("-v", "--verbose", **switch, help="the output of every stage, as it comes")
    see.add_argument(
        "--json", **switch, help="for machines: a run's events, a line each, or what --list shows"
    )
    see.add_argument("--color", choices=("auto", "always", "never"), default="auto")
    return parser


def _names(text: str) -> list[str]:
    # A comma inside brackets belongs to the name of a cell, `test[db=15,python=3.12]`.
    return [name for name in re.split(r",(?![^\[]*\])", text) if name]


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        message = f"wants a whole number of at least 1, not '{text}'"
        raise argparse.ArgumentTypeError(message)
    return number


def _url(text: str) -> str:
    try:
        is_url = "://" in text and text.isprintable() and bool(urlsplit(text).scheme)
    except ValueError:
        is_url = False
    if not is_url:
        message = f"wants an address like `tcp://host:port` or `container://name`, not {text!r}"
        raise argparse.ArgumentTypeError(message)
    return text


def program(pipeline: Pipeline) -> str:
    """Return the words that start this pipeline."""
    file = pipeline.file
    shown = file.relative_to(pipeline.root) if file.is_relative_to(pipeline.root) else file
    return os.environ.get(PROGRAM_VARIABLE) or f"python {shlex.quote(str(shown))}"
