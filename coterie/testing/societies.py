"""Conformance of protocols: what each owes its users, so that runs, reports and rewards may rely on it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from coterie.agents.seats import Agent
from coterie.envs.benchmarks.base import Item, ItemBenchmark
from coterie.errors import CoterieError
from coterie.journal import Fact, Journal
from coterie.orchestration.budget import RunBudget
from coterie.orchestration.config import LocalConfig
from coterie.orchestration.jobs import TaskLimits
from coterie.orchestration.local import LocalExecutor
from coterie.orchestration.protocols.config import DecisionConfig, ProtocolConfig
from coterie.orchestration.supervisor import Quiet
from coterie.testing.reach import texts_within
from coterie.testing.shuffling import FENCED, ShufflingExecutor
from coterie.testing.stage import AGENTS, play, staff
from coterie.types import Edge, Turn, Verdict

__all__ = ["AGENTS", "check_protocol", "play", "staff"]

_TASKS = 3
_MARK = re.compile(r"\bq[a-p]{5}\b")
_WORDS = ("agree", "object", "revise", "accept", "undecided", "negative")
_GOLD = "sesame-{}-of-the-forty"
# Replies are drawn from these by place, so that nearly every turn says something of its own, in every known format.
_MARKED = tuple(
    "1. {0}\n2. {0}\n3. {0}\nRatings: 3, {1}\nRanking: {1}, 1, 2\nScore: {2}\nDecision: {3}\n{0} Answer: {2}".format(
        "q" + "".join(chr(ord("a") + int(digit, 16)) for digit in f"{i:05x}"), i % 5 + 1, i % 3 + 1, _WORDS[i % 6]
    )
    for i in range(0, 16**5, 257)
)
_SAYS_ALL: Mapping[str, Any] = {"replies": _MARKED, "context": 1 << 20}


def check_protocol(config: ProtocolConfig, *, agents: Sequence[Agent] | None = None) -> None:
    """What every protocol owes its users.

    Episodes end, also where replies are empty, cut, or in no format, and where the budget is spent; answers come from
    replies; the outcome names real turns, agents, and exactly who read which turn, and what for; the same seed gives
    the same journal, whatever the batch size, the other tasks, and the turn at which the run was cut; no prompt holds a
    gold answer; agents that are shown what was said on another task answer otherwise if they follow it, and as before
    if they ignore it; and if the config says `symmetric`, the order of the seats changes nothing.

    Args:
        config: The protocol's.
        agents: Who plays it; by default three, or as many as the protocol needs.

    Raises:
        AssertionError: with the property that fails.
    """
    cast = tuple(agents or _cast(config))
    with play(config, agents=cast, num_tasks=_TASKS) as journal:
        _check_outcomes(journal, cast)
        _check_replay(config, cast, journal)
        _check_task_budgets(config, cast, journal)
        _check_run_budget(config, cast, journal.digest())
        _check_resume(config, cast, journal)
    _check_bad_replies(config, cast)
    _check_gold(config, cast)
    _check_edges(config, cast)
    _check_reading(config, cast)
    if config.symmetric:
        _check_symmetry(config, cast)


def _cast(config: ProtocolConfig) -> Sequence[Agent]:
    fewest, most = config.agents
    more = [Agent(f"extra-{i}", "base") for i in range(fewest - len(AGENTS))]
    return (*AGENTS, *more)[:most]


def _check_replay(config: ProtocolConfig, cast: Sequence[Agent], journal: Journal) -> None:
    with play(config, agents=cast, num_tasks=_TASKS, engine={"max_batch": 2}) as again:
        assert again.digest() == journal.digest(), "the journal depends on how calls are batched"
    with play(config, agents=cast, num_tasks=_TASKS, exact=False) as again:
        assert again.digest() == journal.digest(), "the journal depends on the order in which replies come"
    with play(config, agents=cast, num_tasks=1) as alone:
        for fact in alone.facts():
            assert journal.get(fact.key) == fact.payload, f"{fact.key} depends on the other tasks of the run"


def _check_bad_replies(config: ProtocolConfig, cast: Sequence[Agent]) -> None:
    for faults in ({"empty": 0.3, "cut": 0.3}, {"empty": 1.0}):
        with play(config, agents=cast, num_tasks=_TASKS, engine={"faults": faults}) as journal:
            _check_outcomes(journal, cast)
    for replies in (_MARKED, ("?", "<<<", ">>> 7", "Decision: Score: Ranking: Ratings: 99999999999, -1, 0.5")):
        engine = {**_SAYS_ALL, "replies": replies}
        with play(config, agents=cast, num_tasks=_TASKS, engine=engine, max_tokens=256) as journal:
            _check_outcomes(journal, cast)


def _check_outcomes(journal: Journal, cast: Sequence[Agent]) -> None:
    names = {agent.name for agent in cast}
    assert journal.count("episode") > 0, "no episode ended"
    for fact in journal.facts("episode"):
        episode, said = fact.payload, set()
        for number, standing in enumerate(episode["rounds"]):
            for name, key in standing.items():
                turn = journal.get(key)
                assert turn is not None, f"{fact.key} names the turn {key!r}, which was never taken"
                _check_standing(fact.key, number, name, names, turn)
                said.add(turn["answer"])
        assert episode["answer"] is None or episode["answer"] in said, f"{fact.key}: nobody gave the society's answer"
        for edge in episode["edges"]:
            assert {edge["source"], edge["target"]} <= names, f"{fact.key}: an edge names a stranger"
            assert edge["source"] != edge["target"], f"{fact.key}: {edge['source']} reads itself"
            assert 0 <= edge["round"] < len(episode["rounds"]), f"{fact.key}: an edge lies in no round"
        places = [tuple(journal.get(key)["place"].values()) for key in episode["turns"]]  # type: ignore[index]
        twice = next((place for place in places if places.count(place) > 1), None)
        assert twice is None, f"{fact.key}: two turns share the place {twice}"


def _check_standing(episode: str, number: int, name: str, names: set[str], turn: dict[str, Any]) -> None:
    place = turn["place"]
    assert name.partition("#")[0] in names, f"{episode} names the agent {name!r}, who is not in the society"
    assert place["seat"] == name.partition("#")[0], f"{episode}: {name} stands by a turn of {place['seat']}"
    assert place["purpose"] == "answer", f"{episode}: a turn for {place['purpose']!r} counts as an answer of {name}"
    assert place["round"] <= number, f"{episode}: in round {number} {name} stands by a turn of round {place['round']}"


# --- budgets and resume


def _check_task_budgets(config: ProtocolConfig, cast: Sequence[Agent], journal: Journal) -> None:
    tokens = max(_tokens(journal, fact.payload["turns"]) for fact in journal.facts("episode")) // 2
    for limits in (TaskLimits(calls=1), TaskLimits(calls=2), TaskLimits(tokens=tokens)):
        try:
            with play(config, agents=cast, num_tasks=_TASKS, limits=limits) as stopped:
                _check_outcomes_in_budget(stopped, limits)
        except CoterieError as error:
            raise AssertionError(f"an episode out of budget broke the run: {error}") from error


def _tokens(journal: Journal, keys: Iterable[str]) -> int:
    turns = [journal.get(key) or {} for key in keys]
    return sum(turn["num_prompt_tokens"] + turn["num_tokens"] for turn in turns)


def _check_outcomes_in_budget(journal: Journal, limits: TaskLimits) -> None:
    assert journal.count("episode") > 0, "no episode ended"
    for fact in journal.facts("episode"):
        keys = fact.payload["turns"]
        assert limits.calls is None or len(keys) <= limits.calls, f"{fact.key} took more calls than its budget has"
        assert limits.tokens is None or _tokens(journal, keys) <= limits.tokens, f"{fact.key} took too many tokens"


def _check_run_budget(config: ProtocolConfig, cast: Sequence[Agent], digest: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "journal.sqlite"
        with play(config, agents=cast, num_tasks=_TASKS, budget=RunBudget(calls=2), path=path) as journal:
            assert journal.count("turn") <= 2, "a run took more calls than its budget has"
        with play(config, agents=cast, num_tasks=_TASKS, path=path) as journal:
            assert journal.digest() == digest, "stopped by its budget and resumed, a run ends otherwise"


def _check_resume(config: ProtocolConfig, cast: Sequence[Agent], journal: Journal) -> None:
    """Cut the journal after some turns, in the order of their commits; and keep every second turn only."""
    keys = [note.key for note in journal.notes("sample")]
    for kept in (keys[: len(keys) // 2], keys[:-1], keys[::2]):
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "journal.sqlite"
            _copy(journal, path, kept)
            with play(config, agents=cast, num_tasks=_TASKS, path=path) as resumed:
                same = resumed.digest() == journal.digest()
                assert same, f"resumed with {len(kept)} of {len(keys)} turns, a run ends otherwise"


def _copy(journal: Journal, path: Path, keys: Iterable[str]) -> None:
    with Journal.create(path) as copy:
        for key in keys:
            copy.commit([Fact(key, "turn", journal.get(key))])
            if (verdict := journal.get(f"verdict/{key}")) is not None:
                copy.commit([Fact(f"verdict/{key}", "verdict", verdict)])


# --- gold


class _Sealed(ItemBenchmark):
    """Questions whose answers nobody can guess."""

    def __init__(self) -> None:
        questions = [Item(f"Which word opens door {i}?", _GOLD.format(i), "text") for i in range(_TASKS)]
        super().__init__("sealed", questions)


class _Spy(Quiet):
    """Looks, while episodes are open, through everything that a protocol can reach by way of `ask`."""

    def __init__(self, host: LocalExecutor) -> None:
        self._host, self._looks = host, 0

    def on_turn(self, turn: Turn, verdict: Verdict | None) -> None:
        self._looks += 1
        if self._looks <= 3:
            leak = next((text for text in texts_within(self._host.workers) if _is_gold(text)), None)
            assert leak is None, f"a protocol can reach the gold answer {leak!r}"


def _is_gold(text: str) -> bool:
    return any(_GOLD.format(i) in text for i in range(_TASKS))


def _check_gold(config: ProtocolConfig, cast: Sequence[Agent]) -> None:
    host = LocalExecutor(LocalConfig(), staff(_SAYS_ALL, max_tokens=256))
    with play(config, agents=cast, benchmark=_Sealed(), executor=host, observer=_Spy(host)) as journal:
        for fact in journal.facts("turn"):
            leak = next(filter(_is_gold, (m["content"] for m in fact.payload["prompt"])), None)
            assert leak is None, f"the prompt of {fact.key} holds the gold answer"


# --- who reads whom


def _check_edges(config: ProtocolConfig, cast: Sequence[Agent]) -> None:
    """An edge stands for a turn that was read and for nothing else, so shuffling a society's edges would be noticed."""
    with play(config, agents=cast, num_tasks=_TASKS, engine=_SAYS_ALL, max_tokens=256) as journal:
        for fact in journal.facts("episode"):
            turns = {key: journal.get(key) or {} for key in fact.payload["turns"]}
            _compare(fact.key, {Edge(**edge) for edge in fact.payload["edges"]}, turns)


def _compare(episode: str, edges: set[Edge], turns: Mapping[str, dict[str, Any]]) -> None:
    authors: dict[str, set[tuple[str, str]]] = {}
    for key, turn in turns.items():
        for mark in _marks(turn["text"]):
            authors.setdefault(mark, set()).add((turn["place"]["seat"], key))
    known: dict[tuple[str, str], int] = {}
    read: set[Edge] = set()
    for turn in sorted(turns.values(), key=lambda turn: turn["place"]["round"]):
        number, reader, purpose = (turn["place"][name] for name in ("round", "seat", "purpose"))
        for mark in authors.keys() & {mark for message in turn["prompt"] for mark in _marks(message["content"])}:
            sources = {Edge(number, seat, reader, key, purpose) for seat, key in authors[mark] if seat != reader}
            read |= sources
            is_new = known.setdefault((reader, mark), number) == number and len(sources) == len(authors[mark])
            seats = {edge.source for edge in sources}
            assert not is_new or sources & edges, (
                f"{episode}: {reader} read {seats} in round {number}, no edge says so for {purpose!r}"
            )
    for edge in edges - read:
        what = f"in round {edge.round} {edge.target} read nothing that {edge.source} had said"
        raise AssertionError(f"{episode}: {what} for {edge.purpose!r} in the turn {edge.turn!r}")


def _marks(text: str) -> set[str]:
    return set(_MARK.findall(text))


def _check_reading(config: ProtocolConfig, cast: Sequence[Agent]) -> None:
    """What agents answer hangs on what they are shown between fences, and on nothing else that was said."""
    for conformity in (1.0, 0.0):
        engine = {"accuracy": 0.5, "conformity": conformity}
        with play(config, agents=cast, num_tasks=_TASKS, engine=engine) as journal:
            readers = [e["target"] for f in journal.facts("episode") for e in f.payload["edges"] if _is_answer(e)]
            host = ShufflingExecutor(staff(engine), journal)
            with play(config, agents=cast, num_tasks=_TASKS, executor=host) as shuffled:
                is_same = list(_answers(journal)) == list(_answers(shuffled))
        if conformity:
            assert not readers or not is_same, (
                f"{readers[0]} read its peers, but what stands between fences in its prompts changes no answer"
            )
        else:
            assert is_same, "agents that ignore what they read answer otherwise where it was said on another task"


def _is_answer(edge: Mapping[str, Any]) -> bool:
    return bool(edge["purpose"] == "answer")


def _answers(journal: Journal) -> Iterator[Any]:
    for fact in journal.facts("episode"):
        rounds = fact.payload["rounds"]
        yield fact.key, fact.payload["answer"], [{n: journal.get(k)["answer"] for n, k in r.items()} for r in rounds]  # type: ignore[index]


# --- symmetry


def _check_symmetry(config: ProtocolConfig, cast: Sequence[Agent]) -> None:
    """With other seats in front everybody is asked and says the same, up to the order in which peers are shown."""
    decision = getattr(config, "decision", DecisionConfig())
    if "first" in (decision.rule, decision.tie):
        return
    engine = {"replies": tuple(f"Answer: {i % 2}{' ' * i}." for i in range(40))}
    with play(config, agents=cast, num_tasks=_TASKS, engine=engine) as journal:
        first = list(_impressions(journal))
    with play(config, agents=tuple(reversed(cast)), num_tasks=_TASKS, engine=engine) as journal:
        assert first == list(_impressions(journal)), "the config says `symmetric`, but the order of the seats matters"


def _impressions(journal: Journal) -> Iterator[Any]:
    for fact in journal.facts("episode"):
        episode = fact.payload
        rounds = [{name: _impression(journal, key) for name, key in sorted(r.items())} for r in episode["rounds"]]
        edges = sorted((e["round"], e["source"], e["target"], e["purpose"]) for e in episode["edges"])
        yield fact.key, episode["answer"], rounds, edges, sorted(_impression(journal, key) for key in episode["turns"])


def _impression(journal: Journal, key: str) -> tuple[Any, ...]:
    turn = journal.get(key) or {}
    asked = "\n".join(f"{m['role']}: {m['content']}" for m in turn["prompt"])
    return tuple(turn["place"].values()), turn["text"], FENCED.sub("", asked), sorted(FENCED.findall(asked))
