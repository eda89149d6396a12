"""The journal: all or nothing, facts by key, a digest of facts alone."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import JournalError, NondeterminismError
from coterie.journal import Fact, Journal, Note


@pytest.fixture
def journal(tmp_path: Path):
    with Journal.create(tmp_path / "journal.sqlite") as opened:
        yield opened


def test_a_fact_reads_back_as_written(journal):
    payload = {"text": "lone \ud800 surrogate, \x1b[31m, \u202e", "ids": [1, 2, 3], "none": None}
    journal.commit([Fact("a/b", "turn", payload)])
    assert journal.get("a/b") == payload
    assert journal.get("a/c") is None


def test_writing_the_same_fact_again_does_nothing(journal):
    journal.commit([Fact("k", "turn", {"x": 1})])
    before = journal.digest()
    journal.commit([Fact("k", "turn", {"x": 1})])
    assert journal.digest() == before
    assert journal.count("turn") == 1


def test_another_payload_under_a_known_key_is_nondeterminism_and_keeps_nothing(journal):
    journal.commit([Fact("k", "turn", {"x": 1})])
    with pytest.raises(NondeterminismError, match="E_NONDETERMINISM"):
        journal.commit([Fact("new", "turn", {}), Fact("k", "turn", {"x": 2})])
    assert journal.get("new") is None
    assert journal.get("k") == {"x": 1}


@settings(max_examples=12)  # each waits for the disk eight times
@given(st.permutations(range(6)))
def test_the_digest_does_not_depend_on_the_order_of_writing(tmp_path_factory, order):
    with Journal.create(tmp_path_factory.mktemp("j") / "journal.sqlite") as one:
        for i in order:
            one.commit([Fact(f"key-{i}", "turn", {"i": i})])
        shuffled = one.digest()
    with Journal.create(tmp_path_factory.mktemp("j") / "journal.sqlite") as other:
        other.commit([Fact(f"key-{i}", "turn", {"i": i}) for i in range(6)])
        assert other.digest() == shuffled


def test_notes_are_outside_the_digest(journal):
    before = journal.digest()
    journal.commit(notes=[Note("sample", "k", {"seconds": 1.5})])
    assert journal.digest() == before
    assert [note.payload for note in journal.notes("sample")] == [{"seconds": 1.5}]


def test_a_second_writer_is_refused_but_a_reader_is_not(journal):
    journal.commit([Fact("k", "turn", {})])
    with pytest.raises(JournalError, match="another process is writing"):
        Journal.open(journal.path)
    with Journal.read(journal.path) as reader:
        assert reader.count("turn") == 1


def test_a_changed_byte_is_found(journal):
    journal.commit([Fact(f"k{i}", "turn", {"i": i}) for i in range(5)])
    assert journal.verify() == []
    path = journal.path
    journal.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE facts SET payload = (SELECT payload FROM facts WHERE key = 'k1') WHERE key = 'k3'")
    with Journal.read(path) as damaged:
        assert damaged.verify() == ["the payload of 'k3' does not match its hash"]


def test_another_schema_version_is_refused(tmp_path):
    Journal.create(tmp_path / "journal.sqlite").close()
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="schema 99"):
        Journal.open(tmp_path / "journal.sqlite")


def test_a_journal_that_cannot_be_opened_is_not_held(tmp_path):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"no journal" * 100)
    for _ in range(2):
        with pytest.raises(JournalError, match="the journal is damaged"):
            Journal.open(path)


def test_a_file_that_is_no_journal_is_one_clear_error_that_sends_nobody_in_a_circle(tmp_path):
    (tmp_path / "journal.sqlite").write_bytes(b"not a database at all, but long enough to look at" * 50)
    for use in (Journal.open, Journal.read):
        with pytest.raises(JournalError, match="the journal is damaged") as error:
            use(tmp_path / "journal.sqlite")
        assert "log verify" not in str(error.value) and "start a new run" in str(error.value)


def test_what_was_committed_survives_sigkill(tmp_path):
    script = f"""
import os, signal
from coterie.journal import Fact, Journal
from pathlib import Path
journal = Journal.create(Path({str(tmp_path / "journal.sqlite")!r}))
for i in range(20):
    journal.commit([Fact(f"k{{i:02d}}", "turn", {{"i": i}})])
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    with Journal.open(tmp_path / "journal.sqlite") as journal:
        assert journal.count("turn") == 20
        assert journal.verify() == []


def test_the_file_is_private(journal):
    assert os.stat(journal.path).st_mode & 0o077 == 0


def test_a_full_disk_is_named_and_loses_nothing(tmp_path):
    script = f"""
import resource, signal
from coterie.errors import JournalError
from coterie.journal import Fact, Journal
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal.create(Path({str(tmp_path / "journal.sqlite")!r}))
journal.commit([Fact("kept", "turn", {{}})])
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
import hashlib
noise = lambda i: "".join(hashlib.sha256(f"{{i}}{{j}}".encode()).hexdigest() for j in range(50))
try:
    for i in range(1000):
        journal.commit([Fact(f"k{{i:04d}}", "turn", noise(i))])
except JournalError as error:
    print(error.code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "E_JOURNAL"
    with Journal.open(tmp_path / "journal.sqlite") as journal:
        assert journal.verify() == []
        assert journal.get("kept") == {}


def test_a_damaged_page_is_a_named_error_and_a_fault(journal):
    journal.commit([Fact(f"k{i:03d}", "turn", {"i": list(range(i, i + 40))}) for i in range(300)])
    path = journal.path
    journal.close()
    data = bytearray(path.read_bytes())
    third = len(data) // 3
    data[third : third + 3000] = bytes(b ^ 0xFF for b in data[third : third + 3000])
    path.write_bytes(data)
    with Journal.read(path) as damaged:
        assert damaged.verify()
        with pytest.raises(JournalError):
            list(damaged.facts())
