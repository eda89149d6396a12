"""Trainings of societies side by side: over the tokens they generated, with what they taught."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from coterie.errors import ConfigError
from coterie.experiments.cli.main import main
from coterie.experiments.comparison.learning_curves import learning_curves
from coterie.experiments.comparison.training_contrasts import check_same_kind, check_same_worlds, contrast_trainings
from coterie.experiments.comparison.trainings import SOCIETY, Training, kind_of, of_society, read_one
from coterie.experiments.folder import RunFolder
from coterie.experiments.measures.summary import tidy
from coterie.experiments.report.training_terminal import print_trainings
from coterie.experiments.sweeps import has_begun
from coterie.journal import Journal

SIDE = {"accuracy": 0.5, "interval": [0.4, 0.6], "per_task": {"tokens": 1234.0}}
WORLD = {"config": {"name": "swarm", "env": {"kind": "quad_swarm_v0"}}}
TALK = {"config": {"name": "talk", "learning": None}}


def train(seed: int, accuracy: list[float | None], tokens: list[int], rewards: str = "verifier") -> Training:
    """A society whose solvers were so often right, and generated so many tokens, in each iteration."""
    config = {
        "name": "school", "seed": seed, "benchmark": {"kind": "sums"}, "rewards": rewards,
        "learning": {"iterations": 4},
    }  # fmt: skip
    curves = {"right/solver": accuracy, "learning/entropy": [0.5] * len(tokens), "speed/lag": [0.0] * len(tokens)}
    return of_society({"config": config, "plugins": {}, "templates": {}}, "cd" * 32, curves, tokens)


def evaluate(folder: RunFolder, difference: float) -> RunFolder:
    """What `coterie eval` leaves: two policies alone, and their mean."""
    rows = [
        {"protocol": "single", "speaker": speaker, "policies": policies, "trained": SIDE, "untrained": SIDE,
         "difference": difference, "interval": [difference - 0.05, difference + 0.05], "p_holm": 0.04}
        for speaker, policies in (("", 2), ("ann", 1), ("bob", 1))
    ]  # fmt: skip
    found = {"version": 1, "rows": rows, "tasks": 7, "command": "", "questions": {"temperature": None},
             "checkpoint": {"iteration": 8}}  # fmt: skip
    folder.report.mkdir()
    (folder.report / "evaluation.json").write_text(json.dumps(found))
    return folder


def test_curves_go_over_tokens_to_what_the_shortest_generated() -> None:
    groups = learning_curves([train(1, [0.2, 0.4, 0.6], [100, 100, 200]), train(2, [0.3, 0.5], [200, 100])])
    np.testing.assert_allclose(groups[0].used, [75, 225])
    # Stretches of 150 tokens: of the first run an iteration and a half, then two halves.
    np.testing.assert_allclose(groups[0].metrics["right/solver"], [[0.8 / 3, 0.5], [0.3, (0.3 / 4 + 0.5) / 1.25]])
    np.testing.assert_allclose(groups[0].last["right/solver"], [0.6, 0.5])


def test_few_metrics_are_shown_and_shares_among_them_in_percent() -> None:
    found, groups = contrast_trainings([train(s, [0.1 * s, None], [10, 10]) for s in (1, 2)])
    assert list(groups[0].metrics) == ["right/solver", "learning/entropy"]
    assert found["rows"][0]["metrics"].keys() == {"learning/entropy"}  # nothing was right or wrong in the end


def test_settings_are_compared_by_the_accuracy_of_their_solvers(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [train(s, [0.4, level + s / 100], [60, 40], name) for name, level in (("truth", 0.6), ("votes", 0.3))
            for s in range(4)]  # fmt: skip
    found = tidy(contrast_trainings(runs)[0])
    (pair,) = found["pairs"]
    assert (pair["metric"], pair["label"], pair["value"]) == ("right/solver", "rewards=truth", 1.0)
    assert pair["p"] == pytest.approx(2 / 70) and (found["amount"], found["unit"]) == (100, "generated tokens")
    console = Console(record=True, width=80, file=io.StringIO())
    print_trainings(found, console)
    shown = console.export_text()
    for words in ("61.5", "100 generated tokens", "Probability of a higher solver accuracy"):
        assert words in shown, words
    assert "held-out" not in shown


def test_a_journal_is_read_as_tokens_and_curves(make_school: Any) -> None:
    with Journal.read(make_school(3, "killed").journal) as journal:
        training = read_one(journal)
    assert training.kind is SOCIETY and training.done == 3 / 8
    np.testing.assert_array_equal(training.used, [96, 192, 288])
    np.testing.assert_allclose(training.metrics["reward/answer"], [1 / 8, 2 / 8, 3 / 8])


def test_a_run_that_has_not_begun_or_has_no_iteration_is_refused(make_school: Any, tmp_path: Any) -> None:
    with Journal.create(tmp_path / "journal.sqlite") as journal, pytest.raises(ConfigError, match="not begun"):
        read_one(journal)
    waiting = make_school(0, "killed")
    assert not has_begun(waiting) and has_begun(make_school(1, "killed"))
    assert main(["compare", str(waiting.path), str(waiting.path)]) == 2


def test_compare_prints_draws_and_links_what_was_taught(make_school: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [make_school(8, seed=seed, rewards=[{"kind": kind}]) for kind in ("verifier", "votes") for seed in (1, 2)]
    evaluate(folders[0], -0.2), evaluate(folders[3], 0.1)
    names = [str(folder.path) for folder in folders]
    assert main(["compare", *names, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(row["label"], row["seeds"], row["amount"]) for row in found["rows"]] == [
        ("rewards[0]=verifier", [1, 2], 768), ("rewards[0]=votes", [1, 2], 768),
    ]  # fmt: skip
    assert [[row["difference"] for row in run["held_out"]] for run in found["runs"]] == [[-0.2], [], [], [0.1]]
    assert main(["compare", *names]) == 0
    out = capsys.readouterr().out
    assert "\u221220.0" in out and "single, seed 1" in out and "\u2026" not in out
    picture = folders[0].report / "comparison.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    page = picture.with_suffix(".html").read_text("utf-8")
    for words in ("On held-out tasks", "over generated tokens", "solver accuracy, %", "\u221225.0 to \u221215.0"):
        assert words in page, words
    assert "agent-steps" not in page
    runs = json.loads(picture.with_suffix(".marl_eval.json").read_text())["sums"]["sums"]["rewards[0]=votes"]
    assert runs["seed_2"]["step_0"]["reward/answer"] == [1 / 8]


@pytest.mark.parametrize("other", [WORLD, TALK])
def test_trainings_of_societies_are_compared_with_such_alone(other: dict[str, Any]) -> None:
    facts = train(1, [0.5], [10]).facts
    assert check_same_kind([facts, facts]) and not check_same_kind([TALK, TALK])
    with pytest.raises(ConfigError, match="school is the training of a society") as caught:
        check_same_kind([facts, other])
    assert other["config"]["name"] in str(caught.value) and "coterie eval" in caught.value.remedy


def test_trainings_of_which_no_two_were_in_one_world_are_refused() -> None:
    def fly(**env: str) -> Training:
        return Training(kind_of(WORLD), {"config": {"name": "w", "env": env}}, "", np.ones(1), np.ones(1), {}, 1.0)

    swarm, spread, other = fly(kind="quad_swarm_v0"), fly(kind="pettingzoo", id="a.b"), fly(kind="pettingzoo", id="c.d")
    for runs in ([swarm, spread], [spread, other], [swarm, spread, other]):
        with pytest.raises(ConfigError, match="different worlds.*in a.b"):
            check_same_worlds(runs)
    check_same_worlds([swarm, swarm, spread])
