"""The run folder: what lies where.

<name>-<time>-<id>/
  config.yaml      the experiment file as given        resolved.json   every field, defaults filled in
  journal.sqlite   the truth                           STATUS.json     a glance, rewritten as the run goes
  report/          derived, can be made again at any time
  checkpoints/     of a training: the last one and the best one
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coterie.errors import ConfigError

GOING = ("starting", "running")
"""What STATUS.json says while a process is at work."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of one run."""

    path: Path

    @classmethod
    def create(cls, parent: Path, name: str) -> RunFolder:
        """A fresh folder, private to its owner."""
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        path = parent / f"{name}-{stamp}-{secrets.token_hex(2)}"
        path.mkdir(parents=True, mode=0o700)
        return cls(path.resolve())

    @classmethod
    def find(cls, given: Path) -> RunFolder:
        """The run at this path; `latest` or a prefix of a run's name is looked up under `runs/` (see `all`).

        Raises:
            ConfigError: no run there, or the prefix fits several.
        """
        if (given / "resolved.json").is_file():
            return cls(given.resolve())
        runs = cls.all(Path("runs"))
        fitting = list(runs)[:1] if str(given) == "latest" else _fitting(str(given), runs)
        if len(fitting) == 1:
            return runs[fitting[0]]
        below = [str(given / name) for name in cls.all(given)] if given.is_dir() else []
        names = ", ".join((fitting or below or list(runs))[:5]) or "none yet"
        why = "fits several runs" if fitting else "is no run"
        raise ConfigError(
            f"{str(given)!r} {why}", where=str(Path("runs").resolve()), remedy=f"name a run folder: {names}"
        )

    @classmethod
    def all(cls, parent: Path) -> dict[str, RunFolder]:
        """The runs below a folder and those of the sweeps in it, by their path from there; last begun first."""
        found = [file for pattern in ("*", "*/*") for file in parent.glob(f"{pattern}/resolved.json")]
        found.sort(key=lambda file: file.stat().st_mtime, reverse=True)
        return {str(file.parent.relative_to(parent)): cls(file.parent.resolve()) for file in found}

    @property
    def journal(self) -> Path:
        return self.path / "journal.sqlite"

    @property
    def resolved(self) -> Path:
        return self.path / "resolved.json"

    @property
    def source(self) -> Path:
        return self.path / "config.yaml"

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def status(self) -> Path:
        return self.path / "STATUS.json"


def _fitting(given: str, names: Iterable[str]) -> list[str]:
    """Names equal to the one given, else those that begin so. A run of a sweep also has the name of its own folder."""
    both = [(name, (name, Path(name).name)) for name in names]
    equal = [name for name, forms in both if given in forms]
    return equal or [name for name, forms in both if any(form.startswith(given) for form in forms)]


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content so that a reader, or a crash, sees the old or the new, never a half."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text, "utf-8")
    scratch.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Replace a file by a value as indented JSON."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
