"""A society that is trained with token credit: what the run keeps of it, also when it is killed."""

import signal
import sys
from pathlib import Path

import pytest

from coterie.experiments.cli.main import main
from coterie.testing.models import write_llama

sys.path.insert(0, str(Path(__file__).parent))
from society_runs import ALPHABET, coterie, journal_of, outcome, start
from society_runs import experiment as plain

COUPLED = {"kind": "coupled", "least_tokens": 4, "horizon": [1, 6], "keep": 3}


def experiment(model: Path, credit: object, **changes: object) -> dict[str, object]:
    return plain(model, "credited", 16, credit=credit, **changes)


@pytest.fixture(scope="module")
def deep(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("deep")
    return write_llama(folder, alphabet=ALPHABET, layers=12, width=32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, deep) -> Path:
    cwd = tmp_path_factory.mktemp("trained")
    done = start(cwd, experiment(deep, COUPLED), 240)
    assert done.returncode == 0, done.stderr
    return cwd


def test_a_training_says_how_much_of_what_is_learnt_was_shaped(trained):
    _, updates = outcome(trained)
    metrics = [update["policies"]["base"]["learning"] for update in updates]
    assert len(metrics) == 2
    assert all(1.0 < each["factor"] < 1.5 and 0.2 < each["shaped"] < 0.8 for each in metrics)


def test_head_roles_are_assigned_once_and_stand_in_the_journal(trained):
    with journal_of(trained) as journal:
        (note,) = journal.notes("head_roles")
    roles = note.payload
    assert note.key == "base/000001"
    assert (len(roles["layers"]), len(roles["span"]), len(roles["span"][0])) == (5, 5, 4)
    assert len(roles["local"]) == len(roles["distant"]) == 6


def test_a_sample_of_turns_stands_in_the_journal_with_signals_factors_and_marks(trained):
    with journal_of(trained) as journal:
        notes = list(journal.notes("token_credit"))
        lengths = {fact.key: len(fact.payload["token_ids"]) for fact in journal.facts("turn")}
    assert [sum(note.payload["iteration"] == n for note in notes) for n in (1, 2)] == [3, 3]
    for note in notes:
        kept, length = note.payload, lengths[note.key]
        assert {len(kept[name]) for name in ("factor", "advantage")} == {length}
        assert {len(values) for values in kept["signals"].values()} == {length}
        assert set(kept["marks"]) <= {"preplan", "anchor", "dominated"}
        bonus = {t for t, factor in enumerate(kept["factor"]) if factor != 1}
        assert bonus == set(kept["marks"].get("anchor", [])) | set(kept["marks"].get("preplan", []))


def test_a_page_shows_every_token_of_the_kept_turns_and_the_roles_of_heads(trained, capsys):
    (run,) = (trained / "runs").iterdir()
    assert main(["inspect-credit", str(run), "--iteration", "1", "--turns", "2"]) == 0
    page = (run / "report" / "credit.html").read_text("utf-8")
    with journal_of(trained) as journal:
        kept = [n for n in journal.notes("token_credit") if n.payload["iteration"] == 1]
        chosen = sorted(kept, key=lambda note: note.key)[:2]
        tokens = sum(len(note.payload["factor"]) for note in chosen)
    assert page.count('<section class="reply">') == 2
    assert page.count('style="--h:') - page.count('style="--h:0"') == 4 * tokens  # waad, fai, entropy, factor
    assert page.count('title="local"') == page.count('title="global"') == 6
    assert "<script" not in page


def test_an_iteration_of_which_nothing_was_kept_is_named(trained, capsys):
    (run,) = (trained / "runs").iterdir()
    assert main(["inspect-credit", str(run), "--iteration", "9"]) == 2
    assert "nothing was kept of iteration 9" in capsys.readouterr().err


@pytest.mark.slow
def test_a_training_with_credit_that_is_killed_and_resumed_ends_with_the_same_weights(tmp_path, deep, trained):
    killed = start(tmp_path, experiment(deep, COUPLED), 240, MORTAL="18")
    assert killed.returncode == -signal.SIGKILL
    resumed = coterie("resume", "latest", cwd=tmp_path, seconds=240)
    assert resumed.returncode == 0, resumed.stderr
    assert outcome(tmp_path) == outcome(trained)
