"""`python -m app.probe URL`: exit 0 when it answers 200; for images that have no curl."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request


def probe(url: str) -> int:
    """Ask a URL, print the answer, return the exit code."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - the caller's own URL
            sys.stdout.write(f"{response.status} {response.read().decode()}\n")
            return 0 if response.status == 200 else 1  # noqa: PLR2004 - HTTP's OK
    except urllib.error.HTTPError as error:
        sys.stderr.write(f"{error.code} {error.read().decode(errors='replace')}\n")
    except OSError as error:
        sys.stderr.write(f"{url}: {error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(probe(sys.argv[1]))
