"""The sections of an experiment file, as typed models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from coterie.config.base import Config, KindConfig, OneOf
from coterie.types import Sampling

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
_EXTENDS = {"type": "string", "description": "A file, relative to this one, that this one is laid on."}
# Society S<k> of MachineSoM (arXiv 2310.02124, section 2): three agents, of whom k - 1 are easy-going.
SOCIETIES = {"S1": (3, 0), "S2": (2, 1), "S3": (1, 2), "S4": (0, 3)}


class SamplingConfig(Config):
    """How replies are drawn."""

    temperature: float = Field(0.7, ge=0, le=5)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draw from the smallest set of tokens with at least this probability; 1 is off."""
    top_k: int = Field(0, ge=0)
    """0 is off."""
    max_tokens: int = Field(64, ge=1, le=131_072)
    """The longest reply, in tokens."""
    stop: tuple[str, ...] = ()
    """Strings that end a reply."""

    def build(self) -> Sampling:
        """The same as engines take it."""
        return Sampling(self.temperature, self.top_p, self.top_k, self.max_tokens, self.stop)


class PriceConfig(Config):
    """Price of a policy, in a currency of your choice per million tokens."""

    prompt: float = Field(0, ge=0)
    completion: float = Field(0, ge=0)
    currency: str = "USD"


class PolicyConfig(Config):
    """Weights, the engine that samples from them, and how it samples."""

    model_config = ConfigDict(defer_build=True)

    engine: Annotated[KindConfig, OneOf("engine")] = Field(default="auto")  # type: ignore[assignment]
    """What generates the text."""
    model: str = "smollm2-135m"
    """A hub id, a local path, or a built-in name (`coterie ls models`)."""
    adapter: str = ""
    """A folder with a LoRA adapter, as peft writes it, for the model; relative to this file."""
    sampling: SamplingConfig = SamplingConfig()
    frozen: bool = False
    """With `learning`: this policy is not trained."""
    price: PriceConfig | None = None
    """Shows cost in money."""


class SeatConfig(Config):
    """A named place in the society; with `count: n` the agents are `name-1` to `name-n`."""

    name: Name
    policy: Name = "default"
    persona: str = ""
    """A registered persona (`coterie ls personas`), free text of at least two words, or empty for none."""
    count: int = Field(1, ge=1, le=1000)
    """How many agents sit here."""

    @property
    def agents(self) -> tuple[str, ...]:
        """The names of those who sit here."""
        return (self.name,) if self.count == 1 else tuple(f"{self.name}-{i}" for i in range(1, self.count + 1))


class TimeBudget(Config):
    """How long a run may take; without a limit it takes as long as it needs."""

    seconds: float | None = Field(None, gt=0)
    """Wall time of one attempt, of a world without its start; of a society only with `determinism: statistical`."""


class BudgetConfig(TimeBudget):
    """Hard limits. Tokens count prompts and replies; a limit that is absent does not bind."""

    tokens: int | None = Field(None, ge=1)
    """For the whole run."""
    calls: int | None = Field(None, ge=1)
    """Replies of engines, for the whole run."""
    task_tokens: int | None = Field(None, ge=1)
    """For each task worked by each society."""
    task_calls: int | None = Field(None, ge=1)


class CreditConfig(Config):
    """Who and what earned the reward, among agents and then among tokens; see `docs/credit.md`."""

    model_config = ConfigDict(defer_build=True)

    agent: Annotated[KindConfig, OneOf("agent_credit")] | None = None
    """Shares an episode's team reward among its agents and turns, before advantages are estimated."""
    token: Annotated[KindConfig, OneOf("token_credit")] | None = None
    """Shapes advantages token by token; none: every token of a turn is worth the same."""

    @model_validator(mode="before")
    @classmethod
    def _shorthands(cls, data: Any) -> Any:
        return expand_credit(data)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        rules = [rule for rule in schema["properties"]["token"]["anyOf"] if rule != {"type": "null"}]
        return {"anyOf": [*rules, schema]}


class StudyConfig(Config):
    """How far what agents contribute agrees with what is lost without them; worked by `coterie study`.

    Every episode is replayed with agents hidden, see `docs/credit.md`.
    """

    model_config = ConfigDict(defer_build=True)

    protocols: tuple[Annotated[KindConfig, OneOf("protocol")], ...] = ()
    """Protocols beside `protocol`, worked by the same seats on the same tasks."""
    draws: int = Field(4, ge=4, le=1000)
    """How often a coalition of agents works an episode again, each time with other tokens."""
    shapley: int = Field(0, ge=0)
    """Of how many tasks, the first ones, all coalitions are replayed for Shapley values: 2^N of N agents."""
    counterfactual: int = Field(0, ge=0)
    """Of how many tasks each agent's messages are drawn anew, as in COMA."""
    measures: tuple[Literal["attention", "psi"], ...] = Field(("attention", "psi"), min_length=1)
    """What is compared with replays: the attention of the policies' models, and SelfOrg's psi."""
    embedder: str = "minilm"
    """Turns messages into vectors for psi: a built-in name (`coterie ls embedders`), a hub id or a folder."""


class FileConfig(Config):
    """What every experiment file has, of a society or of a world."""

    # Built on first use, and again by the loader once plugins have registered more kinds.
    model_config = ConfigDict(defer_build=True)

    name: Name
    """What the run folder is called after."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Where all randomness of the run is counted from."""
    determinism: Literal["exact", "statistical"] = "statistical"
    """`exact` repeats a run bit by bit, also after a crash; `statistical` batches as calls come, and is faster."""
    imports: tuple[str, ...] = ()
    """Plugin modules: paths of .py files relative to this file, or importable names."""
    budget: TimeBudget = TimeBudget()
    executor: Annotated[KindConfig, OneOf("executor")] = Field(default="local")  # type: ignore[assignment]
    """Where the work is done."""
    track: tuple[Annotated[KindConfig, OneOf("tracker")], ...] = ()
    """Where metrics are sent besides the journal."""
    # Not dumped: each of its experiments is a run of its own, which knows nothing of the others.
    sweep: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict, exclude=True)
    """Fields by path, each with its values: `coterie sweep` runs every combination."""


class WorldCreditConfig(Config):
    """What of its team's reward each agent learns from; see `docs/credit.md`."""

    model_config = ConfigDict(defer_build=True)

    agent: Annotated[KindConfig, OneOf("world_credit")]
    """Shares the team's reward among its agents at every step; what each earned by itself is then not looked at."""


class WorldConfig(FileConfig):
    """The experiment file of a world, whose agents act at once and learn: one with the section `env`."""

    env: Annotated[KindConfig, OneOf("env")]
    """Where the agents act."""
    policy: Annotated[KindConfig, OneOf("policy")]
    """What all of them act by."""
    learning: Annotated[KindConfig, OneOf("learner", trains="world")]
    """How the policy is trained."""
    credit: WorldCreditConfig | None = None
    """What of its team's reward each agent learns from; null: from what the world gives it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the policy acts and learns; `auto` takes a GPU where there is one."""
    checkpoint_every: int = Field(10, ge=1)
    """Iterations from one checkpoint to the next: what a killed run does again, at most."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        schema["properties"]["extends"] = _EXTENDS
        required = schema.pop("required")
        return {**schema, "anyOf": [{"required": ["extends"]}, {"required": required}]}


class ExperimentConfig(FileConfig):
    """The experiment file of a society, which works a benchmark."""

    policies: dict[Name, PolicyConfig] = Field(min_length=1)
    """Policies by name. A single one may be written as `policy:`; seats need not name it then."""
    seats: tuple[SeatConfig, ...] = Field(min_length=1)
    """Who takes part; or `S1` to `S4`, the societies of MachineSoM."""
    protocol: Annotated[KindConfig, OneOf("protocol")]
    """Who speaks when, to whom."""
    baselines: tuple[Annotated[KindConfig, OneOf("protocol")], ...] = Field(default=("single", "self_consistency"))  # type: ignore[arg-type]
    """Protocols to compare with, each worked by one agent without a persona on the first seat's policy."""
    benchmark: Annotated[KindConfig, OneOf("benchmark")]
    """Where the tasks come from."""
    rewards: tuple[Annotated[KindConfig, OneOf("reward")], ...] = ()
    """What turns are worth once an episode is over (`coterie ls rewards`); journalled, and averaged in the report."""
    probes: tuple[Annotated[KindConfig, OneOf("probe")], ...] = ()
    """What agents are asked about their own answers once an episode is over (`coterie ls probes`)."""
    budget: BudgetConfig = BudgetConfig()
    learning: Annotated[KindConfig, OneOf("learner", trains="society")] | None = None
    """Trains the policies on what their turns are worth; without it the society is only run."""
    credit: CreditConfig | None = None
    """With `learning`: which agents and which tokens earned the reward; the name of a token rule is short for it."""
    study: StudyConfig | None = None
    """Replays every episode without its agents and compares credits: `coterie study`."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """With `learning`: where policies learn; `auto` takes a GPU where there is one."""
    checkpoint_every: int = Field(1, ge=1)
    """With `learning`: iterations from one checkpoint to the next; a killed run does the updates since then again, its
    turns not."""

    @model_validator(mode="before")
    @classmethod
    def _shorthands(cls, data: Any) -> Any:
        return expand_shorthands(data) if isinstance(data, dict) else data

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core))
        fields = schema["properties"]
        policy = fields["policies"]["patternProperties"][NAME_PATTERN]
        fields["policy"] = {**policy, "description": "Short for `policies: {default: ...}`."}
        seats = fields["seats"]
        fields["seats"] = {"anyOf": [seats, {"enum": list(SOCIETIES)}], "description": seats.pop("description")}
        fields["extends"] = _EXTENDS
        required = [name for name in schema.pop("required") if name != "policies"]
        whole = {"required": required, "oneOf": [{"required": ["policies"]}, {"required": ["policy"]}]}
        return {**schema, "anyOf": [{"required": ["extends"]}, whole]}


def expand_credit(data: Any) -> Any:
    """A token rule's name, or its config, as `{token: ...}`."""
    is_rule = isinstance(data, str) or (isinstance(data, dict) and "kind" in data)
    return {"token": data} if is_rule else data


def expand_shorthands(data: dict[str, Any]) -> dict[str, Any]:
    """`policy:` as `policies: {default: ...}`, and a society's name (`seats: S2`) as its seats."""
    data = dict(data)
    if "policy" in data and "policies" not in data:
        data["policies"] = {"default": data.pop("policy")}
    if isinstance(data.get("seats"), str) and data["seats"] in SOCIETIES:
        bold, calm = SOCIETIES[data["seats"]]
        policies = data.get("policies")
        policy = next(iter(policies), "default") if isinstance(policies, dict) else "default"
        seats = [("bold", "overconfident", bold), ("calm", "easy_going", calm)]
        data["seats"] = [{"name": n, "policy": policy, "persona": p, "count": c} for n, p, c in seats if c]
    if data.get("learning") is not None or data.get("study") is not None:
        # Trained is the society under test; evaluation compares it with others.
        data.setdefault("baselines", ())
    return data
