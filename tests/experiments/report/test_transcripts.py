"""Which conversations a reader is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from coterie.agents.seats import Agent
from coterie.experiments.records.run import Episode, RunRecord
from coterie.experiments.report.transcripts import choose_transcripts
from coterie.types import Message, Outcome, Place, Turn, Verdict

AGENTS = tuple(Agent(name, "base") for name in "abc")


def make_record(episodes: Mapping[str, Mapping[str, tuple[str, ...]]]) -> RunRecord:
    """`episodes[society][task]`: the first answers, one letter each, and the last ones; `r` is the right answer."""
    turns, verdicts = {}, {}
    found: dict[str, dict[str, Episode]] = {}
    for society, tasks in episodes.items():
        for task, answers in tasks.items():
            rounds = []
            for number, row in enumerate(answers):
                keys = {}
                for agent, answer in zip(AGENTS, row, strict=True):
                    key = f"{society}/{task}/{number}/{agent.name}"
                    place = Place(task, number, agent.name)
                    length = 4 + ord(task[-1])
                    turns[key] = Turn(
                        key, place, "base", 0, (Message("user", f"Q {task}"),), answer, answer, "stop", 9, length
                    )
                    verdicts[key] = Verdict(answer, answer == "r")
                    keys[agent.name] = key
                rounds.append(keys)
            last = max(answers[-1], key=answers[-1].count)
            outcome = Outcome(last, tuple(rounds), (), "majority", {}, tuple(k for row in rounds for k in row.values()))
            found.setdefault(society, {})[task] = Episode(society, task, outcome, last == "r")
    agents = [dataclasses.asdict(agent) for agent in AGENTS]
    facts = {"societies": [{"label": label, "is_baseline": False, "agents": agents} for label in episodes]}
    return RunRecord(facts, "0", turns, verdicts, found)


def chosen(record: RunRecord) -> list[tuple[str, str, str]]:
    return [(t.title.partition(":")[0], t.society, t.task) for t in choose_transcripts(record)]


def test_a_mended_majority_a_spoiled_one_and_an_ordinary_episode_are_chosen_from_all_societies() -> None:
    record = make_record({
        "one": {"t1": ("rrw", "rrr"), "t2": ("rrr", "rrr"), "t3": ("wwx", "www")},
        "two": {"t1": ("wwr", "rrr"), "t2": ("rrr", "rrw"), "t3": ("rrw", "wwr")},
    })  # fmt: skip
    assert chosen(record) == [("Mended", "two", "t1"), ("Spoiled", "two", "t3"), ("Ordinary", "one", "t2")]


def test_the_largest_first_majority_comes_first() -> None:
    record = make_record({"one": {"t1": ("wwr", "rrr"), "t2": ("www", "rrr")}})
    assert chosen(record)[0] == ("Mended", "one", "t2")


def test_without_a_majority_that_moved_there_is_an_ordinary_episode_alone() -> None:
    record = make_record({"one": {"t1": ("rwx", "rrr"), "t2": ("rrr", "rrr")}})
    assert chosen(record) == [("Ordinary", "one", "t1")]


def test_turns_of_every_purpose_are_shown_once_and_only_answers_are_right_or_wrong() -> None:
    record = make_record({"one": {"t1": ("rrr",)}})
    asked = Turn(
        "p", Place("t1", 0, "a", purpose="proxy"), "base", 0, (Message("user", "rules"),), "no", None, "stop", 9, 4
    )
    (episode,) = record.episodes["one"].values()
    outcome = dataclasses.replace(
        episode.outcome, rounds=episode.outcome.rounds * 2, turns=(asked.key, *episode.outcome.turns)
    )
    episodes = {"one": {"t1": dataclasses.replace(episode, outcome=outcome)}}
    turns = {**record.turns, asked.key: asked}
    (found,) = choose_transcripts(dataclasses.replace(record, turns=turns, episodes=episodes))
    assert found.question == "Q t1"
    ((number, bubbles),) = found.rounds
    assert number == 0
    assert [(b.agent, b.purpose, b.state) for b in bubbles] == [
        ("a", "", "right"), ("a", "proxy", ""), ("b", "", "right"), ("c", "", "right"),
    ]  # fmt: skip


def test_the_same_facts_give_the_same_choice() -> None:
    table = {"one": {"t1": ("wwr", "rrr"), "t2": ("rrw", "www"), "t3": ("rrr", "rrr"), "t4": ("www", "www")}}
    turned = {"one": dict(reversed(table["one"].items()))}
    assert chosen(make_record(table)) == chosen(make_record(turned))
