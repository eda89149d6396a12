"""What this package registers. Strings only."""

from coterie.registry import register

register("engine", "scripted", config="coterie.testing.config:ScriptedConfig",
         impl="coterie.testing.scripted:ScriptedEngine",
         summary="deterministic replies without a model, with fault injection (for tests)")  # fmt: skip
register("benchmark", "sums", config="coterie.testing.sums:SumsConfig", impl="coterie.testing.sums:Sums",
         summary="sums of two small numbers, without dependencies (for tests)")  # fmt: skip
