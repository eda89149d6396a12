from itertools import product

import numpy as np
import pytest

from coterie import rng
from coterie.errors import CreditError
from coterie.rewards.credit.influence import Attention, Stretch, by_agent, weigh


def draw(seed: int, size: int = 7) -> list[Attention]:
    """A random DAG of turns by three agents; some turns read nobody, some replies pay nothing to themselves."""
    stream = rng.stream(seed, "influence")

    def stretch() -> Stretch:
        return Stretch(float(stream.random()), float(stream.integers(1, 50)))

    return [
        Attention(
            f"t{i}", "abc"[i % 3], Stretch(0.0, 0.0) if i and stream.random() < 0.1 else stretch(),
            {f"t{j}": stretch() for j in range(i) if stream.random() < 0.6},
        )
        for i in range(size)
    ]  # fmt: skip


def density(part: Stretch) -> float:
    return part.mass / part.tokens if part.tokens else 0.0


def walk(turns: dict[str, Attention], begin: str) -> dict[str, float]:
    """What of a turn goes back to each turn, by the definition: path after path, each weight from the attention."""
    turn = turns[begin]
    total = sum(map(density, turn.sources.values())) + density(turn.own)
    back = dict.fromkeys(turns, 0.0)
    for source, part in turn.sources.items():
        for key, share in walk(turns, source).items():
            back[key] += density(part) / total * share if total else 0.0
    back[begin] += density(turn.own) / total if total else 1.0
    return back


@pytest.mark.parametrize("seed", range(10))
def test_what_flows_back_is_the_sum_over_all_paths(seed):
    turns = draw(seed)
    influence = weigh(turns, {"t6": 1.0})
    known = {turn.key: turn for turn in turns}
    expected = [[walk(known, i)[j] for j in influence.turns] for i in influence.turns]
    np.testing.assert_allclose(influence.flows(), expected, atol=1e-12)


@pytest.mark.parametrize(("seed", "per_token"), list(product(range(10), (True, False))))
def test_nothing_is_minted_and_nothing_is_lost(seed, per_token):
    influence = weigh(draw(seed), {"t6": 2.0, "t5": 1.0, "t0": 1.0}, per_token)
    assert influence.flows().min() >= 0
    np.testing.assert_allclose(influence.flows().sum(1), 1, atol=1e-12)
    assert sum(influence.turn_shares().values()) == pytest.approx(1, abs=1e-12)
    assert sum(influence.agent_shares().values()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_in_which_turns_are_given_does_not_matter(seed):
    turns = draw(seed)
    shares, backwards = (weigh(given, {"t6": 1.0}).turn_shares() for given in (turns, turns[::-1]))
    assert shares == pytest.approx(backwards, abs=1e-14)


def test_under_uniform_attention_oneself_and_every_message_count_alike_however_long_they_are():
    sources = {"short": Stretch(2 / 100, 2), "long": Stretch(60 / 100, 60)}
    reader = Attention("reader", "ann", Stretch(34 / 100, 34), sources)
    shares = weigh([Attention("short", "bob"), Attention("long", "cleo"), reader], {"reader": 1}).agent_shares()
    assert shares == pytest.approx({"ann": 1 / 3, "bob": 1 / 3, "cleo": 1 / 3})


def test_without_the_correction_for_length_attention_is_shared_as_it_is():
    reader = Attention("reader", "ann", Stretch(0.3, 30), {"told": Stretch(0.2, 2)})
    shares = weigh([Attention("told", "bob"), reader], {"reader": 1}, per_token=False).agent_shares()
    assert shares == pytest.approx({"ann": 0.6, "bob": 0.4})


def test_what_sinks_take_changes_nothing():
    def shares(rest: float) -> dict[str, float]:
        reader = Attention("reader", "ann", Stretch(rest * 0.75, 30), {"told": Stretch(rest * 0.25, 2)})
        return weigh([Attention("told", "bob"), reader], {"reader": 1}).agent_shares()

    assert shares(1.0) == pytest.approx(shares(0.2))


def test_a_turn_that_was_shown_nothing_keeps_all():
    assert weigh([Attention("t", "ann")], {"t": 1}).turn_shares() == {"t": 1.0}


def test_edges_go_from_who_spoke_to_who_read():
    turns = [Attention("t", "ann"), Attention("u", "bob", sources={"t": Stretch(1, 1)})]
    assert weigh(turns, {"u": 1}).edges() == [("t", "u", 0.5)]


@pytest.mark.parametrize(
    ("turns", "start", "says"),
    [
        ([Attention("t", "a", sources={"u": Stretch(1, 1)}), Attention("u", "b", sources={"t": Stretch(1, 1)})],
         {"t": 1.0}, "circle"),
        ([Attention("t", "a", sources={"x": Stretch(1, 1)})], {"t": 1.0}, "no turn of the episode"),
        ([Attention("t", "a")], {}, "no numbers"),
        ([Attention("t", "a"), Attention("u", "b", Stretch(float("nan"), 1), {"t": Stretch(1, 1)})],
         {"t": 1.0}, "no numbers"),
        ([], {}, "no numbers"),
    ],
)  # fmt: skip
def test_what_is_no_influence_is_refused(turns, start, says):
    with pytest.raises(CreditError, match=says):
        weigh(turns, start)


def test_agents_without_a_share_are_named_too():
    assert by_agent({"t": 1.0}, {"t": "ann", "u": "bob"}) == {"ann": 1.0, "bob": 0.0}
