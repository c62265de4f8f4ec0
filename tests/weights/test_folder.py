"""Our classifier folder: it opens in transformers with the same logits, comes back bit for bit, and refuses damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from gptailor.data.batching import collate
from gptailor.errors import UserError
from gptailor.model.decoder import Decoder
from gptailor.predict import TextClassifier, load
from gptailor.tokenizer import Tokenizer
from gptailor.weights.folder import (
    ClassifierFolder,
    ClassifierSettings,
    build_classifier,
    load_classifier,
    save_classifier,
)
from gptailor.weights.huggingface import read_json

MakeDecoder = Callable[..., Decoder]
LABELS = ["ham", "çöp", 'a label, with "marks"']
TEXTS = ["win a prize now", "hi", "see you at the station at nine, bring the prize", "<|endoftext|> سلام"]
CONFIG, SINGLE, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([text for text in TEXTS for _ in range(3)], 290)


@pytest.fixture(scope="module")
def classifier(make_decoder: MakeDecoder, tokenizer: Tokenizer) -> ClassifierFolder:
    decoder = make_decoder(vocab_size=tokenizer.vocab_size, context_length=64)
    settings = ClassifierSettings(max_length=60, temperature=1.5)
    model = build_classifier(decoder, len(LABELS), settings).eval()
    torch.nn.init.normal_(model.head.weight, std=0.5, generator=torch.Generator().manual_seed(1))
    return ClassifierFolder(model, tokenizer, LABELS, settings)


@pytest.fixture(scope="module")
def saved(classifier: ClassifierFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "new" / "model"
    save_classifier(folder, classifier)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def padded(classifier: ClassifierFolder, side: str) -> tuple[Tensor, Tensor]:
    """The texts as a batch: ids and which of them are real."""
    ids = classifier.tokenizer.encode_many(TEXTS)
    assert len({len(text) for text in ids}) == len(TEXTS)
    batch = collate(ids, [0] * len(ids), range(len(ids)), classifier.tokenizer.end_of_text)
    if side == "right":
        return batch.input_ids, batch.real
    padding = (~batch.real).sum(1).tolist()
    ids, real = (torch.stack(list(map(torch.roll, whole, padding))) for whole in (batch.input_ids, batch.real))
    assert bool(real[:, -1].all())
    return ids, real


# --- In transformers ---


@pytest.mark.parametrize("side", ["right", "left"])
@torch.no_grad()
def test_transformers_gives_the_same_logits_on_a_padded_batch(saved: Path, classifier: ClassifierFolder, side: str):
    ids, real = padded(classifier, side)
    model, report = AutoModelForSequenceClassification.from_pretrained(saved, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"))
    places = (real.cumsum(1) - 1).clamp(min=0)  # transformers counts padding on the left as positions otherwise
    theirs = model.eval()(ids, attention_mask=real.long(), position_ids=places).logits
    ours = load_classifier(saved).model(ids, real).detach()
    assert theirs.std() > 0.5
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, classifier.model(ids, real), atol=0, rtol=0)
    alone = [classifier.model(row[keep][None], keep[keep][None]) for row, keep in zip(ids, real, strict=True)]
    torch.testing.assert_close(ours, torch.cat(alone), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_tools_of_transformers_alone_give_our_answers(saved: Path):
    """Their tokenizer, their padding, their labels."""
    model = AutoModelForSequenceClassification.from_pretrained(saved).eval()
    batch = AutoTokenizer.from_pretrained(saved)(TEXTS, padding=True, return_tensors="pt")
    logits = model(**batch).logits
    ours = load(saved, "cpu")
    torch.testing.assert_close(torch.from_numpy(ours.logits(TEXTS)), logits, atol=1e-5, rtol=0)
    names = [model.config.id2label[int(index)] for index in logits.argmax(1)]
    assert len(set(names)) > 1
    assert ours.predict(TEXTS) == names


def test_the_tokenizer_of_transformers_gives_the_same_ids(saved: Path, tokenizer: Tokenizer):
    theirs = AutoTokenizer.from_pretrained(saved)
    assert theirs(TEXTS)["input_ids"] == tokenizer.encode_many(TEXTS)
    assert (theirs.pad_token_id, theirs.model_max_length) == (tokenizer.end_of_text, 64)


@torch.no_grad()
def test_the_decoder_inside_opens_as_a_language_model(saved: Path, classifier: ClassifierFolder):
    model = AutoModelForCausalLM.from_pretrained(saved).eval()
    ids = padded(classifier, "right")[0]
    decoder = classifier.model.decoder
    torch.testing.assert_close(model(ids).logits, decoder.logits(decoder(ids)), atol=1e-5, rtol=0)


# --- There and back ---


def test_a_round_trip_keeps_every_byte(saved: Path, tmp_path: Path):
    save_classifier(tmp_path, load_classifier(saved))
    names = sorted(file.name for file in saved.iterdir())
    assert names == [CONFIG, SINGLE, TOKENIZER, "tokenizer_config.json"]
    assert names == sorted(file.name for file in tmp_path.iterdir())
    for name in names:
        assert (tmp_path / name).read_bytes() == (saved / name).read_bytes(), name


def test_what_comes_back_is_what_was_saved(saved: Path, classifier: ClassifierFolder):
    again = load_classifier(saved)
    assert (again.labels, again.settings) == (LABELS, classifier.settings)
    assert again.model.decoder.config == classifier.model.decoder.config
    state = classifier.model.state_dict()
    assert list(again.model.state_dict()) == list(state)
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert not again.model.training


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_length": 9, "temperature": 0.5},
        {"read": "first"},
        {"read": "mean"},
        {"read": "last+mean"},
        {"causal": False},
        {"read": "last-position", "max_length": 30, "padded_to": 30},
    ],
)
def test_settings_come_back_and_rule_the_answers(
    classifier: ClassifierFolder, tmp_path: Path, settings: dict[str, Any]
):
    used = ClassifierSettings(**{"max_length": 60} | settings)
    model = build_classifier(classifier.model.decoder, 3, used).eval()
    model.head.weight = classifier.model.head.weight
    before = TextClassifier(ClassifierFolder(model, classifier.tokenizer, LABELS, used), torch.device("cpu"))
    save_classifier(tmp_path, ClassifierFolder(model, classifier.tokenizer, LABELS, used))
    after = load(tmp_path, "cpu")
    assert after.settings == used
    assert (after.predict_proba(TEXTS) == before.predict_proba(TEXTS)).all()


def test_a_save_over_an_older_one_replaces_it_and_a_failed_save_leaves_it(
    folder: Path, classifier: ClassifierFolder, monkeypatch: pytest.MonkeyPatch
):
    names = sorted(file.name for file in folder.iterdir())
    changed = ClassifierFolder(classifier.model, classifier.tokenizer, ["x", "y", "z"], classifier.settings)
    save_classifier(folder, changed)
    assert load_classifier(folder).labels == ["x", "y", "z"]

    def full(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Tokenizer, "save", full)
    with pytest.raises(OSError, match="no space"):
        save_classifier(folder, classifier)
    assert load_classifier(folder).labels == ["x", "y", "z"]
    assert sorted(file.name for file in folder.iterdir()) == names


def test_links_in_a_folder_are_read_through_and_never_written_through(
    folder: Path, classifier: ClassifierFolder, tmp_path: Path
):
    (outside := tmp_path / "outside").mkdir()
    contents = {}
    for file in list(folder.iterdir()):
        contents[file.name] = file.read_bytes()
        file.rename(outside / file.name)
        file.symlink_to(outside / file.name)
    assert load_classifier(folder).labels == classifier.labels
    changed = ClassifierFolder(classifier.model, classifier.tokenizer, ["x", "y", "z"], classifier.settings)
    save_classifier(folder, changed)
    assert load_classifier(folder).labels == ["x", "y", "z"]
    assert {file.name: file.read_bytes() for file in outside.iterdir()} == contents


# --- Folders of others ---


def test_a_folder_that_another_tool_wrote_is_read_and_long_texts_are_cut_to_its_context(folder: Path):
    config = read_json(folder / CONFIG)
    del config["gptailor"]
    (folder / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    opened = load(folder, "cpu")
    assert opened.settings == ClassifierSettings(max_length=64)
    long = " ".join(TEXTS[:3] * 20)
    cut = opened.tokenizer.decode(opened.tokenizer.encode(long)[:64])
    assert len(opened.tokenizer.encode(long)) > 64
    assert opened.predict_proba([long]) == pytest.approx(opened.predict_proba([cut]), abs=1e-5)


# --- What is refused ---


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_classifier(folder)
    return str(caught.value)


def change_config(folder: Path, **values: Any) -> None:
    (folder / CONFIG).write_text(json.dumps(read_json(folder / CONFIG) | values), encoding="utf-8")


def change_tensors(folder: Path, **values: Tensor | None) -> None:
    tensors = load_file(folder / SINGLE) | {name.replace("__", "."): tensor for name, tensor in values.items()}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / SINGLE)


def test_no_folder(tmp_path: Path):
    assert f"{tmp_path / 'none'} is no folder" in refusal(tmp_path / "none")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert f"{tmp_path / 'file'} is no folder" in refusal(tmp_path / "file")


def test_an_empty_folder(tmp_path: Path):
    assert f"{tmp_path / CONFIG} is missing" in refusal(tmp_path)


def test_a_base_model_has_no_class_head(folder: Path):
    change_tensors(folder, score__weight=None)
    message = refusal(folder)
    assert f"{folder} has no class head (tensor score.weight)" in message
    assert f"--base {folder}" in message


@pytest.mark.parametrize("shape", [(2, 32), (3, 31), (32, 3), (96,)])
def test_a_head_of_another_shape(folder: Path, shape: tuple[int, ...]):
    change_tensors(folder, score__weight=torch.zeros(shape))
    assert f"score.weight is {shape}\n  expected: (3, 32)" in refusal(folder)


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "a", "2": "b"},
        {"1": "a", "2": "b"},
        {"0": "a"},
        {},
        {"0": "a", "1": "b", "x": "c"},
        {"0": "a", "01": "b"},
        None,
        ["a", "b"],
        "ham",
    ],
)
def test_labels_with_holes(folder: Path, labels: object):
    change_config(folder, id2label=labels)
    message = refusal(folder)
    assert f"{folder}/config.json: id2label is {labels!r}" in message


def test_fewer_labels_than_the_head_has(folder: Path):
    change_config(folder, id2label={"0": "a", "1": "b"})
    assert "score.weight is (3, 32)\n  expected: (2, 32)" in refusal(folder)


def test_a_tokenizer_of_another_model(folder: Path):
    text = [f"{a}{b}{c}" for a in "abcdefgh" for b in "abcdefgh" for c in "abcdefgh"]
    Tokenizer.train(text * 2, 400).save(folder, context_length=64)
    message = refusal(folder)
    size = read_json(folder / CONFIG)["vocab_size"]
    assert f"{folder}: the tokenizer has 400 tokens and the model {size}" in message


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff\xff", b'{"model": '])
def test_a_missing_or_damaged_tokenizer(folder: Path, content: bytes | None):
    (folder / TOKENIZER).unlink() if content is None else (folder / TOKENIZER).write_bytes(content)
    message = refusal(folder)
    assert str(folder) in message
    assert "tokenizer" in message


@pytest.mark.parametrize("name", [CONFIG, SINGLE, TOKENIZER])
def test_a_file_that_was_cut_is_named(folder: Path, name: str):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    assert str(folder / name) in refusal(folder)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"reed": "last"}, "reed: Extra inputs"),
        ({"read": "middle"}, "read: "),
        ({"read": 3}, "read: "),
        ({"causal": "no"}, "causal: "),
        ({"causal": 0}, "causal: "),
        ({"max_length": 0}, "max_length: "),
        ({"max_length": "60"}, "max_length: "),
        ({"max_length": 65}, "max_length is 65"),
        ({"padded_to": 65}, "padded_to is 65"),
        ({"padded_to": 10**18}, "padded_to is 1000000000000000000"),
        ({"temperature": 0}, "temperature: "),
        ({"temperature": -1.5}, "temperature: "),
        ({"temperature": None}, "temperature: "),
        ({"temperature": float("inf")}, "temperature: "),
    ],
)
def test_wrong_settings_of_ours_are_named(folder: Path, settings: dict[str, Any], named: str):
    change_config(folder, gptailor=read_json(folder / CONFIG)["gptailor"] | settings)
    message = refusal(folder)
    assert f"{folder}/config.json, key gptailor" in message
    assert named in message


def test_all_wrong_settings_are_named_together(folder: Path):
    change_config(folder, gptailor={"task": "classifier", "read": "middle", "causal": 2, "new": 1})
    message = refusal(folder)
    assert all(f"{key}: " in message for key in ("read", "causal", "new"))


@pytest.mark.parametrize("value", ["classifier", 5, ["task", "classifier"], True])
def test_settings_of_ours_that_are_no_object(folder: Path, value: object):
    change_config(folder, gptailor=value)
    assert f"key gptailor is {value!r}" in refusal(folder)


@pytest.mark.parametrize("value", [{"task": "assistant"}, {"read": "last"}])
def test_a_folder_of_another_task(folder: Path, value: dict[str, str]):
    change_config(folder, gptailor=value)
    assert f"{folder} is no classifier" in refusal(folder)
