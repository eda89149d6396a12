"""Token credit between harvest and learner, in this process."""

from dataclasses import replace

import numpy as np
import pytest

from coterie import registry, rng
from coterie.agents.learning.llm import LanguageLearner
from coterie.agents.learning.llm_config import PolicyGradientConfig
from coterie.errors import CreditError
from coterie.orchestration.harvest import EarnedTurn
from coterie.orchestration.society_trainer import SocietyTrainer
from coterie.orchestration.token_credit import TokenShaper
from coterie.rewards.config_advantages import RaeConfig
from coterie.rewards.estimators import Rae
from coterie.testing.models import write_llama
from coterie.types import Place, Turn

ITERATIONS = 3


@pytest.fixture(scope="module")
def deep(tmp_path_factory) -> str:
    return str(write_llama(tmp_path_factory.mktemp("deep"), alphabet="abcdefgh\n", layers=12, width=32))


@pytest.fixture(scope="module")
def shallow(tmp_path_factory) -> str:
    return str(write_llama(tmp_path_factory.mktemp("shallow"), alphabet="abcdefgh\n", layers=2, width=32))


def configure(kind, **fields):
    return registry.load(registry.get("token_credit", kind).config)(**fields)


def make(model, credit) -> SocietyTrainer:
    import coterie.config.load as load

    load.rebuild()
    config = PolicyGradientConfig(iterations=ITERATIONS, learning_rate=0.01, updates=2, precision="float32")
    learner = LanguageLearner(model, ("base",), config.build(), "cpu", 0)
    shaper = TokenShaper(credit, seed=7) if credit is not None else None
    return SocietyTrainer({"base": learner}, Rae(RaeConfig()), config, seed=7, shaper=shaper)


def earned(iteration, count=6, longest=40) -> list[EarnedTurn]:
    found = []
    for number in range(count):
        draw = rng.stream(0, "turn", iteration, number)
        prompt, reply = (tuple(map(int, draw.integers(3, 12, draw.integers(12, longest)))) for _ in range(2))
        place = Place(f"task-{number}@{iteration:06d}", 0, "ann")
        turn = Turn(
            str(place), place, "base", 0, prompt, "", None, "stop", len(prompt), len(reply), 0, prompt, reply
        )  # fmt: skip
        found.append(EarnedTurn(turn, float(draw.random()), np.full(len(reply), -2.5, np.float32)))
    return found


def short(kind, **fields):
    return configure(kind, least_tokens=10, **fields)


@pytest.mark.parametrize("kind", [kind for kind in registry.names("token_credit") if not configure(kind).replays])
def test_every_rule_shapes_a_training(deep, kind):
    credit = short(kind) if hasattr(configure(kind), "least_tokens") else configure(kind)
    trainer = make(deep, credit.model_copy(update={"split": "line", "proximity": 1}))
    update = trainer.learn(earned(1))["base"]
    assert update.learning["tokens"] > 0 and update.learning["factor"] > 0
    notes = trainer.take_notes()
    assert len([note for note in notes if note.kind == "token_credit"]) == 6
    assert trainer.take_notes() == []


def test_credit_that_changes_nothing_leaves_the_weights_as_they_were_without(deep):
    plain, same = make(deep, None), make(deep, short("coupled", amplify=1.0))
    for iteration in range(2):
        before, after = (trainer.learn(earned(iteration))["base"].weights for trainer in (plain, same))
        assert before == after


def test_credit_changes_what_is_learnt(deep):
    plain, shaped = (make(deep, credit).learn(earned(1))["base"] for credit in (None, short("coupled")))
    assert plain.weights != shaped.weights and "factor" not in plain.learning


def test_a_training_goes_on_with_the_roles_that_it_had(deep, tmp_path):
    whole = make(deep, short("coupled"))
    expected = [whole.learn(earned(iteration))["base"].weights for iteration in range(ITERATIONS)]
    stopped = make(deep, short("coupled"))
    stopped.learn(earned(0))
    stopped.save(tmp_path / "checkpoint")
    resumed = make(deep, short("coupled"))
    resumed.load(tmp_path / "checkpoint")
    assert resumed.shaper.roles == stopped.shaper.roles
    assert [resumed.learn(earned(iteration))["base"].weights for iteration in (1, 2)] == expected[1:]


@pytest.mark.parametrize(("every", "assigned"), [(0, [1]), (1, [1, 2, 3]), (2, [1, 3])])
def test_heads_are_sorted_again_as_often_as_is_asked(deep, every, assigned):
    trainer = make(deep, short("global_anchor", reclassify_every=every))
    found = []
    for iteration in range(ITERATIONS):
        trainer.learn(earned(iteration))
        found += [note.key for note in trainer.take_notes() if note.kind == "head_roles"]
    assert found == [f"base/{number:06d}" for number in assigned]


def test_a_model_with_few_layers_is_refused(shallow):
    learner = make(shallow, None).learners["base"]
    with pytest.raises(CreditError, match="2 in all .at least 12"):
        TokenShaper(configure("coupled"), 0).check_model("base", learner)
    TokenShaper(configure("entropy"), 0).check_model("base", learner)


def test_short_replies_are_refused_in_the_first_iteration_alone(deep):
    trainer = make(deep, configure("local_chunk"))
    with pytest.raises(CreditError, match="needs 80"):
        trainer.learn(earned(0))
    trainer.iteration = 1
    trainer.learn(earned(1))


def test_what_is_kept_is_a_sample_with_numbers_for_each_token(deep):
    trainer = make(deep, short("coupled", keep=2, horizon=(2, 20)))
    turns = {one.turn.key: one.turn.num_tokens for one in earned(1)}
    trainer.learn(earned(1))
    notes = [note for note in trainer.take_notes() if note.kind == "token_credit"]
    assert len(notes) == 2
    for note in notes:
        rows = [note.payload["factor"], note.payload["advantage"], *note.payload["signals"].values()]
        assert {len(row) for row in rows} == {turns[note.key]}
        assert set(note.payload["signals"]) == {"entropy", "waad", "fai", "fai_queries"}
        changed = [t for t, factor in enumerate(note.payload["factor"]) if factor != 1]
        marks = note.payload["marks"]
        assert changed == sorted({*marks["anchor"], *marks.get("preplan", [])})


def test_turns_that_were_cut_are_not_scored(deep):
    trainer, turns = make(deep, configure("random")), earned(1)
    cut = [replace(turns[0], turn=replace(turns[0].turn, finish="length")), *turns[1:]]
    trainer.learn(cut)
    assert cut[0].turn.key not in {note.key for note in trainer.take_notes()}
