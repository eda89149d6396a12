"""Datasets of the hub, from its library's cache: no test has a network."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from coterie import registry
from coterie.envs.benchmarks.config import CustomConfig
from coterie.envs.benchmarks.custom import Custom
from coterie.errors import ConfigError, EnvironmentMissing
from coterie.testing.benchmarks import check_benchmark

OPTIONS = ["1", "2", "3", "4"]
REVISION = "0" * 40
COPIES: dict[str, tuple[str, str, str, list[dict[str, Any]], list[str], dict[str, Any]]] = {
    "gsm8k": ("openai/gsm8k", "main", "test", [{"question": "3 + 9?", "answer": "add\n#### 12"}], ["12"], {}),
    "svamp": ("ChilleD/SVAMP", "default", "test",
              [{"ID": "c-1", "Body": "Kim has 12 beans", "Question": "How many beans?", "Equation": "12",
                "Answer": "12.0", "Type": "Sum"}], ["12"], {}),
    "gsm_hard": ("reasoning-machines/gsm-hard", "default", "train",
                 [{"input": "12 or more?", "code": "", "target": 12.5}], ["12.5"], {}),
    "aqua": ("deepmind/aqua_rat", "raw", "validation",
             [{"question": "2 + 2?", "options": [f"{one}){n}" for n, one in enumerate("ABCDE")],
               "rationale": "so E", "correct": "E"}], ["E"], {"split": "dev"}),
    "math500": ("HuggingFaceH4/MATH-500", "default", "test",
                [{"problem": "Factor.", "solution": "", "answer": "2(k+3)", "subject": "Algebra", "level": 2,
                  "unique_id": "test/algebra/1.json"}], ["2(k+3)"], {}),
    "mmlu": ("cais/mmlu", "all", "test",
             [{"question": "1 + 3?", "subject": "virology", "choices": OPTIONS, "answer": 3},
              {"question": "1 + 1?", "subject": "anatomy", "choices": OPTIONS, "answer": 1}], ["B", "D"], {}),
    "bbh": ("lukaemon/bbh", "navigate", "test",
            [{"input": "Are you back?\nOptions:\n- Yes\n- No", "target": "No"}], ["No"], {"task": "navigate"}),
}  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def write(hub: Path, name: str, config: str, split: str, rows: list[dict[str, Any]], revision: str = REVISION) -> None:
    """Leave a dataset in the cache as if it had been downloaded."""
    import datasets
    from datasets.naming import camelcase_to_snakecase

    source = hub / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    made = datasets.load_dataset("json", data_files={split: str(source)}, cache_dir=str(hub / revision / name))[split]
    owner, short = name.split("/")
    short = camelcase_to_snakecase(short)
    place = hub / "cache" / f"{owner}___{short}" / config / "0.0.0" / revision
    shutil.copytree(Path(made.cache_files[0]["filename"]).parent, place)
    (place / f"json-{split}.arrow").rename(place / f"{short}-{split}.arrow")
    info = json.loads((place / "dataset_info.json").read_text())
    info |= {
        "dataset_name": short,
        "config_name": config,
        "splits": {split: {**info["splits"][split], "dataset_name": short}},
    }
    (place / "dataset_info.json").write_text(json.dumps(info))


@pytest.mark.parametrize("kind", COPIES)
def test_rows_in_the_form_of_the_hub_keep_the_contract(hub: Path, kind: str) -> None:
    name, config, split, rows, golds, fields = COPIES[kind]
    made, settings = registry.impl("benchmark", kind), registry.load(registry.get("benchmark", kind).config)(**fields)
    write(hub, name, config, split, rows, sys.modules[made.__module__]._REVISION)
    by_id = dict(zip((task.id for task in made(settings, 0, hub).tasks()), golds, strict=True))
    check_benchmark(lambda: made(settings, 0, hub), lambda task: by_id[task.id])


def custom(**fields: Any) -> Custom:
    settings = {"hub": {"id": "someone/rows", "revision": REVISION, "split": "dev", "config": "hard"},
                "fields": {"question": "q", "answer": "a"}, "answer_type": "number", **fields}  # fmt: skip
    return Custom(CustomConfig.model_validate(settings), 0, Path())


def test_any_dataset_can_be_mapped(hub: Path) -> None:
    write(hub, "someone/rows", "hard", "dev", [{"q": "3 + 9?", "a": 12}])
    check_benchmark(custom, lambda task: "12")
    with pytest.raises(ConfigError, match="no column 'gold'"):
        custom(fields={"question": "q", "answer": "gold"})


def test_a_broken_row_of_a_dataset_is_named(hub: Path) -> None:
    write(hub, "someone/rows", "hard", "dev", [{"q": "3 + 9?", "a": "12"}, {"q": "3 + 8?", "a": "many"}])
    with pytest.raises(ConfigError) as error:
        custom()
    assert error.value.where == "benchmark: someone/rows@00000000, row 2"


def test_another_revision_in_the_cache_is_not_taken(hub: Path) -> None:
    write(hub, "someone/rows", "hard", "dev", [{"q": "3 + 9?", "a": 12}], revision="1" * 40)
    with pytest.raises(EnvironmentMissing, match="cannot load someone/rows from the hub"):
        custom()


def test_a_folder_of_the_same_name_is_not_taken(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hub)
    (hub / "someone" / "rows").mkdir(parents=True)
    (hub / "someone" / "rows" / "dev.jsonl").write_text('{"q": "3 + 9?", "a": 12}\n')
    with pytest.raises(EnvironmentMissing, match="cannot load someone/rows from the hub"):
        custom()


def test_without_a_hub_one_error_says_so_at_once(
    hub: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    began = time.monotonic()
    with pytest.raises(EnvironmentMissing, match="Connection refused") as error:
        custom()
    assert time.monotonic() - began < 5
    assert "`path`" in error.value.remedy and capfd.readouterr().err == ""
