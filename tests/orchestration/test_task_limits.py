"""What the limits of a task refuse follows from the logical order, not from the order in which replies come."""

import gc

import pytest

from coterie.journal import Journal
from coterie.orchestration.jobs import TaskLimits
from coterie.orchestration.protocols.config_comas import ComasConfig
from coterie.testing.societies import play

# CoMAS has chains side by side: an evaluation, then its score. At these limits some of them are refused.
LIMITS = [TaskLimits(tokens=4800), TaskLimits(tokens=5000), TaskLimits(tokens=5200), TaskLimits(calls=11)]


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_the_same_questions_are_refused_however_calls_are_batched(limits: TaskLimits) -> None:
    found = set()
    for engine, exact in (({"max_batch": 1}, True), ({"max_batch": 64}, True), ({"max_batch": 1}, False)):
        with play(ComasConfig(preset="release"), num_tasks=1, engine=engine, limits=limits, exact=exact) as journal:
            found.add(journal.digest())
    assert len(found) == 1


@pytest.mark.parametrize("limits", LIMITS, ids=str)
def test_a_resumed_run_refuses_the_same_questions(limits: TaskLimits, tmp_path) -> None:
    """Every second turn is there at once, the others come later."""
    with play(ComasConfig(preset="release"), num_tasks=1, engine={"max_batch": 1}, limits=limits) as whole:
        with Journal.create(tmp_path / "journal.sqlite") as half:
            half.commit(list(whole.facts("turn"))[::2])
        with play(
            ComasConfig(preset="release"), num_tasks=1, limits=limits, path=tmp_path / "journal.sqlite"
        ) as resumed:
            episodes = [[fact.payload for fact in journal.facts("episode")] for journal in (whole, resumed)]
    assert episodes[0] == episodes[1]


@pytest.mark.parametrize("preset", ["faithful", "release", "improved"])
def test_where_a_budget_ends_no_chain_is_left_behind(preset: str, caplog: pytest.LogCaptureFixture) -> None:
    config, engine = ComasConfig(preset=preset), {"replies": ("I say nothing.",)}
    for calls in (1, 2, 5, 9, 12):
        with play(config, num_tasks=2, limits=TaskLimits(calls=calls), engine=engine, exact=False) as journal:
            episodes = [fact.payload for fact in journal.facts("episode")]
        assert [len(episode["turns"]) for episode in episodes] == [calls, calls]
        assert all("cut_short" in episode["extra"] for episode in episodes)
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]
