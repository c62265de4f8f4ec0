"""The file of a sweep: its rows, their folders, and everything that is wrong with it at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptailor.errors import UserError
from gptailor.tasks.recipe import LONGEST_NAME, Recipe, arguments, read_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
HEAD = "task: classifier\nseeds: 3\ncommon: {data: DATA, base: 'random:n_layer=1,n_head=2,n_embd=16', lr: 1e-3}\n"


@pytest.fixture
def read(tmp_path: Path, moods: Path):
    def read(text: str, *data: str) -> Recipe:
        file = tmp_path / "sweep.yaml"
        file.write_text(text.replace("DATA", str(moods)), encoding="utf-8")
        return read_recipe(file, data)

    return read


def refusal(read, text: str, *data: str) -> str:
    with pytest.raises(UserError) as caught:
        read(text, *data)
    return str(caught.value)


def test_rows_change_what_they_have_in_common(read) -> None:
    recipe = read(HEAD + "rows:\n  - {}\n  - {read: first, means: Why.}\n  - {lr: 3e-4, causal: false}\n")
    assert (recipe.task, recipe.seeds) == ("classifier", [123, 124, 125])
    assert [row.change for row in recipe.rows] == ["the baseline", "read first", "lr 3e-4, causal false"]
    assert [row.name for row in recipe.rows] == ["baseline", "read-first", "lr-3e-4_causal-false"]
    assert [row.means for row in recipe.rows] == ["", "Why.", ""]
    assert [(row.config.lr, getattr(row.config, "read")) for row in recipe.rows] == [  # noqa: B009
        (1e-3, "last"),
        (1e-3, "first"),
        (3e-4, "last"),
    ]


def test_a_grid_is_every_choice(read) -> None:
    recipe = read(HEAD + "seed: 7\ngrid: {lr: [1e-4, 3e-4], epochs: [3, 5]}\n")
    assert [row.name for row in recipe.rows] == [f"lr-{lr}_epochs-{n}" for lr in ("1e-4", "3e-4") for n in (3, 5)]
    assert recipe.seeds == [7, 8, 9]


def test_a_row_as_the_command_takes_it(read, moods: Path) -> None:
    text = "rows: [{causal: false, tensorboard: true, header: yes, clip: none, max_length: null, text: -t}]\n"
    (row,) = read(HEAD + text).rows
    base = ["--base", "random:n_layer=1,n_head=2,n_embd=16", "--lr", "0.001"]
    flags = ["--no-causal", "--tensorboard", "--header", "yes", "--clip", "none", "--text=-t"]
    assert arguments(row) == [str(moods), *base, *flags]


def test_data_of_the_command_line_comes_before_that_of_the_file(read, moods: Path) -> None:
    recipe = read(HEAD.replace("DATA", "nowhere.csv") + "rows: [{}]\n", str(moods))
    assert recipe.rows[0].config.data == str(moods)  # type: ignore[attr-defined]


def test_a_base_takes_several_files(read, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one", encoding="utf-8")
    text = "task: base\ncommon: {base: 'random:tiny'}\nrows: [{}]\n"
    assert arguments(read(text, str(tmp_path / "a.txt")).rows[0])[0] == str(tmp_path / "a.txt")


def test_names_that_are_long_or_alike_get_a_hash(read) -> None:
    long = "x" * 150
    rows = read(HEAD + f"rows: [{{text: a b}}, {{text: a/b}}, {{text: {long}}}]\n").rows
    names = [row.name for row in rows]
    assert names[0] == "text-a-b" and names[1].startswith("text-a-b-") and names[1] != names[0]
    assert len(names[2]) == LONGEST_NAME and len(set(names)) == 3


def test_every_problem_of_every_row_is_told_at_once_with_its_number(read) -> None:
    rows = "rows:\n  - {}\n  - {lrr: 3, epochs: 0}\n  - {}\n  - {out: here, seed: 5}\n  - {epochs: 0}\n"
    told = refusal(read, HEAD + rows)
    assert told.startswith("5 problems:")
    assert "row 2: --lrr: unknown option 'lrr'\n  try:      did you mean 'lr'?" in told
    assert told.count("--epochs: epochs is 0") == 1 and "rows 2, 5: --epochs: epochs is 0" in told
    assert "row 3: the same setting as row 1" in told
    assert "row 4: out is no option of a row" in told and "row 4: seed is no option" in told


def test_what_all_rows_have_wrong_is_told_once(read) -> None:
    told = refusal(read, HEAD.replace("lr: 1e-3", "lr: 7") + "rows: [{}, {read: first}]\n")
    assert told.startswith("every row: --lr: lr is 7")


def test_what_cannot_be_found_is_told_before_anything_runs(read) -> None:
    told = refusal(read, HEAD.replace("DATA", "nowhere.csv") + "rows: [{}, {read: first}, {base: gpt3-tiny}]\n")
    assert "every row: " in told and "nowhere.csv" in told
    assert "row 3: no base is called 'gpt3-tiny'" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("task: clasifier\nrows: [{}]\n", "did you mean 'classifier'?"),
        ("task: classifier\nrow: [{}]\n", "sweep.yaml:2: unknown option 'row'"),
        ("task: classifier\n", "either rows or a grid"),
        ("task: classifier\nrows: [{}]\ngrid: {lr: [1]}\n", "either rows or a grid"),
        ("task: classifier\nrows: []\n", "either rows or a grid"),
        ("task: classifier\ngrid: {lr: []}\n", "either rows or a grid"),
        ("task: classifier\nseeds: 0\nrows: [{}]\n", "sweep.yaml:2: seeds is 0"),
        ("task: classifier\nrows: [3]\n", "sweep.yaml:2: rows is [3]"),
        ("rows: [{}]\n", "task is missing"),
        ("task: classifier\nrows: [{}]\n", "row 1: data is missing"),
    ],
)
def test_a_file_that_is_no_sweep_is_refused(read, text: str, told: str) -> None:
    assert told in refusal(read, text)


@pytest.mark.parametrize("file", RECIPES, ids=lambda path: path.stem)
def test_our_recipes_hold_only_what_exists(file: Path, moods: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parents[1])
    monkeypatch.setattr("gptailor.tasks.recipe._missing", lambda rows: [])  # weights that are not here
    assert len(read_recipe(file, [str(moods)]).rows) >= 12
