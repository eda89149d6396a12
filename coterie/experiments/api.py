"""The Python door: `coterie.run`, `coterie.resume`, and the `Run` they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.config.load import load, loads
from coterie.experiments.attempt import find_run, load_resolved, prepare, start
from coterie.experiments.folder import RunFolder
from coterie.experiments.monitoring.display import check_mode
from coterie.experiments.state import read_state
from coterie.journal import Journal

if TYPE_CHECKING:
    from coterie.agents.learning.normalisation import NormalisedActor
    from coterie.agents.swarm.networks import Actor

Rows = list[dict[str, Any]]


class Run:
    """A run that was started, finished or not; everything is read from its journal."""

    def __init__(self, path: Path | str) -> None:
        self.folder = RunFolder.find(Path(path))

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status!r})"

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def status(self) -> str:
        """`starting`, `running`, `finished`, `stopped`, `failed` or `killed`."""
        return read_state(self.folder)[0]

    def turns(self, *, frame: bool = False) -> Any:
        """One row per turn: its place, text, parsed answer, verdict, tokens. `frame=True` gives a pandas DataFrame."""
        from coterie.experiments.exports.rows import turn_rows

        return _shape(self._read(turn_rows), frame)

    def episodes(self, *, frame: bool = False) -> Any:
        """One row per society and task: answer, right or wrong, decision, cost."""
        from coterie.experiments.exports.rows import episode_rows

        return _shape(self._read(episode_rows), frame)

    def iterations(self, *, frame: bool = False) -> Any:
        """Of a training, one row per iteration: agent-steps, episodes, `metrics.success`, `learning.kl`, ...

        Of a society's: `roles.answer.reward`, `solver.accuracy`, `judge.youden`, `policies.NAME.learning.kl`, ...
        """
        from coterie.experiments.records.training import iteration_rows

        return _shape(self._read(iteration_rows), frame)

    def metrics(self, *, frame: bool = False) -> Any:
        """One row per society and metric, with its interval where it has one; of a training one per final metric."""
        from coterie.experiments.exports.rows import metric_rows

        return _shape(metric_rows(self.summary()), frame)

    def evaluate(self, **conditions: Any) -> dict[str, Any]:
        """Of a training, what it taught, as `coterie eval` measures it; what that writes.

        Args:
            **conditions: Of a world see `evaluation.worlds.Conditions`: `densities=(0.2, 0.4)`, `drones=(8, 16)`, ...;
                of a society `evaluation.cells.Questions`: `protocols=("single", "debate")`, `limit=50`, ...
        """
        if hasattr(load_resolved(self.folder).config, "env"):
            from coterie.experiments.evaluation.policy import evaluate
            from coterie.experiments.evaluation.worlds import Conditions

            return evaluate(self.folder, Conditions(**conditions))
        from coterie.experiments.evaluation.cells import Questions
        from coterie.experiments.evaluation.society import evaluate_society

        return evaluate_society(self.folder, Questions(**conditions))

    def policy(self, checkpoint: str = "last") -> Actor | NormalisedActor:
        """Of a training, its policy, on the CPU: observations [B, D] as the world gives them to actions [B, A].

        Actions are means, to be limited to [-1, 1], or a score for each discrete one. `coterie.agents.swarm` exports
        it by `export_c.to_c` and `export_onnx.to_onnx`.

        Args:
            checkpoint: `last` or `best`.

        Raises:
            ConfigError: the run trained nothing, or has no such checkpoint yet.
            ResumeError: the checkpoint is damaged or gone.
        """
        from coterie.experiments.evaluation.policy import load_trained

        return load_trained(self.folder, checkpoint)[2].cpu()

    def summary(self) -> dict[str, Any]:
        """Everything the report shows, as in `report/summary.json`."""
        from coterie.experiments.measures.summary import summarize

        summary: dict[str, Any] = self._read(summarize)
        return summary

    def report(self) -> Path:
        """Make the HTML report anew and return its path."""
        from coterie.experiments.report import write_report

        return write_report(self.folder)

    def _read(self, view: Callable[[Journal], Any]) -> Any:
        with Journal.read(self.folder.journal) as journal:
            return view(journal)


def _shape(rows: Rows, frame: bool) -> Any:
    if not frame:
        return rows
    import pandas as pd

    return pd.DataFrame(rows)


def run(
    experiment: str | Path | Mapping[str, Any], *, runs: str | Path = "runs", display: str = "none", **overrides: Any
) -> Run:
    """Run an experiment file, or a config given as a mapping.

    Args:
        experiment: Path of a YAML file, or the same content as a mapping.
        runs: Where the run folder is made.
        display: `auto`, `rich`, `plain` or `none`.
        **overrides: Fields to set, with dots: `**{"budget.tokens": 1000}`, `seed=3`.

    Raises:
        ConfigError: the experiment is wrong; nothing was started.
        CoterieError: the run failed; `coterie.resume(path)` goes on.
    """
    source = None if isinstance(experiment, Mapping) else Path(experiment)
    loaded = loads(experiment, overrides) if isinstance(experiment, Mapping) else load(experiment, overrides)
    check_mode(display)
    folder = prepare(loaded, Path(runs), source)
    start(loaded, folder, display)
    return Run(folder.path)


def resume(run: str | Path | Run, *, display: str = "none", **overrides: Any) -> Run:
    """Go on with a run that was killed, interrupted or out of budget. Only budget, executor and trackers may change.

    A finished run is left as it is.

    Raises:
        ResumeError: there is no such run, or something else was changed.
    """
    folder = run.folder if isinstance(run, Run) else find_run(Path(run))
    loaded = load_resolved(folder, overrides)
    start(loaded, folder, display, is_new=False)
    return Run(folder.path)
