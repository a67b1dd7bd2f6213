from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.graph import Graph

DIAMOND = Graph({"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")})


@st.composite
def acyclic(draw: st.DrawFn) -> Graph:
    size = draw(st.integers(1, 12))
    names = [f"s{index}" for index in range(size)]
    earlier = {name: names[:index] for index, name in enumerate(names)}
    needs = {
        name: tuple(draw(st.lists(st.sampled_from(before), unique=True, max_size=3)))
        if before
        else ()
        for name, before in earlier.items()
    }
    shuffled = draw(st.permutations(names))
    return Graph({name: needs[name] for name in shuffled})


@given(acyclic())
def test_order_puts_each_stage_behind_its_needs(graph: Graph) -> None:
    """Every stage stands once in the order, behind all that it needs."""
    order = graph.order()
    assert sorted(order) == sorted(graph.needs)
    assert all(
        order.index(need) < order.index(name) for name in order for need in graph.needs[name]
    )


@given(acyclic())
def test_selection_is_closed_under_needs(graph: Graph) -> None:
    """A selection holds all that the selected stages need, and is a graph by itself."""
    chosen = next(iter(graph.needs))
    kept = graph.only([chosen])
    assert chosen in kept.needs
    assert all(need in kept.needs for needs in kept.needs.values() for need in needs)
    assert set(kept.needs) == {
        n for n in graph.needs if chosen in graph.dependants(n) or n == chosen
    }


def test_order_follows_the_definition_where_needs_leave_a_choice() -> None:
    """Stages that could run side by side keep the author's order."""
    assert DIAMOND.order() == ["a", "b", "c", "d"]


def test_cycle_is_spelled_in_the_direction_of_needs() -> None:
    """A cycle starts and ends with the same stage, each needing the next."""
    graph = Graph({"a": ("b",), "b": ("c",), "c": ("a",), "d": ()})
    cycle = graph.cycle()
    assert cycle[0] == cycle[-1]
    assert all(after in graph.needs[before] for before, after in itertools.pairwise(cycle))


def test_graph_without_a_cycle_has_none() -> None:
    """A diamond is no cycle."""
    assert DIAMOND.cycle() == []


def test_dependants_reach_through_every_level() -> None:
    """All that needs a stage is found, directly or not, and the stage itself is not."""
    assert DIAMOND.dependants("a") == ["b", "c", "d"]


def test_unknown_stage_is_a_usage_error_with_the_nearest_name() -> None:
    """A misspelt selection names the stage that was probably meant."""
    with pytest.raises(UsageError, match="no stage is named 'tset'; did you mean 'test'"):
        Graph({"test": ()}).only(["tset"])


def test_kebab_case_names_the_same_stage() -> None:
    """The command line may say `unit-tests` for `unit_tests`."""
    assert list(Graph({"unit_tests": ()}).only(["unit-tests"]).needs) == ["unit_tests"]
