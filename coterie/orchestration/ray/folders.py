"""Folders of private clusters: one for each, gone with it, or cleaned away by the next if its driver was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PREFIX = "coterie-ray-"
_LOCK = "driver"
_UNLOCKED_FOR = 60.0
"""Seconds after which a folder without a lock is no folder that somebody is just making."""


class ClusterFolder:
    """A folder of mode 0700 for a private cluster; while this process lives, it is locked."""

    def __init__(self) -> None:
        # A short path: Ray puts Unix sockets below it, whose names may have 107 bytes. mkdtemp makes it private.
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock: IO[bytes] = (self.path / _LOCK).open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Delete it, and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def clean_stale() -> list[Path]:
    """Delete the folders that killed drivers of this user have left, of whose clusters no process is left.

    Returns:
        What was deleted. Nothing where the system does not tell of processes (no /proc).
    """
    named = _commands()
    if not named:
        return []
    stale = [folder for folder in _folders() if not _is_held(folder) and str(folder).encode() not in named]
    for folder in stale:
        shutil.rmtree(folder, ignore_errors=True)
    return stale


def _folders() -> Iterator[Path]:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if folder.is_dir() and not folder.is_symlink() and folder.stat().st_uid == os.getuid():
            yield folder


def _is_held(folder: Path) -> bool:
    """Whether its driver lives: the kernel drops the lock with the process, however it dies."""
    try:
        with (folder / _LOCK).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return time.time() - folder.stat().st_mtime < _UNLOCKED_FOR
    except OSError:
        return True
    return False


def _commands() -> bytes:
    """The command lines of all processes: Ray's own name the folder. Empty where there is no /proc."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.append((process / "cmdline").read_bytes())
        except OSError:
            continue  # it has ended meanwhile
    return b"\n".join(found)
