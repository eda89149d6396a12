"""What a training makes of the numbers that its learners give."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from coterie.agents.learning.llm import LanguageLearner
from coterie.agents.learning.llm_config import PolicyGradientConfig
from coterie.config.load import rebuild
from coterie.orchestration.config import LocalConfig
from coterie.orchestration.executor import Staff
from coterie.orchestration.harvest import EarnedTurn
from coterie.orchestration.jobs import TaskLimits
from coterie.orchestration.learners import LearnerSpec
from coterie.orchestration.local import LocalExecutor
from coterie.orchestration.society_trainer import SocietyTrainer
from coterie.rewards.estimators import Gae, Rloo
from coterie.testing.models import write_llama
from coterie.types import Place, Turn


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    rebuild()
    return str(write_llama(tmp_path_factory.mktemp("llama"), alphabet="0123456789", layers=1, width=32))


class Watched(Rloo):
    """Keeps what it was given."""

    def estimate(self, turns, memory):
        self.seen = {turn.key: turn.penalties for turn in turns}
        return super().estimate(turns, memory)


def earned(count=4):
    found = []
    for number in range(count):
        place = Place(f"sum@000001.{number}", 0, "ann")
        said = Turn(f"turn-{number}", place, "base", 0, (), "", "4", "stop", 3, 4, prompt_ids=(3, 4, 5),
                    token_ids=(6, 7, 8, 3 + number))  # fmt: skip
        found.append(EarnedTurn(said, float(number % 2), np.full(4, -2.5, np.float32)))
    return found


def configure(**fields):
    return PolicyGradientConfig.model_validate({"learning_rate": 0.01, "updates": 1, "precision": "float32", **fields})


def test_in_the_reward_every_token_pays_for_leaving_the_reference(llama):
    config = configure(advantage="rloo", kl={"weight": 0.5, "estimator": "k1", "at": "reward"})
    learner = LanguageLearner(llama, ("base",), config.build(), "cpu", 0)
    trainer = SocietyTrainer({"base": learner}, Watched(config.advantage), config, 0)
    trainer.learn(earned())
    assert all(penalties == (0.0,) * 4 for penalties in trainer.estimator.seen.values())
    turns = [one.turn for one in earned()]
    frozen = LanguageLearner(llama, ("base",), config.build(), "cpu", 0)
    examples = [trainer_example(turn) for turn in turns]
    now, then = (np.array(one.logprobs("base", examples)) for one in (learner, frozen))
    trainer.learn(earned())
    for turn, gap in zip(turns, now - then, strict=True):
        assert np.abs(gap).max() > 1e-3
        np.testing.assert_allclose(trainer.estimator.seen[turn.key], 0.5 * gap, atol=1e-6)


def trainer_example(turn):
    from coterie.agents.learning.examples import Example

    none = np.zeros(4, np.float32)
    return Example(turn.key, "answer", turn.prompt_ids, turn.token_ids, none, none)


def test_gae_learns_beside_the_policy_what_replies_earn_and_goes_on_after_a_stop(llama, tmp_path):
    config = configure(advantage={"kind": "gae", "trace": 0.95, "critic": {"learning_rate": 0.2}}, updates=4)

    def make():
        learner = LanguageLearner(llama, ("base",), config.build(), "cpu", 0)
        return SocietyTrainer({"base": learner}, Gae(config.advantage), config, 0)

    # The prompt tells what the reply earns.
    said = [replace(one, turn=replace(one.turn, prompt_ids=(3 + int(one.reward), 4, 5))) for one in earned(8)]
    trainer, again, found = make(), make(), []
    for iteration in range(6):
        if iteration == 5:
            trainer.save(tmp_path / "kept")
            again.load(tmp_path / "kept")
        found.append(trainer.learn(said)["base"].learning)
    assert found[0]["explained_variance"] == 0 and found[5]["explained_variance"] > 0.3
    assert found[5]["value_loss"] < found[0]["value_loss"] / 2
    assert again.learn(said)["base"].learning == found[5]
    assert again.save(tmp_path / "one") == trainer.save(tmp_path / "other")


def test_without_kl_in_the_reward_no_token_pays(llama):
    config = configure(advantage="rloo", kl={"weight": 0.5})
    learner = LanguageLearner(llama, ("base",), config.build(), "cpu", 0)
    trainer = SocietyTrainer({"base": learner}, Watched(config.advantage), config, 0)
    trainer.learn(earned())
    assert set(trainer.estimator.seen.values()) == {()}


def test_an_executor_closes_the_learners_that_it_hired(llama, monkeypatch):
    closed = []
    monkeypatch.setattr(LanguageLearner, "close", lambda self: closed.append(self))
    executor = LocalExecutor(LocalConfig(), Staff({}, {}, TaskLimits()))
    hired = executor.hire_learners([LearnerSpec(llama, ("base",), configure(), "cpu", 0)])
    asyncio.run(executor.close())
    asyncio.run(executor.close())
    assert closed == hired
