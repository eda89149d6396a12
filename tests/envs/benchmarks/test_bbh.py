"""BIG-Bench Hard on rows of our own."""

import json
from pathlib import Path

import pytest

from coterie.envs.answers import canonical, parse
from coterie.envs.benchmarks.bbh import Bbh
from coterie.envs.benchmarks.bbh_tasks import TASKS
from coterie.envs.benchmarks.config import BbhConfig
from coterie.errors import ConfigError

OPTIONS = "\nOptions:\n(A) red\n(B) green\n(C) blue"
ROWS = {
    "choice": {"input": f"Which is the colour of grass?{OPTIONS}", "target": "(B)"},
    "number": {"input": "((1 + 2) * 3) =", "target": "9"},
    "text": {"input": "Sort the following words alphabetically: List: pear fig", "target": "fig pear"},
    "exact": {"input": "Complete the rest of the sequence. Input: { [", "target": "] }"},
    "Yes": {"input": "Is it so?", "target": "Yes"},
    "True": {"input": "not False is", "target": "True"},
    "valid": {"input": "Is the argument valid?\nOptions:\n- valid\n- invalid", "target": "invalid"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, form in TASKS.items():
        row = ROWS[form.labels[0] if form.labels else form.answer_type]
        write(tmp_path, name, [row, {**row, "input": f"Again: {row['input']}"}])
    return tmp_path


def write(folder: Path, name: str, rows: list[dict[str, str]]) -> None:
    (folder / f"{name}.json").write_text(json.dumps({"canary": "canary GUID 0", "examples": rows}), encoding="utf-8")


def build(folder: Path, task: str = "all") -> Bbh:
    return Bbh(BbhConfig(path=str(folder), task=task), 0, Path())


def is_right(benchmark: Bbh, index: int, reply: str) -> bool:
    task = benchmark.tasks()[index]
    return benchmark.grader().grade(task.id, parse(reply, task.answer_type, task.choices)).correct


def test_there_are_27_tasks_and_all_asks_all_of_them(folder: Path) -> None:
    tasks = build(folder).tasks()
    assert len(TASKS) == 27
    assert len(tasks) == 54
    assert {task.id.rpartition("-")[2] for task in tasks} == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_accepts_its_gold_answer_and_refuses_another(folder: Path, name: str) -> None:
    benchmark = build(folder, name)
    gold = next(iter(benchmark._items.values())).gold
    assert is_right(benchmark, 0, f"Answer: {gold}")
    for wrong in ("Answer: (C)", "Answer: 8", "Answer: pear fig", "Answer: } ]", "Answer: No", "Answer: valid"):
        assert not is_right(benchmark, 0, wrong)


@pytest.mark.parametrize("form", dict.fromkeys(TASKS.values()), ids=lambda form: form.example[:20])
def test_the_answer_of_an_example_is_of_its_form(form: object) -> None:
    example = next(one for one in TASKS.values() if one is form)
    answer = example.example.rpartition("Answer: ")[2]
    choices = example.labels or ("a plank", "a brick", "a nail") * (example.answer_type == "choice")
    assert parse(example.example, example.answer_type, choices) == canonical(answer, example.answer_type, choices)


def test_words_and_brackets_are_compared_item_by_item(folder: Path) -> None:
    assert is_right(build(folder, "word_sorting"), 0, "Answer: Fig, pear")
    assert is_right(build(folder, "dyck_languages"), 0, "Answer: ]}")
    assert not is_right(build(folder, "dyck_languages"), 0, "Answer: { [ ] }")


CUT = [
    ("(A) Monsters\n(B) Inc\n(C) Heat", "Monsters, Inc", "AB"),
    ("(A) eareth\n(B) wind\n(C) & fire\n(D) dearth\n(E) wind\n(F) & fire", "dearth, wind, & fire", "DEF"),
    ("(A) rita\n(B) sue\n(C) rita,y sue", "rita,y sue", "C"),
]


@pytest.mark.parametrize(("options", "target", "right"), CUT)
def test_any_piece_of_an_option_that_was_cut_at_its_commas_is_right(
    tmp_path: Path, options: str, target: str, right: str
) -> None:
    write(tmp_path, "ruin_names", [{"input": f"Which?\nOptions:\n{options}", "target": target}])
    benchmark = build(tmp_path, "ruin_names")
    assert "".join(letter for letter in "ABCDEF" if is_right(benchmark, 0, f"Answer: ({letter})")) == right


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        ("navigate", {"input": "q", "target": "Maybe"}, "Yes or No"),
        ("snarks", {"input": "q", "target": "(A)"}, "no options"),
        ("snarks", {"input": f"q{OPTIONS}", "target": "(D)"}, "none of the options"),
        ("object_counting", {"input": "q", "target": "many"}, "number"),
        ("hyperbaton", {"input": "q\n(A) x\n(C) y", "target": "(A)"}, "no options"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, name: str, row: dict[str, str], words: str) -> None:
    form = TASKS[name]
    write(tmp_path, name, [ROWS[form.labels[0] if form.labels else form.answer_type], row])
    with pytest.raises(ConfigError, match=words) as error:
        build(tmp_path, name)
    assert error.value.where.endswith(f"{name}.json, row 2")


def test_an_unknown_task_is_told_the_nearest_and_a_missing_file_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean navigate") as error:
        build(tmp_path, "navigation")
    assert error.value.where == "benchmark.task"
    with pytest.raises(ConfigError, match=r"boolean_expressions\.json"):
        build(tmp_path)
