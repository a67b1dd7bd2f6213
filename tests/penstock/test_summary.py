from __future__ import annotations

import html
import re
import string
from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from penstock.events import (
    CoverageRead,
    EngineConnected,
    Event,
    OutputWritten,
    RunFinished,
    RunStarted,
    ServiceFailed,
    StageFinished,
    StageRetried,
    StageStarted,
    TestsRead,
    Warned,
)
from penstock.evidence import FileCoverage, Finding, TestCase, TestResult
from penstock.model import Attempt, Outcome, Result, Stage
from penstock.reports.literal import literal, one_line
from penstock.reports.summary import LEFT_OUT, summary
from penstock.reports.view import RunView


def red(text: str, stages: int = 1, tests: int = 1) -> RunView:
    """Return what is known of a failed run in which every word that can be is a given text."""
    names = [f"{text}{number}" for number in range(stages)]
    case = TestCase(name=text, suite=text, result=TestResult.FAILED, message=text, detail=text)
    found = Finding(file=text, line=3, message=text, code=text)
    outcome = Outcome(
        result=Result.FAILURE,
        reason=text,
        notes=(text, f"Pushed: {text}"),
        findings=(found,) * tests,
        duration_s=3,
    )
    events: list[Event] = [
        RunStarted(
            pipeline=text,
            run_id=text,
            commit=text,
            branch=text,
            started_at=text,
            stages=tuple(Stage(name=name, title=text) for name in names),
            reproduce=text,
        ),
        EngineConnected(version=text, duration_s=1),
        Warned(message=text),
        ServiceFailed(service="db", what=text, reason=text),
        OutputWritten(service="db", text=text),
    ]
    for name in names:
        files = (FileCoverage(file=text, percent=70, missing=text),)
        events += [
            StageStarted(stage=name),
            StageRetried(
                stage=name, attempt=Attempt(result=Result.ERROR, reason=text), delay_s=0.0
            ),
            OutputWritten(stage=name, text=text),
            TestsRead(stage=name, cases=(case,) * tests),
            CoverageRead(stage=name, percent=79.99, threshold=80, files=files),
            StageFinished(stage=name, outcome=outcome),
        ]
    events.append(
        RunFinished(result=Result.FAILURE, reason=text, root=names[0], exit_code=1, duration_s=4.9)
    )
    view = RunView()
    for event in events:
        view(event)
    return view


class Page(HTMLParser):
    """What a browser would make of a page: its elements in order, and their text."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown)
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(f"{tag}{attrs or ''}")
        self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(f"/{tag}")

    def handle_comment(self, data: str) -> None:
        if data != " ":  # it parts an `@` from what would make a link of it
            self.tags.append(f"comment {data}")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data


PIECES = [
    *("\n\n", "```\n", "~~~\n", "</pre>", "</details>", "| x |", "|---|\n", "<script>", "<!--"),
    *("\n# ", "\n- ", "[a](b)", "![a](b)", "&lt;", "&#124;", "http://a.b", "]]>", "w", "\u202e"),
    *(
        "1. ",
        "+ ",
        "- ",
        "=",
        "www.x.y",
        "\x1b[31m",
        "\udc80",
        "\x00",
        *"\n\r\t `",
        *string.punctuation,
    ),
]
MARKUP = st.lists(st.sampled_from(PIECES)).map("".join)


@given(MARKUP | st.text(st.characters(codec=None)))
@example("| a | b |\n|---|---|\n</pre></details><script>alert(1)</script>")
def test_hostile_text_changes_no_element_of_the_page(text: str) -> None:
    """Tables, folds and preformatted blocks are the same as with a harmless word."""
    page = Page(summary(red(f"{text}x")))
    assert page.tags == Page(summary(red("x"))).tags


@pytest.mark.fault(49)
@given(MARKUP | st.text(st.characters(codec=None)))
def test_hostile_text_is_shown_literally(text: str) -> None:
    """A reader sees every character of it, those that act spelled out."""
    texts = Page(summary(red(f"x{text}x"))).texts
    assert sum(shown.strip("\n") == literal(f"x{text}x") for shown in texts) >= 3
    place = one_line(f"x{text}x:3", 300)
    assert place in [shown.strip("\n") for shown in texts]


def test_warnings_stand_in_one_list() -> None:
    """Without the gaps that would make paragraphs of them."""
    view = RunView()
    for word in ("one", "two"):
        view(Warned(message=word))
    assert summary(view).endswith("\n\n- WARNING: one\n- WARNING: two\n")


def test_address_in_a_hostile_text_becomes_no_link() -> None:
    """GitHub makes one of whatever looks like an address, but for a reference in it."""
    page = summary(red("Http://evil.example WWW.evil.example"))
    outside = re.sub("<pre>.*?</pre>", "", page, flags=re.DOTALL)
    assert not re.search(r"://|www\.", outside, re.IGNORECASE)


def test_red_run_is_told_as_on_the_terminal() -> None:
    """Verdict, reproduction, stages, place and message, coverage, images, output."""
    text = html.unescape(summary(red("word")))
    for words in (
        "## PIPELINE STOPPED ✗",
        "engine word, 4.9 s",
        "<pre>\nword --only word0\n</pre>",
        "**word: FAILED (word)**",
        "| word | FAILED (word) | 3.0 s | word; Pushed: word; tried before: ERROR (word) |",
        "| <code>word:3</code> | <code>word</code> | word |",
        "### db: word: word",
        "- Pushed: <code>word</code>",
        "### Coverage of word0: 79%, threshold 80%",
        "| <code>word</code> | 70% | word |",
        "<summary>Last output of word0</summary>\n\n<pre>\nword\n</pre>",
        "<summary>word: word</summary>\n\n<pre>\nword\n</pre>",
    ):
        assert words in text, text


@pytest.mark.parametrize("room", [0, 500, 3_000, 20_000, 100_000])
def test_page_is_cut_behind_the_verdict(room: int) -> None:
    """Details go first, the verdict never, and it is said that something is missing."""
    whole = summary(red("word"))
    page = summary(red("wörd" * 20, stages=200, tests=60), room)
    assert page.startswith(whole.splitlines()[0])
    assert len(page.encode()) <= max(room, 4_000)
    assert page.endswith(LEFT_OUT)
    assert Page(page).tags.count("table") == Page(page).tags.count("/table")


def test_many_stages_and_tests_make_a_bounded_page() -> None:
    """A page of 200 stages and 20,000 failing tests stays under 1 MiB."""
    assert len(summary(red("<&|" * 200, stages=200, tests=100)).encode()) < 1024 * 1024
