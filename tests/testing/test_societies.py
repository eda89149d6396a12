"""The conformance suite of protocols finds what is broken."""

import asyncio
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest

from coterie import rng
from coterie.orchestration.protocols.base import opening
from coterie.orchestration.protocols.config import SingleConfig
from coterie.orchestration.protocols.config_debates import DebateConfig
from coterie.orchestration.protocols.debate import Debate
from coterie.orchestration.protocols.minutes import Minutes
from coterie.orchestration.protocols.single import Single
from coterie.testing.reach import texts_within
from coterie.testing.societies import check_protocol
from coterie.types import Edge, Message, Outcome

PLAY = Debate.run


def check_debate(monkeypatch, run) -> None:
    monkeypatch.setattr(Debate, "run", run)
    check_protocol(DebateConfig())


def test_a_hidden_reader_is_found(monkeypatch):
    async def run(self, task, agents, ask):
        outcome = await PLAY(self, task, agents, ask)
        return replace(outcome, edges=outcome.edges[1:])

    with pytest.raises(AssertionError, match=r"bob read \{'ann'\} in round 1, no edge"):
        check_debate(monkeypatch, run)


def test_shuffled_edges_are_found(monkeypatch):
    """Who reads whom as before, but reported with another peer's name."""

    async def run(self, task, agents, ask):
        minutes = Minutes()
        first = await ask(agents[0], opening(agents[0], task), round=0)
        note = Message("user", f"{task.question} {first.text}")
        second = await ask(agents[1], (note,), round=1)
        minutes.note(0, {agents[0].name: first})
        minutes.note(1, {agents[1].name: second})
        minutes.link(1, [replace(first, place=first.place._replace(seat="cleo"))], ["bob"])
        return minutes.conclude(second.answer, "the last word")

    with pytest.raises(AssertionError, match="edge|had said"):
        check_debate(monkeypatch, run)


@pytest.mark.parametrize("wrong", [{"turn": ""}, {"purpose": "review"}])
def test_an_edge_that_names_another_turn_or_purpose_is_found(monkeypatch, wrong):
    async def run(self, task, agents, ask):
        outcome = await PLAY(self, task, agents, ask)
        return replace(outcome, edges=tuple(replace(edge, **wrong) for edge in outcome.edges))

    with pytest.raises(AssertionError, match="no edge says so for 'answer'"):
        check_debate(monkeypatch, run)


def test_an_edge_without_reading_is_found(monkeypatch):
    async def run(self, task, agents, ask):
        outcome = await PLAY(self, task, agents, ask)
        return replace(outcome, edges=(*outcome.edges, Edge(0, "ann", "bob")))

    with pytest.raises(AssertionError, match="in round 0 bob read nothing that ann had said"):
        check_debate(monkeypatch, run)


def test_words_of_a_peer_outside_fences_are_found(monkeypatch):
    async def run(self, task, agents, ask):
        minutes = Minutes()
        for number, (speaker, reader) in enumerate(pairwise(agents)):
            minutes.note(2 * number, {speaker.name: await ask(speaker, opening(speaker, task), round=2 * number)})
            first = minutes.rounds[-1][speaker.name]
            reply = await ask(reader, opening(reader, task, f"A peer said: {first.text}"), round=2 * number + 1)
            minutes.note(2 * number + 1, {reader.name: reply})
            minutes.link(2 * number + 1, [first], [reader.name])
        return minutes.conclude(reply.answer, "the last word")

    with pytest.raises(AssertionError, match="bob read its peers, but what stands between fences"):
        check_debate(monkeypatch, run)


def test_two_turns_at_one_place_are_found(monkeypatch):
    async def run(self, task, agents, ask):
        prompts = (opening(agents[0], task, note) for note in ("", "Again."))
        turns = [await ask(agents[0], prompt, round=0) for prompt in prompts]
        return Outcome(turns[1].answer, ({"ann": turns[1].key},), decision="the second")

    with pytest.raises(AssertionError, match="two turns share the place"):
        check_debate(monkeypatch, run)


def test_a_turn_that_is_no_answer_is_found_among_the_rounds(monkeypatch):
    async def run(self, task, agents, ask):
        turn = await ask(agents[0], opening(agents[0], task), round=0, purpose="rank")
        return Outcome(None, ({"ann": turn.key},), decision="nothing")

    with pytest.raises(AssertionError, match="a turn for 'rank' counts as an answer of ann"):
        check_debate(monkeypatch, run)


def test_an_answer_that_nobody_gave_is_found(monkeypatch):
    async def run(self, task, agents, ask):
        return replace(await PLAY(self, task, agents, ask), answer="12345")

    with pytest.raises(AssertionError, match="nobody gave the society's answer"):
        check_debate(monkeypatch, run)


def test_state_between_episodes_is_found(monkeypatch):
    worked: list[str] = []

    async def run(self, task, agents, ask):
        worked.append(task.id)
        note = f"This is task {len(worked)}."
        turn = await ask(agents[0], opening(agents[0], task, note), round=0)
        return Outcome(turn.answer, ({"ann": turn.key},), decision="the only answer")

    with pytest.raises(AssertionError, match="depends on how calls are batched"):
        check_debate(monkeypatch, run)


def test_a_look_at_what_came_first_is_found(monkeypatch):
    """Which of two calls is answered first is no fact."""

    async def run(self, task, agents, ask):
        came: list[str] = []

        async def one(agent):
            turn = await ask(agent, opening(agent, task), round=0)
            came.append(agent.name)
            return turn

        turns = await asyncio.gather(*map(one, agents))
        note = f"{came[0]} was first, {came[-1]} last."
        last = await ask(agents[0], opening(agents[0], task, note), round=1)
        return Outcome(last.answer, ({a.name: t.key for a, t in zip(agents, turns, strict=True)}, {"ann": last.key}))

    with pytest.raises(AssertionError, match="depends on|ends otherwise"):
        check_debate(monkeypatch, run)


def test_seats_that_matter_are_found_in_a_symmetric_protocol(monkeypatch):
    monkeypatch.setattr(SingleConfig, "symmetric", True)
    with pytest.raises(AssertionError, match="the order of the seats matters"):
        check_protocol(SingleConfig())


def test_a_gold_answer_in_a_prompt_is_found(monkeypatch):
    async def run(self, task, agents, ask):
        note = "Is it sesame-1-of-the-forty?" if task.id.startswith("sealed") else ""
        turn = await ask(agents[0], opening(agents[0], task, note), round=0)
        return Outcome(turn.answer, ({agents[0].name: turn.key},), decision="the only answer")

    monkeypatch.setattr(Single, "run", run)
    with pytest.raises(AssertionError, match="the gold answer"):
        check_protocol(SingleConfig())


def test_a_gold_answer_that_could_be_reached_is_found(monkeypatch):
    async def run(self, task, agents, ask):
        known = {"gold": [f"sesame-{task.id[8:11].lstrip('0') or 0}-of-the-forty", "sesame-0-of-the-forty"]}
        turn = await ask(agents[0], opening(agents[0], task), round=0)
        return Outcome(turn.answer, ({agents[0].name: turn.key},), decision=f"{len(known)} answer")

    monkeypatch.setattr(Single, "run", run)
    with pytest.raises(AssertionError, match="can reach the gold answer"):
        check_protocol(SingleConfig())


def test_randomness_that_is_not_counted_is_found(monkeypatch):
    draws = iter(range(10**6))

    async def run(self, task, agents, ask):
        agent = agents[int(rng.stream(next(draws)).integers(len(agents)))]
        turn = await ask(agent, opening(agent, task), round=0)
        return Outcome(turn.answer, ({agent.name: turn.key},), decision="drawn")

    with pytest.raises(AssertionError, match="depends on how calls are batched"):
        check_debate(monkeypatch, run)


def test_texts_are_found_in_attributes_containers_closures_and_waiting_coroutines():
    class Box:
        __slots__ = ("inner",)

        def __init__(self, inner):
            self.inner = inner

    def closed(text):
        return lambda: text

    async def wait(text):
        await asyncio.sleep(3600, text)

    async def look() -> set[str]:
        task = asyncio.ensure_future(wait("in a frame"))
        await asyncio.sleep(0)
        found = set(texts_within([Box({"key": ("in a slot",)}), closed("in a closure"), partial(print, "bound"), task]))
        task.cancel()
        return found

    assert {"in a slot", "key", "in a closure", "bound", "in a frame"} <= asyncio.run(look())
