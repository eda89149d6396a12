"""That what decides the world's speed is vector code: whatever stops it would otherwise show in a benchmark alone."""

import platform

import numpy as np
import pytest
from numba import njit

from coterie.envs.swarm import SwarmConfig, motion, perception
from coterie.envs.swarm.compiling import OPTIONS
from coterie.envs.swarm.layout import LANES, WORK_ROWS
from coterie.envs.swarm.parameters import parameters

fly_high, compare = motion._fly_high, perception._compare


@pytest.mark.skipif(platform.machine() != "x86_64", reason="square roots of vectors are looked for by their x86 name")
def test_flight_and_the_search_for_neighbours_are_vector_code():
    # Called by something, as in the world: numba works on a function again where it is called.
    @njit(**OPTIONS)
    def flight(p, w, n):
        fly_high(p, w, n)

    @njit(**OPTIONS)
    def search(w, n, sight, closing):
        for i in range(n):
            compare(w, i, n, sight, closing)

    w = np.zeros(WORK_ROWS * LANES, np.float32)
    flight(parameters(SwarmConfig()), w, 8)
    search(w, 8, np.float32(1), np.float32(1))
    for loop in (flight, search):
        (assembly,) = loop.inspect_asm().values()
        assert "sqrtps" in assembly, loop.__name__
