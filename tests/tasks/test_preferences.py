"""Preference tuning end to end on made-up pairs: the better answer agrees with the question."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from gptailor.config import AssistantConfig, PreferencesConfig, load_config
from gptailor.data.templates import TEMPLATE_FILE, open_template
from gptailor.errors import UserError
from gptailor.evaluate.answers import read_answers
from gptailor.model.device import choose_device
from gptailor.tasks.assistant import prepare as prepare_assistant
from gptailor.tasks.assistant import run_assistant
from gptailor.tasks.preferences import REFERENCE, PairLesson, by_length_alone, prepare, run_preferences
from gptailor.train.loop import StopRequest
from gptailor.train.preference import START_HALF
from tests.tiny import BAD, GOOD, StopAfter

SHAPE = "random:n_layer=2,n_head=2,n_embd=48,context_length=128"
TINY = {"template": "plain", "max_new_tokens": 8, "validation_share": 0.1, "test_share": 0.3}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pairs; two of them are of no use."""
    rng = random.Random(5)
    rows: list[dict[str, str]] = []
    for at in range(60):
        for right, wrong, words in (("good", "bad", GOOD), ("bad", "good", BAD)):
            asked = f"number {at} was {rng.choice(words)}"
            rows.append({"instruction": asked, "input": "", "chosen": f"it was {right}", "rejected": f"it was {wrong}"})
    rows[7]["rejected"], rows[9]["chosen"] = rows[7]["chosen"], ""
    file = tmp_path_factory.mktemp("pairs") / "pairs.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def base(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An assistant that has learned the form of the answers, in the plain template."""
    folder = tmp_path_factory.mktemp("base")
    rows = [{"instruction": row["instruction"], "output": row["rejected"]} for row in json.loads(pairs.read_text())]
    (folder / "records.json").write_text(json.dumps(rows), encoding="utf-8")
    given = {"data": str(folder / "records.json"), "base": SHAPE, "vocab": 400, "epochs": 2, "lr": 0.003}
    config = load_config(AssistantConfig, None, {**given, **TINY, "out": str(folder / "run"), "answers": 1})
    return run_assistant(config, resume=False, console=Console(quiet=True), stop=StopRequest())


def options(data: Path, base: Path, **given: Any) -> PreferencesConfig:
    how = {key: value for key, value in TINY.items() if key != "template"}  # which is taken from the base
    return load_config(PreferencesConfig, None, {"data": str(data), "base": str(base), **how, **given})


def tune(
    data: Path, base: Path, out: Path, *, stop: StopRequest | None = None, resume: bool = False, **given: Any
) -> Path:
    config = options(data, base, out=str(out), **{"epochs": 2, "lr": 0.002, **given})
    return run_preferences(config, resume=resume, console=Console(quiet=True), stop=stop or StopRequest())


@pytest.fixture(scope="module")
def tuned(pairs: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tune(pairs, base, tmp_path_factory.mktemp("tuned") / "run", epochs=8, evaluate_every=12, lr=0.003)


def lesson(data: Path, base: Path, tmp_path: Path, **given: Any) -> PairLesson:
    prepared = prepare(options(data, base, **given))
    made = PairLesson(prepared, prepared.base.load(prepared.tokenizer), choose_device("cpu"))
    made.keep_reference(tmp_path / REFERENCE)
    return made


def test_it_learns_which_answer_is_better(tuned: Path) -> None:
    metrics = json.loads((tuned / "metrics.json").read_text())
    test = metrics["test"]
    assert test["n"] == 35 and test["interval"][0] > 0.5, "above chance, and the interval excludes it"
    assert test["loss"] < math.log(2) and test["margin"] > 0
    assert test["correct"] == round(test["accuracy"] * test["n"])
    assert metrics["base"]["likelier"]["n"] == metrics["length"]["n"] == 35
    assert metrics["answers"]["changed"] > 0


def test_the_run_begins_at_ln_2(tuned: Path) -> None:
    lines = [json.loads(line) for line in (tuned / "history.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if line["kind"] == "evaluate"]
    assert evaluations[0]["step"] == 0
    assert evaluations[0]["validation_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert evaluations[0]["validation_margin"] == pytest.approx(0, abs=1e-4)
    assert {"validation_loss", "validation_margin", "validation_accuracy"} <= evaluations[-1].keys()
    kept = json.loads((tuned / "metrics.json").read_text())["kept"]
    best = min(evaluations, key=lambda line: line["validation_loss"])
    assert kept == {"which": "best", "epoch": best["epoch"], "step": best["step"]}


def test_answers_of_both_stand_beside_their_pairs_and_can_be_judged(tuned: Path) -> None:
    rows = json.loads((tuned / "responses.json").read_text())
    keys = {"instruction", "input", "output", "chosen", "rejected", "model_response", "base_response"}
    assert len(rows) == 35 and all(set(row) == keys for row in rows)
    assert all(row["output"] == row["chosen"] != row["rejected"] for row in rows)
    for response in ("model_response", "base_response"):
        assert len(read_answers(tuned / "responses.json", response)) == 35


def test_the_template_is_that_of_the_base(tuned: Path, base: Path, pairs: Path) -> None:
    assert (tuned / TEMPLATE_FILE).read_text() == (base / TEMPLATE_FILE).read_text() == open_template("plain").source
    assert prepare(options(pairs, base, template="plain")).template.source == open_template("plain").source
    with pytest.raises(UserError, match="was taught with another one"):
        prepare(options(pairs, base, template="alpaca"))
    assert prepare(options(pairs, Path(SHAPE))).template.name == "alpaca"


def test_an_assistant_is_taught_on_as_it_was_taught(base: Path, tmp_path: Path) -> None:
    file = tmp_path / "more.json"
    rows = [{"instruction": f"what is {n}", "output": f"it is {n}"} for n in range(30)]
    file.write_text(json.dumps(rows), encoding="utf-8")
    for given, template in (({}, "plain"), ({"template": "phi3"}, "phi3")):
        config = load_config(AssistantConfig, None, {"data": str(file), "base": str(base), **given})
        assert prepare_assistant(config).template.source == open_template(template).source


def test_the_receipt_and_the_card_tell_of_the_pairs(tuned: Path) -> None:
    receipt = json.loads((tuned / "receipt.json").read_text())
    assert receipt["rows"] == {"read": 120, "kept": 118, "dropped": 2, "cut": 0}
    assert receipt["identical"]["count"] == receipt["empty_sides"]["chosen"]["count"] == 1
    page = (tuned / "report.html").read_text(encoding="utf-8")
    assert "It tells the better answer more often than chance" in page and "rejected" in page
    assert page.count("<svg") >= 4 and "Margin of the chosen answer" in page
    card = (tuned / "README.md").read_text()
    assert "DPO, beta 0.1" in card and "this model, by its margins" in card and "- rejected: it was" in card


def test_the_reference_is_what_the_plain_loop_gives(pairs: Path, base: Path, tmp_path: Path) -> None:
    made = lesson(pairs, base, tmp_path)
    for row, pair in enumerate(made.parts["test"][:5]):
        for at, side in enumerate(pair.sides):
            ids = torch.from_numpy(side.ids).long()
            with torch.no_grad():
                logits = made.decoder.logits(made.decoder(ids[None, :-1]))[0]
            each = logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]
            expected = float(each[torch.from_numpy(side.learned[1:])].sum())
            assert float(made.reference["test"][row, at]) == pytest.approx(expected, abs=1e-4)


def test_loss_and_gradients_in_bf16_are_near_those_in_fp32(pairs: Path, base: Path, tmp_path: Path) -> None:
    losses, gradients = {}, {}
    for name in ("fp32", "bf16"):
        (tmp_path / name).mkdir()
        made = lesson(pairs, base, tmp_path / name, precision=name)
        loss = made.loss(made.epoch(0)[0])
        loss.total.backward()
        losses[name] = float(loss.total.detach()) / loss.count
        gradients[name] = torch.cat([p.grad.flatten() for p in made.decoder.parameters() if p.grad is not None])
    assert losses["bf16"] == pytest.approx(losses["fp32"], abs=START_HALF)
    assert 0 < (gradients["bf16"] - gradients["fp32"]).norm() <= 0.1 * gradients["fp32"].norm()


def test_a_reference_of_another_base_is_refused(pairs: Path, base: Path, tmp_path: Path) -> None:
    made = lesson(pairs, base, tmp_path)
    file = tmp_path / REFERENCE
    save_file({part: figures + 0.01 * torch.arange(2) for part, figures in made.reference.items()}, file)
    with pytest.raises(UserError, match="the reference does not match the model"):
        made.keep_reference(file)


def test_what_is_measured_does_not_depend_on_the_batches(
    pairs: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = lesson(pairs, base, tmp_path, loss="simpo")
    together = made.measure("test")
    monkeypatch.setattr("gptailor.tasks.preferences.tokens_at_once", lambda device: 1)
    assert made.measure("test")["loss"] == pytest.approx(together["loss"], abs=1e-5)
    rows = list(range(len(made.parts["train"])))
    assert float(made.loss(rows).total.detach() / len(rows)) == pytest.approx(made.measure("train")["loss"], abs=1e-5)


def test_length_alone(pairs: Path, base: Path) -> None:
    prepared = prepare(options(pairs, base))
    told = by_length_alone(prepared)  # "good" has one character more than "bad", and is as often better as worse
    assert told["n"] == len(prepared.parts["test"]) and told["takes"] in ("longer", "shorter")
    right = sum(
        (len(pair.chosen.ids) > len(pair.rejected.ids)) == (told["takes"] == "longer")
        for pair in prepared.parts["test"]
        if len(pair.chosen.ids) != len(pair.rejected.ids)
    )
    assert told["correct"] == right


@pytest.mark.parametrize("loss", ["ipo", "orpo", "simpo"])
def test_the_other_losses_become_smaller(pairs: Path, base: Path, tmp_path: Path, loss: str) -> None:
    folder = tune(pairs, base, tmp_path / "run", loss=loss, epochs=6, answers=1)
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in lines if line["kind"] == "evaluate"]
    assert losses[-1] < losses[0]


def test_a_stopped_run_resumes_to_the_same_weights(pairs: Path, base: Path, tmp_path: Path) -> None:
    whole = tune(pairs, base, tmp_path / "whole")
    folder = tune(pairs, base, tmp_path / "run", stop=StopAfter(5))
    assert json.loads((folder / "metrics.json").read_text())["finished"] is False
    assert load_file(folder / "checkpoints" / REFERENCE)["train"].shape == (71, 2)
    tune(pairs, base, folder, resume=True)
    first, second = load_file(whole / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"gamma": 0.5}, "--gamma: only with --loss simpo"),
        ({"smoothing": 0.1, "loss": "ipo"}, "--smoothing: only with --loss dpo"),
        ({"max_length": 999}, "at most 128, the context of"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_written(
    pairs: Path, base: Path, tmp_path: Path, given: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError) as caught:
        tune(pairs, base, tmp_path / "run", **given)
    assert expected in str(caught.value) and not (tmp_path / "run").exists()


def test_the_options_of_a_loss_are_its_own() -> None:
    small = {"pretrained": True, "n_layer": 4}
    assert PreferencesConfig(data="d").for_base(**small).beta == 0.1
    simpo = PreferencesConfig(data="d", loss="simpo").for_base(**small)
    assert (simpo.beta, simpo.gamma) == (2.0, 1.0)
    book = PreferencesConfig(data="d").for_base(pretrained=True, n_layer=24)
    assert (book.beta, book.lr, book.epochs) == (0.1, 5e-6, 1)
