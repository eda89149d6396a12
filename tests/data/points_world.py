"""A plugin: the world of `tests/orchestration/points.py` under the name `points`."""

import importlib.util
from pathlib import Path
from typing import Literal

from coterie import register
from coterie.envs.config import EnvConfig

_SPEC = importlib.util.spec_from_file_location(
    "points_of_plugin", Path(__file__).parents[1] / "orchestration" / "points.py"
)
_MODULE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_MODULE)


class PointsConfig(EnvConfig):
    """See `Points`."""

    kind: Literal["points"] = "points"
    num_envs: int = 12
    poison: int | None = None


def make(config, seed, first_env=0):
    world = _MODULE.Points(config.num_envs, seed=seed * 1000 + first_env, deaths=True)
    world.poison = config.poison
    return world


register("env", "points", config=f"{__name__}:PointsConfig", impl=f"{__name__}:make", summary="points on a plane")
