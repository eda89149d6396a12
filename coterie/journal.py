"""The journal: one append-only SQLite file per run, one writer, facts by key.

Two tables. `facts` make the digest: what was said, judged and decided, under a key built from its logical place.
`notes` are telemetry outside the digest: times, attempts, hosts, log-probabilities. Writing a fact again with the same
payload does nothing; with another payload it is `E_NONDETERMINISM`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.errors import JournalError, NondeterminismError

SCHEMA_VERSION = 1
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "fuse.", "lustre", "gpfs", "ceph", "beegfs", "afs")
_TABLES = """
CREATE TABLE facts (key TEXT PRIMARY KEY, kind TEXT NOT NULL, payload BLOB NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX facts_by_kind ON facts (kind, key);
CREATE TABLE notes (
    id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE INDEX notes_by_kind ON notes (kind, id);
CREATE INDEX notes_by_key ON notes (key);
"""


@dataclass(frozen=True, slots=True)
class Fact:
    """A key, its kind (`run`, `turn`, `verdict`, `episode`, ...) and a JSON-able payload."""

    key: str
    kind: str
    payload: Any


@dataclass(frozen=True, slots=True)
class Note:
    """Telemetry about `key`; `time` is seconds since the epoch, filled in on writing."""

    kind: str
    key: str
    payload: Any
    time: float = 0.0


def canonical(payload: Any) -> bytes:
    """The one JSON spelling of a payload: sorted keys, no spaces, no NaN, lone surrogates escaped."""
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


class Journal:
    """An open journal. Create a run's journal with `create`, take it up with `open`, look at one with `read`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int | None) -> None:
        self.path = path
        self._db = connection
        self._lock = lock

    @classmethod
    def create(cls, path: Path) -> Journal:
        """A new journal at `path`, held for writing.

        Raises:
            JournalError: the file exists, or cannot be written.
        """
        if path.exists():
            raise JournalError(f"{path} exists already", remedy="a run folder is never reused; pick another")
        lock = _hold(path)
        # Made under another name and moved: a journal is there whole or not at all.
        draft = path.with_suffix(".new")
        with _released_on_error(lock), _translated(path):
            draft.unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(draft)) as db:
                db.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
            draft.replace(path)
            return cls(path, _connect(path), lock)

    @classmethod
    def open(cls, path: Path) -> Journal:
        """An existing journal, held for writing; a second writer is refused."""
        _require(path)
        lock = _hold(path)
        with _released_on_error(lock), _translated(path):
            return cls(path, _checked(_connect(path), path), lock)

    @classmethod
    def read(cls, path: Path) -> Journal:
        """An existing journal for reading only, also while a run writes it."""
        _require(path)
        with _translated(path):
            db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10, check_same_thread=False)
            return cls(path, _checked(db, path), None)

    def commit(self, facts: Iterable[Fact] = (), notes: Iterable[Note] = ()) -> None:
        """Write all of it or nothing, durably.

        Raises:
            NondeterminismError: a key is there already with another payload.
            JournalError: the disk refused; nothing of this call was kept.
        """
        rows = []
        for fact in facts:
            body = canonical(fact.payload)
            rows.append((fact.key, fact.kind, zlib.compress(body, 1), _hash(fact.key, body)))
        with _translated(self.path), self._db:
            for row in rows:
                self._insert(row)
            now = time.time()
            self._db.executemany(
                "INSERT INTO notes (time, kind, key, payload) VALUES (?, ?, ?, ?)",
                [(n.time or now, n.kind, n.key, zlib.compress(canonical(n.payload), 1)) for n in notes],
            )

    def _insert(self, row: tuple[str, str, bytes, bytes]) -> None:
        key, kind, _, digest = row
        known = self._db.execute("SELECT hash FROM facts WHERE key = ?", (key,)).fetchone()
        if known is None:
            self._db.execute("INSERT INTO facts (key, kind, payload, hash) VALUES (?, ?, ?, ?)", row)
        elif known[0] != digest:
            raise NondeterminismError(
                f"the {kind} {key!r} was journalled before with another payload",
                where=str(self.path),
                remedy="the run is not deterministic at this place; see `coterie log show` for what was written first",
            )

    def get(self, key: str) -> Any | None:
        """The payload of a fact, or None."""
        for (body,) in self._rows("SELECT payload FROM facts WHERE key = ?", (key,)):
            return self._payload(key, body)
        return None

    def facts(self, kind: str | None = None) -> Iterator[Fact]:
        """All facts (of one kind), sorted by key."""
        where, values = ("WHERE kind = ?", (kind,)) if kind else ("", ())
        for key, kind_, body in self._rows(f"SELECT key, kind, payload FROM facts {where} ORDER BY key", values):  # noqa: S608
            yield Fact(key, kind_, self._payload(key, body))

    def notes(self, kind: str | None = None) -> Iterator[Note]:
        """All notes (of one kind), in the order written."""
        where, values = ("WHERE kind = ?", (kind,)) if kind else ("", ())
        rows = self._rows(f"SELECT time, kind, key, payload FROM notes {where} ORDER BY id", values)  # noqa: S608
        for when, kind_, key, body in rows:
            yield Note(kind_, key, self._payload(key, body), when)

    def last_note(self, kind: str, key: str) -> Any | None:
        """The payload of the last note of a kind about a key, or None."""
        query = "SELECT payload FROM notes WHERE key = ? AND kind = ? ORDER BY id DESC LIMIT 1"
        for (body,) in self._rows(query, (key, kind)):
            return self._payload(key, body)
        return None

    def count(self, kind: str) -> int:
        """How many facts of a kind there are."""
        return sum(int(count) for (count,) in self._rows("SELECT count(*) FROM facts WHERE kind = ?", (kind,)))

    def digest(self) -> str:
        """SHA-256 over every fact's key and payload, in the order of keys."""
        total = hashlib.sha256()
        for (digest,) in self._rows("SELECT hash FROM facts ORDER BY key"):
            total.update(digest)
        return total.hexdigest()

    def verify(self) -> list[str]:
        """Check the file's pages and every payload against its hash; returns what is wrong, nothing if all is well."""
        faults = []
        try:
            faults += [row[0] for row in self._rows("PRAGMA integrity_check") if row[0] != "ok"]
            for key, body, digest in self._rows("SELECT key, payload, hash FROM facts ORDER BY key"):
                try:
                    good = _hash(key, zlib.decompress(body)) == digest
                except zlib.error:
                    good = False
                if not good:
                    faults.append(f"the payload of {key!r} does not match its hash")
        except JournalError as error:
            faults.append(error.what)
        return faults

    def _rows(self, query: str, values: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
        with _translated(self.path):
            yield from self._db.execute(query, values)

    def _payload(self, key: str, body: bytes) -> Any:
        try:
            return json.loads(zlib.decompress(body))
        except (zlib.error, ValueError) as cause:
            raise JournalError(
                f"the payload of {key!r} is damaged", where=str(self.path), remedy="see `coterie log verify`"
            ) from cause

    def close(self) -> None:
        """Close the file and let go of the lock. Safe to call twice."""
        self._db.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _hash(key: str, body: bytes) -> bytes:
    return hashlib.sha256(len(key).to_bytes(4, "little") + key.encode("utf-8", "surrogatepass") + body).digest()


def _require(path: Path) -> None:
    if not path.is_file():
        raise JournalError(f"there is no journal at {path}", remedy="name a run folder; `coterie status` lists them")


def _hold(path: Path) -> int:
    try:
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as cause:
        raise JournalError(f"cannot write beside {path}: {cause.strerror}", remedy="check the folder") from cause
    try:
        # The kernel drops the lock with the process, however it dies.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as cause:
        os.close(lock)
        raise JournalError(
            "another process is writing this journal", where=str(path), remedy="wait for it, or stop it"
        ) from cause
    return lock


@contextlib.contextmanager
def _released_on_error(lock: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(lock)
        raise


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=30, check_same_thread=False)
    path.chmod(0o600)
    # WAL needs shared memory between readers and the writer, which network file systems do not give.
    db.execute(f"PRAGMA journal_mode = {'DELETE' if _is_network(path) else 'WAL'}")
    db.execute("PRAGMA synchronous = FULL")
    return db


def _checked(db: sqlite3.Connection, path: Path) -> sqlite3.Connection:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        db.close()
        raise JournalError(
            f"journal schema {version}, this Coterie reads {SCHEMA_VERSION}",
            where=str(path),
            remedy="use the Coterie version that wrote it (its run folder names it)",
        )
    return db


def _is_network(path: Path) -> bool:
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return False
    folder = path.resolve().parent
    best, kind = -1, ""
    for line in mounts.read_text().splitlines():
        _, point, fs, *_ = line.split()
        if folder.is_relative_to(point) and len(point) > best:
            best, kind = len(point), fs
    return kind.startswith(_NETWORK_FILE_SYSTEMS)


class _translated:
    """Turns SQLite's errors into JournalError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, cause: BaseException | None, trace: object) -> None:
        if isinstance(cause, sqlite3.Error):
            is_damaged = getattr(cause, "sqlite_errorcode", None) in _DAMAGED
            raise JournalError(
                f"the journal is damaged: {cause}" if is_damaged else f"the journal could not be used: {cause}",
                where=str(self.path),
                remedy="put a copy of it back, or start a new run" if is_damaged else "check free disk space",
            ) from cause
