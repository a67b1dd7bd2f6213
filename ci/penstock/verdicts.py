"""Verdicts of commands, kept beside the bases: what passed anywhere need not run again."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from penstock.config import run_url
from penstock.events import Event, StageFinished
from penstock.identity import NoIdentityError
from penstock.model import Origin
from penstock.reports.record import LOG_FOLDER

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import dagger

    from penstock.cache import Cache
    from penstock.config import RunInfo
    from penstock.model import Command, Stage

LABEL = "penstock.verdict"
REPORTS, LOG = "reports", "log.txt"
MOST_BYTES = 20 << 20  # of a stage's log and reports, which travel with its verdict
LONGEST = 200  # characters of each word that somebody else wrote


@dataclass(frozen=True)
class Found:
    """A verdict that is kept.

    Args:
        origin: Where it comes from.
        reports: The stage's reports.
        log: What its command printed.
    """

    origin: Origin
    reports: dagger.Directory
    log: dagger.File


@dataclass
class Verdicts:
    """The verdicts of one run.

    Args:
        cache: Where they are kept.
        run: The surroundings.
        is_reused: Whether those of other runs count.
    """

    cache: Cache
    run: RunInfo
    is_reused: bool
    _known: dict[str, tuple[str, Path, Sequence[str]]] = field(default_factory=dict)

    async def find(self, stage: Stage, command: Command, into: Path) -> Found | None:
        """Return the verdict on a command, if it has one; when it passes now, that is kept."""
        import dagger

        try:
            key = await self.cache.identities.of(stage.name, stage.deadline_s, command)
        except NoIdentityError:
            return None
        tag = f"verdict-{key}"
        paths = [path for report in command.reports for path in report.paths]
        self._known[stage.name] = (tag, into, paths)
        if not self.is_reused or not (image := await self.cache.find(tag)):
            return None
        with suppress(dagger.QueryError):
            if origin := _read(await image.label(LABEL) or ""):
                return Found(origin, image.directory(REPORTS), image.file(LOG))
        return None

    def keep(self, event: Event) -> None:
        """Listen for the end of stages, and keep the verdict on each that passed here."""
        if not isinstance(event, StageFinished) or event.stage not in self._known:
            return
        outcome = event.outcome
        # What the engine had already was kept by the run that executed it.
        is_news = outcome.passed and not outcome.origin and (self.is_reused or not outcome.cached)
        if is_news and sum(file.size_bytes for file in outcome.artifacts) <= MOST_BYTES:
            tag, into, paths = self._known[event.stage]
            origin = Origin(
                run_id=self.run.id,
                commit=self.run.commit,
                passed_at=datetime.now(UTC).isoformat(timespec="seconds"),
                duration_s=round(outcome.duration_s, 3),
                url=run_url(self.run.environ),
            )
            logs = (a.path for a in outcome.artifacts if a.path.startswith(f"{LOG_FOLDER}/"))
            log = next((self.run.reports / path for path in logs), None)
            self.cache.news[tag] = _image(origin, into, paths, log)


def _image(origin: Origin, into: Path, paths: Sequence[str], log: Path | None) -> dagger.Container:
    from dagger import dag

    reports = dag.directory()
    if paths:  # nothing at all would mean everything
        include = [pattern for path in paths for pattern in (path, f"{path}/**")]
        reports = dag.host().directory(str(into), include=include)
    text = log.read_text(encoding="utf-8", errors="replace") if log else ""
    files = dag.directory().with_directory(REPORTS, reports).with_new_file(LOG, text)
    return dag.container().with_directory("/", files).with_label(LABEL, json.dumps(asdict(origin)))


def _read(label: str) -> Origin | None:
    """Return what a label tells; whoever can write to the cache can have written it."""
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        told = json.loads(label)
        words = {n: str(told[n])[:LONGEST] for n in ("run_id", "commit", "passed_at", "url")}
        return Origin(duration_s=float(told["duration_s"]), **words)
    return None
