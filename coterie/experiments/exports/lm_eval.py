"""A run as lm-evaluation-harness writes its results: for each society `results_<date>.json` and `samples_...jsonl`.

A society stands where a model does, the benchmark where a task does. Gold answers are not in a journal, so `target` is
empty; whether an answer was right is the journalled verdict.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from coterie.experiments.folder import write_atomically
from coterie.experiments.measures.replies import last_turns, question_of
from coterie.experiments.provenance import versions
from coterie.experiments.records.run import Member, RunRecord, read_record
from coterie.journal import Journal
from coterie.types import Message, Turn

Row = dict[str, Any]
_METRIC, _FILTER = "exact_match", "none"
_INVALID = "[invalid]"


def write_lm_eval(journal: Journal, folder: Path) -> list[Path]:
    """Write both files of every society into a folder of the society's name; returns the files."""
    record = read_record(journal)
    attempts = list(journal.notes("attempt"))
    began = attempts[0].time if attempts else 0.0
    ended = max((note.time for note in journal.notes()), default=began)
    files = []
    for member in record.societies:
        files += _write_society(record, member, folder / file_name(member.label), began, ended - began)
    return files


def benchmark_name(record: RunRecord) -> str:
    """The benchmark, with the task of a family of them."""
    config = record.facts["config"]["benchmark"]
    return "_".join(str(config[name]) for name in ("kind", "task") if config.get(name))


def file_name(label: str) -> str:
    """A society's label without what a file's name cannot hold, as lm-evaluation-harness does it."""
    return re.sub(r"[\"<>:/|\\?*\[\]]+", "__", label)


def _write_society(record: RunRecord, member: Member, folder: Path, began: float, seconds: float) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    task, stamp = benchmark_name(record), datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    samples = list(_samples(record, member))
    results = _results(record, member, task, samples) | {"date": began, "total_evaluation_time_seconds": str(seconds)}
    paths = [folder / f"results_{stamp}.json", folder / f"samples_{task}_{stamp}.jsonl"]
    write_atomically(paths[0], json.dumps(results, indent=2) + "\n")
    write_atomically(paths[1], "".join(json.dumps(sample) + "\n" for sample in samples))
    return paths


def _samples(record: RunRecord, member: Member) -> Iterator[Row]:
    """One row per finished task that could be judged.

    `resps` are the last replies of all agents, `filtered_resps` the society's answer. Where a model judged there is a
    column `labels` of what it called each part of the answer.
    """
    judged = [(task, e) for task, e in sorted(record.episodes[member.label].items()) if not e.is_excluded]
    for index, (task, episode) in enumerate(judged):
        doc = {"id": task, "question": question_of(record.turns_of(episode))}
        prompt = _text(record.turns_of(episode))
        yield {
            "doc_id": index, "doc": doc, "target": "",
            "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": _sampling(record, member)}},
            "resps": [[turn.text for turn in last_turns(record, episode)]],
            "filtered_resps": [_INVALID if episode.outcome.answer is None else episode.outcome.answer],
            "filter": _FILTER, "metrics": [_METRIC], "doc_hash": _hash(json.dumps(doc)), "prompt_hash": _hash(prompt),
            "target_hash": _hash(""), _METRIC: float(episode.is_correct),
            **({"labels": dict(episode.labels)} if episode.labels else {}),
        }  # fmt: skip


def _results(record: RunRecord, member: Member, task: str, samples: Sequence[Row]) -> Row:
    config, values = record.facts["config"], [sample[_METRIC] for sample in samples]
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else "N/A"
    hashes = "".join(sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples)
    policies = {agent.policy: config["policies"][agent.policy]["model"] for agent in member.agents}
    return {
        "results": {task: {
            "name": task, "alias": task, "sample_len": len(samples), f"{_METRIC},{_FILTER}": fmean(values or [0.0]),
            f"{_METRIC}_stderr,{_FILTER}": error,
        }},
        "group_subtasks": {task: []},
        "configs": {task: {"task": task, "society": member.label, "benchmark": json.dumps(config["benchmark"])}},
        "versions": {task: record.facts["benchmark"][:16]},
        "n-shot": {task: 0},
        "higher_is_better": {task: {_METRIC: True}},
        "n-samples": {task: {"original": record.facts["tasks"], "effective": len(samples)}},
        "config": {
            "model": "coterie", "model_args": policies, "batch_size": None, "batch_sizes": [], "device": None,
            "use_cache": None, "limit": None, "bootstrap_iters": 0, "gen_kwargs": _sampling(record, member),
            **dict.fromkeys(("random_seed", "numpy_seed", "torch_seed", "fewshot_seed"), config["seed"]),
        },
        "git_hash": "", "lm_eval_version": f"written by coterie {versions()['coterie']}",
        "task_hashes": {task: _hash(hashes)}, "model_source": "coterie", "model_name": member.label,
        "model_name_sanitized": file_name(member.label), "system_instruction": None, "system_instruction_sha": None,
        "fewshot_as_multiturn": None, "chat_template": None, "chat_template_sha": None,
    }  # fmt: skip


def _sampling(record: RunRecord, member: Member) -> Row:
    sampling: Row = record.facts["config"]["policies"][member.agents[0].policy]["sampling"]
    return sampling


def _text(turns: Sequence[Turn]) -> str:
    """The first prompt of an episode as one text."""
    messages = [m for m in turns[0].prompt if isinstance(m, Message)] if turns else []
    return "\n\n".join(f"{m.role}: {m.content}" for m in messages)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
