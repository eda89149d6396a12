"""What a study found: how measures of agents go with credits from replays. Every number is made from the journal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coterie.config.schema import FileConfig
from coterie.errors import ConfigError
from coterie.experiments.folder import RunFolder, write_json
from coterie.experiments.measures.summary import tidy
from coterie.experiments.statistics.association import associate
from coterie.experiments.statistics.inference import holm, wilson
from coterie.experiments.study.attempt import DONE
from coterie.journal import Journal
from coterie.orchestration import replay
from coterie.orchestration.replay import Replayed
from coterie.rewards.credit.replay import noise

VERSION, FILE = 1, "study.json"
_MEASURES = {"attention": ("attention", "heard"), "psi": ("psi",)}
Floats = NDArray[np.float64]
Row = dict[str, Any]


def check_is_study(config: FileConfig, where: Path) -> None:
    """Refuse what has no section `study`.

    Raises:
        ConfigError: there is none.
    """
    if getattr(config, "study", None) is None:
        raise ConfigError(
            "there is no section `study`", where=str(where), remedy="add one, such as `study: {draws: 4}`"
        )


def write_study(folder: RunFolder) -> Row:
    """The results of a run that is a finished study, as `report/study.json` has them from now on.

    Raises:
        ConfigError: it is not finished.
    """
    with Journal.read(folder.journal) as journal:
        found: Row = tidy(study_results(journal))
    folder.report.mkdir(mode=0o700, exist_ok=True)
    write_json(folder.report / FILE, found)
    return found


def study_results(journal: Journal) -> Row:
    """The results of a finished study, JSON-able.

    Returns:
        `rows`, one for each society, credit and measure, with `pooled` and `within` correlations, and `adjusted`, which
        is `within` less what a measure says of seats in general; and `societies`, with the noise floor and, for each
        credit, how far its draws agree with each other.

    Raises:
        ConfigError: it is no study, or not finished.
    """
    run, done = journal.get("run") or {}, journal.get(DONE)
    if done is None:
        raise ConfigError("there is no finished study", where=str(journal.path.parent),
                          remedy="go on with it: coterie study RUN")  # fmt: skip
    config, found = run["config"], [_Studied(journal, society, run["config"]["study"]) for society in run["societies"]]
    rows = [row for society in found for row in society.rows(config["seed"])]
    tested = [row for row in rows if not math.isnan(row["within"]["p"])]
    for row, p in zip(tested, holm([row["within"]["p"] for row in tested]) if tested else [], strict=True):
        row["within"]["p_holm"] = p
    return {
        "version": VERSION, "name": config["name"], "seed": config["seed"], "draws": config["study"]["draws"],
        "digest": journal.digest(), **done, "rows": rows, "societies": [s.summary(config["seed"]) for s in found],
    }  # fmt: skip


class _Studied:
    """One society's episodes with all that was found about them."""

    def __init__(self, journal: Journal, society: Row, study: Row) -> None:
        self._journal, self._study = journal, study
        self.label, self.agents = society["label"], [agent["name"] for agent in society["agents"]]
        facts = (fact.payload for fact in journal.facts("episode"))
        self.correct = {p["task"]: p["correct"] for p in facts if p["society"] == self.label}
        # In the order of keys, which is that of the benchmark.
        self.tasks = sorted(self.correct)
        self.measures = [name for kind in study["measures"] for name in _MEASURES[kind]]
        self.credits = {name: self._credit(name) for name in ("leave_one_out", "sway", "shapley", "counterfactual")}

    def _credit(self, name: str) -> Floats:
        """[E, N, D]; of some credits only the first tasks have one."""
        count, draws = len(self.agents), self._study["draws"]
        tasks = self.tasks[: self._study.get(name, len(self.tasks))]
        replayed = [Replayed(self._journal, self.label, task) for task in tasks]
        if name == "sway":
            values = [one.sway(self.agents, range(draws)) for one in replayed]
        else:
            values = [one.credit(name, count, draws) for one in replayed]
        return np.array(values).reshape(-1, count, draws)

    def _measure(self, name: str, tasks: Sequence[str]) -> Floats:
        """[E, N]."""
        kind = "attention" if name == "heard" else name
        found = [self._journal.get(f"measure/{kind}/{self.label}/{task}") or {} for task in tasks]
        return np.array([[row[name][agent] for agent in self.agents] for row in found])

    def rows(self, seed: int) -> Iterator[Row]:
        """One for each credit and measure."""
        for name, drawn in self.credits.items():
            if not len(drawn):
                continue
            for measure in self.measures:
                values, credit = self._measure(measure, self.tasks[: len(drawn)]), drawn.mean(axis=2)
                yield {"society": self.label, "credit": name, "measure": measure, **_associate(values, credit, seed),
                       "adjusted": _associate(_without_seats(values), credit, seed)["within"]}  # fmt: skip

    def summary(self, seed: int) -> Row:
        """Of the society as a whole."""
        draws = self._study["draws"]
        whole = [Replayed(self._journal, self.label, t).values([replay.everybody(len(self.agents))], range(draws))[0]
                 for t in self.tasks]  # fmt: skip
        spread, share = noise(whole), wilson(sum(self.correct.values()), len(self.correct))
        return {
            "society": self.label, "agents": self.agents, "episodes": len(self.tasks),
            "accuracy": share.value, "interval": [share.low, share.high],
            "noise": {"draw": spread, "difference": spread * math.sqrt(2 / draws)},
            "credits": {name: self._describe(drawn, seed) for name, drawn in self.credits.items() if len(drawn)},
        }  # fmt: skip

    def _describe(self, drawn: Floats, seed: int) -> Row:
        """How large a credit is, how often none at all, and how far one half of its draws tells the other."""
        half, values = drawn.shape[2] // 2, drawn.mean(axis=2)
        return {
            "episodes": len(drawn), "mean": dict(zip(self.agents, values.mean(axis=0).tolist(), strict=True)),
            "size": float(np.abs(values).mean()), "nothing": float((values == 0).mean()),
            "halves": _associate(drawn[:, :, :half].mean(axis=2), drawn[:, :, half:].mean(axis=2), seed),
        }  # fmt: skip


def _without_seats(values: Floats) -> Floats:
    """A measure [E, N] less each seat's mean; rounded, so that what is the same in all episodes ranks nobody."""
    return np.asarray(np.round(values - values.mean(axis=0), 9))


def _associate(x: Floats, y: Floats, seed: int) -> Row:
    found = associate(x, y, seed)
    return {
        "episodes": found.episodes, "informative": found.informative,
        "pooled": {**asdict(found.pooled), "p": found.pooled_p},
        "within": {**asdict(found.within), "p": found.within_p},
    }  # fmt: skip
