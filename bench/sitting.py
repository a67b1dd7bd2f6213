"""What is measured, and with what: contenders, their folders, and the numbers of one case."""

from __future__ import annotations

import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

sys.path.insert(0, str(Path(__file__).parents[1] / "ci"))

from engine import place, registry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "bench" / "project"
PYTHON = ROOT / ".venv" / "bin" / "python"
LONGEST_S = 600
RESAMPLED = 2000


@dataclass(frozen=True)
class Taken:
    """What one program took.

    Args:
        wall_s: From its start to its end, or to the word that was waited for.
        cpu_s: Its own processor time, with its children's.
        peak_mb: The most memory that it, or one of its children, had.
        code: Its exit code.
        out: What it printed, errors included.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    code: int
    out: str


@dataclass
class Numbers:
    """The figures of one contender in one case, by rounds.

    Args:
        name: Of the contender.
        values: One for each round.
        unit: Of the values.
    """

    name: str
    values: list[float] = field(default_factory=list)
    unit: str = "s"

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    def ratio_to(self, other: Numbers) -> tuple[float, float, float]:
        """Return the median of the paired ratios, and the bounds of its 95 % interval."""
        ratios = [mine / its for mine, its in zip(self.values, other.values, strict=True)]
        noise = random.Random(len(ratios))  # noqa: S311 - a bootstrap, the same each time
        medians = sorted(
            statistics.median(noise.choices(ratios, k=len(ratios))) for _ in range(RESAMPLED)
        )
        low, high = medians[RESAMPLED // 40], medians[-RESAMPLED // 40]
        return statistics.median(ratios), low, high


@dataclass
class Result:
    """The figures of one case.

    Args:
        case: Its name.
        numbers: Of each contender.
        note: What has to be known of it.
    """

    case: str
    numbers: list[Numbers]
    note: str = ""

    def __getitem__(self, name: str) -> Numbers:
        """Return those of one contender."""
        return next(numbers for numbers in self.numbers if numbers.name == name)

    def has(self, *names: str) -> bool:
        """Return whether all of these were measured."""
        return {numbers.name for numbers in self.numbers}.issuperset(names)


class Bench:
    """A folder with a copy of the project for each contender, and the machine around it."""

    def __enter__(self) -> Self:
        """Make the folder."""
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self._copies: dict[str, Path] = {}
        self._edits = 0
        # Where there is no registry of our own, Docker Hub answers, and nothing is pushed.
        self.registry = registry.address() if registry.is_running() else ""
        self.nonce = 0
        return self

    def __exit__(self, *_: object) -> None:
        """Remove it."""
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """Where everything of a sitting lies."""
        return Path(self._folder.name)

    def copy(self, contender: str) -> Path:
        """Return a contender's own copy of the project."""
        if contender not in self._copies:
            folder = self.folder / contender
            shutil.copytree(
                PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__", ".*cache")
            )
            git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e@example.org"]
            for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "as it is"]):
                subprocess.run([*git, *words], check=True)
            self._copies[contender] = folder
            self.edit(contender, "app/main.py")  # no layer is another contender's
        return self._copies[contender]

    def edit(self, contender: str, file: str, text: str = "") -> None:
        """Append to a file what was never in it."""
        self._edits += 1
        path = self.copy(contender) / file
        with path.open("a") as content:
            content.write(f"{text}# {time.time_ns()} {self._edits} {contender}\n")

    def environment(self, contender: str) -> dict[str, str]:
        """Return the variables of a contender: those of a laptop."""
        told = ("GITHUB_", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "CI")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(told)}
        kept |= {"PYTHONPATH": str(ROOT / "ci"), "DO_NOT_TRACK": "1", "DAGGER_NO_NAG": "1"}
        paths = (str(PYTHON.parent), str(place.home() / "tools"), os.environ["PATH"])
        kept["PATH"] = os.pathsep.join(paths)
        local = f"localhost:{self.registry.rpartition(':')[2]}" if self.registry else "bench"
        kept |= {"BENCH_LOCAL": f"{local}/bench/{contender}:1", "BENCH_IMAGES": ""}
        if self.registry:
            kept["BENCH_REFERENCE"] = f"{self.registry}/bench/{contender}:1"
            kept["BENCH_IMAGES"] = f"{local}/library/"
        return kept

    def run(
        self,
        contender: str,
        words: Sequence[str | Path],
        *,
        until: str = "",
        during: Callable[[subprocess.Popen[bytes]], None] | None = None,
        code: int | None = 0,
        **env: str,
    ) -> Taken:
        """Run a program to its end, and measure it to there, or to a word that it prints.

        Args:
            contender: In whose folder.
            words: The program.
            until: The word that ends what is measured.
            during: Called with the process when it has begun.
            code: Its exit code, if that is known.
            **env: Variables added.
        """
        began = time.perf_counter()
        child = subprocess.Popen(
            [str(word) for word in words],
            cwd=self.copy(contender),
            env=self.environment(contender) | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # with its children, one group
        )
        if during:
            during(child)
        assert child.stdout is not None  # noqa: S101 - what mypy cannot know
        out, said_s = b"", 0.0
        while piece := os.read(child.stdout.fileno(), 1 << 16):
            out += piece
            if until and not said_s and until.encode() in out:
                said_s = time.perf_counter() - began
        _, status, used = os.wait4(child.pid, 0)
        wall_s = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        text = out.decode(errors="replace")
        if (code is not None and child.returncode != code) or (until and not said_s):
            message = f"{contender}: exit code {child.returncode}, wanted {code} {until}\n{text}"
            raise RuntimeError(message)
        return Taken(
            wall_s=said_s or wall_s,
            cpu_s=used.ru_utime + used.ru_stime,
            peak_mb=used.ru_maxrss / 1024,
            code=child.returncode,
            out=text,
        )

    def facts(self) -> dict[str, Any]:
        """Return what machine this is."""
        model = [
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ]
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        return {
            "Processor": f"{len(model)} x {model[0]}" if model else platform.machine(),
            "Memory": f"{memory:.0f} GiB",
            "System": platform.freedesktop_os_release().get("PRETTY_NAME", platform.platform()),
            "Python": platform.python_version(),
            "Commit": commit.stdout.strip(),
            "When": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            "Load before": f"{os.getloadavg()[2]:.1f}",
        }
