"""What an evaluation of a society's training asks: who works the held-out tasks, by which protocol and weights.

A cell is one society of one run. The solo protocols are worked by one agent, once with each trained policy; all others
by the seats of the training, with all policies together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie import registry
from coterie.config.schema import ExperimentConfig
from coterie.errors import ConfigError

DEFAULT = ("single", "self_consistency", "debate", "autogen")
_SOLO_SEAT = "solo"
Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked of trained and of untrained policies.

    Attributes:
        protocols: Names.
        limit: Only so many of the held-out tasks; None: all of them.
        samples: Of `self_consistency`; None: as many as it takes by itself.
        temperature: None: as in the training.
        seed: Of what is drawn; None: the training's.
    """

    protocols: tuple[str, ...] = DEFAULT
    limit: int | None = None
    samples: int | None = None
    temperature: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """A society of a run.

    Attributes:
        protocol: Its config.
        label: What its episodes are called after.
        seats: Who sits in it.
        policies: By name, as configs.
        weights: SHA-256 of each trained policy's weights; empty where all are untrained.
        speaker: The policy that speaks alone; empty: all of them.
    """

    protocol: Config
    label: str
    seats: Sequence[Config]
    policies: Mapping[str, Config]
    weights: Mapping[str, str]
    speaker: str

    @property
    def is_trained(self) -> bool:
        """Whether any of its policies is."""
        return bool(self.weights)

    def identify(self, frame: Config) -> str:
        """A hash of all that its answers follow from; where weights lie and what a lone policy is called is no part."""
        names = {name: "" if self.speaker else name for name in self.policies}
        who = {names[name]: [policy, self.weights.get(name, "")] for name, policy in self.policies.items()}
        seats = [{**seat, "policy": names[seat["policy"]]} for seat in self.seats]
        content = json.dumps([self.protocol, seats, who, frame], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Row:
    """A protocol and who works it: the cells that are compared."""

    protocol: str
    speaker: str
    trained: Cell
    untrained: Cell


def rows_of(config: ExperimentConfig, weights: Mapping[str, str], questions: Questions) -> list[Row]:
    """All that is compared, in the order of the protocols.

    Args:
        config: Of the training.
        weights: SHA-256 of what each policy learnt.
        questions: What is asked.

    Raises:
        ConfigError: There is no such protocol.
    """
    dumped = json.loads(config.model_dump_json())
    for policy in dumped["policies"].values():
        policy.pop("frozen")
        policy["engine"].pop("sleep", None)  # There is no learner to give way to.
        if questions.temperature is not None:
            policy["sampling"]["temperature"] = questions.temperature
    found = []
    for name in questions.protocols:
        protocol, label = _protocol(name, config, questions)
        is_solo = getattr(registry.load(registry.get("protocol", name).config), "solo", False)
        for speaker in weights if is_solo else [""]:
            both = [_cell(protocol, label, dumped, known, speaker) for known in (weights, {})]
            found.append(Row(name, speaker, *both))
    return found


def _protocol(name: str, config: ExperimentConfig, questions: Questions) -> tuple[Config, str]:
    """Its config and its label; that of the training where it is the training's own."""
    if name not in registry.names("protocol"):
        known = ", ".join(registry.names("protocol"))
        raise ConfigError(f"there is no protocol {name!r}", where="--protocol", remedy=f"known: {known}")
    if name == config.protocol.kind:
        made: Any = config.protocol
    else:
        samples = {"samples": questions.samples} if name == "self_consistency" and questions.samples else {}
        made = registry.load(registry.get("protocol", name).config).model_validate({"kind": name, **samples})
    return json.loads(made.model_dump_json()), made.label


def _cell(protocol: Config, label: str, config: Config, weights: Mapping[str, str], speaker: str) -> Cell:
    if speaker:
        seats = [{"name": _SOLO_SEAT, "policy": speaker, "persona": "", "count": 1}]
        known = {name: digest for name, digest in weights.items() if name == speaker}
        return Cell(protocol, label, seats, {speaker: config["policies"][speaker]}, known, speaker)
    return Cell(protocol, label, config["seats"], config["policies"], weights, "")


@dataclass(frozen=True, slots=True)
class Batch:
    """Cells that one run works, so that its engines are started once: its society, and the lone agents beside it."""

    main: Cell
    others: tuple[Cell, ...]

    def config(self, frame: Config, folders: Mapping[str, Path]) -> Config:
        """An experiment, as its file would have it.

        Args:
            frame: What all runs of the evaluation have in common.
            folders: By trained policy, where its weights lie.
        """
        policies = {
            name: {**policy, **_place(folders[name])} if name in self.main.weights else policy
            for name, policy in self.main.policies.items()
        }
        return {
            **frame, "name": self.name, "policies": policies, "seats": list(self.main.seats),
            "protocol": self.main.protocol, "baselines": [cell.protocol for cell in self.others],
        }  # fmt: skip

    @property
    def name(self) -> str:
        """For people: which policies, under which protocols."""
        labels = [cell.label for cell in (self.main, *self.others)]
        who = [self.main.speaker] if self.main.speaker and self.main.is_trained else []
        return "-".join(["trained" if self.main.is_trained else "untrained", *who, *labels])[:60]


def _place(folder: Path) -> Config:
    """Which fields of a policy name its weights: an adapter's folder, or a whole model's."""
    return {"adapter" if (folder / "adapter_config.json").is_file() else "model": str(folder)}


def batches_of(cells: Sequence[Cell]) -> Iterator[Batch]:
    """Cells in as few runs as can be. Lone agents go with a society whose first seat has the same policy."""
    left = [cell for cell in cells if cell.speaker]
    for team in (cell for cell in cells if not cell.speaker):
        mine = [cell for cell in left if _brain(cell, cell.speaker) == _brain(team, team.seats[0]["policy"])]
        left = [cell for cell in left if cell not in mine]
        yield Batch(team, tuple(mine))
    while left:
        mine = [cell for cell in left if _brain(cell, cell.speaker) == _brain(left[0], left[0].speaker)]
        left = [cell for cell in left if cell not in mine]
        yield Batch(mine[0], tuple(mine[1:]))


def _brain(cell: Cell, policy: str) -> tuple[Config, str]:
    """What answers follow from; untrained policies of one model are one."""
    return cell.policies[policy], cell.weights.get(policy, "")
