from __future__ import annotations

import pytest

from penstock.errors import ServiceError, did_you_mean, plain_words

# As the CLI 0.21.8 printed it, shortened.
CLI = """\
2026/11/24 22:37:01 WARN failed to parse git remote URL err="invalid endpoint: /some/path"
\x1b[95m1   : \x1b[0m\x1b[90;2m\x1b[0mconnect
\x1b[95m1   : \x1b[0m\x1b[90;2m\x1b[0m\x1b[90m[0.0s] \x1b[0m\x1b[90m|\x1b[0m cloud \x1b[2murl=\x1b[0mhttps://x
\x1b[95m10  : \x1b[0m\x1b[90;2m│ │ \x1b[0mcreating client\x1b[31m ERROR\x1b[0m\x1b[90m [0.0s]\x1b[0m
\x1b[95m10  : \x1b[0m\x1b[90;2m│ │ \x1b[0m\x1b[33m! new client: connection refused\x1b[0m
"""
LAST = 'Error: start engine: no driver for scheme "bogus" found [traceparent:46a3-4e11]\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{CLI}\n{LAST}", 'start engine: no driver for scheme "bogus" found'),
        (CLI, "new client: connection refused"),
        (CLI.partition("\n")[0], ""),
        ("\n".join(CLI.splitlines()[:3]), ""),
        ("stat nope:\n  no such file", "stat nope: no such file"),
        ("Error: one\nError: two\n  of it [traceparent:1-2]", "two of it"),
        ("12 WARNINGS\n3: not a progress line", "12 WARNINGS 3: not a progress line"),
    ],
)
def test_plain_words_are_the_cause(text: str, words: str) -> None:
    """Without colours, log lines, progress and trace ids."""
    assert plain_words(text) == words


def test_long_words_keep_both_ends_and_cut_no_word() -> None:
    """The cause stands at the end; half a secret would not be masked any more."""
    words = plain_words(f"resolve {'secret-word ' * 100} no such host")
    assert words.startswith("resolve secret-word")
    assert words.endswith("secret-word no such host")
    assert set(words.split()) == {"resolve", "secret-word", "...", "no", "such", "host"}
    assert len(words) < 510


def test_nearest_name_is_offered() -> None:
    """Unless none is near."""
    assert did_you_mean("biuld", ["build", "test"]) == "; did you mean 'build'?"
    assert did_you_mean("x", ["build", "test"]) == ""


def test_broken_service_is_named_with_what_it_said() -> None:
    """Its output is kept apart from the sentence, and its class allows another attempt."""
    error = ServiceError("postgres", "exited with exit code 9", "last words")
    assert str(error) == "service 'postgres' exited with exit code 9"
    assert (error.output, error.exit_code, error.fault) == ("last words", 4, "service")
