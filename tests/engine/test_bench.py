"""The benchmarks run; what they measure is no test's business."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from bench import cases, performance
from bench.sitting import Numbers, Result

ROOT = Path(__file__).parents[2]


def test_quick_cases_are_measured() -> None:
    words = [sys.executable, "-m", "bench", "--quick"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for case in cases.chosen(None, quick=True):
        table = done.stdout.partition(f"### {case.name}\n")[2].partition("###")[0]
        rows = re.findall(
            r"^\| (.+) \| [\d.]+ \| \*\*[\d.]+\*\* \| [\d.]+ \|$", table, re.MULTILINE
        )
        assert rows == list(case.contenders)


def test_ratio_is_of_the_same_round() -> None:
    """What slows one round slows both, and is no difference."""
    ours, its = Numbers("a", [1.0, 10.0, 1.0, 1.0]), Numbers("b", [2.0, 20.0, 2.0, 2.0])
    assert ours.ratio_to(its) == (0.5, 0.5, 0.5)
    low, middle, high = sorted(Numbers("a", [1.0, 2.0, 3.0]).ratio_to(Numbers("b", [1.0] * 3)))
    assert low < middle < high


def test_target_is_met_or_not() -> None:
    def sitting(ours: float) -> performance.Sitting:
        numbers = [Numbers(cases.OURS, [ours] * 3), Numbers(cases.BARE, [1.0] * 3)]
        return {performance.WARM: Result(performance.WARM, numbers)}

    words = "| the same: at most 0.8 |"
    for values, verdict in (([0.5, 0.7], "met"), ([0.9, 0.9], "not met")):
        rows = performance.judged([sitting(value) for value in values]).splitlines()
        (row,) = [row for row in rows if row.startswith(words)]
        assert row.endswith(f"| {verdict} |")
    both = performance.judged([sitting(0.7), sitting(0.9)])
    assert "met in one sitting only" in both
