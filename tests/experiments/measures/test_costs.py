from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coterie.experiments.measures.costs import Cost, episode_cost, money, turn_costs
from coterie.types import Message, Place, TokenIds, Turn

IDS = st.lists(st.integers(0, 2), max_size=6).map(tuple)


def make_turn(
    round: int, prompt: TokenIds | None, reply: TokenIds = (), *, policy: str = "base", said: str = ""
) -> Turn:
    messages = (Message("user", said),)
    length = len(said.encode()) if prompt is None else len(prompt)
    ids = None if prompt is None else reply
    return Turn(f"turn/{round}", Place("t", round, "a"), policy, 0, messages, "ok", "1", "stop", length, len(reply), 0,
                prompt, ids)  # fmt: skip


def test_a_prompt_pays_for_what_no_earlier_prompt_or_reply_held() -> None:
    costs = turn_costs([make_turn(0, (1, 2, 3), (4, 5)), make_turn(1, (1, 2, 3, 4, 5, 6, 7), (8,))])
    assert costs == {"turn/0": Cost(1, 3, 3, 2), "turn/1": Cost(1, 7, 2, 1)}


def test_a_repeated_prompt_costs_nothing_but_its_reply() -> None:
    assert episode_cost([make_turn(i, (1, 2, 3), (i, i)) for i in range(5)]) == Cost(5, 15, 3, 10)


def test_policies_do_not_share_what_they_have_read() -> None:
    assert episode_cost([make_turn(0, (1, 2)), make_turn(1, (1, 2), policy="other")]).fresh == 4


def test_costs_do_not_depend_on_the_order_turns_are_given_in() -> None:
    turns = [make_turn(0, (1, 2), (3,)), make_turn(1, (1, 2, 3, 4)), make_turn(2, (1, 9))]
    assert turn_costs(turns) == turn_costs(turns[::-1])


@given(st.lists(st.tuples(IDS, IDS), min_size=1, max_size=8))
def test_the_cache_finds_the_longest_prefix_of_all(pairs: list[tuple[TokenIds, TokenIds]]) -> None:
    turns = [make_turn(i, prompt, reply) for i, (prompt, reply) in enumerate(pairs)]
    costs = turn_costs(turns)
    for i, (prompt, _) in enumerate(pairs):
        known = [a + b for a, b in pairs[:i]]
        longest = max((n for k in known for n in range(len(prompt) + 1) if prompt[:n] == k[:n]), default=0)
        assert costs[f"turn/{i}"].fresh == len(prompt) - longest


def test_without_token_ids_bytes_are_compared_and_scaled_to_the_prompt() -> None:
    first, same, half = "a" * 30, "a" * 30, "a" * 12 + "b" * 18
    costs = turn_costs([make_turn(i, None, said=text) for i, text in enumerate((first, same, half))])
    assert costs["turn/0"].fresh == 30
    assert costs["turn/1"].fresh == 0
    assert 10 <= costs["turn/2"].fresh <= 18


def test_money_is_summed_by_currency_and_absent_without_a_price() -> None:
    turns = [make_turn(0, (1,) * 1000, (1,) * 500), make_turn(1, (1,), policy="free")]
    price = {"prompt": 2.0, "completion": 4.0, "currency": "EUR"}
    assert money(turns, {"base": {"price": price}, "free": {"price": None}}) == {"EUR": 0.004}
    assert money(turns, {"base": {}}) == {}
