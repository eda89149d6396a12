"""Personas: the character an agent is given, as the text of its system message.

The traits come from MachineSoM (arXiv 2310.02124, section 2): *easy-going* agents weigh views and can be persuaded,
*overconfident* ones are sure of themselves and try to persuade. The words are ours.
"""

from __future__ import annotations

import difflib
import re

from coterie import registry
from coterie.agents.prompts import template
from coterie.errors import ConfigError

EASY_GOING = template("persona_easy_going").text.strip()
OVERCONFIDENT = template("persona_overconfident").text.strip()


def resolve_persona(persona: str) -> str:
    """The text of a registered persona, or the free text itself.

    Raises:
        ConfigError: a single word that is no registered persona (free text has at least two words).
    """
    if not persona or re.search(r"\s", persona.strip()):
        return persona.strip()
    if persona in (known := registry.names("persona")):
        return str(registry.impl("persona", persona))
    near = difflib.get_close_matches(persona, known, 1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    raise ConfigError(
        f"there is no persona {persona!r}",
        remedy=f"{hint}known: {', '.join(known)}; a persona of your own is a text of two words or more",
    )
