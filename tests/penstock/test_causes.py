"""What the engine 0.21.8 said in each of these cases, and what it has to lead to."""

from __future__ import annotations

import pytest

from penstock.causes import FULL_DISK, cause

AT = "10.0.0.1:5000"
BLOB = f"http://{AT}/v2/t/x/blobs/sha256:a875"
PULL = f'failed to resolve image "{AT}/t/x:1" (platform: "linux/amd64"): '
HEAD = f'failed to do request: Head "http://{AT}/v2/t/x/manifests/1": '
COMMIT = f'failed commit on ref "layer-sha256:caff": failed to do request: Put "{BLOB}?_state=z": '
PULLING = f"cannot pull {AT}/t/x:1: registry {AT}: "
PUSHING = f"cannot push {AT}/t/x:1: registry {AT}: "

PASSING = [
    (PULL + f"unexpected status from HEAD request to {BLOB}: 429 Too Many Requests", "it answers 429"),
    (PULL + f"unexpected status from HEAD request to {BLOB}: 500 Internal Server Error", "it answers 500"),
    (
        PULL + f"failed to copy: httpReadSeeker: failed open: unexpected status from GET request to {BLOB}: 503 Service Unavailable",
        "it answers 503 Service Unavailable",
    ),
    (PULL + HEAD + f"dial tcp {AT}: connect: connection refused", "nobody listens there"),
    (PULL + HEAD + f"read tcp 10.0.0.2:4->{AT}: read: connection reset by peer", "the connection broke"),
    (PULL + HEAD + "EOF", "the connection ended half way (EOF)"),
    (PULL + HEAD + f"dial tcp {AT}: i/o timeout", "it did not answer in time"),
    (PULL + HEAD + "net/http: TLS handshake timeout", "it did not answer in time"),
    (PULL + HEAD + "dial tcp: lookup h on 10.87.0.1:53: server misbehaving", "could not be looked up"),
    (PULL + "short read: expected 421 bytes but got 5: unexpected EOF", "the connection ended half way"),
]  # fmt: skip
FINAL = [
    (PULL + HEAD + "dial tcp: lookup nohost on 10.87.0.1:53: no such host", "nobody knows its name"),
    (
        PULL + "pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials",
        "it refuses access",
    ),
    (PULL + f"unexpected status from HEAD request to {BLOB}: 403 Forbidden", "it answers 403 Forbidden"),
    (PULL + f"{AT}/t/x:1: not found", "it has no such image"),
    (
        PULL + f"failed to copy: httpReadSeeker: failed open: content at {BLOB} not found: not found",
        "it has no such image",
    ),
    (PULL + HEAD + "http: server gave HTTP response to HTTPS client", "it speaks plain HTTP"),
    (PULL + HEAD + "tls: failed to verify certificate: x509: certificate signed by unknown authority", "is not trusted"),
]  # fmt: skip
PUSHES = [
    (f"unexpected status from POST request to {BLOB}: 429 Too Many Requests", "it answers 429", True),
    (f"unexpected status from HEAD request to {BLOB}: 502 Bad Gateway", "it answers 502", True),
    ("short read: expected 476 bytes but got 0: unexpected EOF", "ended half way", True),
    (COMMIT + "EOF", "ended half way (EOF)", True),
    (f'failed to do request: Head "{BLOB}": dial tcp {AT}: connect: connection refused', "nobody listens there", True),
    (f"unexpected status from POST request to {BLOB}: 401 Unauthorized", "it answers 401", False),
    (f"unexpected status from POST request to {BLOB}: 404 Not Found", "it answers 404", False),
    (
        "push access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials",
        "it refuses access",
        False,
    ),
    ("invalid reference format", "no name of an image", False),
    ("failed parsing [user:pw], expected address format: [x.y]", "no name of an image", False),
]  # fmt: skip


@pytest.mark.fault(9, 10)
@pytest.mark.parametrize(("said", "words"), PASSING)
def test_registry_that_may_answer_later_is_asked_again(said: str, words: str) -> None:
    """Down, overloaded or broken off: class `registry`, in words that name host and image."""
    why = cause(said)
    assert why.fault == "registry"
    assert why.words.startswith(PULLING)
    assert words in why.words
    assert len(why.words) < 120


@pytest.mark.fault(9, 10)
@pytest.mark.parametrize(("said", "words"), FINAL)
def test_registry_that_says_no_is_not_asked_again(said: str, words: str) -> None:
    """No class, and the next step in the words."""
    why = cause(said)
    assert why.fault is None
    assert why.words.startswith(PULLING)
    assert words in why.words
    assert "; " in why.words


@pytest.mark.fault(10)
@pytest.mark.parametrize(("said", "words", "passing"), PUSHES)
def test_push_is_named_though_the_engine_does_not(said: str, words: str, *, passing: bool) -> None:
    """What was pushed, where to, and why it did not come to that."""
    why = cause(said, pushed=f"{AT}/t/x:1")
    assert (why.fault == "registry") is passing
    assert why.words.startswith(PUSHING)
    assert words in why.words


@pytest.mark.fault(34)
@pytest.mark.parametrize(
    "said",
    [
        "failed to prepare mounts: write /var/lib/dagger/worker/containerdmeta.db: no space left on device",
        'failed to resolve image "x:1": write /var/lib/dagger/ingest/ref: no space left on device',
        'could not parse exit code "": strconv.ParseInt: parsing "": invalid syntax',
        "get base hosts file: write hosts.tmp: no space left on device [traceparent:a-b]",
    ],
)  # fmt: skip
def test_full_disk_is_named_and_not_tried_again(said: str) -> None:
    """Whatever the engine was about to write, a registry's image too."""
    assert (cause(said).words, cause(said).fault) == (FULL_DISK, None)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("stat /nope: not today", "engine"),
        ("failed to copy xattrs: operation not supported", "engine"),
        ("failed to copy file info: open /src/secret: permission denied", None),
        ('Get "https://api.example.com/v2/deploys": 404', "engine"),
        ('Get "https://api.example.com/v2/deploys/manifests": EOF', "engine"),
        ("short read: expected 5 bytes but got 0: unexpected EOF", "engine"),
        ("repository access denied, repository unknown", None),
        ("lstat /nope: no such file or directory", None),
        ('Cannot query field "nope" on type "Query"', None),
        ("context canceled", "engine"),
        ("pushing the button: pull manifest", "engine"),
        ('Get "https://host/x.git": dial tcp: connect: connection refused', "engine"),
        ("file not found", None),
    ],
)
def test_what_no_registry_said_is_the_engines(said: str, fault: str | None) -> None:
    """Words like `push` and `manifest` alone make no registry."""
    assert (cause(said).words, cause(said).fault) == (said, fault)


@pytest.mark.parametrize(
    "said",
    [
        'failed to do request: Head "https://h/v2/a/b/manifests/1": EOF',
        'Get "https://h:5000/v2/x/blobs/sha256:a": EOF',
        "failed to copy: httpReadSeeker: failed open: EOF",
        'failed commit on ref "layer-sha256:caff": EOF',
        "push access denied, repository does not exist or may require authorization",
    ],
)
def test_registry_is_known_by_its_own_words(said: str) -> None:
    """Also where no image is named: by the paths that only registries have, and the like."""
    why = cause(said)
    assert why.fault == (None if "denied" in said else "registry")
    assert why.words != said


def test_what_a_registry_said_in_words_that_nobody_knows_is_asked_again() -> None:
    """As it was said, since asking again may help."""
    said = PULL + "the flux capacitor is cold"
    assert (cause(said).words, cause(said).fault) == (said, "registry")
