"""What this package registers. Strings only."""

from coterie.registry import register

_BENCHMARKS = "coterie.envs.benchmarks"
register("benchmark", "reasoning_gym", config=f"{_BENCHMARKS}.config:ReasoningGymConfig",
         impl=f"{_BENCHMARKS}.reasoning_gym:ReasoningGym",
         summary="questions from any generator of reasoning-gym, without a network")  # fmt: skip
register("benchmark", "gsm8k", config=f"{_BENCHMARKS}.config:Gsm8kConfig", impl=f"{_BENCHMARKS}.gsm8k:Gsm8k",
         summary="grade-school word problems, from the hub or a folder")  # fmt: skip
