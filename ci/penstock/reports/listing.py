"""What there is and what would happen, without an engine: `--list` and `--dry-run`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from penstock.errors import UsageError
from penstock.model import Result
from penstock.reports.literal import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from penstock.model import Stage
    from penstock.pipeline import Definition
    from penstock.plan import Plan


def stages(plan: Plan, *, as_json: bool) -> str:
    """Return the stages in order, a line each, or as JSON."""
    listed = [plan.stages[name] for name in plan.graph.order()]
    if as_json:
        entries = [
            {"name": s.name, "title": s.title, "needs": list(s.needs), "tags": list(s.tags)}
            for s in listed
        ]
        return json.dumps(entries, indent=2)
    return "\n".join(_columns([(s.name, s.title + _after(s)) for s in listed]))


def _after(stage: Stage) -> str:
    return f"  (after {', '.join(stage.needs)})" if stage.needs else ""


def dry_run(plan: Plan, *, as_json: bool) -> str:
    """Return what a run would do if every stage passed: order, skips, images, secrets, time."""
    definitions = plan.pipeline.definitions
    listed = [plan.stages[name] for name in plan.starts_s]
    entries = [_entry(plan, stage, definitions[stage.family]) for stage in listed]
    if as_json:
        expected_s = round(plan.expected_s, 3)
        content = {"stages": entries, "skipped": plan.skipped, "expected_s": expected_s}
        return json.dumps(content, indent=2)
    commit = plan.run.commit[:12]
    lines = [f"{plan.pipeline.name} at {commit}: {len(entries)} of {len(plan.stages)} stages"]
    lines += _columns([_row(number, entry) for number, entry in enumerate(entries, start=1)])
    lines += [f"{name}: SKIPPED ({reason})" for name, reason in plan.skipped.items()]
    unknown = sum(1 for entry in entries if entry["expected_s"] is None)
    if entries:
        lines.append(_time(plan.expected_s, unknown, len(entries)))
    return "\n".join(lines)


def explain(record: Path, names: Sequence[str]) -> str:
    """Return why stages ran in the last run or came from the cache: `--explain`.

    Args:
        record: That run's `run.json`.
        names: Of the stages.

    Raises:
        UsageError: When there is no such record.
    """
    try:
        run = json.loads(record.read_text(encoding="utf-8"))
        ran = {stage["name"]: stage for stage in run["stages"]}
        head = one_line(f"run of {run['started_at']}, commit {run['commit'][:12]}")
        return "\n".join(
            [head, *(line for name in names for line in _reasons(name, ran.get(name)))]
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"no run to explain: {record} cannot be read; run the pipeline first"
        raise UsageError(message) from error


def _reasons(name: str, ran: Mapping[str, Any] | None) -> Iterator[str]:
    if ran is None or "result" not in ran:
        yield f"{name}: was not part of it"
        return
    words = [Result(ran["result"]).label]
    words += ["(reused)" if ran.get("origin") else "(cached)"] if ran["cached"] else []
    words += [f"({ran['reason']})"] if ran["reason"] else []
    yield one_line(f"{name}: {' '.join(words)}")
    yield from (f"  {one_line(reason)}" for reason in ran.get("why", ()))


def _entry(plan: Plan, stage: Stage, definition: Definition) -> dict[str, Any]:
    return {
        "name": stage.name,
        "title": stage.title,
        "needs": list(stage.needs),
        "images": plan.state.images.get(stage.family),
        "secrets": {n: f"{s.kind} {s.source}" for n, s in definition.secrets.items()},
        "expected_s": plan.state.durations_s.get(stage.name),
        "begins_early": stage.name in plan.early,
    }


def _row(number: int, entry: dict[str, Any]) -> tuple[str, ...]:
    expected = entry["expected_s"]
    about = "" if expected is None else f"{expected:.1f} s"
    images = entry["images"]
    facts = ["images known after the first run"] if images is None else images
    facts = [*facts, *(f"secret {name} ({source})" for name, source in entry["secrets"].items())]
    facts += ["begins early"] if entry["begins_early"] else []
    return f"{number:>4}", entry["name"], entry["title"], about, ", ".join(facts)


def _time(expected_s: float, unknown: int, count: int) -> str:
    if unknown == count:
        return "expected time: known after the first run"
    rest = f", and {unknown} stages never timed" if unknown else ""
    return f"expected time: {expected_s:.1f} s when nothing is cached{rest}"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
