from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.graph import Graph

DIAMOND = Graph({"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")})
LOOP = Graph({"a": ("b",), "b": ("c",), "c": ("a",), "d": ()})


@st.composite
def acyclic(draw: st.DrawFn) -> Graph:
    names = [f"s{index}" for index in range(draw(st.integers(1, 12)))]
    needs = {
        name: tuple(draw(st.lists(st.sampled_from(names[:index]), unique=True, max_size=3)))
        if index
        else ()
        for index, name in enumerate(names)
    }
    return Graph({name: needs[name] for name in draw(st.permutations(names))})


@given(acyclic())
def test_order_puts_each_stage_behind_its_needs(graph: Graph) -> None:
    """Every stage stands once in the order, behind all that it needs."""
    order = graph.order()
    assert sorted(order) == sorted(graph.needs)
    assert all(
        order.index(need) < order.index(name) for name in order for need in graph.needs[name]
    )


def test_order_follows_the_definition_where_needs_leave_a_choice() -> None:
    """Stages that could run side by side keep the author's order."""
    assert DIAMOND.order() == ["a", "b", "c", "d"]
    assert Graph({"b": (), "a": ()}).order() == ["b", "a"]
    assert Graph({"a": (), "b": ("a",), "c": ()}).order() == ["a", "b", "c"]


def test_cycle_is_spelled_in_the_direction_of_needs() -> None:
    """A cycle starts and ends with the same stage, each needing the next."""
    cycle = LOOP.cycle()
    assert cycle[0] == cycle[-1]
    assert set(cycle) == {"a", "b", "c"}
    assert all(after in LOOP.needs[before] for before, after in itertools.pairwise(cycle))


def test_graph_without_a_cycle_has_none() -> None:
    """A diamond is no cycle."""
    assert DIAMOND.cycle() == []


def test_users_are_those_that_need_a_stage_directly() -> None:
    """One level only, in definition order."""
    assert DIAMOND.users == {"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}


@pytest.mark.parametrize(
    ("names", "expected"),
    [("a", "bcd"), ("b", "d"), ("bc", "d"), ("ab", "cd"), ("d", ""), ("", "")],
)
def test_dependants_reach_through_every_level(names: str, expected: str) -> None:
    """All that needs one of the stages is found, directly or not; the stages themselves are not."""
    assert DIAMOND.dependants(names) == set(expected)


@pytest.mark.parametrize(
    ("names", "expected"), [("a", "a"), ("b", "ab"), ("bc", "abc"), ("d", "abcd"), ("", "")]
)
def test_closure_holds_the_stages_and_all_that_they_need(names: str, expected: str) -> None:
    """Nothing that a stage needs, directly or not, is left out, and nothing else is in."""
    assert DIAMOND.closure(names) == set(expected)


def test_stage_that_two_ways_lead_to_is_looked_at_once() -> None:
    """A ladder of diamonds, with a million ways through it, does not take a million looks."""
    looks: list[str] = []

    class Needs(dict[str, Sequence[str]]):
        def __getitem__(self, name: str) -> Sequence[str]:
            looks.append(name)
            return super().__getitem__(name)

    assert Graph(Needs(DIAMOND.needs)).closure("d") == set("abcd")
    assert sorted(looks) == ["a", "b", "c", "d"]


@given(acyclic())
def test_dependants_and_closure_are_each_other_s_mirror(graph: Graph) -> None:
    """A stage needs another one exactly when that one has it as a dependant."""
    for name, other in itertools.permutations(graph.needs, 2):
        assert (other in graph.closure([name])) == (name in graph.dependants([other]))


def test_remaining_is_the_longest_way_to_the_end() -> None:
    """A stage's own time counts, the slower of two ways behind it too; unknown is no time."""
    remaining = DIAMOND.remaining({"a": 1.0, "b": 5.0, "c": 2.0})
    assert remaining == {"a": 6.0, "b": 5.0, "c": 2.0, "d": 0.0}


@given(acyclic())
def test_remaining_never_grows_towards_the_end(graph: Graph) -> None:
    """What stands behind a stage has less before it than the stage itself."""
    remaining = graph.remaining(dict.fromkeys(graph.needs, 1.0))
    for name, needs in graph.needs.items():
        assert all(remaining[need] >= remaining[name] + 1.0 for need in needs)
