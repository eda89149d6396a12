"""Where actors go: a bundle of resources for each, spread over the nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from coterie.errors import EnvironmentMissing
from coterie.orchestration.ray.watchdog import GROUP, Watched

# A bundle must reserve something for Ray to place it; this much of a CPU stands for "nothing".
_TRACE = 0.001


def bundle(cpus: float, gpus: float = 0) -> dict[str, float]:
    """What Ray reserves for an actor."""
    return {"CPU": cpus or _TRACE} | ({"GPU": gpus} if gpus else {})


def reserve(bundles: Sequence[Mapping[str, float]]) -> PlacementGroup:
    """Room for so many actors.

    Raises:
        EnvironmentMissing: The cluster has none.
    """
    group = placement_group([dict(one) for one in bundles], strategy="SPREAD")
    if not group.wait(timeout_seconds=60):
        remove_placement_group(group)
        raise EnvironmentMissing(
            f"the cluster has no room for {len(bundles)} actors", where=f"free: {ray.available_resources()}",
            remedy="ask for fewer workers or replicas, or for fewer CPUs and GPUs each",
        )  # fmt: skip
    return group


def place(cls: type, group: PlacementGroup, index: int, *, restarts: int = 0, gpus: float = 0) -> Any:
    """What makes an actor of a class in one of the bundles: `place(...).remote(arguments)`."""
    where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
    # Ray runs the calls of a group beside all others. For a class without such calls one more thread is of no use.
    watched = {"concurrency_groups": {GROUP: 1}} if issubclass(cls, Watched) else {}
    # max_task_retries=0: Ray repeats no call by itself; who calls decides what is asked again.
    return ray.remote(max_restarts=restarts, **watched)(cls).options(
        num_cpus=_TRACE, num_gpus=gpus, max_task_retries=0, scheduling_strategy=where
    )
