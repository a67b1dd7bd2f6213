"""Order and reach over the needs of stages. Pure: names in, names out, nothing runs here.

Guarantees: the order is stable (definition order wherever needs leave a choice), every stage
stands behind all that it needs, and a cycle is spelled in the author's direction, a -> b -> a.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Graph:
    """The needs of stages.

    Args:
        needs: For each stage, in definition order, the names that come before it.
    """

    needs: Mapping[str, Sequence[str]]

    def cycle(self) -> list[str]:
        """Return a cycle as `[a, b, a]`, each needing the next, or an empty list."""
        try:
            TopologicalSorter(self.needs).prepare()
        except CycleError as error:
            path: list[str] = error.args[1]
            return path[::-1]
        return []

    def order(self) -> list[str]:
        """Return every name behind its needs, in definition order where there is a choice."""
        position = {name: place for place, name in enumerate(self.needs)}
        sorter = TopologicalSorter(self.needs)
        sorter.prepare()
        ready: list[tuple[int, str]] = []
        ordered: list[str] = []
        while sorter.is_active():
            for name in sorter.get_ready():
                heapq.heappush(ready, (position[name], name))
            ordered.append(heapq.heappop(ready)[1])
            sorter.done(ordered[-1])
        return ordered

    @cached_property
    def users(self) -> dict[str, list[str]]:
        """For each stage those that need it directly, in definition order."""
        users: dict[str, list[str]] = {stage: [] for stage in self.needs}
        for stage, needed in self.needs.items():
            for need in needed:
                users[need].append(stage)
        return users

    def dependants(self, names: Iterable[str]) -> set[str]:
        """Return all that need one of the stages, directly or not, and not the stages themselves."""
        start = set(names)
        return _reach(self.users, start) - start

    def closure(self, names: Iterable[str]) -> set[str]:
        """Return the stages and all that they need, directly or not."""
        return _reach(self.needs, names)

    def remaining(self, durations_s: Mapping[str, float]) -> dict[str, float]:
        """Return for each stage the longest time from its start to the end of all behind it.

        Args:
            durations_s: What is known of each stage's own time; unknown counts as no time.
        """
        left: dict[str, float] = {}
        for name in reversed(self.order()):
            behind = max((left[user] for user in self.users[name]), default=0.0)
            left[name] = durations_s.get(name, 0.0) + behind
        return left


def _reach(edges: Mapping[str, Iterable[str]], start: Iterable[str]) -> set[str]:
    """Return everything reachable over the edges, the start included."""
    seen = set(start)
    queue = deque(seen)
    while queue:
        for follower in edges[queue.popleft()]:
            if follower not in seen:
                seen.add(follower)
                queue.append(follower)
    return seen
