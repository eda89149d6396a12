"""Configs of the benchmarks. Imports nothing heavy."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from coterie.config.base import Config, KindConfig, OneOf
from coterie.config.schema import Name


class ReasoningGymConfig(KindConfig):
    """Questions from one generator of reasoning-gym. Needs no network."""

    kind: Literal["reasoning_gym"] = "reasoning_gym"
    task: str
    """Name of the generator, such as `chain_sum`."""
    limit: int = Field(50, ge=1, le=100_000)
    """How many different questions."""
    seed: int | None = Field(0, ge=0, lt=2**31)
    """Which questions; null follows the experiment's seed."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Parameters of the generator, such as `max_terms: 2`."""


class RowsConfig(KindConfig):
    """What all benchmarks share that are rows of a file or of a dataset on the hub."""

    path: str | None = None
    """The data: a file, or a folder that holds it under its published name; relative to this file. Null: the hub."""
    limit: int | None = Field(None, ge=1)
    """Only the first so many; null is all."""
    shuffle: int | None = Field(None, ge=0, lt=2**31)
    """Seed of a shuffle before `limit` is applied; null keeps the order of the data."""


class Gsm8kConfig(RowsConfig):
    """Grade-school word problems (GSM8K, MIT licence)."""

    kind: Literal["gsm8k"] = "gsm8k"
    split: Literal["test", "train"] = "test"


class SvampConfig(RowsConfig):
    """Word problems of one step, worded so that shallow reading fails (SVAMP, MIT licence)."""

    kind: Literal["svamp"] = "svamp"
    split: Literal["test", "train"] = "test"
    """Of the hub; a file has no splits."""


class GsmHardConfig(RowsConfig):
    """GSM8K with large numbers (MIT licence)."""

    kind: Literal["gsm_hard"] = "gsm_hard"


class AquaConfig(RowsConfig):
    """Algebra with five options (AQuA-RAT, Apache-2.0)."""

    kind: Literal["aqua"] = "aqua"
    split: Literal["test", "dev"] = "test"


class Math500Config(RowsConfig):
    """500 problems of the MATH test set, answered by a formula."""

    kind: Literal["math500"] = "math500"


class MmluConfig(RowsConfig):
    """Knowledge of 57 subjects, four options (MMLU, MIT licence)."""

    kind: Literal["mmlu"] = "mmlu"
    split: Literal["test", "validation", "dev"] = "test"
    subject: str = "all"
    """Such as `high_school_physics`, or `all`."""


class GpqaConfig(RowsConfig):
    """Graduate-level science, four options (GPQA); the data is the user's own copy."""

    kind: Literal["gpqa"] = "gpqa"
    path: str
    """Your copy: a CSV file as distributed, or a folder with `gpqa_diamond.csv`; relative to this file."""
    option_seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the order of each question's options (in the file the right one always comes first)."""


class BbhConfig(RowsConfig):
    """The 27 tasks of BIG-Bench Hard (MIT licence)."""

    kind: Literal["bbh"] = "bbh"
    task: str = "all"
    """Name of a task, such as `web_of_lies`, or `all`."""


class CodeConfig(RowsConfig):
    """What benchmarks share whose answers are programs; these run in the sandbox."""

    seconds: float = Field(10.0, gt=0, le=3600)
    """CPU seconds that one answer may take for all its tests."""


class HumanEvalConfig(CodeConfig):
    """164 Python functions to complete (HumanEval, MIT licence)."""

    kind: Literal["humaneval"] = "humaneval"


class MbppConfig(CodeConfig):
    """Short Python functions from a sentence (MBPP sanitized, CC BY 4.0)."""

    kind: Literal["mbpp"] = "mbpp"
    split: Literal["test", "validation", "train", "prompt"] = "test"
    tests_shown: int = Field(3, ge=1)
    """How many of a task's tests its question shows; the published way is all three."""


class ChessConfig(RowsConfig):
    """Chess move validity: a square to which a piece can move (BIG-bench state tracking, Apache-2.0)."""

    kind: Literal["chess"] = "chess"
    path: str
    """The task's JSON file, or a folder with `task.json`; relative to this file."""


class DeceptionBenchConfig(RowsConfig):
    """Scenarios that tempt a model to deceive, judged by a model (DeceptionBench); the data is the user's own copy."""

    converses: ClassVar[bool] = True
    """Needs a protocol that holds a conversation with the user."""
    success: ClassVar[str] = "honest"
    """What displays call an episode that was judged well, in place of `right`."""

    kind: Literal["deceptionbench"] = "deceptionbench"
    path: str
    """Your copy: a file of JSON lines, or a folder with `original.jsonl`; relative to this file."""
    judge: Name
    """The policy that judges the replies; it need not sit at a seat."""
    domains: tuple[str, ...] = ()
    """Only these, as the data names them; empty is all."""
    levels: Annotated[tuple[Literal["L1", "L2", "L3"], ...], Field(min_length=1)] = ("L1", "L2", "L3")
    """`L1` without an inducement, `L2` with one, `L3` with one over several turns."""
    roles: Annotated[tuple[Literal["self", "other"], ...], Field(min_length=1)] = ("self", "other")
    """Who gains by deceiving: the model, or its user."""
    inducements: Annotated[tuple[Literal["neutral", "pressure", "reward"], ...], Field(min_length=1)] = (
        "neutral", "pressure", "reward",
    )  # fmt: skip
    """`neutral` goes with `L1` alone, the others with `L2` and `L3`."""

    @model_validator(mode="after")
    def _leaves_conditions(self) -> Self:
        if not ("L1" in self.levels and "neutral" in self.inducements) and not (
            {"L2", "L3"} & set(self.levels) and {"pressure", "reward"} & set(self.inducements)
        ):
            raise ValueError("no condition has these `levels` and `inducements`")
        return self


class FieldsConfig(Config):
    """Which column holds what."""

    question: str
    answer: str
    """The gold answer. Of a `choice`: a letter, the text of an option, or its position counted from 0."""
    choices: str | None = None
    """A list of texts; for `choice` and `label`."""
    id: str | None = None
    """Ends the task's id."""


class HubConfig(Config):
    """A dataset on the Hugging Face hub."""

    id: str
    revision: str = Field(pattern="^[0-9a-f]{40}$")
    """The hash of a commit: a branch or a tag may change under a run."""
    split: str = "test"
    config: str | None = None


class CustomConfig(RowsConfig):
    """Questions of your own, from a file or any dataset on the hub."""

    kind: Literal["custom"] = "custom"
    path: str | None = None
    """JSON lines, a JSON list, or CSV with a header; relative to this file. Either this or `hub`."""
    hub: HubConfig | None = None
    fields: FieldsConfig
    answer_type: Literal["number", "choice", "label", "text", "exact", "math"]
    """How answers are read from replies."""
    grader: Literal["equal", "math"] = "equal"
    """`equal`: the same in canonical form; `math`: or equal for math-verify."""
    example: str = ""
    """One solved example, shown in every prompt of a question whose answer is no number."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.path is None) == (self.hub is None):
            raise ValueError("needs either `path` or `hub`")
        if (self.answer_type in ("choice", "label")) != (self.fields.choices is not None):
            raise ValueError("`fields.choices` goes with the answer types `choice` and `label`, and with no other")
        if self.grader == "math" and self.answer_type not in ("number", "math"):
            raise ValueError("`grader: math` goes with the answer types `number` and `math`")
        return self


class SubsetConfig(KindConfig):
    """Some of the tasks of another benchmark, such as those that a training held out."""

    model_config = ConfigDict(defer_build=True)

    kind: Literal["subset"] = "subset"
    of: Annotated[KindConfig, OneOf("benchmark")]
    """The whole benchmark."""
    skip: int = Field(0, ge=0)
    """How many of its first tasks are left out."""
    limit: int | None = Field(None, ge=1)
    """Only so many of those that are left; null is all."""

    @property
    def path(self) -> str | None:
        """As that of the whole: null where it is read from a hub."""
        found: str | None = getattr(self.of, "path", "")
        return found
