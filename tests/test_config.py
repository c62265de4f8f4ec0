"""Every option is declared once, checked with all others, and comes back from its file as it was."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gptailor.config import (
    ClassifierConfig,
    dump_config,
    group_of,
    grouped_options,
    load_config,
    read_yaml,
    with_absolute_paths,
)
from gptailor.errors import UserError

TEXT = st.text(max_size=20) | st.sampled_from(["none", "null", "yes", "1e-4", "007", "a: b", "# c", "été", "\x85\r\n"])
COUNT = st.integers(1, 10**9)
POSITIVE = st.floats(1e-12, 1e6)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "data": TEXT,
    "validation": st.none() | TEXT,
    "test": st.none() | TEXT,
    "format": st.sampled_from(["auto", "csv", "tsv", "json", "jsonl", "parquet", "label-first"]),
    "encoding": TEXT,
    "delimiter": st.sampled_from(["auto", "comma", "semicolon", "tab", "pipe"]),
    "header": st.sampled_from(["auto", "yes", "no"]),
    "quoting": st.sampled_from(["auto", "yes", "no"]),
    "base": TEXT,
    "tokenizer": st.none() | TEXT,
    "vocab": st.integers(257, 10**6),
    "max_length": st.none() | COUNT,
    "epochs": st.none() | st.integers(1, 100_000),
    "precision": st.sampled_from(["fp32", "bf16", "auto"]),
    "batch_size": COUNT,
    "accumulate": COUNT,
    "lr": st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True),
    "weight_decay": st.floats(0, 10),
    "schedule": st.sampled_from(["constant", "cosine"]),
    "warmup": st.floats(0, 1, exclude_max=True),
    "clip": st.none() | POSITIVE,
    "evaluate_every": st.none() | COUNT,
    "keep": st.sampled_from(["best", "last"]),
    "patience": st.none() | COUNT,
    "auto_batch": st.booleans(),
    "out": st.none(),
    "seed": st.integers(0, 2**31 - 1),
    "seeds": COUNT,
    "device": st.sampled_from(["auto", "cpu", "cuda", "mps"]),
    "tensorboard": st.booleans(),
    "keep_checkpoints": st.booleans(),
    "text": st.none() | TEXT,
    "label": st.none() | TEXT,
    "duplicates": st.sampled_from(["drop", "keep"]),
    "balance": st.sampled_from(["none", "undersample", "weights"]),
    "split": st.sampled_from(["stratified", "book"]),
    "validation_share": st.floats(0, 0.5, exclude_min=True, exclude_max=True),
    "test_share": st.floats(0, 0.5, exclude_min=True, exclude_max=True),
    "layers": st.sampled_from([None, "head", "all", "1", "12"]),
    "head": st.sampled_from([None, "random", "probe"]),
    "read": st.sampled_from(["last", "first", "last-position", "mean", "last+mean"]),
    "causal": st.booleans(),
    "pad_to": st.sampled_from(["batch", "data", "context", "64"]),
}
LORA: dict[str, Any] = {  # only together with layers: lora
    "layers": st.just("lora"),
    "rank": st.integers(1, 4096),
    "alpha": st.floats(0, 4096, exclude_min=True),
    "dropout": st.floats(0, 1, exclude_max=True),
    "targets": st.text(),
    "unfreeze": st.text(),
    "rank_stabilised": st.booleans(),
    "dora": st.booleans(),
    "frozen_in": st.sampled_from(["fp32", "bf16"]),
}


def load(folder: Path, text: str | None = None, **given: Any) -> ClassifierConfig:
    file = None if text is None else folder / "run.yaml"
    if file and text is not None:
        file.write_text(text, encoding="utf-8")
    return load_config(ClassifierConfig, file, {"data": "d.csv"} | given)


def refusal(folder: Path, text: str | None = None, **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        load(folder, text, **given)
    return str(caught.value)


# --- saving and loading -----------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(values=st.one_of(st.fixed_dictionaries(VALUES), st.fixed_dictionaries(VALUES | LORA)))
def test_a_saved_configuration_loads_as_it_was(values: dict[str, Any]) -> None:
    config = ClassifierConfig(**values)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.yaml")
        file.write_text(dump_config(config), encoding="utf-8")
        assert load_config(ClassifierConfig, file, {}) == config


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "yes",
        "1e-4",
        "007",
        "a: b",
        "# c",
        "été",
        "'\"",
        "a\nb\n",
        "\r",
        "\x85",
        "\u2028 \u2029",
        "\0",
        "\udcff",
    ],
)
def test_an_odd_name_comes_back_from_its_file(tmp_path: Path, text: str) -> None:
    saved = dump_config(ClassifierConfig(data="d.csv", text=text))
    assert load(tmp_path, saved).text == text


def test_the_property_above_covers_every_option() -> None:
    assert (VALUES | LORA).keys() == ClassifierConfig.model_fields.keys()


def test_the_saved_configuration_has_every_option_but_out_under_its_description() -> None:
    text = dump_config(ClassifierConfig(data="d.csv", out="runs/here"))
    assert yaml.safe_load(text).keys() == ClassifierConfig.model_fields.keys() - {"out"}
    lines = text.splitlines()
    for name, field in ClassifierConfig.model_fields.items():
        if name != "out":
            at = next(number for number, line in enumerate(lines) if line.startswith(f"{name}:"))
            assert lines[at - 1] == f"# {field.description}"


@pytest.mark.parametrize("name", ClassifierConfig.model_fields)
def test_every_option_has_a_description_of_one_line_and_a_group(name: str) -> None:
    field = ClassifierConfig.model_fields[name]
    assert field.description and "\n" not in field.description
    assert name in grouped_options(ClassifierConfig)[group_of(field)]


# --- precedence and types ---------------------------------------------------------------------------------------------


def test_a_flag_overrides_the_file_which_overrides_the_default(tmp_path: Path) -> None:
    config = load(tmp_path, "batch_size: 16\nlr: 0.01\ndata: other.csv\n", lr="0.02")
    assert (config.accumulate, config.batch_size, config.lr, config.data) == (1, 16, 0.02, "d.csv")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lr", "1e-4", 1e-4),  # YAML 1.1 reads this as a string
        ("lr", "0.0001", 1e-4),
        ("weight_decay", "0", 0.0),
        ("batch_size", "16", 16),
        ("causal", "false", False),
        ("clip", "none", None),
        ("clip", "None", None),
        ("clip", "0.5", 0.5),
        ("layers", "2", "2"),
        ("layers", "head", "head"),
        ("pad_to", "64", "64"),
        ("header", "yes", "yes"),  # YAML 1.1 reads these two as truth values
        ("quoting", "no", "no"),
    ],
)
def test_a_value_means_the_same_in_the_file_and_as_a_flag(tmp_path: Path, name: str, text: str, value: Any) -> None:
    for config in (load(tmp_path, f"{name}: {text}\n"), load(tmp_path, **{name: text})):
        found = getattr(config, name)
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize(
    ("base", "n_train", "given", "resolved"),
    [
        ((False, 2), 1000, {}, ("all", "random", 5e-4, 10)),
        ((True, 4), 1000, {}, ("all", "probe", 5e-5, 5)),
        ((True, 12), 1000, {}, ("1", "random", 5e-5, 5)),
        ((True, 12), 1000, {"lr": 0.01}, ("1", "random", 0.01, 5)),
        ((False, 2), 1000, {"layers": "head", "epochs": 2}, ("head", "random", 5e-4, 2)),
        ((True, 4), 50, {}, ("all", "probe", 5e-5, 15)),  # 7 steps an epoch: 15 epochs are the first to have 100
        ((True, 4), 50, {"batch_size": 4, "accumulate": 4}, ("all", "probe", 5e-5, 25)),
        ((True, 4), 50, {"head": "random"}, ("all", "random", 5e-5, 29)),  # and 29 to have 200
        ((True, 4), 50, {"epochs": 3}, ("all", "probe", 5e-5, 3)),
        ((True, 4), 1999, {}, ("all", "probe", 5e-5, 5)),
        ((True, 4), 2000, {}, ("all", "probe", 1e-4, 5)),
        ((True, 4), 2999, {}, ("all", "probe", 1e-4, 5)),
        ((True, 4), 3000, {}, ("all", "probe", 1e-4, 2)),  # a thousand for each of three labels
        ((True, 4), 3000, {"epochs": 4}, ("all", "probe", 1e-4, 4)),
        ((True, 4), 3000, {"layers": "all", "head": "random"}, ("all", "random", 1e-4, 2)),
        ((True, 4), 3000, {"layers": "1"}, ("1", "random", 3e-4, 5)),
        ((True, 4), 3000, {"layers": "lora"}, ("lora", "random", 8e-4, 5)),
        ((True, 12), 3000, {}, ("1", "random", 5e-5, 5)),
        ((False, 2), 3000, {}, ("all", "random", 5e-4, 10)),
    ],
)
def test_the_base_decides_only_what_was_left_open(
    base: tuple[bool, int], n_train: int, given: dict[str, Any], resolved: Any
) -> None:
    config = ClassifierConfig(data="d.csv", **given)
    decided = config.for_base(pretrained=base[0], n_layer=base[1], n_train=n_train, n_labels=3)
    assert (decided.layers, decided.head, decided.lr, decided.epochs) == resolved
    decisions = {"layers", "head", "lr", "epochs"}
    assert decided.model_dump(exclude=decisions) == config.model_dump(exclude=decisions)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_all_problems_are_reported_together_each_with_its_place(tmp_path: Path) -> None:
    told = refusal(tmp_path, "lrr: 3\n\nbatch_size: many\nsplit: bok\n", layers="x", pad_too="3", batch_size="-1")
    file = tmp_path / "run.yaml"
    assert told.startswith("5 problems:")
    assert f"{file}:1: unknown option 'lrr'\n  try:      did you mean 'lr'?" in told
    assert "--batch-size: batch_size is '-1'\n  expected: greater than or equal to 1" in told  # the flag, not line 3
    assert f"{file}:4: split is 'bok'\n  expected: 'stratified' or 'book'\n  try:      did you mean 'book'?" in told
    assert "--layers: layers is 'x'\n  expected: 'head', 'all', 'lora' or a number of blocks" in told
    assert "--pad-too: unknown option 'pad_too'\n  try:      did you mean 'pad_to'?" in told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", "0"),
        ("lr", "1"),
        ("lr", "nan"),
        ("lr", "fast"),
        ("epochs", "0"),
        ("epochs", "1.5"),
        ("warmup", "1"),
        ("clip", "0"),
        ("seed", "-1"),
        ("seed", str(2**31)),
        ("vocab", "256"),
        ("test_share", "0.5"),
        ("validation_share", "0"),
        ("layers", "0"),
        ("pad_to", "-3"),
        ("causal", "perhaps"),
        ("device", "tpu"),
    ],
)
def test_a_value_out_of_its_range_is_named_with_its_flag(tmp_path: Path, name: str, value: str) -> None:
    told = refusal(tmp_path, **{name: value})
    assert told.startswith(f"--{name.replace('_', '-')}: {name} is {value!r}\n  expected: ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- lr\n- 3\n", "holds list"),
        ("lr\n", "holds str"),
        ("", "holds NoneType"),
        ("lr: [1,\n", "is not YAML"),
        ("lr: 1\x00\n", "is not YAML"),
        ("[1]: 2\n", "is not YAML"),
        ("batch_size:\n  of: 3\n", ":1: batch_size is {'of': 3}"),
        ("text: 123\n", ":1: text is 123\n  expected: a valid string"),
        ("lr: 1e-3\nepochs: 2\nlr: 1e-4\n", ":3: lr stands already in line 1"),
    ],
)
def test_a_file_that_is_no_list_of_options_is_refused(tmp_path: Path, text: str, told: str) -> None:
    assert f"{tmp_path / 'run.yaml'}{'' if told.startswith(':') else ' '}{told}" in refusal(tmp_path, text)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"text: caf\xe9\n")
    for name in ("missing.yaml", "latin.yaml", "."):
        with pytest.raises(UserError, match="cannot be read"):
            read_yaml(tmp_path / name)


def test_missing_data_is_said_by_its_name() -> None:
    with pytest.raises(UserError, match=r"^data is missing\n  expected: a file, a folder"):
        load_config(ClassifierConfig, None, {})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: &a [1, 2]\ndata: [*a, *a, *a]\n", "refers to its own parts"),
        ("[" * 100_000, "holds lists in lists"),
        ("{a: " * 3000, "holds lists in lists"),
        ("lr: 2001-99-99\n", "is not YAML"),
        ("data: " + "a" * 100_000, "too long"),
        ("data: !!python/object/apply:os.system ['true']\n", "is not YAML"),
    ],
)
def test_a_configuration_that_is_a_trap_is_refused(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match=told):
        read_yaml(tmp_path / "run.yaml")


def test_a_folder_called_thimble_does_not_hide_the_bundled_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thimble").mkdir()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    for base, resolved in (("thimble", "thimble"), ("mine", str(tmp_path / "mine"))):
        config = load_config(ClassifierConfig, None, {"data": "x.csv", "base": base})
        assert with_absolute_paths(config).base == resolved
