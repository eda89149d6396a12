import json
from pathlib import Path

import pytest

from coterie.config.load import json_schema, load, loads
from coterie.config.problems import InvalidConfig
from coterie.config.schema import ExperimentConfig, WorldConfig
from coterie.errors import ConfigError
from coterie.experiments.cli.init import example

LAYOUT = """\
society.yaml:3:59 policies.base.sampling.temperature  expected a number, got "hot"
society.yaml:5:7  seats[0].cuont  unknown key
        did you mean "count"?            (known: count, name, persona, policy)
2 errors, nothing was started."""


def write(folder: Path, text: str, name: str = "society.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def refuse(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return str(caught.value)


def test_errors_are_laid_out_in_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, """\
name: layout
policies:
  base: {engine: scripted, sampling: {temperature:        hot}}
seats:
    - cuont: 2
      name: calm
      policy: base
protocol: machinesom
benchmark: {kind: reasoning_gym, task: chain_sum}
""")  # fmt: skip
    assert refuse(Path("society.yaml")) == LAYOUT


def test_the_example_is_valid_and_fits_a_screen(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, example()))
    assert [seat.name for seat in loaded.config.seats] == ["calm", "bold"]
    assert len(example().splitlines()) <= 32
    assert list(loaded.source_files) == [str(tmp_path / "society.yaml")]


def test_what_was_resolved_loads_again_to_the_same(tmp_path: Path) -> None:
    config = load(write(tmp_path, example()), ["executor=ray", "track=[tensorboard]", "name=again"]).config
    assert loads(json.loads(config.model_dump_json())).config == config
    assert loads(config).config == config


def test_mistakes_in_a_mapping_are_placed_in_the_config() -> None:
    with pytest.raises(InvalidConfig) as caught:
        loads({"name": "x", "seed": "3"}, ["sed=1"])
    lines = str(caught.value).splitlines()
    assert "-o sed=1 sed  unknown key" in lines
    assert 'config   seed  expected a whole number, got "3"' in lines


def test_problems_survive_the_way_between_processes() -> None:
    import copy

    with pytest.raises(InvalidConfig) as caught:
        loads({"name": "x"})
    assert str(copy.copy(caught.value)) == str(caught.value)


def test_a_single_policy_may_stand_alone(tmp_path: Path) -> None:
    text = example().replace("policy: base, ", "")
    text = text.replace("policies:   ", "policy:").replace("  base:\n    engine", "    engine")
    assert load(write(tmp_path, text)).config.policies["default"].model == "smollm2-135m"
    message = refuse(tmp_path / "society.yaml", "policy.engine=vlm")
    assert message.startswith('-o policy.engine=vlm policy.engine  unknown engine "vlm"')


def test_a_society_of_the_paper_is_named_by_its_number(tmp_path: Path) -> None:
    config = load(write(tmp_path, example()), ["seats=S2"]).config
    assert [(seat.persona, seat.count, seat.policy) for seat in config.seats] == [
        ("overconfident", 2, "base"), ("easy_going", 1, "base"),
    ]  # fmt: skip


def test_yaml_is_read_by_the_rules_of_1_2(tmp_path: Path) -> None:
    text = example().replace("name: three-minds", "name: no").replace("seed: 7", "seed: 0o17")
    config = load(write(tmp_path, text)).config
    assert (config.name, config.seed) == ("no", 15)


def test_an_alias_stands_for_its_anchor(tmp_path: Path) -> None:
    text = example().replace("base:\n", "base: &base\n").replace("seats:", "  other: *base\nseats:", 1)
    assert load(write(tmp_path, text)).config.policies["other"].sampling.max_tokens == 32


# extends


def test_a_file_is_laid_on_what_it_extends_over_several_levels(tmp_path: Path) -> None:
    write(tmp_path, example(), "shared/base.yaml")
    middle = "extends: base.yaml\nseed: 8\npolicies: {base: {sampling: {max_tokens: 8}}}\n"
    write(tmp_path, middle, "shared/middle.yaml")
    path = write(tmp_path, "extends: shared/middle.yaml\nbaselines: [single]\nname: top\n")
    loaded = load(path)
    sampling = loaded.config.policies["base"].sampling
    assert (loaded.config.name, loaded.config.seed) == ("top", 8)
    assert (sampling.max_tokens, sampling.temperature) == (8, 0.7)
    assert [baseline.kind for baseline in loaded.config.baselines] == ["single"]
    assert len(loaded.source_files) == 3


def test_data_of_an_extended_file_are_found_beside_that_file(tmp_path: Path) -> None:
    row = '{"question": "1 + 1?", "answer": "#### 2"}\n'
    write(tmp_path, row, "shared/rows.jsonl")
    text = example()
    text = text[: text.index("benchmark:")] + "benchmark: {kind: gsm8k, path: rows.jsonl}\n"
    write(tmp_path, text, "shared/base.yaml")
    path = write(tmp_path, "extends: shared/base.yaml\n")
    assert load(path).config.benchmark.path == "shared/rows.jsonl"  # type: ignore[attr-defined]


def test_data_at_an_absolute_path_or_a_variable_stay_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, '{"question": "1 + 1?", "answer": "#### 2"}\n', "data/rows.jsonl")
    monkeypatch.setenv("ROWS", str(tmp_path / "data"))
    for path in (str(tmp_path / "data/rows.jsonl"), "${env:ROWS}/rows.jsonl"):
        text = example()
        text = text[: text.index("benchmark:")] + f"benchmark: {{kind: gsm8k, path: '{path}'}}\n"
        write(tmp_path, text, "shared/base.yaml")
        assert load(write(tmp_path, "extends: shared/base.yaml\n")).config.benchmark.kind == "gsm8k"


def test_a_link_to_a_missing_file_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "society.yaml").symlink_to("elsewhere.yaml")
    message = refuse(tmp_path / "society.yaml")
    assert "a link to a file that is not there" in message and "did you mean" not in message


def test_an_override_of_the_other_way_to_name_a_policy_says_how_to_write_it(tmp_path: Path) -> None:
    assert "write policies.base.engine" in refuse(write(tmp_path, example()), "policy.engine=scripted")
    single = example().replace("policies:", "policy: {model: none}\nunused:", 1)
    assert "write policy.engine" in refuse(write(tmp_path, single), "policies.default.engine=scripted")


def test_each_error_points_into_the_file_it_came_from(tmp_path: Path) -> None:
    write(tmp_path, example().replace("temperature: 0.7", "temperature: warm"), "base.yaml")
    message = refuse(write(tmp_path, "extends: base.yaml\nseed: x\n"))
    assert "base.yaml:11:29  policies.base.sampling.temperature  expected a number" in message
    assert "society.yaml:2:7" in message and "2 errors" in message


def test_a_missing_base_stands_beside_the_other_errors_and_what_it_may_hold_is_no_mistake(tmp_path: Path) -> None:
    text = "extends: nowhere.yaml\nsed: 3\nseats: [{name: a, policy: of_the_base}]\nprotocol: {rounds: many}\n"
    message = refuse(write(tmp_path, text), "seats.0.count=2")
    assert "society.yaml:1:10 extends  cannot read" in message
    assert "society.yaml:2:1  sed  unknown key" in message
    assert message.endswith("2 errors, nothing was started.")


def test_a_part_of_another_kind_replaces_the_extended_one(tmp_path: Path) -> None:
    write(tmp_path, example(), "base.yaml")
    config = load(write(tmp_path, "extends: base.yaml\nbenchmark: {kind: gsm8k, limit: 3}\n")).config
    assert config.benchmark.kind == "gsm8k"


def test_fields_may_be_laid_on_a_part_named_in_short(tmp_path: Path) -> None:
    write(tmp_path, example(), "base.yaml")
    config = load(write(tmp_path, "extends: base.yaml\npolicies: {base: {engine: {dtype: float32}}}\n")).config
    assert config.policies["base"].engine.model_dump()["dtype"] == "float32"


# -o


def test_overrides_set_fields_items_sections_and_parts(tmp_path: Path) -> None:
    overrides = [
        "seats.0.count=3", "seats[1].name=loud", "budget.calls=9", "policies.base.engine.dtype=float32",
        "executor.deadline=1e1", "benchmark={kind: gsm8k}", "protocol.strategy=[reflect]", "name='7'",
    ]  # fmt: skip
    config = load(write(tmp_path, example()), overrides).config
    assert [(seat.name, seat.count) for seat in config.seats] == [("calm", 3), ("loud", 1)]
    assert (config.budget.calls, config.budget.tokens, config.name) == (9, 400_000, "7")
    assert config.policies["base"].engine.model_dump()["dtype"] == "float32"
    assert config.executor.model_dump()["deadline"] == 10
    assert config.benchmark.kind == "gsm8k"


def test_an_override_reaches_names_with_dots(tmp_path: Path) -> None:
    text = example().replace("  base:\n", "  qwen2.5:\n").replace("policy: base", "policy: qwen2.5")
    assert load(write(tmp_path, text), ["policies.qwen2.5.model=x"]).config.policies["qwen2.5"].model == "x"


@pytest.mark.parametrize(
    ("override", "words"),
    {
        "seats.0.cuont=3": 'did you mean "count"?',
        "seats.7.count=3": "the list has 2 items",
        "seats.calm.count=3": "there is no such item",
        "sed=3": 'did you mean "seed"?',
        "polcies.base.model=x": 'did you mean "policies"?',
        "policies.bsae.model=x": 'did you mean "base"?',
        "name.first=x": "has no fields to set",
        "seed": "expected path=value",
        "=3": "expected path=value",
        "a..b=3": "expected path=value",
        "seed=[": "not valid YAML",
        "seed=!!int 3": "tags are refused",
        "seed=a: b": "quote text that holds a colon",
        "seed=${env:COTERIE_NOT_SET}": "is not set",
        "track=[wandbb]": 'did you mean "wandb"?',
    }.items(),
)
def test_a_wrong_override_is_the_place_of_its_error(override: str, words: str, tmp_path: Path) -> None:
    message = refuse(write(tmp_path, example()), override)
    assert message.startswith(f"-o {override} "), message
    assert words in message
    assert message.endswith("1 error, nothing was started.")


def test_what_an_override_makes_of_a_mapping_is_said_at_the_option(tmp_path: Path) -> None:
    override = "benchmark.params.max_terms=1"
    message = refuse(write(tmp_path, example()), override)
    assert message.startswith(f"-o {override} benchmark.params  chain_sum refuses these parameters"), message
    message = refuse(write(tmp_path, example()), "protocol.strategy=[]", "protocol.history=last")
    assert message.startswith("-o protocol.strategy=[], -o protocol.history=last protocol  strategy needs"), message


def test_a_file_that_is_not_there_is_named_once(tmp_path: Path) -> None:
    assert refuse(tmp_path / "nix.yaml").splitlines()[0] == f"{tmp_path / 'nix.yaml'} cannot be read: no such file"


def test_overrides_given_in_python_are_values_and_are_not_called_options() -> None:
    data = {"name": "x", "policy": {"engine": "scripted"}, "seats": "S2", "protocol": "single", "benchmark": "sums"}
    config = loads(data, {"seed": 3, "benchmark.limit": 4, "policy.sampling.stop": ["\n"]}).config
    assert (config.seed, config.policies["default"].sampling.stop) == (3, ("\n",))
    with pytest.raises(InvalidConfig) as caught:
        loads(data, {"sed": 1, "policy.sampling.stop": "x"})
    message = str(caught.value)
    assert "override sed" in message and "override policy.sampling.stop" in message
    assert "-o" not in message and "2 errors" in message


# JSON Schema


def test_the_schema_accepts_the_example_and_refuses_what_the_loader_refuses() -> None:
    from jsonschema import Draft202012Validator
    from ruamel.yaml import YAML

    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    data = YAML(typ="safe").load(example())
    assert list(validator.iter_errors(data)) == []
    misspelt = {"seats": [{"name": "a", "cuont": 1}]}
    for spoilt in ({"sed": 3}, {"protocol": "nobody"}, {"seats": "S9"}, misspelt, {"seed": "x"}):
        assert list(validator.iter_errors(data | spoilt)), spoilt


def test_the_schema_describes_every_field() -> None:
    definitions = json_schema()["$defs"]
    for model in (ExperimentConfig, WorldConfig):
        fields = definitions[model.__name__]["properties"]
        assert set(model.model_fields) <= set(fields)
        assert [name for name, field in fields.items() if "description" not in field and "$ref" not in field] == []
