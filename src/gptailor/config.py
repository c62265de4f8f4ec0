"""Run configuration: every option is declared once, with its type, default and one-line description.

A field below is at the same time a key of ``--config FILE.yaml``, a command-line flag and a Python keyword.
Precedence is default < file < flag; the resolved result is saved as ``run.yaml`` and running that repeats the run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from gptailor.errors import UserError, did_you_mean, listing

Config = TypeVar("Config", bound=BaseModel)
LONGEST_YAML = 100_000  # characters of a configuration; PyYAML is slow
DEEPEST_YAML = 20  # lists and mappings inside each other


def option(default: Any, description: str, *, group: str, **limits: Any) -> Any:
    """A configuration field: ``limits`` are pydantic's (``ge``, ``lt``, ``min_length``)."""
    return Field(default, description=description, json_schema_extra={"group": group}, **limits)


class RunConfig(BaseModel):
    """The options that every training task shares."""

    layer_words: ClassVar[tuple[str, ...]] = ("all", "lora")

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    base: str = option("random:tiny", "the model to start from: a folder, a name, or random:SIZE", group="Model")
    tokenizer: str | None = option(None, "a folder with a tokenizer, for a random base", group="Model")

    layers: str | None = option(
        None, "what is trained: all, the last N blocks, or lora: adapters on a frozen base [all]", group="Model"
    )
    rank: int = option(16, "lora: rank of each adapter", group="Model", ge=1, le=4096)
    alpha: float = option(16.0, "lora: strength; an update counts alpha / rank times", group="Model", gt=0, le=4096)
    dropout: float = option(0.0, "lora: share of an adapter's inputs dropped in training", group="Model", ge=0, lt=1)
    targets: str = option(
        "attention,mlp", "lora: the layers with adapters: attention, mlp, head, or names such as qkv", group="Model"
    )
    unfreeze: str = option(
        "auto", "lora: what else is trained: head, norms, biases, none [default: a class head]", group="Model"
    )
    rank_stabilised: bool = option(False, "lora: an update counts alpha / sqrt(rank) times", group="Model")
    dora: bool = option(False, "lora: also learn the length of each matrix row (DoRA)", group="Model")
    frozen_in: Literal["fp32", "bf16"] = option("fp32", "lora: precision of the frozen matrices", group="Model")

    precision: Literal["fp32", "bf16", "auto"] = option(
        "fp32", "arithmetic of the matrix products; auto: bf16 where the processor is good at it", group="Training"
    )
    batch_size: int = option(8, "examples per batch", group="Training", ge=1)
    accumulate: int = option(1, "batches per optimizer step", group="Training", ge=1)
    auto_batch: bool = option(
        False, "find the largest batch that fits into memory; --accumulate keeps the rows per step", group="Training"
    )
    lr: float | None = option(None, "peak learning rate [default: by base]", group="Training", gt=0, lt=1)
    weight_decay: float = option(0.1, "weight decay of matrices", group="Training", ge=0, le=10)
    schedule: Literal["constant", "cosine"] = option(
        "cosine", "learning rate after warm-up: constant, or cosine decay to a tenth", group="Training"
    )
    warmup: float = option(0.05, "share of the steps in which the rate rises from zero", group="Training", ge=0, lt=1)
    clip: float | None = option(1.0, "largest norm of the gradient; none switches it off", group="Training", gt=0)
    evaluate_every: int | None = option(
        None, "optimizer steps between evaluations [default: one epoch]", group="Training", ge=1
    )

    out: str | None = option(None, "the model folder to write [default: runs/ and the data's name]", group="Run")
    seed: int = option(123, "seed of split, initialisation and order", group="Run", ge=0, lt=2**31)
    device: Literal["auto", "cpu", "cuda", "mps"] = option("auto", "where to compute", group="Run")
    tensorboard: bool = option(False, "also write TensorBoard events", group="Run")
    keep_checkpoints: bool = option(False, "keep the checkpoints of a finished run", group="Run")

    @field_validator("layers", mode="before")
    @classmethod
    def _layers(cls, value: Any) -> Any:
        """One of the words, or a number of blocks."""
        if value is None or str(value) in cls.layer_words or re.fullmatch("[1-9][0-9]{0,5}", str(value)):
            return None if value is None else str(value)
        raise ValueError(f"Input should be {', '.join(map(repr, cls.layer_words))} or a number of blocks")

    @model_validator(mode="after")
    def _only_with_lora(self) -> RunConfig:
        """An option that would do nothing is a mistake."""
        fields = type(self).model_fields
        idle = [name for name in LORA_OPTIONS if getattr(self, name) != fields[name].default]
        if idle and self.layers != "lora":
            raise ValueError(f"{listing(map(_flag, idle))}: only with --layers lora")
        return self

    def check_base(self, *, pretrained: bool) -> None:
        """Raises ``UserError`` when adapters are to be put on random weights, which no folder could name."""
        if self.layers == "lora" and not pretrained:
            raise UserError(f"--layers lora with --base {self.base}", expected="a pretrained base", hint="--layers all")

    @field_validator("*", mode="before")
    @classmethod
    def _none_by_name(cls, value: Any, info: Any) -> Any:
        """Lets a flag or file say ``none`` for any number that may be left open."""
        kinds = get_args(cls.model_fields[info.field_name].annotation)
        number = type(None) in kinds and str not in kinds
        return None if number and str(value).lower() == "none" else value


class TableConfig(RunConfig):
    """The options of the tasks that learn from rows: some of them to train on, some to choose by, some to test on."""

    base: str = option(
        "thimble",
        "the model to start from: thimble, a folder, a name such as gpt2-small, or random:SIZE",
        group="Model",
    )
    data: str = option(..., "a file, a folder with train/validation/test files, or a catalogue name", group="Data")
    validation: str | None = option(None, "a separate validation file", group="Data")
    test: str | None = option(None, "a separate test file", group="Data")
    format: Literal["auto", "csv", "tsv", "json", "jsonl", "parquet", "label-first"] = option(
        "auto", "how the file is read; label-first is 'LABEL:fine text' on each line", group="Data"
    )
    encoding: str = option("auto", "encoding of the files, such as cp1252 or utf-16-le; auto is UTF-8", group="Data")
    delimiter: Literal["auto", "comma", "semicolon", "tab", "pipe"] = option(
        "auto", "what separates the fields of csv and tsv", group="Data"
    )
    header: Literal["auto", "yes", "no"] = option("auto", "whether the first line names the columns", group="Data")
    quoting: Literal["auto", "yes", "no"] = option("auto", "whether quotes enclose csv and tsv fields", group="Data")

    vocab: int = option(1024, "tokens of the tokenizer trained on your texts, for a random base", group="Model", ge=257)
    max_length: int | None = option(
        None, "cut texts to this many tokens [default: the model's context]", group="Model", ge=1
    )

    epochs: int | None = option(
        None, "passes over the training part [default: by base]", group="Training", ge=1, le=100_000
    )
    keep: Literal["best", "last"] = option(
        "best", "weights to keep: best on validation (macro F1 of labels, loss of answers), or last", group="Training"
    )
    patience: int | None = option(None, "stop after this many evaluations without a better one", group="Training", ge=1)

    @field_validator("header", "quoting", mode="before")
    @classmethod
    def _yes_or_no(cls, value: Any) -> Any:
        """YAML takes a bare ``yes`` or ``no`` for a truth value."""
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


LORA_OPTIONS = ("rank", "alpha", "dropout", "targets", "unfreeze", "rank_stabilised", "dora", "frozen_in")
SMALL = 6  # blocks of a base that is trained whole
FEWEST_STEPS, FEWEST_FROM_PROBE = 200, 100  # that the usual number of epochs is raised to
MANY = 2000  # texts: with them a small base may go further from what it knows, and learns at twice the rate
PLENTY = 1000  # texts for each label, on average: with 5 epochs of them a small base learns too much by heart
USUAL = {  # what a classifier's options are when they are left to the base
    "random": {"layers": "all", "head": "random", "lr": 5e-4, "epochs": 10},
    "small": {"layers": "all", "head": "probe", "lr": 5e-5, "epochs": 5},
    "small, in part": {"head": "random", "lr": 3e-4, "epochs": 5},
    "large": {"layers": "1", "head": "random", "lr": 5e-5, "epochs": 5},
    "lora": {"head": "random", "lr": 8e-4, "epochs": 5},
}


class ClassifierConfig(TableConfig):
    """The options of ``gptailor train classifier``."""

    layer_words: ClassVar[tuple[str, ...]] = ("head", "all", "lora")

    text: str | None = option(None, "column that holds the text [default: recognised by name]", group="Data")
    label: str | None = option(None, "column that holds the label [default: recognised by name]", group="Data")
    duplicates: Literal["drop", "keep"] = option(
        "drop", "repeated texts: use one of each, or keep all of them in the same part", group="Data"
    )
    balance: Literal["none", "undersample", "weights"] = option(
        "none", "uneven labels: leave, undersample to the rarest, or weigh the loss", group="Data"
    )
    split: Literal["stratified", "book"] = option(
        "stratified", "stratified without shared texts, or the book's balanced shuffle", group="Data"
    )
    validation_share: float = option(0.1, "share of the texts for validation", group="Data", gt=0, lt=0.5)
    test_share: float = option(0.2, "share of the texts for the test", group="Data", gt=0, lt=0.5)

    layers: str | None = option(
        None,
        "what is trained: head, the last N blocks, all, or lora: adapters on a frozen base "
        "[default: all; 1 for a base of more than 6 blocks]",
        group="Model",
    )
    head: Literal["random", "probe"] | None = option(
        None,
        "how the class head begins: random, or probe: a logistic regression of what the base makes of the texts "
        "[default: probe for a pretrained base of at most 6 blocks that is trained whole]",
        group="Model",
    )
    read: Literal["last", "first", "last-position", "mean", "last+mean"] = option(
        "last", "what the class is read from: last or first token, last position with padding, mean", group="Model"
    )
    causal: bool = option(True, "let a token see only the tokens before it", group="Model")
    pad_to: str = option(
        "batch", "pad texts to the longest of: batch, data, context; or to at least N tokens", group="Model"
    )

    seeds: int = option(1, "repeat with this many seeds and report mean and spread", group="Run", ge=1)

    @field_validator("pad_to", mode="before")
    @classmethod
    def _pad_to(cls, value: Any) -> Any:
        if str(value) in ("batch", "data", "context") or re.fullmatch("[1-9][0-9]{0,5}", str(value)):
            return str(value)
        raise ValueError("Input should be 'batch', 'data', 'context' or a number of tokens")

    def for_base(self, *, pretrained: bool, n_layer: int, n_train: int, n_labels: int) -> ClassifierConfig:
        """The same options with everything left to the base decided.

        A large pretrained base keeps what it knows (last block, small rate, the book's five epochs); a small one is
        cheap to train whole, from a head that fits it; random weights have everything to learn. The fewer the texts,
        the more passes over them.

        Args:
            n_layer: blocks of the base.
            n_train: texts to train on.
            n_labels: different labels that texts can have.
        """
        self.check_base(pretrained=pretrained)
        kind = "random" if not pretrained else "large" if n_layer > SMALL else "small"
        if kind == "small" and self.layers not in (None, "all"):
            kind = "small, in part"
        usual: dict[str, Any] = dict(USUAL["lora" if self.layers == "lora" else kind])
        if kind == "small" and n_train >= MANY:
            usual["lr"] = 1e-4
        if kind == "small" and n_train >= PLENTY * n_labels:
            usual["epochs"] = 2
        steps = -(-n_train // (self.batch_size * self.accumulate))
        fewest = FEWEST_FROM_PROBE if (self.head or usual["head"]) == "probe" else FEWEST_STEPS
        usual["epochs"] = max(usual["epochs"], -(-fewest // steps))
        return self.model_copy(update={key: value for key, value in usual.items() if getattr(self, key) is None})


class ConversationConfig(TableConfig):
    """The options of the tasks that learn from answers."""

    overlong: Literal["cut", "drop"] = option(
        "cut", "records that are too long: lose the end of their answer, or are left out", group="Data"
    )
    tolerance: float = option(
        0.1, "share of the records that may be unusable, and that may be too long", group="Data", ge=0, le=1
    )
    split: Literal["shuffle", "book"] = option(
        "shuffle", "parts drawn by the seed without shared questions, or the book's in the file's order", group="Data"
    )
    validation_share: float = option(0.05, "share of the records for validation", group="Data", gt=0, lt=0.5)
    test_share: float = option(0.1, "share of the records for the test", group="Data", gt=0, lt=0.5)

    answers: int = option(200, "test records that are answered before and after training", group="Run", ge=1)
    max_new_tokens: int = option(256, "longest answer to a test record, in tokens", group="Run", ge=1)


class AssistantConfig(ConversationConfig):
    """The options of ``gptailor train assistant``."""

    template: str | None = option(
        None,
        "how a question is put: alpaca, phi3, chatml, plain, or a file with a chat template [default: as the base was "
        "taught, or else alpaca]",
        group="Data",
    )
    learn: Literal["response", "last", "all"] = option(
        "response", "what is learned: every answer, the last one of each record, or everything", group="Data"
    )
    keep_empty: bool = option(False, "learn empty answers too, as the book does", group="Data")

    pack: bool = option(False, "several records in one row as long as the context; none sees another", group="Training")

    def for_base(self, *, pretrained: bool, n_layer: int) -> AssistantConfig:
        """The same options with everything left to the base decided; unless told, all its parameters are trained."""
        self.check_base(pretrained=pretrained)
        large = {"lr": 5e-5, "epochs": 2}  # as the book has it
        usual: dict[str, Any] = large if pretrained and n_layer > SMALL else {"lr": 3e-4, "epochs": 5}
        usual |= {"layers": "all"} if self.layers != "lora" else {"lr": 8e-4}
        return self.model_copy(update={key: value for key, value in usual.items() if getattr(self, key) is None})


LOSSES: dict[str, dict[str, float]] = {  # how strong each is, when that is left open
    "dpo": {"beta": 0.1},
    "ipo": {"beta": 0.1},
    "orpo": {"beta": 0.1},
    "simpo": {"beta": 2.0, "gamma": 1.0},
}


class PreferencesConfig(ConversationConfig):
    """The options of ``gptailor train preferences``."""

    template: str | None = option(
        None, "how a question is put, as for assistants [default: as the base was taught, or else alpaca]", group="Data"
    )
    loss: Literal["dpo", "ipo", "orpo", "simpo"] = option(
        "dpo", "what is made small; orpo and simpo know no reference", group="Training"
    )
    beta: float | None = option(
        None, "how much a difference between the answers counts [default: 0.1; simpo 2]", group="Training", gt=0, le=100
    )
    smoothing: float = option(
        0.0, "dpo: share of the pairs that may be the wrong way round", group="Training", ge=0, lt=0.5
    )
    gamma: float | None = option(
        None, "simpo: by how much the chosen answer is to be ahead [default: 1]", group="Training", ge=0, le=100
    )

    @model_validator(mode="after")
    def _of_its_loss(self) -> PreferencesConfig:
        """An option that would do nothing is a mistake."""
        if self.smoothing and self.loss != "dpo":
            raise ValueError("--smoothing: only with --loss dpo")
        if self.gamma is not None and self.loss != "simpo":
            raise ValueError("--gamma: only with --loss simpo")
        return self

    def for_base(self, *, pretrained: bool, n_layer: int) -> PreferencesConfig:
        """The same options with everything left to base and loss decided; unless told, all parameters are trained."""
        self.check_base(pretrained=pretrained)
        large = {"lr": 5e-6, "epochs": 1}  # as the book has it
        usual: dict[str, Any] = large if pretrained and n_layer > SMALL else {"lr": 5e-5, "epochs": 2}
        usual |= {"layers": "all"} if self.layers != "lora" else {"lr": 10 * usual["lr"]}
        usual |= LOSSES[self.loss]
        return self.model_copy(update={key: value for key, value in usual.items() if getattr(self, key) is None})


class BaseConfig(RunConfig):
    """The options of ``gptailor train base``."""

    data: list[str] = option(..., "text or jsonl files; FILE@2 samples a file twice as often", group="Data")
    text: str = option("text", "key of a jsonl line that holds the text", group="Data")
    held_out: float = option(0.005, "share of the documents that is measured on", group="Data", gt=0, lt=0.5)

    vocab: int = option(8192, "tokens of the tokenizer trained on the files, for a random base", group="Model", ge=257)

    tokens: int = option(10_000_000, "tokens to train on", group="Training", ge=1)
    optimizer: Literal["adamw", "muon"] = option(
        "adamw", "adamw, or muon for the matrices of the blocks, which learns more from each token", group="Training"
    )
    precision: Literal["fp32", "bf16", "auto"] = option(
        "auto", "arithmetic of the matrix products; auto: bf16 where the processor is good at it", group="Training"
    )
    sample: str = option("The", "a text that is continued at each evaluation", group="Training", min_length=1)
    evaluate_every: int | None = option(
        None, "optimizer steps between evaluations [default: a twentieth of all]", group="Training", ge=1
    )

    out: str | None = option(None, "the model folder to write [default: runs/base]", group="Run")
    save_in: Literal["fp32", "bf16"] = option("fp32", "precision of the weights in the model folder", group="Run")


TASKS: dict[str, type[RunConfig]] = {  # of ``gptailor train``
    "classifier": ClassifierConfig,
    "assistant": AssistantConfig,
    "preferences": PreferencesConfig,
    "base": BaseConfig,
}


def load_config(kind: type[Config], file: Path | None, given: dict[str, Any]) -> Config:
    """Reads ``file``, lets ``given`` (flags or keywords) override it, and checks the result.

    Raises:
        UserError: all unknown keys and wrong values together, with the file's line where there is one.
    """
    values, lines = read_yaml(file) if file else ({}, {})
    where = {key: f"{file}:{line}" for key, line in lines.items()} | {key: _flag(key) for key in given}
    merged = values | given
    try:
        return kind(**merged)
    except ValidationError as error:
        problems = [_problem(kind, item, where, merged) for item in error.errors()]
        raise UserError.joined(problems) from None


def user_path(text: str) -> Path:
    """A path as the user typed it, with ``~`` expanded. Raises ``UserError`` for the home of nobody."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{text}: {error}") from None


def read_yaml(file: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The mapping in ``file`` and the line of each of its keys. Raises ``UserError`` when it is none."""
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(LONGEST_YAML + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"configuration {file} cannot be read: {error}") from None
    if len(text) > LONGEST_YAML:
        raise UserError(f"configuration {file} is too long", expected=f"at most {LONGEST_YAML:,} characters")
    try:
        _check_events(file, text)
        node, values = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date or a number that is none
        raise UserError(f"{file} is not YAML: {error}") from None
    if not isinstance(values, dict) or not isinstance(node, yaml.MappingNode):
        raise UserError(f"{file} holds {type(values).__name__}", expected="lines of the form 'option: value'")
    lines: dict[str, int] = {}
    for key, _ in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in lines:
            raise UserError(f"{file}:{line}: {name} stands already in line {lines[name]}")
        lines[name] = line
    return {str(key): value for key, value in values.items()}, lines


def _check_events(file: Path, text: str) -> None:
    """Raises ``UserError`` for what would take gigabytes or hours to read, before anything is made of it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):  # a few lines of references to references stand for gigabytes
            raise UserError(f"{file} refers to its own parts with *", expected="each value written out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_YAML:  # each bracket is looked at again by all that follow
            raise UserError(f"{file} holds lists in lists", expected=f"at most {DEEPEST_YAML} inside each other")


def with_absolute_paths(config: Config) -> Config:
    """The same options with every file and folder that exists named from the root, so that a recipe works anywhere."""
    names = [name for name in ("data", "validation", "test", "base", "tokenizer", "template") if hasattr(config, name)]
    values = {name: getattr(config, name) for name in names}
    values |= {"base": None} if values["base"] == "thimble" else {}  # the bundled one, also beside a folder of its name
    paths = {name: user_path(value) for name, value in values.items() if isinstance(value, str)}
    return config.model_copy(update={name: str(path.resolve()) for name, path in paths.items() if path.exists()})


def dump_config(config: RunConfig) -> str:
    """The configuration as YAML, each value under its description. ``out`` is left out: it is no part of a recipe."""
    blocks = []
    for group, names in grouped_options(type(config)).items():
        blocks.append(f"# --- {group} ---")
        for name in names:
            if name != "out":
                description = type(config).model_fields[name].description
                blocks.append(f"# {description}\n{_yaml_line(name, getattr(config, name))}")
        blocks.append("")
    return "\n".join(blocks)


def _yaml_line(name: str, value: Any) -> str:
    # PyYAML writes line ends and spaces that are not ASCII as they are, and may read them as others: they are escaped.
    readable = not any(character.isspace() and character != " " for character in str(value))
    return yaml.safe_dump({name: value}, allow_unicode=readable, width=10_000).rstrip("\n")


def grouped_options(kind: type[RunConfig]) -> dict[str, list[str]]:
    """Option names by group, in the order in which help, YAML and docs show them."""
    groups: dict[str, list[str]] = {"Data": [], "Model": [], "Training": [], "Run": []}
    for name, field in kind.model_fields.items():
        groups[group_of(field)].append(name)
    return groups


def group_of(field: FieldInfo) -> str:
    """The group that ``option`` was given."""
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return str(extra["group"])


def _flag(key: str) -> str:
    return key if key == "data" else "--" + key.replace("_", "-")


def _problem(kind: type[BaseModel], item: Any, where: dict[str, str], values: dict[str, Any]) -> UserError:
    if not item["loc"]:  # several options that do not go together
        return UserError(item["msg"].removeprefix("Value error, "))
    key = str(item["loc"][0])
    place = where.get(key, key)
    if item["type"] == "extra_forbidden":
        hint = did_you_mean(key, kind.model_fields) or "see --help for all options"
        return UserError(f"{place}: unknown option {key!r}", hint=hint)
    if item["type"] == "missing":
        return UserError(f"{_flag(key)} is missing", expected=kind.model_fields[key].description or "")
    expected = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    choices = [str(choice) for choice in getattr(kind.model_fields[key].annotation, "__args__", ())]
    return UserError(
        f"{place}: {key} is {values.get(key)!r}", expected=expected, hint=did_you_mean(str(values.get(key)), choices)
    )
