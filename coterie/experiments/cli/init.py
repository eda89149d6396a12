"""`coterie init`: a first experiment file."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import typer

from coterie.errors import ConfigError

TEMPLATES = {"society": "society.yaml", "swarm": "swarm-goals.yaml", "pettingzoo": "spread.yaml"}
"""What `--template` takes, and what its file is called."""


def example(template: str = "society") -> str:
    """A commented example experiment file."""
    return (files("coterie.experiments") / "templates" / TEMPLATES[template]).read_text("utf-8")


def init(
    path: str = typer.Argument("", help="Where to write it: a file, or a folder (DIR/)."),
    template: str = typer.Option("society", "--template", metavar="WHICH", help=", ".join(TEMPLATES)),
    force: bool = typer.Option(False, "--force", help="Overwrite a file that is there."),
) -> None:
    """Write an example experiment file that runs as it is."""
    if template not in TEMPLATES:
        known = ", ".join(TEMPLATES)
        raise ConfigError(f"there is no template {template!r}", where="--template", remedy=f"known: {known}")
    is_folder = not path or path.endswith(("/", os.sep)) or Path(path).is_dir()
    target = Path(path) / TEMPLATES[template] if is_folder else Path(path)
    if target.exists() and not force:
        remedy = "choose another name, or overwrite it with --force"
        raise ConfigError("this file exists", where=str(target), remedy=remedy)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(example(template), "utf-8")
    except OSError as cause:
        raise ConfigError(f"cannot write: {cause.strerror}", where=str(target), remedy="write elsewhere") from cause
    print(f"wrote {target}\nrun it with: coterie run {target}")
