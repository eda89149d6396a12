"""What this package registers. Strings only."""

from coterie.registry import register

_PROTOCOLS = "coterie.orchestration.protocols"
register("protocol", "machinesom", config=f"{_PROTOCOLS}.config:MachineSomConfig",
         impl=f"{_PROTOCOLS}.machinesom:MachineSom",
         summary="traits, debate and reflection in any strategy of 1 to 5 rounds (MachineSoM)")  # fmt: skip
register("protocol", "single", config=f"{_PROTOCOLS}.config:SingleConfig", impl=f"{_PROTOCOLS}.single:Single",
         summary="one agent answers once")  # fmt: skip
register("protocol", "self_consistency", config=f"{_PROTOCOLS}.config:SelfConsistencyConfig",
         impl=f"{_PROTOCOLS}.self_consistency:SelfConsistency",
         summary="one agent answers many times, the majority wins")  # fmt: skip
register("executor", "local", config="coterie.orchestration.config:LocalConfig",
         impl="coterie.orchestration.local:LocalExecutor", summary="one process")  # fmt: skip
register("executor", "ray", config="coterie.orchestration.config:RayConfig",
         impl="coterie.orchestration.ray.executor:RayExecutor",
         summary="agent workers and engine replicas as Ray actors, on one machine or a cluster")  # fmt: skip
