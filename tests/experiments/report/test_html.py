from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from coterie.experiments.api import Run
from coterie.experiments.folder import RunFolder
from coterie.experiments.report import write_report
from coterie.experiments.report.figures import cost_plot
from coterie.journal import Journal
from coterie.text import clean

CheckInert = Callable[[str], list[tuple[str, str | None]]]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def test_made_again_it_is_the_same_to_the_byte(run: Run) -> None:
    page = write_report(run.folder)
    before = [page.read_bytes(), (page.parent / "summary.json").read_bytes()]
    write_report(run.folder)
    assert [page.read_bytes(), (page.parent / "summary.json").read_bytes()] == before


def test_summary_json_is_the_summary(run: Run) -> None:
    assert json.loads((write_report(run.folder).parent / "summary.json").read_text()) == run.summary()


def test_the_page_holds_every_section_in_order(run: Run) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", write_report(run.folder).read_text("utf-8"))
    assert re.fullmatch("(One|Two|Three) conversations?", headings.pop(8))
    assert headings == [
        "Accuracy", "What the same tokens buy without a group", "Who read whom", "How opinions moved",
        "Who changed whose mind", "How sure the group was", "What it cost", "Failures and retries", "Attempts and time",
        "How to reproduce",
    ]  # fmt: skip


def test_the_page_runs_and_loads_nothing(hostile: Run, check_inert: CheckInert) -> None:
    attributes = check_inert(write_report(hostile.folder).read_text("utf-8"))
    links = [value for name, value in attributes if name in ("href", "src", "xlink:href")]
    assert all(link and link.startswith(("#", "data:")) for link in links)


def test_ids_are_unique_and_every_reference_has_its_target(run: Run) -> None:
    text = write_report(run.folder).read_text("utf-8")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(ids)


def test_hostile_text_is_shown_and_inert(hostile: Run) -> None:
    text = write_report(hostile.folder).read_text("utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in text
    assert "&lt;b&gt;hates&lt;/b&gt;" in text
    assert clean(text) == text


def test_comparisons_at_equal_tokens_come_first_with_raw_and_corrected_p_and_what_could_be_found(run: Run) -> None:
    text = write_report(run.folder).read_text("utf-8")
    first, second = "group against self-consistency at equal tokens", "with baselines as they were asked"
    assert text.index(first) < text.index(second)
    assert "p, Holm" in text and "could find" in text
    assert "p corrected for the 3 tests of this report" in text


def test_lone_surrogates_do_not_break_the_page(run: Run, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with Journal.read(run.folder.journal) as source, Journal.create(folder.journal) as copy:
        for fact in source.facts():
            if fact.kind == "turn":
                fact.payload["text"] = "\ud800 <i>\udfff</i>" + fact.payload["text"]
            copy.commit([fact])
    assert "&lt;i&gt;&lt;/i&gt;" in write_report(folder).read_text("utf-8")


def test_a_partial_run_has_a_page_that_says_so(partial: Run) -> None:
    text = write_report(partial.folder).read_text("utf-8")
    assert "A partial report" in text
    assert "budget is spent" in text


def test_a_curve_without_any_society_can_be_drawn() -> None:
    assert "<svg" in cost_plot("curve", "title", [], [{"tokens": [10.0, 20.0], "accuracy": [0.2, 0.4]}])


def test_a_run_that_has_not_begun_has_a_page(tmp_path: Path) -> None:
    Journal.create(tmp_path / "journal.sqlite").close()
    assert "has not begun" in write_report(RunFolder(tmp_path)).read_text("utf-8")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_it_opens_in_a_browser_without_a_word_on_the_console(hostile: Run, tmp_path: Path) -> None:
    page = write_report(hostile.folder)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path / 'user'}",
             "--enable-logging=stderr", "--dump-dom"]  # fmt: skip
    shown = subprocess.run(
        [str(BROWSER), *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    assert "</footer>" in shown.stdout
    assert "CONSOLE" not in shown.stderr
