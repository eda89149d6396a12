"""The report of a training run: the page, its learning curves, and a flight to be played back."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from markupsafe import Markup

from coterie.config.schema import WorldConfig
from coterie.errors import CoterieError
from coterie.experiments.comparison.learning_curves import Group, learning_curves
from coterie.experiments.comparison.trainings import of_world
from coterie.experiments.evaluation.policy import VERSION
from coterie.experiments.evaluation.worlds import show_density
from coterie.experiments.exports.marl_eval import as_marl_eval
from coterie.experiments.folder import RunFolder, write_atomically
from coterie.experiments.records.training import Checkpoint, TrainingRecord, read_training
from coterie.experiments.report import learning
from coterie.experiments.report.evaluation_terminal import SHOWN, tell_attention, tell_difference
from coterie.experiments.report.page import make_environment, own
from coterie.experiments.report.training_terminal import (
    head,
    show_estimate,
    show_metric,
    tell_best,
    tell_no_episode,
)
from coterie.experiments.report.wording import count, duration, number, percent
from coterie.journal import Journal

if TYPE_CHECKING:
    from coterie.experiments.flights.recording import Recording

FLIGHT, PLAYBACK, TRAJECTORIES, CURVES, EXPORT, EVALUATION = (
    "flight.npz", "swarm.html", "trajectories.png", "learning_curves.png", "marl_eval.json", "evaluation.json",
)  # fmt: skip


class Shown(NamedTuple):
    """A flight that is to be shown, or why there is none."""

    recording: Recording | None
    checkpoint: Checkpoint | None
    why: str = ""


def write_world_report(folder: RunFolder) -> Path:
    """Make `report/` of a training run anew, also while the run goes on or after it was cut short.

    Beside the page there are `summary.json`, `learning_curves.png` and `marl_eval.json`, and of a swarm that has a
    checkpoint `swarm.html`, `trajectories.png` and `flight.npz`. The flight is flown again where its checkpoint is a
    new one. Returns the path of the page.

    Raises:
        JournalError: the journal cannot be read.
    """
    from coterie.experiments.measures.summary import summarize

    with Journal.read(folder.journal) as journal:
        summary, record = summarize(journal), read_training(journal)
    folder.report.mkdir(mode=0o700, exist_ok=True)
    write_atomically(folder.report / "summary.json", json.dumps(summary, indent=2) + "\n")
    groups = learning_curves([of_world(record)]) if record.iterations else []
    has_curves = bool(groups) and learning.has_anything(groups)
    if has_curves:
        (folder.report / CURVES).write_bytes(learning.learning_picture(groups))
        write_atomically(folder.report / EXPORT, json.dumps(as_marl_eval(groups), indent=1) + "\n")
    shown = find_flight(folder, record)
    if shown.recording is not None:
        _write_flight(folder, record, shown)
    page = folder.report / "index.html"
    write_atomically(page, render(folder, summary, groups if has_curves else [], shown))
    return page


def find_flight(folder: RunFolder, record: TrainingRecord) -> Shown:
    """The flight of the last checkpoint: as it was kept, or flown now."""
    from coterie.experiments.attempt import load_resolved
    from coterie.experiments.flights import checkpoint, packing

    last = record.last
    if record.facts["config"]["env"]["kind"] != checkpoint.KIND:
        return Shown(None, last, "Only swarms are flown.")
    if last is None:
        return Shown(None, None, "There is no checkpoint yet.")
    kept = folder.report / FLIGHT
    try:
        if kept.is_file() and (found := packing.load(kept))[1].get("checkpoint") == last.hash:
            return Shown(found[0], last)
        config = load_resolved(folder).config
        assert isinstance(config, WorldConfig)
        packing.save(checkpoint.fly_checkpoint(folder, config, last), kept, checkpoint=last.hash)
        # What is shown is what was kept, so that it is the same the next time.
        return Shown(packing.load(kept)[0], last)
    except CoterieError as error:
        return Shown(None, last, f"No flight: {error.what}")


def _write_flight(folder: RunFolder, record: TrainingRecord, shown: Shown) -> None:
    from coterie.experiments.flights.trajectories import draw_trajectories
    from coterie.experiments.report.playback import render_playback

    recording, checkpoint = shown.recording, shown.checkpoint
    assert recording is not None and checkpoint is not None
    name, policy = record.facts["config"]["name"], record.facts["config"]["policy"]["kind"]
    facts = [("policy", policy), ("after iteration", str(checkpoint.iteration))]
    write_atomically(folder.report / PLAYBACK, render_playback(recording, title=name, facts=facts))
    title = f"{name}: {policy}, {recording.scenario}, after iteration {checkpoint.iteration}"
    (folder.report / TRAJECTORIES).write_bytes(draw_trajectories(recording, title))


def render(folder: RunFolder, summary: dict[str, Any], groups: list[Group], shown: Shown) -> str:
    """The page of a summary. All text of the run is cleaned of control characters and escaped."""
    return make_environment().get_template("world.html.j2").render(**_view(folder, summary, groups, shown)) + "\n"


def _view(folder: RunFolder, summary: dict[str, Any], groups: list[Group], shown: Shown) -> dict[str, Any]:
    facts, telemetry = summary["facts"], summary["telemetry"]
    training, recording = facts["training"], shown.recording
    return {
        "facts": facts, "telemetry": telemetry, "training": training,
        "headline": _headline(training), "sentence": _sentence(facts, telemetry),
        "progress": _progress(training, telemetry),
        "best": tell_best(training["best"]) if training["best"] else "",
        "nothing": tell_no_episode(facts["run"]["config"], training["is_complete"]).split("`"),
        "curves": own(learning.learning_plot(groups)) if groups else None,
        "final": [(name.replace("_", " "), show_metric(name, v)) for name, v in training["final"]["metrics"].items()],
        "parts": _parts(telemetry["totals"]),
        "evaluation": _evaluation(folder.report / EVALUATION), "trajectories": _inline(folder.report / TRAJECTORIES),
        "shown": shown, "recording": recording, "contacts": _contacts(recording),
        "away": float(recording.distance[-1].mean()) if recording is not None else None,
    }  # fmt: skip


def _headline(training: dict[str, Any]) -> str:
    metrics = training["final"]["metrics"]
    if metrics.get("success") is not None:
        shown = f"{percent(metrics['success'])} of the drones reach their goal and touch nothing"
        return f"{shown}, with actions drawn as in training"
    if metrics.get("reward") is not None:
        return f"{number(metrics['reward'], 2)} reward per episode"
    return "No episode has ended yet" if training["iterations"] else "Nothing is learnt yet"


def _sentence(facts: dict[str, Any], telemetry: dict[str, Any]) -> str:
    training, config = facts["training"], facts["run"]["config"]
    who = f"A policy of kind {config['policy']['kind']}, trained by {config['learning']['kind']}"
    done = f"{number(training['agent_steps'])} agent-steps in {count(training['iterations'], 'iteration')}"
    final = training["final"]
    seconds = duration(telemetry["totals"]["seconds"])
    if not final["episodes"]:
        return f"{who} for {done} and {seconds}."
    episodes, last = number(final["episodes"]), final["iterations"]
    over = f"the numbers are means over the {episodes} episodes of the last {last} of them"
    return f"{who} for {done} and {seconds}; {over}."


def _progress(training: dict[str, Any], telemetry: dict[str, Any]) -> str:
    if training["is_complete"]:
        return ""
    share = percent(training["agent_steps"] / training["planned"]) if training["planned"] else "nothing"
    why = (telemetry["reason"] or "").splitlines()
    return f"A partial report: {share} of the agent-steps are done. The run is {telemetry['status']}" + (
        f" ({why[0]})." if why else "."
    )


def _evaluation(path: Path) -> dict[str, Any] | None:
    """The table of the last `coterie eval`, if there was one that can be read."""
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["version"] != VERSION:
            return None
        there = {name: None for cell in found["cells"] for name in cell["metrics"]}
        names = [name for name in SHOWN if name in there] or list(there)
        rows = [
            (_place(cell), [show_estimate(name, cell["metrics"].get(name)).split("\n") for name in names])
            for cell in found["cells"]
        ]
        return {**found, "names": [head(name).strip().replace("\n", ", ") for name in names], "rows": rows,
                "trained_in": _place(found["trained"]), "difference": tell_difference(found),
                "attention": _attention(found["cells"])}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _attention(cells: list[dict[str, Any]]) -> list[str]:
    told = [(_place(cell), cell.get("attention")) for cell in cells]
    return [f"Attention, {place}: {tell_attention(attention)}." for place, attention in told if attention]


def _place(cell: dict[str, Any]) -> str:
    scenario = cell["scenario"] if isinstance(cell["scenario"], str) else ", ".join(cell["scenario"])
    density = "" if cell["density"] is None else f"density {show_density(cell['density'])}"
    return ", ".join(filter(None, (scenario, density, count(cell["agents"], "agent") if cell["agents"] else "")))


def _inline(path: Path) -> Markup | None:
    """A picture as an address that holds it."""
    if not path.is_file():
        return None
    return own(f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}")


def _parts(totals: dict[str, Any]) -> list[dict[str, Any]]:
    """Where the time went: name, seconds, share."""
    whole = sum(totals["parts"].values())
    return [{"name": n, "seconds": s, "share": s / whole} for n, s in totals["parts"].items()] if whole else []


def _contacts(recording: Recording | None) -> dict[str, int]:
    if recording is None:
        return {}
    from coterie.experiments.flights.recording import DRONE, OBSTACLE

    return {
        name: int((recording.events & bit > 0).sum())
        for name, bit in (("with drones", DRONE), ("with obstacles", OBSTACLE))
    }
