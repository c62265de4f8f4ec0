"""The whole path: a file in, an evaluated model folder out that other tools open."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file

import gptailor
from gptailor.config import ClassifierConfig, load_config
from gptailor.errors import UserError
from gptailor.model.together import by_length, tokens_at_once
from gptailor.predict import require, rounding, self_check
from gptailor.show import show_results
from gptailor.tasks import classifier, feed
from gptailor.tasks.prepare import prepare
from gptailor.train.loop import StopRequest
from tests.tiny import TINY, StopAfter, run

FILES = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "run.yaml",
    "manifest.json",
    "receipt.json",
    "history.jsonl",
    "metrics.json",
    "predictions.csv",
    "report.html",
    "README.md",
}


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_a_run_leaves_one_complete_folder(trained: Path) -> None:
    assert {file.name for file in trained.iterdir()} == FILES
    metrics = read(trained, "metrics.json")
    for figures in (metrics["test"], metrics["test_unseen"], *metrics["baselines"].values()):
        assert figures["n"] == 24
        assert figures["interval"][0] <= figures["accuracy"] <= figures["interval"][1]
    assert metrics["finished"] is True
    assert metrics["test"]["accuracy"] > 0.9, "three telling words in every text: this can be learned"
    assert metrics["self_check"]["max_difference"] <= metrics["self_check"]["tolerance"]
    with (trained / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(row["correct"] == "true" for row in rows) == metrics["test"]["correct"]
    assert read(trained, "manifest.json")["inputs"][0]["sha256"] == read(trained, "receipt.json")["files"][0]["sha256"]


def test_transformers_gives_the_same_logits(trained: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(trained),
        AutoTokenizer.from_pretrained(trained),
    )
    texts = ["the soup was lovely", "grim", "the film number 7 was rude and cold and loud, and far too long"]
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**{key: encoded[key] for key in ("input_ids", "attention_mask")}).logits.numpy()
    ours = gptailor.load(trained)
    np.testing.assert_allclose(ours.logits(texts), theirs, atol=1e-5)
    assert [model.config.id2label[i] for i in theirs.argmax(1)] == ours.predict(texts)


def test_the_saved_configuration_repeats_the_run(trained: Path, tmp_path: Path) -> None:
    saved = yaml.safe_load((trained / "run.yaml").read_text(encoding="utf-8"))
    again = run(**saved, out=tmp_path / "again")
    first, second = load_file(trained / "model.safetensors"), load_file(again / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read(trained, "metrics.json") == read(again, "metrics.json")


@pytest.mark.parametrize("layers", ["1", "2", "head"])
def test_the_kept_trunk_changes_nothing(
    trained: Path, moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: str
) -> None:
    options = {"base": str(trained), "layers": layers, "epochs": 1, "keep": "last"}
    kept = load_file(run(moods, tmp_path / "kept", **options) / "model.safetensors")
    monkeypatch.setattr(feed, "keep_trunk", lambda *args: None)
    anew = load_file(run(moods, tmp_path / "anew", **options) / "model.safetensors")
    for name in kept:
        torch.testing.assert_close(kept[name], anew[name], atol=1e-5, rtol=0)
    base = load_file(trained / "model.safetensors")
    changed = {name.split(".")[2] for name in kept if ".h." in name and not torch.equal(kept[name], base[name])}
    assert changed == {"1": {"1"}, "2": {"0", "1"}, "head": set()}[layers]


ABLATIONS = [
    {"read": "first"},
    {"layers": "head"},
    {"layers": "2"},
    {"layers": "all"},
    {"pad_to": "context", "read": "last-position"},
    {"pad_to": "data", "read": "last-position"},
    {"pad_to": "30"},
    {"batch_size": 1, "accumulate": 8},
    {"causal": False},
    {"read": "mean"},
    {"read": "last+mean"},
    {"balance": "undersample"},
    {"balance": "weights"},
    {"split": "book"},
    {"duplicates": "keep"},
    {"max_length": 4},
    {"schedule": "constant", "warmup": 0, "clip": "none", "keep": "last", "patience": 1, "evaluate_every": 5},
    {"tensorboard": True, "keep_checkpoints": True},
]


@pytest.mark.parametrize("options", ABLATIONS, ids=lambda o: ",".join(f"{k}={v}" for k, v in o.items()))
def test_every_setting_trains_and_comes_back_the_same(
    trained: Path, moods: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """The settings of the ablation table; the check at save compares the folder with the model in training."""
    folder = run(moods, tmp_path / "run", base=str(trained), **({"epochs": 1} | options))
    metrics = read(folder, "metrics.json")
    assert metrics["finished"] and metrics["self_check"]["max_difference"] <= 1e-4
    settings = gptailor.load(folder).settings
    assert (settings.read, settings.causal) == (options.get("read", "last"), options.get("causal", True))
    elsewhere = "Only GPTailor reads" in (folder / "README.md").read_text(encoding="utf-8")
    assert elsewhere == (settings.read != "last" or not settings.causal)
    saved = yaml.safe_load((folder / "run.yaml").read_text(encoding="utf-8"))
    assert all(saved[key] == value for key, value in options.items() if value != "none")
    assert (folder / "checkpoints").exists() == options.get("keep_checkpoints", False)


@pytest.mark.parametrize("steps", [1, 14])
def test_an_interrupted_run_is_usable_and_resumes_to_the_same_weights(
    trained: Path, moods: Path, tmp_path: Path, steps: int
) -> None:
    whole = run(moods, tmp_path / "whole")

    folder = run(moods, tmp_path / "cut", stop=StopAfter(steps))
    assert read(folder, "metrics.json")["finished"] is False
    assert "test" not in read(folder, "metrics.json"), "the test part is touched once, at the end"
    assert len(gptailor.load(folder).predict(["the soup was lovely"])) == 1
    assert (folder / "report.html").exists()
    with pytest.raises(UserError, match="already holds another run"):
        run(moods, folder)
    with pytest.raises(UserError, match="batch_size was 8 and is now 4"):
        run(moods, folder, resume=True, batch_size=4)
    run(moods, folder, resume=True)
    first, second = load_file(whole / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    lines = [line for line in (folder / "history.jsonl").read_text().splitlines() if "evaluate" in line]
    assert lines == [line for line in (whole / "history.jsonl").read_text().splitlines() if "evaluate" in line]


def test_several_seeds_give_mean_and_spread(moods: Path, tmp_path: Path) -> None:
    folder = run(moods, tmp_path / "run", seeds=3, epochs=1)
    spread = read(folder, "metrics.json")["seeds"]["test_unseen"]
    values = [
        read(place, "metrics.json")["test_unseen"]["accuracy"]
        for place in (folder, *sorted((folder / "seeds").iterdir()))
    ]
    assert [entry["seed"] for entry in spread["values"]] == [123, 124, 125]
    assert spread["mean"] == pytest.approx(sum(values) / 3)
    assert spread["sd"] == pytest.approx(np.std(values, ddof=1))


def test_given_files_stay_apart_and_shared_texts_are_told(moods: Path, tmp_path: Path) -> None:
    lines = moods.read_text(encoding="utf-8").splitlines()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("\n".join(lines[:80]), encoding="utf-8")
    (tmp_path / "data" / "test.csv").write_text("\n".join([lines[0], *lines[70:]]), encoding="utf-8")
    folder = run(tmp_path / "data", tmp_path / "run", epochs=1)
    metrics, receipt = read(folder, "metrics.json"), read(folder, "receipt.json")
    assert metrics["test"]["n"] == 51
    in_train = receipt["shared"]["test"]["in_train"]
    assert 0 < in_train <= 10, "10 texts stand in both files, and some of those were held out for validation"
    assert metrics["test_unseen"]["n"] == 51 - in_train
    assert any("word for word" in warning for warning in receipt["warnings"])


def test_prediction_from_python(moods: Path, tmp_path: Path) -> None:
    model = gptailor.train_classifier(moods, out=str(tmp_path / "run"), quiet=True, **TINY)
    probabilities = model.predict_proba(["the soup was lovely and warm and kind", "grim and rude"])
    assert model.labels == ["bad", "good"]
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert model.predict(["the soup was lovely and warm and kind"]) == ["good"]
    with pytest.raises(UserError, match="text number 2 is empty"):
        model.predict(["x", "  "])


def test_padding_counts_in_the_size_of_a_batch(trained: Path, moods: Path, tmp_path: Path) -> None:
    """Two-word texts padded to the whole context must not make batches of thousands of rows."""
    config = load_config(ClassifierConfig, None, {"data": str(moods), **TINY, "pad_to": "context", "vocab": 300})
    texts = feed.build(prepare(config))
    most = tokens_at_once(texts.device)
    assert max(len(rows) for rows in by_length(texts.widths, most)) * 32 <= most
    assert set(texts.widths) == {32}


def test_changed_data_is_not_resumed_on(moods: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_bytes(moods.read_bytes())
    stop = StopRequest(requested=True)
    folder = run(data, tmp_path / "run", stop=stop)
    before = (folder / "receipt.json").read_bytes()
    data.write_text(data.read_text(encoding="utf-8") + "one more,good\n", encoding="utf-8")
    with pytest.raises(UserError, match="has changed"):
        run(data, folder, resume=True)
    assert (folder / "receipt.json").read_bytes() == before


@pytest.mark.parametrize("stopped_before", [False, True])
def test_a_run_that_failed_after_its_metrics_is_completed(
    moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_before: bool
) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    if stopped_before:
        run(moods, tmp_path / "run", stop=StopRequest(requested=True))
    monkeypatch.setattr(classifier, "write_report", full)
    with pytest.raises(UserError, match=r"cannot be written: No space left(.|\n)*--resume"):
        run(moods, tmp_path / "run", resume=stopped_before)
    monkeypatch.undo()
    folder = run(moods, tmp_path / "run", resume=True)
    assert {file.name for file in folder.iterdir()} == FILES


def test_a_finished_run_is_not_resumed_with_other_options(moods: Path, tmp_path: Path) -> None:
    folder = run(moods, tmp_path / "run", epochs=1)
    with pytest.raises(UserError, match="epochs was 1 and is now 3"):
        run(moods, folder, resume=True, epochs=3)
    assert run(moods, folder, resume=True, epochs=1, tensorboard=True) == folder


def test_what_is_kept_is_said(moods: Path, tmp_path: Path) -> None:
    stopped = read(run(moods, tmp_path / "stopped", stop=StopRequest(requested=True)), "metrics.json")["kept"]
    assert (stopped["which"], stopped["step"]) == ("last", 1), "one step is more than the untrained model"
    last = run(moods, tmp_path / "last", keep="last", epochs=2)
    assert read(last, "metrics.json")["kept"]["which"] == "last"
    assert read(last, "metrics.json")["kept"]["epoch"] == 2
    assert "The last weights were kept, those of epoch 2" in (last / "report.html").read_text(encoding="utf-8")


def test_a_loss_that_is_no_number_stops_the_run(moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = feed.class_loss

    def broken(*args: Any) -> Any:
        loss = real(*args)
        return loss._replace(total=loss.total * float("nan")) if loss.total.requires_grad else loss

    monkeypatch.setattr(feed, "class_loss", broken)
    with pytest.raises(UserError, match=r"loss has become nan at step 1(.|\n)*smaller --lr"):
        run(moods, tmp_path / "run")


def test_seeds_without_unseen_test_texts(moods: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train.csv", "validation.csv", "test.csv"):
        (tmp_path / "data" / name).write_bytes(moods.read_bytes())
    metrics = read(run(tmp_path / "data", tmp_path / "run", seeds=2, epochs=1), "metrics.json")
    assert metrics["test_unseen"]["n"] == 0 and metrics["seeds"]["test_unseen"]["mean"] is None


def test_a_limit_below_the_padding_is_kept(moods: Path, tmp_path: Path) -> None:
    options = {"read": "last-position", "pad_to": "context", "max_length": 4, "epochs": 1}
    folder = run(moods, tmp_path / "run", **options)
    settings = gptailor.load(folder).settings
    assert (settings.max_length, settings.padded_to) == (4, 32)
    cut = read(folder, "receipt.json")["cut"]
    assert (cut["limit"], cut["count"]) == (4, 120)


# --- lower precision --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", ["1", "all"])
def test_training_in_bf16_is_near_that_in_fp32(moods: Path, tmp_path: Path, layers: str) -> None:
    folders = {name: run(moods, tmp_path / name, precision=name, layers=layers) for name in ("fp32", "bf16")}
    metrics = {name: read(folder, "metrics.json") for name, folder in folders.items()}
    exact, half = (metrics[name]["kept"]["validation_loss"] for name in ("fp32", "bf16"))
    assert half != exact
    assert half == pytest.approx(exact, abs=0.02)
    assert {one["self_check"]["tolerance"] for one in metrics.values()} == {1e-4}, "a folder is used in fp32"
    assert "rounding" not in metrics["fp32"]
    rounded = metrics["bf16"]["rounding"]
    assert rounded["texts"] == rounded["same_label"] and 1e-5 < rounded["max_difference"] < rounded["tolerance"]
    assert {tensor.dtype for tensor in load_file(folders["bf16"] / "model.safetensors").values()} == {torch.float32}


def test_figures_that_are_not_those_of_the_folder_are_told(trained: Path) -> None:
    exact = np.array([[2.0, 1.0], [0.1, 0.2], [-3.0, 4.0]])
    near, far = exact + 0.01, exact.copy()
    far[1] = [0.2, 0.1]
    metrics = read(trained, "metrics.json")
    said = {}
    for name, half in (("near", near), ("far", far)):
        with (console := Console(width=200, quiet=False)).capture() as capture:
            show_results(console, {**metrics, "rounding": rounding(half, exact)}, "", trained)
        said[name] = capture.get()
    assert "note:" not in said["near"]
    assert "2 of 3 texts get the same label and the logits differ by up to 0.1;" in said["far"]


def test_logits_that_are_no_numbers_are_no_small_difference(trained: Path) -> None:
    check = self_check(gptailor.load(trained), ["good and fine"], np.array([[np.nan, 1.0]], np.float32))
    with pytest.raises(UserError, match="logits change by nan"):
        require(check)


def test_a_frozen_trunk_takes_half_the_room_in_bf16(moods: Path, tmp_path: Path) -> None:
    states = {}
    for name in ("fp32", "bf16"):
        given = {"data": str(moods), **TINY, "precision": name, "layers": "1"}
        built = feed.build(prepare(load_config(ClassifierConfig, None, given)))
        built.keep_trunk(tmp_path)
        assert built.trunk is not None
        states[name] = built.trunk.states
    assert states["bf16"].nbytes * 2 == states["fp32"].nbytes
    difference = (states["bf16"].float() - states["fp32"]).abs().max()
    assert 0 < difference < 0.02 * states["fp32"].abs().max()


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 0.02), ("int8", 0.04)])
def test_labels_are_those_of_fp32(trained: Path, moods: Path, precision: str, tolerance: float) -> None:
    with moods.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    exact, lower = gptailor.load(trained), gptailor.load(trained, precision=precision)
    agreement = np.mean([a == b for a, b in zip(exact.predict(texts), lower.predict(texts), strict=True)])
    assert agreement >= 0.98
    logits = exact.logits(texts)
    assert 0 < np.abs(lower.logits(texts) - logits).max() <= tolerance * np.abs(logits).max()


def test_the_precision_of_a_run_is_printed(moods: Path, tmp_path: Path) -> None:
    for name in ("fp32", "bf16"):
        told = io.StringIO()
        given = {"data": str(moods), "out": str(tmp_path / name), **TINY, "precision": name, "epochs": 1}
        console = Console(file=told, width=200)
        classifier.run_classifier(
            load_config(ClassifierConfig, None, given), resume=False, console=console, stop=StopRequest()
        )
        assert f"on cpu in {name};" in told.getvalue()
