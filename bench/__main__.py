"""`python3 -m bench`: measure penstock beside its peers, and write `docs/performance.md`.

Starts with Python 3.11 alone, as `python3 -m ci` does. Every case is measured in rounds: one
contender after the other in each, in turned order, so that whatever slows this machine slows all.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv" / "bin" / "python"


def main() -> int:
    """Set everything up, then go on in the venv."""
    if Path(sys.prefix) != PYTHON.parents[1]:
        subprocess.run([sys.executable, "-m", "ci", "setup"], cwd=ROOT, check=True)
        os.chdir(ROOT)
        os.execv(PYTHON, [str(PYTHON), "-m", "bench", *sys.argv[1:]])  # noqa: S606 - a shell is what we avoid
    parser = argparse.ArgumentParser(prog="python3 -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of the short cases")
    parser.add_argument("--sittings", type=int, default=2, help="how often all of it is measured")
    parser.add_argument(
        "--only", action="append", help="this case (again for more); writes no page"
    )
    parser.add_argument("--rounds", type=int, help="of every case, instead of its own number")
    options = parser.parse_args()
    from bench import cases, performance, sitting  # noqa: PLC0415 - in the venv only

    chosen = cases.chosen(options.only, quick=options.quick)
    with sitting.Bench() as bench:
        rounds = 1 if options.quick else options.rounds
        facts = bench.facts()
        sittings: list[performance.Sitting] = []
        failed: list[str] = []
        for _ in range(1 if options.quick else options.sittings):
            sittings.append({})
            for case in chosen:
                try:
                    sittings[-1][case.name] = case.measure(bench, rounds)
                except Exception:  # noqa: BLE001 - an hour of figures is not lost by one of them
                    traceback.print_exc()
                    failed.append(case.name)
            if not (options.quick or options.only):
                performance.write(sittings, facts, performance.profile(bench))
        if options.quick or options.only:
            sys.stdout.write(f"{performance.judged(sittings)}\n{performance.tables(sittings)}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
