"""The page `report/credit.html`: replies whose tokens are shaded by what credit saw in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from coterie.agents.engines import models
from coterie.agents.engines.tokens import ChatTokenizer
from coterie.config.schema import ExperimentConfig
from coterie.experiments.attempt import load_resolved
from coterie.experiments.folder import RunFolder, write_atomically
from coterie.experiments.inspection.credit import Spelling, read_credit
from coterie.experiments.report.page import make_environment

MEANINGS = {
    "waad": "how far local heads look back from the token, in tokens, at most W",
    "fai": "mean attention that global heads of later tokens pay to it",
    "influence": "attention that later steps pay to the token's step",
    "received": "attention that the reply pays to it",
    "value": "what replies earn on average that go on from the beginning of its step",
    "entropy": "how unsure the policy was of it, in nats",
    "factor": "what its advantage is multiplied by",
    "added": "what is added to that",
}


def write_credit_page(folder: RunFolder, iteration: int | None, most: int) -> Path:
    """Write the page of one iteration.

    Raises:
        ConfigError: The run has no token credit, or none of that iteration.
        EnvironmentMissing: The tokenizer of a policy's model is missing.
    """
    config = load_resolved(folder).config
    policies = config.policies if isinstance(config, ExperimentConfig) else {}
    known: dict[str, ChatTokenizer] = {}

    def spell(policy: str) -> Spelling:
        model = policies[policy].model
        if model not in known:
            known[model] = ChatTokenizer.load(models.resolve(model), 1 << 20)
        return lambda ids: _pieces(known[model], ids)

    turns, grids = read_credit(folder, spell, iteration, most)
    page = (
        make_environment()
        .get_template("credit.html.j2")
        .render(name=config.name, turns=turns, grids=grids, meanings=MEANINGS)
    )
    folder.report.mkdir(mode=0o700, exist_ok=True)
    path = folder.report / "credit.html"
    write_atomically(path, page + "\n")
    return path


def _pieces(tokenizer: ChatTokenizer, ids: Sequence[int]) -> list[str]:
    """The text of each token; where several make up one character, the last of them has it."""
    text, places = tokenizer.spell_out(ids)
    return [text[begin:end] for begin, end in places]
