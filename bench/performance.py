"""`docs/performance.md`: the figures of all sittings beside the targets, and their picture."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from bench.cases import AGAIN, AGAIN_RUN, BARE, HAND, NEW, OURS, POLLED
from bench.sitting import PYTHON, ROOT, Bench, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Sitting = dict[str, Result]
PAGE, PICTURE = ROOT / "docs/performance.md", ROOT / "docs/pictures/performance.svg"
INTRO = """\
# Performance

Written by `python3 -m bench`, which measures everything below in {count} and writes this page.
No figure in here was typed. Every case runs in rounds, one contender after the other, in turned order; a
ratio is the median of the rounds' own ratios, in brackets its 95 % interval. `penstock` is
[`bench/project/pipeline.py`](../bench/project/pipeline.py); *bare Dagger* is the same graph on the SDK
alone, [`bare.py`](../bench/project/bare.py); *by hand* is
[`by_hand.sh`](../bench/project/by_hand.sh): PostgreSQL in Docker, ruff and pytest on this host, an image
built and pushed; nox and act run the same gates on this host beside the same database.

![Medians]({picture})

"""


@dataclass(frozen=True)
class Target:
    """What was aimed at.

    Args:
        words: The target.
        case: Whose figures decide.
        figure: Returns the figure and whether it is met.
        else_: Why not, should it not be met.
    """

    words: str
    case: str
    figure: Callable[[Result], tuple[str, bool]]
    else_: str = ""


def ratio(
    mine: str, its: str, most: float, *, upper: bool = False
) -> Callable[..., tuple[str, bool]]:
    """Return what judges a ratio, or the upper bound of its interval."""

    def judged(result: Result) -> tuple[str, bool]:
        middle, low, high = result[mine].ratio_to(result[its])
        return f"{middle:.2f} ({low:.2f} to {high:.2f})", (high if upper else middle) <= most

    return judged


def least(name: str, most: float) -> Callable[[Result], tuple[str, bool]]:
    """Return what judges a median."""

    def judged(result: Result) -> tuple[str, bool]:
        numbers = result[name]
        return f"{numbers.median:.2f} {numbers.unit}", numbers.median <= most

    return judged


def overhead(result: Result) -> tuple[str, bool]:
    """Judge the processor time beyond that of the yardstick."""
    mine, its = result[OURS].values, result[BARE].values
    more = sorted(a - b for a, b in zip(mine, its, strict=True))[len(mine) // 2]
    return f"{1000 * more:+.0f} ms", more <= 0.1


WARM, CHANGED, RED = "Nothing changed", "One app file changed", "Red test: to the word FAILED"
LOOK, MEMORY = "Look and run nothing", "Peak memory of the client"
BYTES, BUSY = (
    "Bytes to the engine for one changed file",
    "Processor of the client while a stage runs",
)
SIBLING = "Red stage to the end of its sibling"
FILE_KIB = (ROOT / "bench/project/app/main.py").stat().st_size / 1024
TARGETS = [
    Target(
        "processor time of a warm run: at most 100 ms more than bare Dagger's",
        f"{WARM}: processor time",
        overhead,
    ),
    Target(
        "wall time of a warm run to bare Dagger's: upper bound at most 1.05",
        WARM,
        ratio(OURS, BARE, 1.05, upper=True),
    ),
    Target("the same: at most 0.8", WARM, ratio(OURS, BARE, 0.8)),
    Target(
        "the same, stretch: at most 0.5",
        WARM,
        ratio(OURS, BARE, 0.5),
        "most of what is left is Python importing the SDK and its libraries (see below)",
    ),
    Target(
        "one app file changed, to bare Dagger: at most 0.85",
        CHANGED,
        ratio(OURS, BARE, 0.85),
        "more than half of it is the tests themselves, which are the same on both sides",
    ),
    Target("the same, to by hand with 10 s: at most 0.5", CHANGED, ratio(OURS, HAND, 0.5)),
    Target("the same, to by hand, polled: at most 1.0", CHANGED, ratio(OURS, POLLED, 1.0)),
    Target("red test, to by hand, polled: at most 1.0", RED, ratio(OURS, POLLED, 1.0)),
    Target("a red stage's sibling ends within 0.5 s", SIBLING, least(OURS, 0.5)),
    Target("`--list` within 250 ms", LOOK, least("--list", 0.25)),
    Target("`--dry-run` within 300 ms", LOOK, least("--dry-run", 0.3)),
    Target(
        "bytes to the engine for a changed file: at most twice its size and 64 KiB",
        BYTES,
        least(OURS, 2 * FILE_KIB + 64),
    ),
    Target(
        "second run on an empty engine, to the first: at most 0.5",
        "Runner that begins empty, with PENSTOCK_CACHE",
        ratio(AGAIN, NEW, 0.5),
    ),
    Target(
        "the same with --no-reuse, all stages executed",
        "Runner that begins empty, with PENSTOCK_CACHE",
        ratio(AGAIN_RUN, NEW, 0.5),
        "a pulled base takes as long to unpack as the locked packages take from a mirror nearby",
    ),
    Target(
        "watched, a saved file to the tests' result: at most 1.5 s over pytest's time",
        "Watched: from a saved file to the tests' result, beyond pytest's own time",
        least(OURS, 1.5),
    ),
    Target("client's peak memory at most 150 MB", MEMORY, least(OURS, 150)),
    Target("client's processor under 10 % of a core while a stage runs", BUSY, least(OURS, 10)),
]


def tables(sittings: Sequence[Sitting]) -> str:
    """Return every figure of every case."""
    parts = []
    for name, result in sittings[0].items():
        heads = "".join(f" {n}. min | median | max |" for n in range(1, len(sittings) + 1))
        unit = result.numbers[0].unit
        rows = [f"| {unit} |{heads}", f"|---|{'--:|' * 3 * len(sittings)}"]
        for numbers in result.numbers:
            cells = ""
            for sitting in (s for s in sittings if name in s):
                found = sitting[name][numbers.name]
                low, high = min(found.values), max(found.values)
                cells += f" {low:.2f} | **{found.median:.2f}** | {high:.2f} |"
            rows.append(f"| {numbers.name} |{cells}")
        note = f"\n({result.note[0].upper()}{result.note[1:]}.)\n" if result.note else ""
        rounds = len(result.numbers[0].values)
        parts.append(f"### {name}\n\n{rounds} rounds.\n{note}\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def judged(sittings: Sequence[Sitting]) -> str:
    """Return the targets with their figures."""
    heads = "".join(f" sitting {n} |" for n in range(1, len(sittings) + 1))
    rows = [f"| target |{heads} |", f"|---|{'--:|' * len(sittings)}---|"]
    for target in TARGETS:
        found = [target.figure(s[target.case]) for s in sittings if target.case in s]
        if found:
            met = [is_met for _, is_met in found]
            word = "met" if all(met) else f"not met{': ' if target.else_ else ''}{target.else_}"
            word = "met in one sitting only" if any(met) and not all(met) else word
            rows.append(f"| {target.words} | {' | '.join(f for f, _ in found)} | {word} |")
    return "\n".join(rows) + "\n"


def profile(bench: Bench) -> str:
    """Return where the time of a run goes, nothing changed and one file changed."""
    rows = {"nothing changed": _phases(bench), "one app file changed": {}}
    bench.edit(OURS, "app/main.py")
    rows["one app file changed"] = _phases(bench)
    names = list(dict.fromkeys(name for phases in rows.values() for name in phases))
    lines = [f"| s | {' | '.join(rows)} |", f"|---|{'--:|' * len(rows)}"]
    for name in names:
        cells = " | ".join(
            f"{phases[name]:.2f}" if name in phases else "" for phases in rows.values()
        )
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def _phases(bench: Bench) -> Mapping[str, float]:
    before = time.time()
    taken = bench.run(OURS, [PYTHON, "pipeline.py"])
    text = (bench.copy(OURS) / "reports/events.jsonl").read_text()
    events = [json.loads(line) for line in text.splitlines()]
    at = {f"{e['event']} {e.get('stage', '')}".strip(): e["at_s"] for e in events}
    began = time.mktime(time.strptime(events[0]["started_at"][:19], "%Y-%m-%dT%H:%M:%S"))
    begun_s = began - time.timezone + float(events[0]["started_at"][19:23]) - before
    phases = {
        "Python, this library and the plan": begun_s,
        "SDK imported, connected (the session opens beside it)": at["engine_connected"],
        "lint": at["stage_finished lint"] - at["stage_started lint"],
        "test, beside lint": at["stage_finished test"] - at["stage_started test"],
        "push": at["stage_finished push"] - at["stage_started push"],
        "session closed, reports written": at["run_finished"] - at["stage_finished push"],
    }
    known = begun_s + at["run_finished"]
    return phases | {"Python's own end": taken.wall_s - known, "in all": taken.wall_s}


def picture(sitting: Sitting) -> str:
    """Return the medians of the main cases as bars."""
    names = (WARM, CHANGED, "One test changed", RED)
    rows: list[tuple[str, str, float]] = [
        (case, numbers.name, numbers.median)
        for case in names
        if case in sitting
        for numbers in sitting[case].numbers
        if "," not in numbers.name or "hand" in numbers.name
    ]
    longest = max(value for *_, value in rows)
    parts, y, last = [], 0, ""
    for case, name, value in rows:
        if case != last:
            y += 34
            parts.append(f'<text x="8" y="{y}" class="case">{escape(case)}</text>')
            last = case
        y += 20
        width = 420 * value / longest
        kind = "ours" if name == OURS else "other"
        parts += [
            f'<text x="180" y="{y}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="190" y="{y - 11}" width="{width:.1f}" height="13" class="{kind}"/>',
            f'<text x="{195 + width:.1f}" y="{y}">{value:.1f} s</text>',
        ]
    style = (
        "text{font:13px system-ui,sans-serif;fill:#24292f}.case{font-weight:600}"
        ".ours{fill:#1f6feb}.other{fill:#afb8c1}svg{background:#fff}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 {y + 16}" width="680">'
        f"<style>{style}</style>{''.join(parts)}</svg>\n"
    )


def write(sittings: Sequence[Sitting], facts: Mapping[str, str], phases: str) -> None:
    """Write the page and its picture."""
    count = (
        "one sitting" if len(sittings) == 1 else f"{len(sittings)} sittings, one after the other"
    )
    machine = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    relative = PICTURE.relative_to(PAGE.parent)
    PAGE.write_text(
        INTRO.format(count=count, picture=relative)
        + f"## Targets\n\n{judged(sittings)}\n"
        + f"## Where the time goes\n\nIn `penstock`, one run each.\n\n{phases}\n"
        + f"## Every figure\n\n{tables(sittings)}\n"
        + f"## This machine\n\n| | |\n|---|---|\n{machine}\n"
    )
    PICTURE.write_text(picture(sittings[0]))
