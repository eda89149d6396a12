from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from coterie.experiments import checks
from coterie.experiments.cli.main import main


@pytest.fixture
def levels(capsys: Any) -> Any:
    def run() -> dict[str, str]:
        main(["doctor", "--json"])
        return {check["name"]: check["level"] for check in json.loads(capsys.readouterr().out)}

    return run


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretends that packages have other versions; None is not installed."""
    real = metadata.version

    def pretend(**versions: str | None) -> None:
        def version(name: str) -> str:
            found = versions.get(name.replace("-", "_"), "real")
            if found is None:
                raise metadata.PackageNotFoundError(name)
            return real(name) if found == "real" else found

        monkeypatch.setattr(checks.metadata, "version", version)

    return pretend


def test_every_check_has_a_level_and_everything_but_ok_a_remedy(capsys: Any) -> None:
    code = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {c["level"] for c in found} <= {"ok", "warn", "fail"}
    assert all(c["detail"] for c in found)
    assert all(c["remedy"] for c in found if c["level"] == "fail")
    assert code == (3 if any(c["level"] == "fail" for c in found) else 0)


def test_the_test_machine_is_fit(levels: Any) -> None:
    found = levels()
    needed = ("python", "engine vllm", "engine transformers", "journal", "ray", "disk for runs")
    assert [name for name in needed if found[name] == "fail"] == []


def test_the_doctor_imports_nothing_heavy_and_is_quick() -> None:
    code = (
        "import sys, time; from coterie.experiments.cli.main import main; main(['doctor']);"
        "print([m for m in ('torch', 'vllm', 'ray', 'transformers') if m in sys.modules], time.process_time() < 3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] True"


def test_the_doctor_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(["doctor"])
    assert list(tmp_path.iterdir()) == []


def test_no_secret_and_no_name_of_one_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-something")
    main(["doctor"])
    shown = capsys.readouterr().out
    assert "sk-something" not in shown and "API_KEY" not in shown


def test_a_ray_without_tokens_is_warned_of(levels: Any, installed: Any) -> None:
    installed(ray="2.48.0")
    assert levels()["ray"] == "warn"
    installed(ray=None)
    assert levels()["ray"] == "warn"


def test_without_torch_no_local_engine_runs_and_the_exit_code_is_three(installed: Any, levels: Any) -> None:
    installed(torch=None)
    assert levels()["engine transformers"] == "fail"
    assert main(["doctor"]) == 3


def test_cuda_companions_of_a_cpu_torch_are_found(installed: Any, levels: Any) -> None:
    installed(torch="2.13.0+cpu", torchvision="0.28.0")
    assert levels()["engine transformers"] == "fail"


@pytest.fixture
def with_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose `nvidia-smi` answers."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB, 580.159'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


def numba_check() -> checks.Check:
    [found] = checks._numba()
    return found


def test_without_a_driver_the_versions_of_numba_are_said(installed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    installed(numba_cuda="0.30.4")
    found = numba_check()
    assert found.level == "ok" and "numba-cuda 0.30.4; no NVIDIA driver" in found.detail


def test_a_gpu_without_a_compiler_for_swarms_is_warned_of(with_driver: None, installed: Any) -> None:
    installed(numba_cuda=None)
    found = numba_check()
    assert (found.level, found.remedy) == ("warn", "pip install 'coterie[cuda]'")


def test_a_gpu_that_numba_does_not_find_is_warned_of(with_driver: None, installed: Any) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("numba finds the GPU of this machine")
    installed(numba_cuda="0.30.4")
    found = numba_check()
    assert found.level == "warn" and "finds no GPU" in found.detail


def test_the_gpu_that_numba_finds_is_named(with_driver: None, installed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(numba_cuda="0.30.4")
    monkeypatch.setattr(checks, "_ASK_NUMBA", "print(13, 0, 'NVIDIA H100 80GB HBM3')")
    found = numba_check()
    assert found.level == "ok" and found.detail.endswith("numba-cuda 0.30.4, CUDA 13.0, NVIDIA H100 80GB HBM3")


def test_a_missing_model_is_a_warning(levels: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COTERIE_CACHE", str(tmp_path))
    monkeypatch.setattr(checks.metadata, "files", lambda name: [])
    assert levels()["model smollm2-135m"] == "warn"


@pytest.mark.parametrize(
    ("line", "version", "problem"),
    [
        ("torch==2.13.*", "2.13.0+cpu", ""),
        ("torch==2.13.0+cpu", "2.13.0+cpu", ""),
        ("torch==2.13.*", "2.12.1", "torch 2.12.1 is not ==2.13.*"),
        ("torch>=2", None, "torch is missing"),
        ("torch>=9; extra == 'test'", "2.13.0", ""),
        ("torch>=9; platform_system == 'Plan9'", "2.13.0", ""),
    ],
)
def test_requirements_are_read_as_pip_reads_them(line: str, version: str | None, problem: str, installed: Any) -> None:
    installed(torch=version)
    assert checks._problem(Requirement(line)) == problem
