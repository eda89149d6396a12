from pathlib import Path

import pytest

from coterie import registry
from coterie.config import schema
from coterie.config.yaml import parse
from coterie.experiments.cli.init import TEMPLATES, example
from coterie.experiments.cli.main import main

DOCS = Path(__file__).parents[2] / "docs"
SECTIONS = (
    "ExperimentConfig",
    "WorldConfig",
    "PolicyConfig",
    "SamplingConfig",
    "PriceConfig",
    "SeatConfig",
    "BudgetConfig",
    "StudyConfig",
)
PARTS = [
    entry for kind in registry.KINDS for entry in registry.entries(kind) if entry.config and entry.origin == "coterie"
]


def pages() -> str:
    return "".join((DOCS / name).read_text("utf-8") for name in ("experiment-file.md", "tracking.md"))


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_names_every_field_of_a_section(section: str) -> None:
    fields = getattr(schema, section).model_fields
    assert [name for name in fields if f"`{name}`" not in pages()] == []


@pytest.mark.parametrize("part", PARTS, ids=lambda entry: f"{entry.kind} {entry.name}")
def test_the_page_names_every_part_and_its_fields(part: registry.Entry) -> None:
    fields = registry.load(part.config).model_fields
    assert [name for name in (part.name, *fields) if name != "kind" and f"`{name}`" not in pages()] == []


def test_the_page_shows_the_example_as_init_writes_it() -> None:
    assert example().rstrip() in (DOCS / "experiment-file.md").read_text("utf-8")


def test_the_example_in_examples_and_in_the_readme_is_the_one_that_init_writes() -> None:
    root = DOCS.parent
    path = root / "examples" / "society.yaml"
    # Neither Windows nor a downloaded archive has links.
    assert path.read_text("utf-8") == example() and not path.is_symlink()
    assert f"```yaml\n{example()}```" in (root / "README.md").read_text("utf-8")


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_is_written_under_its_name_and_is_the_example(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--template", template]) == 0
    written = (tmp_path / TEMPLATES[template]).read_text("utf-8")
    shown = (DOCS.parent / "examples" / TEMPLATES[template]).read_text("utf-8")
    assert written.partition("\nname:")[2] == shown.partition("\nname:")[2] != ""
    assert main(["init", "--template", "choir"]) == 2


def test_every_section_of_the_example_has_its_own_heading() -> None:
    root, _ = parse(example(), "example")
    headings = [
        line for line in (DOCS / "experiment-file.md").read_text("utf-8").splitlines() if line.startswith("## ")
    ]
    sections = set(dict(root.children())) - {"name", "seed", "determinism"}
    assert [name for name in sections if not any(f"`{name}`" in heading for heading in headings)] == []
