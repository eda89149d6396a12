"""What this package registers. Strings only."""

from coterie.registry import register

register("reward", "verifier", config="coterie.rewards.config:VerifierConfig", impl="coterie.rewards.verifier:Verifier",
         summary="what the benchmark's grader says of each answer (RLVR)")  # fmt: skip
