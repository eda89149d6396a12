"""The nouns that every package shares: prompts, samples, tasks, turns, verdicts, outcomes.

Plain frozen dataclasses, free of heavy imports, so that any layer may use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message; `content` is plain text."""

    role: Role
    content: str


Messages = tuple[Message, ...]
TokenIds = tuple[int, ...]
Prompt = Messages | TokenIds
"""What an engine is given: chat messages (it applies its own template once), or token ids (used as they are)."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an engine draws tokens. `top_k=0` and `top_p=1.0` are off; `temperature=0` is greedy."""

    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    """If not empty, the reply is one of these strings (constrained decoding; capability `choices`).
    Log-probabilities are then those among the choices, token by token."""


class Place(NamedTuple):
    """Where a turn stands in an experiment. Sorting by it is the *logical order* of a run.

    It names no strategy and no executor, so equal questions asked at equal places are one turn. A tuple: thousands are
    sorted at a time, and dataclasses compare by far slower.
    """

    task: str
    round: int
    seat: str
    repeat: int = 0
    purpose: str = "answer"

    def __str__(self) -> str:
        return f"{self.task}/{self.round:03d}/{self.seat}/{self.repeat:03d}/{self.purpose}"


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt ready for its engine.

    `prompt` is what `Engine.generate` is given, `length` tokens long (for engines without the capability `tokens`, an
    upper bound). `dropped` tokens were cut to fit the context. `said` is the reply so far, if this one goes on with it;
    a prompt of token ids ends with it, and `length` counts it. `adapter` names the LoRA adapter that speaks (capability
    `lora`); empty: the model itself.
    """

    prompt: Prompt
    length: int
    dropped: int = 0
    said: TokenIds = ()
    adapter: str = ""


Sight = Literal["all", "own"]
"""What thinkers whose replies grow side by side see of these: all that was said so far, or each its own alone."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What an engine is to generate with from now on: a folder as transformers or, of an adapter, peft writes it."""

    folder: str
    adapter: str = ""
    """The adapter's name; empty: the model's own weights."""
    version: int = 0
    """Counts publications of this adapter or model; what was cached under another is of no use."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What an engine returns for one prompt.

    `token_ids`, `prompt_ids` and `logprobs` (nats, temperature 1, one per sampled token) are there for engines with the
    capabilities `tokens` and `logprobs`, else None. `finish` is `stop` or `length`.
    """

    text: str
    finish: Literal["stop", "length"]
    num_prompt_tokens: int
    num_tokens: int
    prompt_ids: TokenIds | None = None
    token_ids: TokenIds | None = None
    logprobs: tuple[float, ...] | None = None
    num_cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """One question of a benchmark as agents see it. The gold answer is not here: it never leaves the grader."""

    id: str
    question: str
    answer_type: str = "number"
    """How answers are read from replies: a kind that `envs.answers.parse` knows (`number`, `choice`, `text`)."""
    choices: tuple[str, ...] = ()
    example: str = ""
    """One solved example in the answer format the benchmark wants, for prompts; never this task's own solution."""
    follow_ups: tuple[str, ...] = ()
    """What the user says after each reply, in one conversation; the last reply is the answer."""
    features: tuple[tuple[str, str], ...] = ()
    """Names and values by which reports tell tasks apart; journalled with every episode."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One agent's one utterance, as journalled. `answer` is what was parsed from `text`; None is *unparsed*."""

    key: str
    place: Place
    policy: str
    policy_version: int
    prompt: Prompt
    text: str
    answer: str | None
    finish: str
    num_prompt_tokens: int
    num_tokens: int
    num_dropped: int = 0
    prompt_ids: TokenIds | None = None
    token_ids: TokenIds | None = None
    continues: str | None = None
    """Key of the turn whose reply this one goes on with, token for token."""


Signal = Literal["entropy", "waad", "fai", "received", "influence"]
Split = Literal["paragraph", "line", "sentence"]


@dataclass(frozen=True, slots=True)
class SignalRequest:
    """What a learner is to tell of the tokens of replies besides their log-probabilities, in one pass.

    The attention signals are read from the policy itself, of replies alone: prompts and other turns count nowhere.
    WAAD and FAI are arXiv 2510.13554, eq. 9 and 10, over heads whose mean span over replies is short or long.
    """

    names: frozenset[Signal] = frozenset()
    layers: int = 5
    """Layers that are read, evenly spaced over the middle third; of `received` it is the last one alone."""
    local: float = 0.3
    """Share of those layers' heads that count as local: the shortest spans. `waad` is their mean."""
    distant: float = 0.3
    """Share of the longest spans. `fai` is their mean."""
    without_sink: bool = False
    """Spans leave out what heads park on the first token."""
    window: int = 10
    """W of WAAD, tokens."""
    horizon: tuple[int, int | None] = (10, 100)
    """Of FAI: a token is read by those from so many to so many tokens later; None: to the reply's end."""
    rows: Literal["last", "later"] = "last"
    """Whose attention `received` is: the last token's, or the mean of all from the token itself on."""
    split: Split = "paragraph"
    """What the steps of `influence` end with: an empty line, a line, or a sentence."""
    proximity: int = 4
    """A step's `influence` is on steps at least so many later (arXiv 2509.26628)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's typed answer on one reply. An unparsed reply is never correct and agrees with nothing."""

    answer: str | None
    correct: bool
    labels: Mapping[str, str] | None = field(default=None, hash=False)
    """What a judge model called each part of the reply. None: no model judges; empty: there was nothing to judge, or
    what the model said could not be read."""
    timed_out: bool = False
    """Nobody knows whether the answer is right: its grading was ended at a deadline, or died. It counts as wrong."""

    @property
    def is_parsed(self) -> bool:
        return self.answer is not None and not self.is_excluded

    @property
    def is_excluded(self) -> bool:
        """A model was to judge, and no label came of it: the reply belongs in no rate."""
        return self.labels is not None and not self.labels


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """In round `round`, `target` read what `source` had said, in the prompt of its own turn for `purpose`.

    Agents may read several turns of a peer in a round, and one turn for several purposes; each is an edge.
    """

    round: int
    source: str
    target: str
    turn: str = ""
    """Key of the turn of `source` that was read."""
    purpose: str = "answer"
    """What the turn of `target` that read it was for, as in `Place.purpose`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a protocol coroutine returns: the society's answer and how it came about.

    `rounds[r][agent]` is the key of the turn by which the agent stands after round r: its own of that round, or, if it
    kept silent, its last one. `answer` None means: no answer (unparsed, or a tie
    that the decision rule leaves open); `decision` says which rule spoke and how.
    """

    answer: str | None
    rounds: tuple[Mapping[str, str], ...]
    edges: tuple[Edge, ...] = ()
    decision: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    turns: tuple[str, ...] = ()
    """Keys of all turns the episode asked for, also those in no round; filled in by the worker, not by protocols."""


class Grader(Protocol):
    """Turns replies into verdicts. The only holder of gold answers."""

    def grade(self, task_id: str, answer: str | None) -> Verdict:
        """Judge a parsed answer; may be called from several threads. Raises KeyError for an unknown task."""
        ...


@runtime_checkable
class ModelGrader(Grader, Protocol):
    """A grader that leaves the verdict to a model: it writes the prompt, which alone holds gold, and reads the reply.

    Its `grade` gives the verdict on a reply that the model was not asked about, with empty labels.
    """

    @property
    def judge(self) -> str:
        """The policy that is asked, by name. It may sit at no seat."""
        ...

    def judge_prompt(self, task_id: str, answer: str) -> Messages:
        """What the judge is asked about a parsed answer, which is untrusted. Raises KeyError for an unknown task."""
        ...

    def read_judgement(self, answer: str, said: str) -> Verdict:
        """The verdict in a judge's reply, with labels; with empty ones, and not correct, if it cannot be read."""
        ...


class Embedder(Protocol):
    """Maps texts to vectors."""

    def embed(self, texts: Sequence[str]) -> Any:
        """float32 array [len(texts), dim], rows of unit length; zero for a text without tokens."""
        ...


@dataclass(frozen=True, slots=True)
class ObservationLayout:
    """What the numbers of an observation are: oneself, then each neighbour, then obstacles.

    The slot of a neighbour whose numbers are all zero is empty.
    """

    self_size: int
    num_neighbours: int = 0
    neighbour_size: int = 6
    obstacle_size: int = 0

    @property
    def size(self) -> int:
        """All of them."""
        return self.self_size + self.num_neighbours * self.neighbour_size + self.obstacle_size


@dataclass(frozen=True, slots=True)
class WorldSpec:
    """What a policy is built for.

    Attributes:
        num_agents: N.
        observation_size: D, numbers that each agent observes.
        action: `continuous`: A numbers, which the world clips; `discrete`: one of A.
        action_size: A.
        layout: None: nothing is known of what the numbers mean.
    """

    num_agents: int
    observation_size: int
    action: Literal["continuous", "discrete"]
    action_size: int
    layout: ObservationLayout | None = None


class WorldStep(NamedTuple):
    """What a step of a `World` returns; the next call may overwrite the arrays.

    Attributes:
        observation: float32 [E, N, D]. Of an environment that is over: how it ended.
        reward: float32 [E, N].
        terminated: bool [E, N]: the agent is done; nothing that follows is worth anything.
        truncated: bool [E]: the time is up; what would have followed is worth something.
    """

    observation: NDArray[np.float32]
    reward: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


class World(Protocol):
    """E environments of N agents that act at once. Nothing is reset unless it is asked for.

    Attributes:
        spec: What a policy has to fit.
        num_envs: E.
        agent_steps: Steps of all agents so far; what grows with training follows it.
        device: Where it is stepped. On `cpu` it takes and gives arrays; on `cuda` tensors there in place of all of
            them, but for its state.
    """

    spec: WorldSpec
    num_envs: int
    agent_steps: int
    device: str

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Whose actions count, [E, N]."""
        ...

    @property
    def done(self) -> NDArray[np.bool_]:
        """Which environments are over and wait for a reset, [E]."""
        ...

    def reset(self, mask: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Begin an episode where mask [E] is set, or everywhere; observations [E, N, D]."""
        ...

    def stagger(self, seed: int) -> None:
        """Right after a reset: cut these episodes short at random, so that later ones do not all end at once.

        Those that are cut short are in no metrics. A world whose episodes are short may do nothing.
        """
        ...

    def step(self, actions: ArrayLike) -> WorldStep:
        """One step of everything; actions float32 [E, N, A] or, where they are discrete, int64 [E, N]."""
        ...

    def finished(self) -> list[dict[str, float | str]]:
        """Metrics of each episode that ended since the last call; to be asked before those are reset."""
        ...

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """All that decides what follows, as copies."""
        ...

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put it back: the same actions then give the same steps, bit for bit."""
        ...

    def close(self) -> None:
        """Let threads and processes go."""
        ...
