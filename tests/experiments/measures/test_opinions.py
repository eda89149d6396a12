"""How opinions moved in a society."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.experiments.measures.opinions import (
    TRAJECTORIES,
    Answers,
    Changes,
    Read,
    classify_trajectories,
    classify_trajectory,
    count_distinct,
    count_transitions,
    first_vote,
    is_beneficial,
    measure_changes,
    measure_conformity,
    measure_influence,
)

Row = Sequence[str | None]


def rounds_of(*rows: Row) -> list[dict[str, str | None]]:
    return [dict(zip("xyz", row, strict=False)) for row in rows]


def debate(said: Sequence[Answers], *numbers: int, agents: str = "xyz") -> list[Read]:
    """In these rounds everybody reads what everybody said in the round before."""
    return [
        {a: {b: said[r - 1][b] for b in agents if b != a} for a in agents} if r in numbers else {}
        for r in range(len(said))
    ]


def is_right(answer: str) -> bool:
    return answer == "1"


def test_unparsed_replies_are_no_answer() -> None:
    assert count_distinct(rounds_of(["1", None, None], ["1", "2", "2"])) == [1, 2]


def test_transitions_type_every_step_by_correctness() -> None:
    assert count_transitions(rounds_of(["1", "2", None], ["2", "1", None]), is_right) == [
        {"TT": 0, "FT": 1, "TF": 1, "FF": 1}
    ]


def test_an_agent_conforms_to_the_answer_its_peers_agree_on() -> None:
    rounds = rounds_of(["2", "1", "1"], ["1", "1", "3"])
    (found,) = measure_conformity(rounds, debate(rounds, 1), is_right)
    assert (found.round, found.exposed) == (1, 1)
    assert found.conforming == {"TT": 0, "FT": 1, "TF": 0, "FF": 0}
    assert is_beneficial(found.conforming)


def test_with_itself_counted_an_agent_may_conform_to_its_own_majority() -> None:
    rounds = rounds_of(["2", "1", "1"], ["1", "1", "3"])
    (found,) = measure_conformity(rounds, debate(rounds, 1), is_right, counts_self=True)
    assert found.exposed == 3
    assert found.conforming == {"TT": 1, "FT": 1, "TF": 0, "FF": 0}


@pytest.mark.parametrize("counts_self", [False, True])
def test_where_all_differ_nothing_is_conforming(counts_self: bool) -> None:
    rounds = rounds_of(["1", "2", "3"], ["1", "1", "1"])
    (found,) = measure_conformity(rounds, debate(rounds, 1), is_right, counts_self=counts_self)
    assert (found.exposed, sum(found.conforming.values())) == (0, 0)


def test_two_unparsed_peers_are_no_majority() -> None:
    rounds = rounds_of(["1", None, None], [None, None, None])
    (found,) = measure_conformity(rounds, debate(rounds, 1), is_right)
    assert found.exposed == 0


def test_one_of_a_pair_can_conform_to_the_other() -> None:
    rounds = rounds_of(["1", "2"], ["2", "2"])
    (found,) = measure_conformity(rounds, debate(rounds, 1, agents="xy"), is_right)
    assert (found.exposed, found.conforming["TF"]) == (2, 1)


def test_a_reflection_round_shows_no_conformity() -> None:
    rounds = rounds_of(["1", "1", "2"], ["1", "1", "1"], ["1", "1", "1"])
    assert [c.round for c in measure_conformity(rounds, debate(rounds, 2), is_right)] == [2]


def test_an_agent_that_read_nobody_is_not_exposed() -> None:
    (found,) = measure_conformity(rounds_of(["1", "2", "1"], ["1", "1", "1"]), [{}, {"y": {"x": "1"}}], is_right)
    assert (found.exposed, found.conforming["FT"]) == (1, 1)


def test_a_change_of_mind_is_shared_by_the_peers_who_held_the_answer() -> None:
    rounds = rounds_of(["2", "1", "1"], ["1", "1", "1"])
    found = measure_influence(rounds, debate(rounds, 1), is_right)
    assert found.total.tolist() == [[0, 0, 0], [0.5, 0, 0], [0.5, 0, 0]]
    assert found.beneficial.sum() == 1
    assert found.harmful.sum() == 0


def test_a_right_answer_given_up_for_a_peers_wrong_one_is_harm() -> None:
    rounds = rounds_of(["1", "2", "3"], ["2", "2", "2"])
    found = measure_influence(rounds, debate(rounds, 1), is_right)
    assert found.harmful[1, 0] == 1
    assert found.total[1, 2] == 1
    assert found.beneficial[1, 2] == found.harmful[1, 2] == 0


def test_nobody_is_changed_by_a_peer_that_was_not_read() -> None:
    assert measure_influence(rounds_of(["2", "1", "1"], ["1", "1", "1"]), [{}, {}], is_right).total.sum() == 0


def test_a_new_answer_that_no_peer_held_has_no_source() -> None:
    rounds = rounds_of(["2", "3", "4"], ["1", "3", None])
    assert measure_influence(rounds, debate(rounds, 1), is_right).total.sum() == 0


@given(st.lists(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=3, max_size=3), min_size=1, max_size=5))
def test_influence_is_bounded_by_the_changes_of_mind(rows: list[list[str | None]]) -> None:
    rounds = rounds_of(*rows)
    found = measure_influence(rounds, debate(rounds, *range(1, len(rows))), is_right)
    changes = sum(b[a] != x for b, c in zip(rounds, rounds[1:], strict=False) for a, x in c.items() if x is not None)
    assert found.total.sum() <= changes + 1e-9
    assert (found.beneficial + found.harmful <= found.total + 1e-9).all()
    assert found.total.trace() == 0


CLASSES = {
    "corrected": ("0111", "0011", "0001"),
    "spoiled": ("1000", "1100", "1110"),
    "wavering": ("1010", "1001", "0110", "0101"),
    "always_wrong": ("0000",),
    "always_right": ("1111",),
    "excursion": ("0100", "0010", "1011", "1101"),
}


@pytest.mark.parametrize(("name", "path"), [(n, p) for n, paths in CLASSES.items() for p in paths])
def test_four_round_trajectories_have_their_published_classes(name: str, path: str) -> None:
    assert classify_trajectory([bit == "1" for bit in path]) == name


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_every_path_has_a_class(path: list[bool]) -> None:
    assert classify_trajectory(path) in TRAJECTORIES


def test_an_unparsed_reply_is_wrong_on_the_path() -> None:
    assert classify_trajectories(rounds_of([None, "1"], ["1", "1"]), is_right) == {
        "x": "corrected",
        "y": "always_right",
    }


def test_being_exposed_is_reading_an_answer_that_is_not_ones_own() -> None:
    rounds = rounds_of(["1", "2", None], ["1", "1", "1"])
    found = measure_influence(rounds, debate(rounds, 1), is_right)
    assert found.exposed.tolist() == [[0, 1, 1], [1, 0, 1], [0, 0, 0]]
    assert found.total[0, 1] == found.total[0, 2] == 1


def test_an_agent_that_joins_later_has_its_place() -> None:
    rounds = [{"x": "1"}, {"x": "1", "y": "1"}]
    assert measure_influence(rounds, [{}, {"y": {"x": "1"}}], is_right).agents == ("x", "y")


def test_a_first_answer_changes_no_opinion() -> None:
    said, read = [{"x": "1"}, {"y": "1"}], [{}, {"y": {"x": "1"}}]
    found = measure_influence(said, read, is_right)
    assert not any(matrix.any() for matrix in (found.exposed, found.total, found.beneficial))
    assert count_transitions(said, is_right) == [dict.fromkeys(("TT", "FT", "TF", "FF"), 0)]
    assert measure_changes(said, read) == [Changes(1, 0, 0, 0, 0)]
    assert [c.exposed for c in measure_conformity(said, read, is_right)] == [0]


def test_an_agent_that_kept_silent_is_measured_from_its_last_answer() -> None:
    said = [{"x": "2", "y": "1"}, {"y": "1"}, {"x": "1"}]
    found = measure_influence(said, [{}, {}, {"x": {"y": "1"}}], is_right)
    assert found.beneficial[1, 0] == 1
    assert [kinds["FT"] for kinds in count_transitions(said, is_right)] == [0, 1]
    assert measure_changes(said, [{}, {}, {"x": {"y": "1"}}]) == [Changes(1, 0, 0, 1, 0), Changes(2, 1, 1, 0, 0)]


def test_words_that_are_no_answer_convince_nobody_and_yet_were_read() -> None:
    said = [{"x": "2", "y": "1"}, {"x": "1"}]
    read: list[Read] = [{}, {"x": {}}]
    assert measure_conformity(said, read, is_right) == []
    assert not measure_influence(said, read, is_right).total.any()
    assert measure_changes(said, read) == [Changes(1, 1, 1, 0, 0)]


def test_a_trajectory_begins_with_an_agents_first_answer_and_needs_a_second() -> None:
    said: list[Answers] = [{"x": "1"}, {"y": "2", "z": "1"}, {"y": "1"}, {"x": "1"}]
    assert classify_trajectories(said, is_right) == {"x": "always_right", "y": "corrected"}


@pytest.mark.parametrize(
    ("row", "vote"),
    [(["1", "1", "2"], ("1", 2)), (["1", "2", "3"], (None, 0)), (["1", None, None], (None, 0)), ([None], (None, 0)),
     (["1"], ("1", 1)), (["1", "1", "2", "2"], (None, 0))],
)  # fmt: skip
def test_the_first_vote_needs_a_majority_of_more_than_one_voice(row: Row, vote: tuple[str | None, int]) -> None:
    first = {str(i): answer for i, answer in enumerate(row)}
    assert first_vote(first, is_alone=len(row) == 1) == vote


def test_the_only_one_of_several_agents_that_spoke_first_is_no_majority() -> None:
    assert first_vote({"x": "1"}, is_alone=False) == (None, 0)


def test_changes_are_told_apart_by_having_read_a_peer() -> None:
    rounds = rounds_of(["1", "2", None], ["2", "2", None], ["1", "3", "4"])
    debated, reflected = measure_changes(rounds, debate(rounds, 1))
    assert (debated.read, debated.changed_after_reading, debated.alone) == (3, 1, 0)
    assert (reflected.read, reflected.alone, reflected.changed_alone) == (0, 3, 3)
