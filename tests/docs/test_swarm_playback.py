"""The program of docs/swarm-playback.md runs as it stands."""

import re
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "swarm-playback.md"


def test_the_program_records_saves_and_shows_a_flight(tmp_path, monkeypatch):
    [program] = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(program.replace("seconds=15", "seconds=1"), {"act": lambda seen: np.zeros((1, 8, 4), np.float32)})  # noqa: S102
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flight.npz", "swarm.html", "trajectories.png"]
