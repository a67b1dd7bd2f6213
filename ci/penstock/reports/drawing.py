"""Pictures of a plan: as text, as Mermaid, as SVG."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.graph import Graph
    from penstock.plan import Plan

BOX_WIDTH, BOX_HEIGHT, GAP_X, GAP_Y, MARGIN = 200, 36, 60, 16, 16
CHARACTERS = 26  # what fits into a box


def text(plan: Plan) -> str:
    """Return a line for each stage, first those that wait for nothing; indented by the levels before."""
    depths = _depths(plan.graph)
    lines = []
    for name in sorted(plan.stages, key=depths.__getitem__):
        needs = plan.stages[name].needs
        arrow = f"  <- {', '.join(needs)}" if needs else ""
        skip = f"  ({plan.skipped[name]})" if name in plan.skipped else ""
        lines.append(f"{'  ' * depths[name]}{name}{arrow}{skip}")
    return "\n".join(lines)


def mermaid(plan: Plan) -> str:
    """Return a Mermaid flowchart; nodes are numbered, because names may hold any character."""
    ids = {name: f"s{number}" for number, name in enumerate(plan.stages)}
    lines = ["flowchart LR"]
    for name, stage in plan.stages.items():
        # In a text anything but a word may be syntax; `#35;` is how Mermaid writes a character.
        label = re.sub(r"[^\w .,=()\[\]+/-]", lambda found: f"#{ord(found[0])};", name)
        lines.append(f'    {ids[name]}["{label}"]')
        lines += [f"    {ids[need]} --> {ids[name]}" for need in stage.needs]
    lines += [f"    style {ids[name]} stroke-dasharray: 4" for name in ids if name in plan.skipped]
    return "\n".join(lines)


def svg(plan: Plan) -> str:
    """Return a self-contained SVG: stages in columns, each right of all that it needs."""
    places = places_of(plan.graph)
    width = max(x for x, _ in places.values()) + BOX_WIDTH + MARGIN
    height = max(y for _, y in places.values()) + BOX_HEIGHT + MARGIN
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="13"',
        f' viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        f"<title>{_xml(plan.pipeline.name)}</title>",
    ]
    for name, stage in plan.stages.items():
        parts += [_edge(places[need], places[name]) for need in stage.needs]
    for name, stage in plan.stages.items():
        reason = plan.skipped.get(name)
        words = f"{stage.title}: SKIPPED ({reason})" if reason else stage.title
        parts.append(_box(name, words, places[name], dashed=bool(reason)))
    return "\n".join([*parts, "</svg>"])


FORMATS: dict[str, Callable[[Plan], str]] = {"text": text, "mermaid": mermaid, "svg": svg}


def places_of(graph: Graph) -> dict[str, tuple[int, int]]:
    """Return the left upper corner of each stage's box, in columns right of all that it needs."""
    rows: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for name, depth in _depths(graph).items():
        row = rows[depth] = rows.get(depth, -1) + 1
        places[name] = (MARGIN + depth * (BOX_WIDTH + GAP_X), MARGIN + row * (BOX_HEIGHT + GAP_Y))
    return places


def _depths(graph: Graph) -> dict[str, int]:
    depths: dict[str, int] = {}
    for name in graph.order():
        depths[name] = max((depths[need] + 1 for need in graph.needs[name]), default=0)
    return depths


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    path = curve(start, end)
    return f'<path d="{path}" fill="none" stroke="#8a8f98" stroke-width="1.5"/>'


def curve(start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the path, as SVG writes it, from the box at a place to the one that needs it."""
    x1, y1 = start[0] + BOX_WIDTH, start[1] + BOX_HEIGHT // 2
    x2, y2 = end[0], end[1] + BOX_HEIGHT // 2
    bend = (x1 + x2) // 2
    return f"M{x1} {y1} C{bend} {y1} {bend} {y2} {x2} {y2}"


def _box(name: str, title: str, place: tuple[int, int], *, dashed: bool) -> str:
    x, y = place
    shown = name if len(name) <= CHARACTERS else f"{name[: CHARACTERS - 1]}\u2026"
    middle = f'x="{x + BOX_WIDTH // 2}" y="{y + BOX_HEIGHT // 2 + 5}"'
    dashes = ' stroke-dasharray="4"' if dashed else ""
    return (
        f'<g><title>{_xml(title)}</title><rect x="{x}" y="{y}" width="{BOX_WIDTH}" '
        f'height="{BOX_HEIGHT}" rx="6" fill="#eef3fb" stroke="#3b6ea8"{dashes}/>'
        f'<text {middle} text-anchor="middle" fill="#1d2733">{_xml(shown)}</text></g>'
    )


def _xml(words: str) -> str:
    """Return a text for XML, which knows no control characters, not even escaped ones."""
    allowed = re.sub("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", words)
    return allowed.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
