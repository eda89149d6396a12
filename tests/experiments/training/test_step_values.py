"""A society is trained on values of its replies at their steps: from replays to what each token is given."""

import hashlib
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import coterie
from coterie.config.load import loads
from coterie.config.problems import InvalidConfig
from coterie.experiments.cli.main import main
from coterie.experiments.records.updates import read_updates
from coterie.journal import Journal
from coterie.orchestration import records, replay
from coterie.testing.models import write_llama

sys.path.insert(0, str(Path(__file__).parent))
from society_runs import ALPHABET, outcome, start
from society_runs import coterie as command
from society_runs import experiment as digits

DRAWS = 2
SPO = {"kind": "spo", "cut": "tokens", "every": 4, "draws": DRAWS, "mask": False}


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"), alphabet=ALPHABET, layers=2, width=16, heads=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, llama) -> Path:
    """The journal of an iteration of two agents that debate, and are paid for digits."""
    folder = tmp_path_factory.mktemp("trained")
    config = digits(llama, "valued", 10, credit=SPO, protocol={"kind": "debate", "rounds": 2})
    run = coterie.run(config | {"learning": config["learning"] | {"iterations": 1}}, runs=folder)
    return run.folder.journal


def test_what_tokens_are_given_adds_up_to_the_reward_less_the_value_of_the_prompt(trained):
    with Journal.read(trained) as journal:
        assert journal.verify() == []
        turns = {fact.key: records.read_turn(fact.key, fact.payload) for fact in journal.facts("turn")}
        said = {key for fact in journal.facts("episode") for key in fact.payload["turns"] if turns[key].token_ids}
        notes = list(journal.notes("token_credit"))
        (update,) = (fact.payload["policies"]["base"] for fact in journal.facts("update"))
    assert {note.key for note in notes} == said and len(said) > 12
    assert update["learning"]["factor"] == 0 and update["learning"]["added"] > 0
    for note in notes:
        text, step = turns[note.key].text, np.array(note.payload["signals"]["step"])
        reward = sum(map(str.isdigit, text)) / max(len(text), 1)
        first = [int(np.flatnonzero(step == number)[0]) for number in np.unique(step)]
        assert first == list(range(0, len(step), 4))
        given = [note.payload["added"][at] for at in first]
        assert sum(given) == pytest.approx(reward - note.payload["signals"]["value"][0], abs=1e-5)


def test_replays_are_in_no_throughput(trained):
    with Journal.read(trained) as journal:
        (update,) = read_updates(journal)
    assert update.tokens == update.facts["tokens"] > 0 and update.seconds["credit"] > 0


def test_a_page_shades_tokens_by_values_and_by_what_is_added_and_tells_what_is_learnt_from(trained):
    assert main(["inspect-credit", str(trained.parent), "--turns", "1"]) == 0
    page = (trained.parent / "report" / "credit.html").read_text("utf-8")
    with Journal.read(trained) as journal:
        note = min(journal.notes("token_credit"), key=lambda note: note.key).payload
    assert f"advantage {np.mean(note['added']):+.3f}, {len(note['added'])} tokens" in page
    assert all(page.count(f'<div class="shade {name}">') == 1 for name in ("value", "factor", "added"))


def test_a_value_is_the_mean_of_what_replies_earn_that_begin_alike(trained):
    """Each turn's second step, read from the journal by hand."""
    with Journal.read(trained) as journal:
        turns = {fact.key: records.read_turn(fact.key, fact.payload) for fact in journal.facts("turn")}
        replays = {fact.payload["task"]: fact.payload for fact in journal.facts("replay")}
        notes = {note.key: note.payload for note in journal.notes("token_credit")}
    seen = 0
    for key, note in notes.items():
        turn, earned = turns[key], []
        for draw in range(1, DRAWS + 1):
            name = f"{turn.place.task}%{draw}.{hashlib.sha256(key.encode()).hexdigest()[:16]}+4"
            if name not in replays:
                continue
            assert replay.task_of(name) == turn.place.task
            made = [turns[one] for one in replays[name]["turns"] if turns[one].place[1:] == turn.place[1:]]
            assert [one.token_ids[:4] == turn.token_ids[:4] and one.num_tokens <= 10 for one in made] == [True]
            assert made[0].prompt_ids == turn.prompt_ids
            earned.append(sum(map(str.isdigit, made[0].text)) / max(len(made[0].text), 1))
        if earned:
            assert len(earned) == DRAWS
            assert note["signals"]["value"][4] == pytest.approx(np.mean(earned), abs=1e-5)
            seen += 1
    assert seen >= 8


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"credit": {"token": "vine", "agent": "equal"}}, "here turns earn shares: leave `agent` out"),
        (
            {"credit": "spo", "learning": {"kl": {"weight": 0.1, "estimator": "k1", "at": "reward"}}},
            "without what `kl` takes of rewards",
        ),
        ({"credit": "vine", "learning": {"advantage": "gae"}}, "nothing reads the critic"),
    ],
)
def test_what_values_would_leave_out_is_refused(tmp_path, changes, says):
    config = digits(tmp_path, "refused", 8)
    learning = config["learning"] | changes.get("learning", {})
    with pytest.raises(InvalidConfig, match=says):
        loads(config | changes | {"learning": learning})


@pytest.mark.slow
@pytest.mark.parametrize("credit", [SPO, {"agent": {"kind": "leave_one_out", "draws": 2}}], ids=["spo", "agent"])
def test_a_training_that_is_killed_amid_replays_and_resumed_ends_with_the_same_digest(tmp_path, llama, credit):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    config = digits(llama, "killed", 8, credit=credit)
    assert start(whole, config, 240).returncode == 0
    assert start(killed, config, 240, MORTAL="20").returncode == -signal.SIGKILL
    (run,) = (killed / "runs").iterdir()
    with Journal.read(run / "journal.sqlite") as journal:
        assert journal.count("replay") and not journal.count("update")
    resumed = command("resume", "latest", cwd=killed, seconds=240)
    assert resumed.returncode == 0, resumed.stderr
    assert outcome(killed) == outcome(whole)
