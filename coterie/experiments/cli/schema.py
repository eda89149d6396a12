"""`coterie schema`: the experiment file as JSON Schema, for editors."""

from __future__ import annotations

import json


def schema() -> None:
    """Print the JSON Schema of experiment files."""
    from coterie.config.load import json_schema

    print(json.dumps(json_schema(), indent=2))
