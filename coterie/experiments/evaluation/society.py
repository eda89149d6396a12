"""How much a society's training taught: its policies as they are, and as they were, on tasks that it held out.

Every number comes from ordinary runs in `evaluations/` of the run folder. One that is finished is only read, so an
evaluation that was stopped, or that asks for more, goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coterie.config.load import Loaded, loads
from coterie.config.schema import ExperimentConfig
from coterie.errors import ConfigError, Interrupted
from coterie.experiments import provenance
from coterie.experiments.attempt import load_resolved, start
from coterie.experiments.continuation import is_marked_finished, save_resolved
from coterie.experiments.evaluation.cells import Batch, Cell, Questions, Row, batches_of, rows_of
from coterie.experiments.folder import RunFolder, write_json
from coterie.experiments.measures.comparisons import Scores, compare, correct_family, scores_of
from coterie.experiments.measures.costs import Cost, cost_row, episode_cost
from coterie.experiments.measures.summary import tidy
from coterie.experiments.records.run import RunRecord, read_record
from coterie.experiments.records.training import Checkpoint, check_checkpoint, last_checkpoint, read_checkpoints
from coterie.experiments.records.updates import Update, read_updates
from coterie.experiments.statistics.inference import wilson
from coterie.journal import Journal

VERSION, FILE = 1, "evaluation.json"
_FOLDER, _WEIGHTS, _CELLS = "evaluations", "weights", "cells.json"
Say = Callable[[str], None]


@dataclass(frozen=True)
class _Training:
    """A training as it is to be evaluated."""

    folder: RunFolder
    loaded: Loaded
    config: ExperimentConfig
    last: Update
    checkpoint: Checkpoint

    @property
    def runs(self) -> Path:
        """Where the runs of its evaluations lie."""
        return self.folder.path / _FOLDER

    @property
    def weights(self) -> dict[str, str]:
        """SHA-256 of what each policy learnt."""
        return {name: policy["weights"] for name, policy in self.last.facts["policies"].items()}


def evaluate_society(
    folder: RunFolder, questions: Questions, *, command: str = "", display: str = "none", say: Say = lambda line: None
) -> dict[str, Any]:
    """Work the held-out tasks with trained and untrained policies, and write `report/evaluation.json`.

    Args:
        folder: Of a society's training that has a checkpoint.
        questions: What is asked.
        command: How it was asked for; kept beside the numbers.
        display: Of the runs: `auto`, `rich`, `plain` or `none`.
        say: Told of each run.

    Returns:
        What is written: `rows`, one for each protocol and who works it, with `trained`, `untrained`, `difference`,
        `interval` and `p_holm`; where several policies work it alone, one over all of them comes first.

    Raises:
        ConfigError: Nothing was trained yet or held out, or there is no such protocol.
        ResumeError: The checkpoint is damaged or gone.
        Interrupted: A person stopped a run; the same command goes on.
    """
    training = _open(folder)
    frame = _frame(training, questions)
    rows = rows_of(training.config, training.weights, questions)
    cells: dict[str, Cell] = {}
    for cell in (cell for row in rows for cell in (row.trained, row.untrained)):
        cells.setdefault(cell.identify(frame), cell)
    _work(training, frame, cells, display, say)
    places = _finished(training.runs)
    records = {path: _read(RunFolder(path)) for path in {places[identity][0] for identity in cells}}
    found: dict[str, Any] = tidy({
        "version": VERSION, "run": folder.path.name, "command": command,
        "checkpoint": {"iteration": training.checkpoint.iteration, "sha256": training.checkpoint.hash},
        "questions": asdict(questions), "tasks": frame["benchmark"]["limit"],
        "rows": _compare(rows, frame, places, records),
        "runs": {str(path.relative_to(folder.path)): record.digest for path, record in sorted(records.items())},
        "versions": provenance.versions(), "hardware": provenance.hardware(),
    })  # fmt: skip
    folder.report.mkdir(mode=0o700, exist_ok=True)
    write_json(folder.report / FILE, found)
    return found


def _open(folder: RunFolder) -> _Training:
    loaded = load_resolved(folder)
    config = loaded.config
    if not isinstance(config, ExperimentConfig) or config.learning is None:
        raise ConfigError(
            "this is the run of a society without `learning`, which trains nothing", where=str(folder.path),
            remedy="name a training run",
        )  # fmt: skip
    with Journal.read(folder.journal) as journal:
        updates, checkpoint = read_updates(journal), last_checkpoint(read_checkpoints(journal))
    if checkpoint is None:
        raise ConfigError("there is no checkpoint yet", where=str(folder.path), remedy="train on: coterie resume")
    return _Training(folder, loaded, config, updates[-1], checkpoint)


def _frame(training: _Training, questions: Questions) -> dict[str, Any]:
    """What all runs of the evaluation have in common."""
    from coterie.experiments.run import make_benchmark

    config, learning = training.config, training.config.learning
    held_out = int(getattr(learning, "held_out", 0))
    if not held_out:
        raise ConfigError(
            "the training held no tasks out, so there are none that are new to its policies",
            where=f"learning.held_out of {training.folder.path}",
            remedy="train anew with `learning: {held_out: 100}`, say: the benchmark's last 100 tasks are then kept",
        )  # fmt: skip
    count = len(make_benchmark(training.loaded).tasks())
    limit = min(questions.limit or held_out, held_out)
    whole = json.loads(config.benchmark.model_dump_json())
    return {
        "seed": config.seed if questions.seed is None else questions.seed,
        "determinism": config.determinism, "imports": list(config.imports),
        "benchmark": {"kind": "subset", "of": whole, "skip": count - held_out, "limit": limit},
    }  # fmt: skip


def _work(training: _Training, frame: dict[str, Any], cells: Mapping[str, Cell], display: str, say: Say) -> None:
    """Run what is not finished."""
    done = _finished(training.runs)
    batches = list(batches_of([cell for identity, cell in cells.items() if identity not in done]))
    folders = export_weights(training, say) if any(batch.main.is_trained for batch in batches) else {}
    for number, batch in enumerate(batches, 1):
        say(f"{number}/{len(batches)}  {batch.name}")
        run, is_new = _make_run(training, batch, frame, folders)
        # Where it runs is no part of what is found.
        executor = {"executor": json.loads(training.config.executor.model_dump_json())}
        loaded = loads(batch.config(frame, folders) | executor, base=training.loaded.base)
        if not run.resolved.is_file():
            save_resolved(run, loaded)
        ending = start(loaded, run, display, is_new=is_new)
        if ending.status != "finished":
            raise Interrupted(
                f"the evaluation was stopped: {ending.reason}", where=str(run.path),
                remedy="the same command goes on with it",
            )  # fmt: skip


def _make_run(
    training: _Training, batch: Batch, frame: dict[str, Any], folders: Mapping[str, Path]
) -> tuple[RunFolder, bool]:
    """The folder of a batch: the same for the same cells."""
    labels = {cell.identify(frame): cell.label for cell in (batch.main, *batch.others)}
    digest = hashlib.sha256(json.dumps(sorted(labels)).encode()).hexdigest()[:8]
    path = training.runs / f"{batch.name}-{digest}"
    is_new = not path.is_dir()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_json(path / _CELLS, labels)
    return RunFolder(path.resolve()), is_new


def _finished(runs: Path) -> dict[str, tuple[Path, str]]:
    """Where each cell that is worked stands: its run's folder, and its label there."""
    found: dict[str, tuple[Path, str]] = {}
    for file in sorted(runs.glob(f"*/{_CELLS}")):
        if is_marked_finished(RunFolder(file.parent)):
            labels = json.loads(file.read_text("utf-8"))
            found |= {identity: (file.parent.resolve(), label) for identity, label in labels.items()}
    return found


def export_weights(training: _Training, say: Say = lambda line: None) -> dict[str, Path]:
    """Write what each policy learnt as engines read it; the folder of each. What is there already stays.

    Raises:
        ResumeError: The checkpoint is damaged or gone.
    """
    target = training.runs / _WEIGHTS
    known = {name: target / f"{name}-{digest[:16]}" for name, digest in training.weights.items()}
    if all(folder.is_dir() for folder in known.values()):
        return {name: folder.resolve() for name, folder in known.items()}
    from coterie.orchestration.society_trainer import SocietyTrainer

    checkpoint = training.checkpoint
    check_checkpoint(training.folder, checkpoint)
    say(f"writing the weights of {len(known)} policies after iteration {checkpoint.iteration}")
    with closing(SocietyTrainer.make(training.config, "cpu")) as trainer:
        trainer.load(training.folder.checkpoints / checkpoint.name)
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        return {name: folder.resolve() for name, folder in trainer.export(target).items()}


def _read(run: RunFolder) -> RunRecord:
    with Journal.read(run.journal) as journal:
        return read_record(journal)


@dataclass(frozen=True)
class _Worked:
    """A cell that is worked."""

    record: RunRecord
    label: str

    @property
    def scores(self) -> dict[str, float]:
        """1 or 0 for each task."""
        [member] = [member for member in self.record.societies if member.label == self.label]
        return scores_of(self.record, member)

    @property
    def cost(self) -> dict[str, float]:
        """Calls and tokens per task."""
        episodes = self.record.episodes[self.label].values()
        total = cost_row(sum((episode_cost(self.record.turns_of(e)) for e in episodes), Cost()))
        return {name: value / len(episodes) for name, value in total.items()}


@dataclass(frozen=True)
class _Pair:
    """Two cells that are compared."""

    speaker: str
    trained: _Worked
    untrained: _Worked


def _compare(
    rows: Sequence[Row], frame: dict[str, Any], places: Mapping[str, tuple[Path, str]],
    records: Mapping[Path, RunRecord],
) -> list[dict[str, Any]]:  # fmt: skip
    """The table; all its tests are one family."""

    def find(cell: Cell) -> _Worked:
        path, label = places[cell.identify(frame)]
        return _Worked(records[path], label)

    found = []
    for protocol in dict.fromkeys(row.protocol for row in rows):
        mine = [row for row in rows if row.protocol == protocol]
        pairs = [_Pair(row.speaker, find(row.trained), find(row.untrained)) for row in mine]
        if len(pairs) > 1:
            found.append(_row(protocol, "", pairs, frame["seed"]))
        found += [_row(protocol, pair.speaker, [pair], frame["seed"]) for pair in pairs]
    correct_family(found)
    return found


def _row(protocol: str, speaker: str, pairs: Sequence[_Pair], seed: int) -> dict[str, Any]:
    """Trained against untrained, over one policy or over several that work the same tasks."""
    trained, untrained = [pair.trained for pair in pairs], [pair.untrained for pair in pairs]
    return {
        "protocol": protocol, "speaker": speaker, "policies": len(pairs),
        "trained": _side(trained), "untrained": _side(untrained),
        **compare(_scores(trained), _scores(untrained), seed),
    }  # fmt: skip


def _scores(cells: Sequence[_Worked]) -> Scores:
    return {(task, place): value for place, cell in enumerate(cells) for task, value in cell.scores.items()}


def _side(cells: Sequence[_Worked]) -> dict[str, Any]:
    scores = [value for cell in cells for value in cell.scores.values()]
    share = wilson(sum(scores), len(scores))
    # Replies of several policies to one task are alike: an interval over all of them would be too narrow.
    interval = [share.low, share.high] if len(cells) == 1 else None
    costs = [cell.cost for cell in cells]
    return {
        "accuracy": share.value, "interval": interval,
        "per_task": {name: _mean(cost[name] for cost in costs) for name in costs[0]},
    }  # fmt: skip


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
