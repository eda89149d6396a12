"""A run as logs of Inspect: one `.eval` file per society, for Inspect's viewer and its data frames.

A task is a sample, each agent's turn a model event in a span of its round. Gold answers are not in a journal, so
`target` is empty; the score is the journalled verdict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from inspect_ai.event import Event, ModelEvent, SpanBeginEvent, SpanEndEvent
from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalLog,
    EvalMetric,
    EvalResults,
    EvalSample,
    EvalScore,
    EvalSpec,
    EvalStats,
    write_eval_log,
)
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
    ModelOutput,
    ModelUsage,
)
from inspect_ai.scorer import Score

from coterie.experiments.exports.lm_eval import benchmark_name, file_name
from coterie.experiments.measures.replies import by_round, question_of
from coterie.experiments.provenance import versions
from coterie.experiments.records.run import Episode, Member, RunRecord, read_record
from coterie.journal import Journal, Note
from coterie.types import Message, Turn

_SCORER = "verdict"
_ROLES = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}


def write_inspect(journal: Journal, folder: Path) -> list[Path]:
    """Write `<society>.eval` for every society; returns the files."""
    record = read_record(journal)
    notes = {note.key: note for note in journal.notes("sample")}
    times = [note.time for note in journal.notes()] or [0.0]
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for member in record.societies:
        path = folder / f"{file_name(member.label)}.eval"
        write_eval_log(_log(record, member, notes, (min(times), max(times))), str(path), format="eval")
        files.append(path)
    return files


def _log(record: RunRecord, member: Member, notes: dict[str, Note], span: tuple[float, float]) -> EvalLog:
    episodes = [episode for _, episode in sorted(record.episodes[member.label].items())]
    began, ended = (_moment(time).isoformat() for time in span)
    is_complete = len(episodes) == record.facts["tasks"]
    turns = [turn for episode in episodes for turn in record.turns_of(episode)]
    return EvalLog(
        status="success" if is_complete else "cancelled",
        eval=_spec(record, member, began),
        results=_results(record, episodes),
        stats=EvalStats(started_at=began, completed_at=ended, model_usage=_usage(record, turns)),
        samples=[_sample(record, member, episode, notes) for episode in episodes],
    )


def _spec(record: RunRecord, member: Member, began: str) -> EvalSpec:
    config = record.facts["config"]
    identity = f"{record.digest[:16]}-{member.label}"
    return EvalSpec(
        eval_id=identity, run_id=record.digest[:16], task_id=identity, created=began,
        task=f"{benchmark_name(record)}-{member.label}", task_args={"seed": config["seed"]}, solver=member.label,
        model=_model(record, member.agents[0].policy), config=EvalConfig(epochs=1),
        dataset=EvalDataset(name=benchmark_name(record), samples=record.facts["tasks"]),
        packages={name: version for name, version in versions().items() if version},
        metadata={"society": member.label, "is_baseline": member.is_baseline, "digest": record.digest, "config": config,
                  "agents": [{"name": a.name, "policy": a.policy, "persona": a.persona} for a in member.agents]},
    )  # fmt: skip


def _results(record: RunRecord, episodes: Sequence[Episode]) -> EvalResults:
    values = [float(episode.is_correct) for episode in episodes if not episode.is_excluded]
    metrics = {
        "accuracy": fmean(values or [0.0]),
        "stderr": stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0,
    }
    score = EvalScore(
        name=_SCORER, scorer=_SCORER, scored_samples=len(values),
        metrics={name: EvalMetric(name=name, value=value) for name, value in metrics.items()},
    )  # fmt: skip
    return EvalResults(total_samples=record.facts["tasks"], completed_samples=len(episodes), scores=[score])


def _sample(record: RunRecord, member: Member, episode: Episode, notes: dict[str, Note]) -> EvalSample:
    turns = record.turns_of(episode)
    question = _text(question_of(turns))
    said: list[ChatMessage] = [ChatMessageUser(content=question)]
    said += [
        ChatMessageAssistant(content=_text(f"{turn.place.seat}: {turn.text}"), model=_model(record, turn.policy))
        for turn in turns
    ]
    answer = episode.outcome.answer
    score = Score(value="C" if episode.is_correct else "I", answer=None if answer is None else _text(answer),
                  explanation=episode.outcome.decision,
                  metadata={"labels": dict(episode.labels)} if episode.labels else None)  # fmt: skip
    scores = {} if episode.is_excluded else {_SCORER: score}
    return EvalSample(
        id=episode.task, epoch=1, input=question, target="", messages=said,
        output=ModelOutput.from_content(member.label, _text(answer or "")), scores=scores,
        events=list(_events(record, episode, turns, notes)), model_usage=_usage(record, turns),
        metadata={"society": member.label, "decision": episode.outcome.decision,
                  "edges": [asdict(edge) for edge in episode.outcome.edges]},
        uuid=f"{record.digest[:16]}-{member.label}-{episode.task}",
    )  # fmt: skip


def _events(record: RunRecord, episode: Episode, turns: Sequence[Turn], notes: dict[str, Note]) -> Iterator[Event]:
    """The turns in logical order, a span around those of each round; their times are those of their commits."""
    for number, mine in by_round(turns):
        times = [_moment(notes[turn.key].time) for turn in mine if turn.key in notes] or [_moment(0.0)]
        span = f"{episode.society}/{episode.task}/{number}"
        yield SpanBeginEvent(id=span, name=f"round {number}", type="round", timestamp=min(times), span_id=span)
        for turn in mine:
            note = notes.get(turn.key)
            yield ModelEvent(
                model=_model(record, turn.policy), role=turn.place.seat, input=_prompt(turn), tools=[],
                tool_choice="none", config=GenerateConfig(), output=_output(record, turn), span_id=span,
                timestamp=min(times) if note is None else _moment(note.time),
                working_time=None if note is None else note.payload["seconds"],
                metadata={"agent": turn.place.seat, "round": number, "purpose": turn.place.purpose,
                          "repeat": turn.place.repeat, "answer": turn.answer, "key": turn.key,
                          "is_correct": record.verdict(turn.key).correct},
            )  # fmt: skip
        yield SpanEndEvent(id=span, timestamp=max(times), span_id=span)


def _output(record: RunRecord, turn: Turn) -> ModelOutput:
    output = ModelOutput.from_content(
        _model(record, turn.policy), _text(turn.text), stop_reason="stop" if turn.finish == "stop" else "max_tokens"
    )
    output.usage = _sum([turn])
    return output


def _prompt(turn: Turn) -> list[ChatMessage]:
    messages = [_ROLES[m.role](content=_text(m.content)) for m in turn.prompt if isinstance(m, Message)]
    return messages or [ChatMessageUser(content=f"{turn.num_prompt_tokens} token ids")]


def _usage(record: RunRecord, turns: Sequence[Turn]) -> dict[str, ModelUsage]:
    policies = dict.fromkeys(turn.policy for turn in turns)
    return {_model(record, policy): _sum([t for t in turns if t.policy == policy]) for policy in policies}


def _sum(turns: Sequence[Turn]) -> ModelUsage:
    prompt, generated = sum(t.num_prompt_tokens for t in turns), sum(t.num_tokens for t in turns)
    return ModelUsage(input_tokens=prompt, output_tokens=generated, total_tokens=prompt + generated)


def _model(record: RunRecord, policy: str) -> str:
    return f"{policy}/{record.facts['config']['policies'][policy]['model']}"


def _moment(seconds: float) -> Any:
    return datetime.fromtimestamp(seconds, UTC)


def _text(text: str) -> str:
    """Inspect's files are UTF-8, which has no lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")
