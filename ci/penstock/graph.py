"""Order and selection over the needs of stages. Pure: names in, names out, nothing runs here.

Guarantees: the order is stable (definition order wherever needs leave a choice), every stage
stands behind all that it needs, and a cycle is spelled in the author's direction, a -> b -> a.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from penstock.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Graph:
    """The needs of stages.

    Args:
        needs: For each stage, in definition order, the names that must have passed before it.
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
        position = {name: index for index, name in enumerate(self.needs)}
        sorter = TopologicalSorter(self.needs)
        sorter.prepare()
        ordered: list[str] = []
        while sorter.is_active():
            ready = sorted(sorter.get_ready(), key=position.__getitem__)
            ordered += ready
            sorter.done(*ready)
        return ordered

    def dependants(self, name: str) -> list[str]:
        """Return all that need a stage, directly or not, in definition order."""
        users: dict[str, list[str]] = {stage: [] for stage in self.needs}
        for stage, needed in self.needs.items():
            for need in needed:
                users[need].append(stage)
        reached = _reach(users, [name])
        return [stage for stage in self.needs if stage in reached and stage != name]

    def only(self, names: Iterable[str]) -> Graph:
        """Return the graph of the named stages and all that they need.

        Raises:
            UsageError: When a name is no stage.
        """
        wanted = [name.replace("-", "_") if name not in self.needs else name for name in names]
        for name in wanted:
            if name not in self.needs:
                known = ", ".join(self.needs)
                hint = did_you_mean(name, self.needs)
                message = f"no stage is named '{name}'{hint or f'; there are: {known}'}"
                raise UsageError(message)
        kept = _reach(self.needs, wanted)
        return Graph({name: needs for name, needs in self.needs.items() if name in kept})


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
