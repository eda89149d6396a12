"""The world's form for a GPU: in numba's simulator, compiled without a GPU, on one if there is one, or refused."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from numba import cuda

sys.path.insert(0, str(Path(__file__).parent))
from wild_flight import fly

from coterie.envs.swarm import Obstacles, Replay, SwarmConfig, VecSwarm
from coterie.envs.swarm.layout import FLOOR_HITS, PAIR_CONTACTS, WALL_HITS
from coterie.errors import ConfigError, EnvironmentMissing

HAS_GPU = cuda.is_available()


def assert_same(there, here):
    """Two flights are the same but for rounding."""
    for name in ("flags", "counters", "neighbours"):
        assert np.array_equal(there[name], here[name]), name
    for name in ("first", "last", "again", "rewards", "drones"):
        assert np.allclose(there[name], here[name], rtol=1e-4, atol=1e-4), name


def test_the_simulated_gpu_flies_as_the_cpu_does(tmp_path):
    script, result = Path(__file__).parent / "wild_flight.py", tmp_path / "flight.npz"
    # Nothing is compiled: threads of Python play those of a GPU, and run the very source that is compiled elsewhere.
    simulated = dict(os.environ, NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1")
    subprocess.run([sys.executable, "-W", "ignore", str(script), "cuda", str(result)], env=simulated, check=True)
    here = fly("cpu")
    assert (here["counters"].sum(0)[[PAIR_CONTACTS, WALL_HITS, FLOOR_HITS]] > 0).all()
    assert_same(np.load(result), here)


@pytest.mark.slow
def test_a_trainer_learns_the_same_in_the_simulated_gpu():
    script = Path(__file__).parent / "tiny_training.py"
    simulated = dict(os.environ, NUMBA_ENABLE_CUDASIM="1", NUMBA_DISABLE_JIT="1")
    told = [
        subprocess.run([sys.executable, "-W", "ignore", str(script), device], env=simulated, check=True,
                       capture_output=True, text=True).stdout
        for device in ("cuda", "cpu")
    ]  # fmt: skip
    assert "success" in told[0] and told[0] == told[1]


@pytest.mark.skipif(not HAS_GPU, reason="there is no GPU")
def test_the_gpu_flies_as_the_cpu_does():
    assert_same(fly("cuda"), fly("cpu"))


@pytest.mark.slow
def test_kernels_compile_for_a_hopper_gpu(monkeypatch):
    from numba.cuda import dispatcher
    from numba.cuda.cudadrv import nvvm

    from coterie.envs.swarm import cuda as kernels

    if not nvvm.is_available():
        pytest.skip("there is no NVVM: it comes with CUDA, or with the package nvidia-cuda-nvcc")
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: SimpleNamespace(compute_capability=(9, 0)))
    world = VecSwarm(SwarmConfig(num_drones=4, obstacles=Obstacles()), 1, threads=1)
    p, arrays = numba.typeof(world._parameters), numba.typeof(world.arrays)
    mask, actions = numba.boolean[::1], numba.float32[:, :, ::1]
    for kernel, last in ((kernels.begin, mask), (kernels.look, mask), (kernels.step, actions)):
        signature = numba.void(p, arrays, last)
        ptx, _ = cuda.compile(kernel.py_func, signature, device=False, cc=(9, 0), abi="numba")
        assert ".target sm_90" in ptx and ".entry" in ptx


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_without_a_gpu_there_is_one_clear_error():
    with pytest.raises(EnvironmentMissing, match="GPU") as caught:
        VecSwarm(SwarmConfig(), 1, device="cuda")
    assert 'device="cpu"' in caught.value.remedy


@pytest.mark.parametrize(
    ("fields", "device", "where"),
    [
        ({}, "tpu", "device"),
        ({"num_drones": 129}, "cuda", "num_drones"),
        ({"replay": Replay()}, "cuda", "replay"),
    ],
)
def test_what_a_gpu_does_not_do_is_refused(fields, device, where):
    with pytest.raises(ConfigError) as caught:
        VecSwarm(SwarmConfig(**fields), 1, device=device)
    assert caught.value.where == where
