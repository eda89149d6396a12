import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coterie import registry
from coterie.errors import CoterieError
from coterie.rewards.advantage import RewardedTurn, dr_grpo, grpo, rae, returns_to_go, rloo, whiten

KINDS = registry.names("advantage")


def turn(
    key, reward, *, policy="base", agent="ann", role="answer", group="g", round=0, num_tokens=1, penalties=(),
    values=None,
):  # fmt: skip
    """A critic expects nothing of it unless `values` are given."""
    values = (0.0,) * num_tokens if values is None else values
    return RewardedTurn(key, policy, agent, role, group, round, reward, num_tokens, penalties, values)


def build(kind, **fields):
    config = registry.load(registry.get("advantage", kind).config)
    return registry.impl("advantage", kind)(config(**fields))


def estimate(kind, turns, memory=None, **fields):
    return build(kind, **fields).estimate(turns, memory or {})


def first(found):
    return {key: float(value[0]) for key, value in found.advantages.items()}


def test_returns_to_go_lose_the_penalties_from_each_token_on():
    assert returns_to_go(turn("a", 1.0, num_tokens=3, penalties=(0.1, 0.2, 0.4))) == pytest.approx([0.3, 0.4, 0.6])


def test_whitening_counts_tokens_and_not_replies():
    # Three tokens at 1 and one at 0: mean 3/4, variance 3/16.
    long, short = whiten([np.ones(3), np.zeros(1)], epsilon=0)
    assert long == pytest.approx([0.25 / math.sqrt(3 / 16)] * 3)
    assert short == pytest.approx([-0.75 / math.sqrt(3 / 16)])


def test_grpo_divides_by_the_deviation_of_the_sample():
    # Mean 2, deviations -2, 0, 2, sample variance 4.
    assert grpo([0, 2, 4], epsilon=0) == pytest.approx([-1, 0, 1])
    assert grpo([0, 2, 4], epsilon=2) == pytest.approx([-0.5, 0, 0.5])


def test_dr_grpo_leaves_the_deviation_out():
    assert dr_grpo([0, 2, 4]) == pytest.approx([-2, 0, 2])


def test_rloo_compares_with_the_mean_of_the_others():
    assert rloo([0, 2, 4]) == pytest.approx([0 - 3, 2 - 2, 4 - 1])


def test_rae_reads_its_baseline_before_it_moves():
    gains, after = rae([1.0], baseline=0.4, decay=0.95)
    assert gains == pytest.approx([0.6]) and after == pytest.approx(0.95 * 0.4 + 0.05)


def test_the_baseline_of_rae_ends_at_the_mean_over_all_orders_of_its_rewards():
    def one_by_one(rewards):
        baseline = 0.2
        for reward in rewards:
            baseline = 0.95 * baseline + 0.05 * reward
        return baseline

    assert rae([1.0, 0.0], 0.2)[1] == pytest.approx((one_by_one([1, 0]) + one_by_one([0, 1])) / 2)
    assert rae([0.7] * 3, 0.2)[1] == pytest.approx(one_by_one([0.7] * 3))


def test_rae_starts_at_zero_and_keeps_a_baseline_for_each_policy_and_role():
    turns = [turn("a", 1.0), turn("b", 0.5, role="score"), turn("c", 2.0, policy="other")]
    found = estimate("rae", turns)
    assert first(found) == {"a": 1.0, "b": 0.5, "c": 2.0}
    assert found.memory == pytest.approx({"base/answer": 0.05, "base/score": 0.025, "other/answer": 0.1})


def test_rae_forgets_no_key_that_says_nothing_this_time():
    assert estimate("rae", [turn("a", 1.0)], {"base/score": 0.3}).memory["base/score"] == 0.3


def test_reinforce_plus_plus_whitens_each_role_of_each_policy_by_itself():
    turns = [turn("a", 1.0), turn("b", 0.0), turn("c", 5.0, role="score"), turn("d", 7.0, role="score")]
    assert first(estimate("reinforce++", turns)) == pytest.approx({"a": 1, "b": -1, "c": -1, "d": 1})


def test_reinforce_plus_plus_gives_each_token_what_it_still_costs():
    # Returns to go 0, 1/2 and 1: mean 1/2, variance 1/6.
    turns = [turn("a", 1.0, num_tokens=2, penalties=(0.5, 0.5)), turn("b", 1.0)]
    found = estimate("reinforce++", turns, epsilon=0.0).advantages
    assert found["a"] == pytest.approx([-0.5 * math.sqrt(6), 0], abs=1e-6)
    assert found["b"] == pytest.approx([0.5 * math.sqrt(6)])


def test_a_critic_that_expects_nothing_makes_gae_reinforce_plus_plus():
    turns = [turn("a", 1.0, num_tokens=2, penalties=(0.5, 0.25)), turn("b", 0.25, num_tokens=3), turn("c", 2.0)]
    gae, plain = (estimate(kind, turns).advantages for kind in ("gae", "reinforce++"))
    for key, value in plain.items():
        assert gae[key] == pytest.approx(value, abs=1e-7)


def test_gae_whitens_what_came_beyond_what_was_expected():
    # Returns to go 1/2 and 1 of a, 0 of b, less values: 1/4, 1/4 and -1/2, of mean 0 and variance 1/8.
    turns = [turn("a", 1.0, num_tokens=2, penalties=(0.5, 0.0), values=(0.25, 0.75)), turn("b", 0.0, values=(0.5,))]
    found = estimate("gae", turns, epsilon=0.0)
    assert found.advantages["a"] == pytest.approx([0.25 * math.sqrt(8)] * 2)
    assert found.advantages["b"] == pytest.approx([-0.5 * math.sqrt(8)])
    assert found.targets["a"] == pytest.approx([0.5, 1.0]) and found.targets["b"] == pytest.approx([0.0])


def test_by_a_trace_of_zero_the_changes_of_a_reply_add_up_to_its_reward_less_the_value_of_its_prompt():
    given = turn("a", 1.0, num_tokens=3, penalties=(0.25, 0.0, 0.5), values=(0.1, -0.6, 0.8))
    target = estimate("gae", [given], trace=0.0).targets["a"]
    assert sum(target - given.values) == pytest.approx(1.0 - 0.75 - 0.1, abs=1e-6)


def test_gae_without_values_is_refused():
    with pytest.raises(CoterieError, match="needs the value of each token"):
        estimate("gae", [turn("a", 1.0, num_tokens=3, values=())])


def test_reinforce_plus_plus_baseline_whitens_what_groups_leave():
    # Groups (0, 1) and (4, 8): deviations -1/2, 1/2, -2, 2; mean 0, variance 17/8.
    rewards = {"a": ("g", 0.0), "b": ("g", 1.0), "c": ("h", 4.0), "d": ("h", 8.0)}
    found = first(estimate("reinforce++_baseline", [turn(k, r, group=g) for k, (g, r) in rewards.items()]))
    scale = math.sqrt(17 / 8)
    assert found == pytest.approx({"a": -0.5 / scale, "b": 0.5 / scale, "c": -2 / scale, "d": 2 / scale})


def test_a_turn_alone_in_its_group_is_left_out_of_the_whitening():
    turns = [turn("a", 0.0), turn("b", 1.0), turn("c", 9.0, group="h")]
    assert first(estimate("reinforce++_baseline", turns)) == pytest.approx({"a": -1, "b": 1, "c": 0})


def test_agents_of_one_group_are_compared_with_themselves_alone():
    turns = [turn(f"{agent}{i}", reward, agent=agent) for agent, low in (("ann", 0), ("bob", 10))
             for i, reward in enumerate((low, low + 1))]  # fmt: skip
    by_agent, together = first(estimate("dr_mas", turns)), first(estimate("grpo", turns))
    assert by_agent["bob0"] == by_agent["ann0"] < 0 < by_agent["bob1"] == by_agent["ann1"]
    assert together["ann1"] < 0 < together["bob0"]


def test_turns_of_different_rounds_are_not_compared():
    turns = [turn("a", 0.0), turn("b", 2.0), turn("c", 9.0, round=1)]
    half = math.sqrt(0.5)
    assert first(estimate("at_grpo", turns, epsilon=0.0)) == pytest.approx({"a": -half, "b": half, "c": 0})


@pytest.mark.parametrize("kind", ["grpo", "dr_grpo", "rloo", "dr_mas", "at_grpo", "reinforce++_baseline", "rae"])
def test_penalties_of_a_reply_are_taken_from_its_reward(kind):
    plain = [turn("a", 0.25, num_tokens=2), turn("b", 1.0, num_tokens=2)]
    charged = [replace(plain[0], reward=1.0, penalties=(0.5, 0.25)), plain[1]]
    assert first(estimate(kind, charged)) == pytest.approx(first(estimate(kind, plain)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_has_an_advantage(kind):
    found = estimate(kind, [turn("a", 0.0, num_tokens=3), turn("b", 1.0, num_tokens=0)]).advantages
    assert {key: value.shape for key, value in found.items()} == {"a": (3,), "b": (0,)}
    assert all(value.dtype == np.float32 for value in found.values())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "rae"])
@pytest.mark.parametrize("rewards", [(0.1,), (0.1, 0.1, 0.1), (-1.0, -1.0)])
def test_where_there_is_nothing_to_compare_advantages_are_zero(kind, rewards):
    found = estimate(kind, [turn(str(i), reward, num_tokens=3) for i, reward in enumerate(rewards)])
    assert not np.concatenate(list(found.advantages.values())).any()


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_batch_has_no_advantages(kind):
    assert dict(estimate(kind, []).advantages) == {}


def test_the_order_of_by_does_not_matter():
    turns = [turn("a", 0.0), turn("b", 1.0, role="score"), turn("c", 5.0)]
    there, back = (estimate("rae", turns, by=by) for by in (("policy", "role"), ("role", "policy")))
    assert there.memory == back.memory


def test_two_different_turns_of_one_key_are_refused():
    with pytest.raises(CoterieError, match="have one key"):
        estimate("grpo", [turn("a", 0.0), turn("a", 1.0)])


def test_penalties_have_to_fit_the_reply():
    with pytest.raises(CoterieError, match="2 penalties for 3 tokens"):
        turn("a", 0.0, num_tokens=3, penalties=(0.1, 0.2))
    with pytest.raises(CoterieError, match="1 values for 3 tokens"):
        turn("a", 0.0, num_tokens=3, values=(0.1,))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_that_is_no_number_is_refused(value):
    with pytest.raises(CoterieError, match="not finite"):
        turn("a", value)


FUZZ = settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
TURNS = st.lists(
    st.builds(
        RewardedTurn,
        key=st.uuids().map(str), policy=st.sampled_from("pq"), agent=st.sampled_from("ab"),
        role=st.sampled_from(("answer", "evaluate", "score")), group=st.sampled_from("gh"), round=st.integers(0, 1),
        reward=st.floats(-2, 2), num_tokens=st.just(2), penalties=st.sampled_from(((), (0.5, -0.25))),
        values=st.sampled_from(((0.0, 0.0), (1.5, -0.25))),
    ),
    max_size=12, unique_by=lambda turn: turn.key,
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@FUZZ
@given(turns=TURNS, data=st.data())
def test_order_duplicates_and_other_keys_change_no_advantage(kind, turns, data):
    estimator = build(kind)
    whole = estimator.estimate(turns, {}).advantages
    for turn in turns[:1]:
        key = turn.key_by(estimator.config.by)
        own = [t for t in turns if t.key_by(estimator.config.by) == key]
        others = [t for t in turns if t not in own]
        kept = [t for t in others if data.draw(st.booleans())]
        retried = [t for t in (*own, *kept) if data.draw(st.booleans())]
        part = estimator.estimate(data.draw(st.permutations([*own, *kept, *retried])), {}).advantages
        for t in own:
            assert part[t.key].tobytes() == whole[t.key].tobytes()


@pytest.mark.parametrize("kind", KINDS)
@FUZZ
@given(turns=TURNS)
def test_advantages_are_always_finite(kind, turns):
    found = estimate(kind, turns)
    assert all(np.isfinite(value).all() for value in found.advantages.values())
    assert all(map(math.isfinite, found.memory.values()))


def triples(size, seed=3):
    """What CoMAS rewards: every score can be read; solution and evaluation share 1, and the scoring gets 0."""
    draws = np.random.default_rng(seed)
    for i, score in enumerate(draws.integers(1, 4, size)):
        won, (solve, evaluate, judge) = (score - 1) / 2, draws.integers(5, 40, 3).tolist()
        yield turn(f"{i}/solve", won, num_tokens=solve)
        yield turn(f"{i}/evaluate", 1 - won, role="evaluate", num_tokens=evaluate)
        yield turn(f"{i}/score", 0.0, role="score", num_tokens=judge)


def test_pooled_whitening_pushes_down_every_scoring_that_kept_to_the_format():
    """The bias of CoMAS: its neutral 0 lies below the pool's mean, which is positive whatever the scores are."""
    found = first(estimate("reinforce++", list(triples(50)), by=("policy",)))
    assert all(value < -0.5 for key, value in found.items() if key.endswith("score"))


def test_whitening_by_role_leaves_scorings_alone_that_kept_to_the_format():
    found = first(estimate("reinforce++", list(triples(50))))
    assert {value for key, value in found.items() if key.endswith("score")} == {0.0}
    assert sum(value > 0 for key, value in found.items() if key.endswith("solve")) > 0


def test_by_role_the_mean_advantage_of_scorings_is_zero_and_only_broken_ones_fall_below():
    turns = [*triples(50), turn("broken", -1.0, role="score", num_tokens=10)]
    found = estimate("reinforce++", turns).advantages
    scorings = [found[t.key] for t in turns if t.role == "score"]
    assert np.concatenate(scorings).mean() == pytest.approx(0, abs=1e-6)
    assert found["broken"][0] < 0 < found["0/score"][0]
