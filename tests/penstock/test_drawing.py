from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import Pipeline
from penstock.config import RunInfo
from penstock.model import Skip, Stage
from penstock.plan import Plan
from penstock.reports import drawing
from penstock.state import State

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    'say "hi"',
    "<script>alert(1)</script>",
    "a & b &amp; c",
    "two\nlines",
    "end",
    "subgraph",
    'a]b["c"] --> d',
    "#35; #quot;",
    '%%{init: {"theme": "dark"}}%%',
    "`markdown`",
    "style x:#f00;",
    "\x00\x1b[31m\ufffe",
    "]]>",
]


def plan(*stages: Stage, name: str = "shop") -> Plan:
    nowhere = Path("/nowhere")
    run = RunInfo(id="", root=nowhere, commit="c", branch="b")
    by_name = {stage.name: stage for stage in stages}
    return Plan(pipeline=Pipeline(name), stages=by_name, run=run, state=State(nowhere))


def chain(names: list[str]) -> Plan:
    """Return a plan in which each stage needs the one before it, named and titled alike."""
    needs: list[tuple[str, ...]] = [(), *((name,) for name in names)]
    pairs = zip(names, needs, strict=False)
    return plan(*(Stage(name=n, title=n, needs=need) for n, need in pairs), name=names[0])


def some() -> Plan:
    return plan(
        Stage(name="lint", title="Lint"),
        Stage(name="test", needs=("lint",), skip=Skip(reason="not on a tag"), title="Test"),
        Stage(name="docs", title="Write"),
        Stage(name="push", needs=("lint", "test"), title="Push"),
    )


def labels(mermaid: str) -> list[str]:
    """Return the labels of a flowchart as Mermaid shows them."""
    found = re.findall(r'^    s\d+\["([^"]*)"\]$', mermaid, re.MULTILINE)
    return [re.sub(r"#(\d+);", lambda code: chr(int(code[1])), label) for label in found]


def test_text_shows_needs_levels_and_skips() -> None:
    """What waits for nothing comes first; what is skipped says why, also because of another."""
    assert drawing.text(some()).splitlines() == [
        "lint",
        "docs",
        "  test  <- lint  (not on a tag)",
        "    push  <- lint, test  (because test was skipped)",
    ]


def test_mermaid_shows_stages_needs_and_skips() -> None:
    """A node for each stage, an arrow for each need, a dashed border around what is skipped."""
    assert drawing.mermaid(some()).splitlines() == [
        "flowchart LR",
        '    s0["lint"]',
        '    s1["test"]',
        "    s0 --> s1",
        '    s2["docs"]',
        '    s3["push"]',
        "    s0 --> s3",
        "    s1 --> s3",
        "    style s1 stroke-dasharray: 4",
        "    style s3 stroke-dasharray: 4",
    ]


@pytest.mark.parametrize("name", [*HOSTILE, "test[python=3.12,db=15]"])
def test_mermaid_takes_every_name_as_text(name: str) -> None:
    """No name breaks the chart, and each is shown as it is."""
    # Checked by hand with mermaid 11.17: these and 400 random names come back from its parser.
    drawn = drawing.mermaid(chain([name, "last"]))
    assert labels(drawn) == [name, "last"]
    assert len(drawn.splitlines()) == 4
    assert not set(drawn.splitlines()[1][:-2].partition('"')[2]) & set('"<>&%`{}|:\\\n')


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True))
def test_mermaid_shows_any_names(names: list[str]) -> None:
    """Each name is one node, whatever it holds."""
    assert labels(drawing.mermaid(chain(names))) == names


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text(min_size=1) | st.sampled_from(HOSTILE), min_size=1, unique=True, max_size=4)
)
def test_svg_is_xml_whatever_names_and_titles_hold(names: list[str]) -> None:
    """It can be read, with a title and a text for each stage; unprintable characters are replaced."""
    root = ET.fromstring(drawing.svg(chain(names)))  # noqa: S314 - our own
    boxes = root.findall(f"{SVG}g")
    assert len(boxes) == len(names)
    for box, name in zip(boxes, names, strict=True):
        printable = re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\ufffd", name)
        shown = printable if len(name) <= 26 else f"{printable[:25]}\u2026"
        assert read(box.find(f"{SVG}title")) == as_read(printable)
        assert read(box.find(f"{SVG}text")) == as_read(shown)


def read(element: ET.Element | None) -> str:
    assert element is not None
    return element.text or ""


def as_read(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")  # as every reader of XML does


def test_svg_puts_each_stage_right_of_all_that_it_needs() -> None:
    """Boxes lie in columns, inside the picture, and none covers another."""
    root = ET.fromstring(drawing.svg(some()))  # noqa: S314 - our own
    boxes = [rect.attrib for rect in root.iter(f"{SVG}rect")]
    lint, test, docs, push = [(int(box["x"]), int(box["y"])) for box in boxes]
    assert lint[0] == docs[0] < test[0] < push[0]
    assert lint[1] != docs[1]
    assert push[0] + 200 < int(root.attrib["width"])
    assert docs[1] + 36 < int(root.attrib["height"])


def test_svg_marks_what_is_skipped_and_draws_every_need() -> None:
    """A dashed box whose title says why; a line for each need."""
    root = ET.fromstring(drawing.svg(some()))  # noqa: S314 - our own
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert titles[:3] == ["shop", "Lint", "Test: SKIPPED (not on a tag)"]
    dashed = [rect.get("stroke-dasharray") for rect in root.iter(f"{SVG}rect")]
    assert dashed == [None, "4", None, "4"]
    assert len(list(root.iter(f"{SVG}path"))) == 3
