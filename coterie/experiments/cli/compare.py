"""`coterie compare`: runs side by side."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    from coterie.experiments.comparison.trainings import Training
    from coterie.experiments.folder import RunFolder
    from coterie.journal import Journal

T = TypeVar("T")


def compare(
    context: typer.Context,
    runs: list[str] = typer.Argument(
        ..., metavar="RUN RUN...", help="Run folders, starts of their names, or `latest`."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print it as JSON, and write no page."),
    out: Path | None = typer.Option(
        None,
        "--out",
        metavar="FILE",
        help="Where the page is written; default: report/comparison.html of the first run.",
    ),
) -> None:
    """Compare runs: one table and one picture, paired tests, cost, and what differs in their configs.

    Trainings: their metrics in the end with intervals over seeds, and learning curves.
    """
    from coterie.errors import ConfigError
    from coterie.experiments.folder import RunFolder

    if len(runs) < 2:
        raise ConfigError("there is nothing to compare a run with", remedy="name at least two runs")
    folders = [RunFolder.find(Path(run)) for run in runs]
    show(folders, as_json, out or folders[0].report / "comparison.html", command=command_of(context))


def command_of(context: typer.Context) -> str:
    """What a person typed."""
    return shlex.join(["coterie", *context.obj])


def show(
    folders: Sequence[RunFolder], as_json: bool, page: Path, *, command: str = "", pool: bool | None = None
) -> None:
    """Print what runs show beside each other as a table and write its page, or print it as JSON."""
    from coterie.experiments.comparison.training_contrasts import check_same_kind

    if check_same_kind([facts for folder in folders if (facts := _read(folder, _facts))]):
        _show_trainings(folders, as_json, page, command, pool)
    else:
        _show_societies(folders, as_json, page, pool)


def _read(folder: RunFolder, view: Callable[[Journal], T]) -> T:
    from coterie.journal import Journal

    with Journal.read(folder.journal) as journal:
        return view(journal)


def _facts(journal: Journal) -> dict[str, Any]:
    return journal.get("run") or {}


def _show_trainings(folders: Sequence[RunFolder], as_json: bool, page: Path, command: str, pool: bool | None) -> None:
    from coterie.experiments.comparison.training_contrasts import check_same_worlds, contrast_trainings
    from coterie.experiments.measures.summary import tidy

    names = _names(folders)
    runs = [_training(folder, name) for folder, name in zip(folders, names, strict=True)]
    if pool is None:
        check_same_worlds(runs)
    found, groups = contrast_trainings(runs)
    found = tidy(found)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from coterie.experiments.exports.marl_eval import as_marl_eval
    from coterie.experiments.folder import write_atomically, write_json
    from coterie.experiments.report.layout import make_console
    from coterie.experiments.report.learning import learning_picture
    from coterie.experiments.report.training_page import render_trainings
    from coterie.experiments.report.training_terminal import print_trainings

    print_trainings(found, make_console())
    picture = page.with_suffix(".png")
    picture.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    picture.write_bytes(learning_picture(groups))
    write_json(page.with_suffix(".marl_eval.json"), as_marl_eval(groups))
    write_atomically(page, render_trainings(found, groups, page.stem, command, _reports(folders, names, page)))
    print(f"picture: {picture}")
    print(f"page: {page}")


def _training(folder: RunFolder, name: str) -> Training:
    """A training, with what it taught where it is one of a society."""
    from coterie.experiments.comparison.trainings import SOCIETY, read_one
    from coterie.experiments.report.held_out import held_out

    training = _read(folder, read_one)
    taught = held_out(folder.report) if training.kind is SOCIETY else []
    return replace(training, name=name, held_out=taught)


def _names(folders: Sequence[RunFolder]) -> list[str]:
    """Of the folders; where two are called alike, as runs of two sweeps may be, with the folder around them."""
    paths = [folder.path.resolve() for folder in folders]
    is_clear = len({path.name for path in paths}) == len(set(paths))
    return [path.name if is_clear else f"{path.parent.name}/{path.name}" for path in paths]


def _reports(folders: Sequence[RunFolder], names: Sequence[str], page: Path) -> dict[str, str]:
    """The reports that runs have, by name: their addresses from a page."""
    found = zip(names, [folder.report / "index.html" for folder in folders], strict=True)
    here = page.parent.resolve()
    return {name: quote(os.path.relpath(path.resolve(), here)) for name, path in found if path.is_file()}


def _show_societies(folders: Sequence[RunFolder], as_json: bool, page: Path, pool: bool | None) -> None:
    from coterie.experiments.comparison.contrasts import contrast
    from coterie.experiments.comparison.settings import check_same_tasks
    from coterie.experiments.measures.summary import tidy
    from coterie.experiments.records.run import read_record

    records = [_read(folder, read_record) for folder in folders]
    found = tidy(contrast(records, pool=pool))
    if pool is None:
        check_same_tasks(records)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    from coterie.experiments.folder import write_atomically
    from coterie.experiments.report.contrast_page import render_contrast
    from coterie.experiments.report.contrast_terminal import print_contrast
    from coterie.experiments.report.layout import make_console

    print_contrast(found, make_console())
    page.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(page, render_contrast(found))
    print(f"picture: {page}")
