"""Assistants end to end on a hundred made-up records."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from gptailor.config import AssistantConfig, load_config
from gptailor.data.templates import Message, open_template
from gptailor.errors import UserError
from gptailor.model.device import choose_device
from gptailor.model.sampling import Sampling
from gptailor.tasks.assistant import Lesson, prepare, run_assistant
from gptailor.tasks.generate import generate_command
from gptailor.tasks.inspect import inspect_assistant
from gptailor.train.loop import StopRequest
from tests.tiny import BAD, GOOD, StopAfter

TINY = {
    "base": "random:n_layer=2,n_head=2,n_embd=48,context_length=128",
    "vocab": 400,
    "template": "plain",
    "epochs": 24,
    "lr": 0.006,
    "max_new_tokens": 12,
    "validation_share": 0.1,
}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 records with and without an input, about two moods; one has no output."""
    rng = random.Random(5)
    rows: list[dict[str, Any]] = []
    for _ in range(60):
        for label, words in (("good", GOOD), ("bad", BAD)):
            text = f"number {rng.randint(1, 999)} was {rng.choice(words)}"
            row = {"instruction": "Good or bad?", "input": text} if rng.random() < 0.5 else {"instruction": text}
            rows.append({"input": "", **row, "output": f"it was {label}"})
    rows[7]["output"] = None
    file = tmp_path_factory.mktemp("records") / "records.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    return file


def options(data: Path, **given: Any) -> AssistantConfig:
    return load_config(AssistantConfig, None, {"data": str(data), **TINY, **given})


def tailor(data: Path, out: Path, *, stop: StopRequest | None = None, resume: bool = False, **given: Any) -> Path:
    config = options(data, out=str(out), **given)
    return run_assistant(config, resume=resume, console=Console(quiet=True), stop=stop or StopRequest())


@pytest.fixture(scope="module")
def tailored(records: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tailor(records, tmp_path_factory.mktemp("assistant") / "run")


def test_it_learns_to_answer(tailored: Path) -> None:
    metrics = json.loads((tailored / "metrics.json").read_text())
    test, base = metrics["test"], metrics["base"]
    assert base["loss"] == pytest.approx(math.log(400), abs=0.4), "random weights know nothing"
    assert test["loss"] < 0.3 and test["perplexity"] == pytest.approx(math.exp(test["loss"]))
    assert test["answers"]["exact"]["accuracy"] > 0.8 > 0.1 > base["answers"]["exact"]["accuracy"]
    assert metrics["finished"] and not (tailored / "checkpoints").exists()


def test_answers_stand_beside_their_records(tailored: Path, records: Path) -> None:
    rows = json.loads((tailored / "responses.json").read_text())
    source = {row["instruction"] + row["input"]: row["output"] for row in json.loads(records.read_text())}
    assert len(rows) == 12
    for row in rows:
        assert set(row) == {"instruction", "input", "output", "model_response", "base_response"}
        assert source[row["instruction"] + row["input"]] == row["output"]
        assert row["instruction"] not in row["model_response"] and "<|endoftext|>" not in row["model_response"]


def test_the_report_says_how_far_the_answers_came(tailored: Path) -> None:
    metrics = json.loads((tailored / "metrics.json").read_text())
    told, (test, base) = metrics["difference"]["chrf"], (metrics[key]["answers"]["chrf"] for key in ("test", "base"))
    assert told["difference"] == pytest.approx(test["mean"] - base["mean"]) and told["n"] == 12
    page, card = ((tailored / name).read_text(encoding="utf-8") for name in ("report.html", "README.md"))
    verdict = "nearer to the references than those of its base"
    for said in (f"{test['mean']:.1f}", f"+{told['difference']:.1f}", verdict):
        assert said in page and said in card
    assert "All 12 test records" in page


def test_the_receipt_accounts_for_every_record(tailored: Path) -> None:
    receipt = json.loads((tailored / "receipt.json").read_text())
    assert receipt["rows"] == {"read": 120, "kept": 119, "dropped": 1, "cut": 0}
    assert receipt["dropped"][0]["lines"][0].startswith("records.json:")
    for numbers in receipt["tokens"].values():
        assert numbers["ends"] == numbers["records"], "every answer has its end of text"
        assert 0 < numbers["learned"] < numbers["targets"]


def test_transformers_answers_the_same(tailored: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tailored), AutoTokenizer.from_pretrained(tailored)
    for row in json.loads((tailored / "responses.json").read_text()):
        messages = open_template(tailored).as_dicts([Message("user", row["instruction"], row["input"])])
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids = model.generate(**inputs, max_new_tokens=12, do_sample=False)
        said = tokenizer.decode(ids[0, inputs["input_ids"].size(1) :], skip_special_tokens=True)
        assert said.strip() == row["model_response"]


def test_generate_answers_as_the_test_was_answered(tailored: Path) -> None:
    for row in json.loads((tailored / "responses.json").read_text()):
        said = generate_command(str(tailored), row["instruction"], Sampling(12), "cpu", row["input"])
        assert said.strip() == row["model_response"]


@pytest.mark.parametrize("pack", [False, True])
def test_a_stopped_run_resumes_to_the_same_weights(records: Path, tmp_path: Path, pack: bool) -> None:
    whole = tailor(records, tmp_path / "whole", pack=pack, epochs=2)
    folder = tailor(records, tmp_path / "run", pack=pack, epochs=2, stop=StopAfter(5))
    assert json.loads((folder / "metrics.json").read_text())["finished"] is False
    assert "This run did not finish." in (folder / "report.html").read_text(encoding="utf-8")
    tailor(records, folder, pack=pack, epochs=2, resume=True)
    first, second = load_file(whole / "model.safetensors"), load_file(folder / "model.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)


def lesson(records: Path, **given: Any) -> Lesson:
    prepared = prepare(options(records, **given))
    torch.manual_seed(1)
    return Lesson(prepared, prepared.base.load(prepared.tokenizer), choose_device("cpu"))


def test_packed_records_have_the_loss_they_have_alone(records: Path) -> None:
    alone, packed = lesson(records), lesson(records, pack=True)
    assert len(packed.rows) < len(alone.rows) / 2
    losses = [
        sum(float(one.loss(batch).total.detach()) for batch in one.epoch(0))
        / sum(one.loss(b).count for b in one.epoch(0))
        for one in (alone, packed)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_measured_loss_does_not_depend_on_the_batch_size(records: Path) -> None:
    losses = [lesson(records, batch_size=size).measure("validation")["loss"] for size in (1, 5, 64)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)


def test_loss_and_gradients_in_bf16_are_near_those_in_fp32(records: Path) -> None:
    losses, gradients = {}, {}
    for name in ("fp32", "bf16"):
        made = lesson(records, precision=name)
        loss = made.loss(made.epoch(0)[0])
        loss.total.backward()
        assert loss.total.dtype == torch.float32
        losses[name] = float(loss.total.detach()) / loss.count
        gradients[name] = {key: p.grad for key, p in made.decoder.named_parameters() if p.grad is not None}
    assert 0 < abs(losses["bf16"] - losses["fp32"]) < 0.01
    for key, exact in gradients["fp32"].items():
        half = gradients["bf16"][key]
        assert half.dtype == torch.float32
        assert (half - exact).norm() <= 0.05 * exact.norm() + 1e-5, key


@pytest.mark.parametrize("learn", ["response", "all"])
def test_twenty_steps_have_the_losses_of_transformers(records: Path, learn: str) -> None:
    """The same random weights and batches: our loss and AdamW against GPT2LMHeadModel's own loss."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from gptailor.data.packing import collate_records
    from gptailor.train.optim import adamw
    from gptailor.weights.huggingface import decoder_tensors

    ours = lesson(records, learn=learn)
    shape = ours.decoder.config
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=shape.vocab_size,
            n_positions=shape.context_length,
            n_embd=shape.n_embd,
            n_layer=shape.n_layer,
            n_head=shape.n_head,
            resid_pdrop=0,
            embd_pdrop=0,
            attn_pdrop=0,
        )
    )
    missing, unexpected = theirs.load_state_dict(decoder_tensors(ours.decoder), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    optimizers = [adamw(model, 1e-3, 0.1) for model in (ours.decoder, theirs)]
    for rows in ours.epoch(0)[:20] + ours.epoch(1)[:10]:
        part = ours.loss(rows)
        batch = collate_records(rows, ours.prepared.tokenizer.end_of_text)
        labels = torch.cat([torch.full_like(batch.labels[:, :1], -100), batch.labels], 1)
        inputs = torch.cat([batch.input_ids, batch.input_ids[:, :1]], 1)  # what comes last is never read
        loss = theirs(inputs, labels=labels).loss
        mine = part.total / part.weight
        assert float(mine.detach()) == pytest.approx(float(loss.detach()), abs=1e-4)
        for optimizer, value in zip(optimizers, (mine, loss), strict=True):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()


def test_inspect_shows_what_is_learned(records: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect_assistant(options(records), Console(width=200), ids=True)
    told = capsys.readouterr().out
    assert "120 rows read, 119 used, 1 left out" in told
    assert "<|endoftext|>[" in told and "learned" in told


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"template": "alpca"}, "did you mean 'alpaca'?"),
        ({"max_length": 999}, "at most 128, the context of"),
        ({"max_length": 3}, "no prompt leaves room for an answer within 3 tokens"),
        ({"test": "nowhere.json"}, "nowhere.json"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_written(
    records: Path, tmp_path: Path, given: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UserError) as caught:
        tailor(records, tmp_path / "run", **given)
    assert expected in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"question": "a", "answer": "b"}]', "question, answer"),
        ('[{"instruction": "a", "output": null}]', "has no output"),
        ('[{"instruction": {"a": 1}, "output": "b"}]', "instruction is an object where text was expected"),
        ("", "empty"),
    ],
)
def test_records_that_are_none(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "records.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        prepare(options(file))
    assert expected in str(caught.value)
