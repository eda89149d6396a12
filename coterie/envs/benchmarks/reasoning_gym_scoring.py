"""What a grading process of `reasoning_gym` imports: the library too, before a deadline runs."""

from coterie.envs.benchmarks.reasoning_gym import is_right, library

__all__ = ["is_right"]

library()
