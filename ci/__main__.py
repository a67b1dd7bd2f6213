"""`python3 -m ci`: from a bare machine to a running pipeline. Needs Python 3.11 and nothing else."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - older Pythons must read this file and be told
    sys.stderr.write(
        "error: this is Python %d.%d and `python3 -m ci` needs 3.11 or newer; "  # noqa: UP031
        "run it as `python3.11 -m ci` (Debian 12: apt-get install python3)\n" % sys.version_info[:2]
    )
    sys.exit(2)

import os
from pathlib import Path

os.environ["PATH"] = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"  # dockerd, ldconfig
sys.path.insert(0, str(Path(__file__).parent))

try:
    from engine.command import main

    sys.exit(main(sys.argv[1:]))
except KeyboardInterrupt:
    sys.exit(130)
