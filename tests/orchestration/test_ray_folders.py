"""Folders of private Ray clusters, and what killed drivers leave of them."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from coterie.orchestration.ray.folders import PREFIX, ClusterFolder, clean_stale

DRIVER = (
    "import time; from coterie.orchestration.ray.folders import ClusterFolder;"
    "folder = ClusterFolder(); print(folder.path, flush=True); time.sleep(60)"
)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("the system does not tell of processes")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def start_driver() -> tuple[subprocess.Popen[str], Path]:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    return driver, Path(driver.stdout.readline().strip())


def test_the_folder_of_a_killed_driver_is_deleted_and_that_of_a_living_one_stays(temporary: Path) -> None:
    (killed, left), (living, kept) = start_driver(), start_driver()
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert clean_stale() == [left]
        assert kept.is_dir() and not left.exists()
    finally:
        living.kill()
        living.wait()


def test_a_folder_that_a_process_of_its_cluster_still_uses_stays(temporary: Path) -> None:
    driver, folder = start_driver()
    driver.kill()
    driver.wait()
    ray = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", f"--temp-dir={folder}/ray"])
    try:
        time.sleep(0.2)
        assert clean_stale() == [] and folder.is_dir()
    finally:
        ray.kill()
        ray.wait()
    assert clean_stale() == [folder]


def test_a_folder_without_a_lock_is_deleted_once_it_is_old(temporary: Path) -> None:
    (folder := temporary / f"{PREFIX}old").mkdir()
    (temporary / "other").mkdir()
    assert clean_stale() == []
    os.utime(folder, (0, 0))
    assert clean_stale() == [folder] and (temporary / "other").is_dir()


def test_a_folder_ends_with_its_cluster(temporary: Path) -> None:
    folder = ClusterFolder()
    assert folder.path.stat().st_mode & 0o777 == 0o700 and clean_stale() == []
    folder.remove()
    assert list(temporary.iterdir()) == []
