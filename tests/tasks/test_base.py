"""Pretraining end to end on a few hundred made-up documents."""

from __future__ import annotations

import io
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from gptailor.config import BaseConfig, load_config
from gptailor.data.documents import PASSAGE, DocumentReceipt, read_documents
from gptailor.data.rows import NOT_LEARNED
from gptailor.data.store import is_held_out
from gptailor.errors import UserError
from gptailor.model.sampling import Sampling
from gptailor.tasks import base as task
from gptailor.tasks.base import run_base
from gptailor.tasks.corpus import Corpus, about_counted, figures, parse_sources, trial_batch
from gptailor.tasks.generate import generate_command
from gptailor.tasks.rerun import rerun_command
from gptailor.tasks.tokenizer import tokenizer_command
from gptailor.tokenizer import Tokenizer
from gptailor.train.loop import StopRequest
from tests.tiny import BAD, GOOD, StopAfter, batch_of, sentence

TINY = {
    "base": "random:n_layer=2,n_head=2,n_embd=16,context_length=32",
    "vocab": 320,
    "tokens": 32 * 8 * 12,
    "batch_size": 8,
    "held_out": 0.1,
    "lr": 0.01,
    "evaluate_every": 4,
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 documents of one to three sentences, and a line that is none."""
    rng = random.Random(3)
    file = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    lines = [
        json.dumps({"text": ". ".join(sentence(GOOD + BAD, rng) for _ in range(rng.randint(1, 3)))}) for _ in range(300)
    ]
    file.write_text("\n".join([*lines[:100], '{"text": broken', *lines[100:]]) + "\n", encoding="utf-8")
    return file


def pretrain(
    data: Path | list[str], out: Path, *, stop: StopRequest | None = None, resume: bool = False, **options: Any
) -> Path:
    files = [str(data)] if isinstance(data, Path) else data
    config = load_config(BaseConfig, None, {"data": files, "out": str(out), **TINY, **options})
    return run_base(config, resume=resume, console=Console(quiet=True), stop=stop or StopRequest())


@pytest.fixture(scope="module")
def pretrained(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(texts, tmp_path_factory.mktemp("base") / "run")


def test_it_learns_and_says_how_well(pretrained: Path) -> None:
    metrics = json.loads((pretrained / "metrics.json").read_text())
    history = [json.loads(line) for line in (pretrained / "history.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in history if line["kind"] == "evaluate"]
    assert losses[0] == pytest.approx(math.log(320), abs=0.2), "random weights know nothing"
    assert metrics["validation_loss"] == pytest.approx(min(losses), abs=1e-5) and min(losses) < losses[0] - 1
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["validation_loss"]))
    held_out = metrics["held_out"]
    targets = held_out["tokens"] - held_out["documents"]
    bits = metrics["validation_loss"] * targets / math.log(2) / held_out["bytes"]
    assert metrics["bits_per_byte"] == pytest.approx(bits)
    assert metrics["tokens_seen"] == TINY["tokens"]
    dropped = json.loads((pretrained / "receipt.json").read_text())["sources"][0]["files"][0]["dropped"]
    assert [entry["count"] for entry in dropped] == [1] and dropped[0]["lines"][0].endswith("texts.jsonl:101")
    card = (pretrained / "README.md").read_text()
    assert f"| 12 | {history[-1]['examples']:,} |" in card, "the loss curve"
    for found in (metrics, *metrics["baselines"].values()):
        assert f"{found['validation_loss']:.3f} | {found['perplexity']:.1f}" in card


def test_the_report_holds_samples_and_what_was_read(pretrained: Path) -> None:
    samples = json.loads((pretrained / "samples.json").read_text())
    assert [one["step"] for one in samples] == [0, 4, 8, 12] and all(one["text"].startswith("The") for one in samples)
    (source,) = json.loads((pretrained / "receipt.json").read_text())["sources"]
    assert source["train"]["documents"] + source["held_out"]["documents"] == 300 and source["weight"] == 1
    rows = -(-(source["train"]["tokens"] - 1) // 32)
    assert source["passes"] == pytest.approx(8 * 12 / rows)
    page = (pretrained / "report.html").read_text(encoding="utf-8")
    assert f"{TINY['tokens']:,} tokens" in page and "5-gram model" in page and "step 12" in page


def test_the_unigram_baseline_counts_the_training_text(texts: Path, tmp_path: Path) -> None:
    folder = pretrain(texts, tmp_path / "run", tokens=100_000, batch_size=256, keep_checkpoints=True, evaluate_every=99)
    (place,) = (folder / "checkpoints" / "tokens").iterdir()
    seen, held_out = (np.fromfile(place / name, "<u2") for name in ("train.bin", "held.bin"))
    end = Tokenizer.load(folder).end_of_text
    targets = held_out[1:][held_out[:-1] != end]
    counts = np.bincount([*seen, end], minlength=320)
    discount = (counts == 1).sum() / ((counts == 1).sum() + 2 * (counts == 2).sum()) if (counts == 1).any() else 0.5
    passed_on = discount * (counts > 0).sum() / 320
    expected = -np.log((np.maximum(counts - discount, 0) + passed_on) / counts.sum())[targets].mean()
    baselines = json.loads((folder / "metrics.json").read_text())["baselines"]
    assert baselines["unigram"]["validation_loss"] == pytest.approx(expected)
    assert baselines["5-gram"]["validation_loss"] < expected - 1


def test_transformers_has_the_same_loss_document_by_document(texts: Path, pretrained: Path) -> None:
    """So no document saw another: packed rows give what each document gives alone, cut where a row would cut it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(pretrained), AutoTokenizer.from_pretrained(pretrained)
    read = [document.text for document in read_documents(texts, DocumentReceipt())]
    held_out = [text for text in read[1:] if is_held_out(123, text, TINY["held_out"])]
    total, targets = 0.0, 0
    for text in held_out:
        ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        for start in range(0, len(ids) - 1, 32):  # the last token of a window is the first of the next
            window = torch.tensor([ids[start : start + 33]])
            with torch.no_grad():
                logits = model(window[:, :-1]).logits
            total += float(torch.nn.functional.cross_entropy(logits[0], window[0, 1:], reduction="sum"))
            targets += window.size(1) - 1
    metrics = json.loads((pretrained / "metrics.json").read_text())
    assert (len(held_out), targets) == (metrics["held_out"]["documents"], metrics["held_out"]["tokens"] - len(held_out))
    assert metrics["validation_loss"] == pytest.approx(total / targets, abs=1e-5)


def test_transformers_continues_it_the_same(pretrained: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(pretrained), AutoTokenizer.from_pretrained(pretrained)
    ids = tokenizer("the soup number 7 was lovely and warm", return_tensors="pt")["input_ids"]
    greedy = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.size(1) :].tolist()
    ours = generate_command(str(pretrained), "the soup number 7 was lovely and warm", Sampling(8), "cpu")
    assert ours == "the soup number 7 was lovely and warm" + tokenizer.decode(greedy).removesuffix("<|endoftext|>")


@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (1, {}),
        (5, {}),
        (3, {"optimizer": "muon"}),
        (3, {"optimizer": "muon", "precision": "bf16"}),
    ],
)
def test_a_stopped_run_resumes_to_the_same_weights(
    texts: Path, tmp_path: Path, steps: int, options: dict[str, str]
) -> None:
    whole = pretrain(texts, tmp_path / "whole", **options)
    folder = pretrain(texts, tmp_path / "run", stop=StopAfter(steps), **options)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["finished"] is False
    kept = {"which": "best", "epoch": 1, "step": 4} if steps == 5 else {"which": "last", "epoch": 1, "step": steps}
    assert metrics["kept"] == kept, "of what is best at step 0, nothing was learned"
    assert "This run did not finish." in (folder / "report.html").read_text(encoding="utf-8")
    pretrain(texts, folder, resume=True, **options)
    assert (folder / "samples.json").read_text() == (whole / "samples.json").read_text()
    assert_same_weights(whole, folder)


def test_files_are_read_as_often_as_their_weights_say(texts: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(texts.read_text(encoding="utf-8").replace("number", "item"), encoding="utf-8")
    weight = 1 / 3  # more digits than one would write: the recipe that is saved must repeat them all
    folder = pretrain([str(texts), f"{other}@{weight}"], tmp_path / "run")
    one, another = json.loads((folder / "receipt.json").read_text())["sources"]
    assert another["passes"] / one["passes"] == pytest.approx(weight, rel=0.1)
    again = tmp_path / "again"
    assert rerun_command(folder, again, Console(quiet=True)) == 0
    assert parse_sources(load_config(BaseConfig, again / "run.yaml", {}).data)[1].weight == weight


def test_a_plain_text_is_learned_and_measured(texts: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("\n".join(sentence(GOOD + BAD, random.Random(n)) for n in range(2000)), encoding="utf-8")
    folder = pretrain(plain, tmp_path / "run", held_out=0.005)
    held_out = json.loads((folder / "metrics.json").read_text())["held_out"]
    assert held_out["documents"] == 1 and PASSAGE <= held_out["bytes"] < PASSAGE + 200


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_memory_stays_flat_on_ten_times_the_text(texts: Path, pretrained: Path, tmp_path: Path) -> None:
    lines = [line for line in texts.read_text(encoding="utf-8").splitlines() if "broken" not in line]
    peaks = []
    for times in (25, 250):
        file = tmp_path / f"{times}.jsonl"
        with file.open("w", encoding="utf-8") as opened:
            for number in range(times):
                opened.writelines(line.replace("number", f"number {number}") + "\n" for line in lines)
        config = {"data": [str(file)], "out": str(tmp_path / f"run{times}"), **TINY, "held_out": 0.001}
        config |= {"tokenizer": str(pretrained)}
        code = (
            "import json, resource, sys\n"
            "from rich.console import Console\n"
            "from gptailor.config import BaseConfig, load_config\n"
            "from gptailor.tasks.base import run_base\n"
            "from gptailor.train.loop import StopRequest\n"
            "config = load_config(BaseConfig, None, json.loads(sys.argv[1]))\n"
            "run_base(config, resume=False, console=Console(quiet=True), stop=StopRequest())\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
        )
        told = subprocess.run([sys.executable, "-c", code, json.dumps(config)], capture_output=True, check=True)
        peaks.append((file.stat().st_size / 2**20, int(told.stdout)))
    (small, before), (large, after) = peaks
    assert after - before < 4, f"{before} MiB for {small:.1f} MiB of text, {after} MiB for {large:.1f} MiB"


# --- memory -----------------------------------------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_is_told_before_a_file_is_read(texts: Path, tmp_path: Path, limit: list[int]) -> None:
    limit[0] = 4
    with pytest.raises(UserError) as error:
        pretrain(texts, tmp_path / "run")
    said = str(error.value)
    assert "a run with batches of 8 x 32 tokens needs about" in said and "--max-length" not in said
    assert not (tmp_path / "run").exists()


def test_the_batch_that_fits_keeps_the_rows_of_each_step(
    texts: Path, pretrained: Path, tmp_path: Path, limit: list[int]
) -> None:
    limit[0] = 4
    folder = pretrain(texts, tmp_path / "run", auto_batch=True)
    assert batch_of(folder) == (4, 2)
    assert_same_weights(folder, pretrain(texts, tmp_path / "same", batch_size=4, accumulate=2))
    plain, found = (
        [json.loads(line) for line in (place / "history.jsonl").read_text().splitlines()]
        for place in (pretrained, folder)
    )
    assert [line["examples"] for line in plain] == [line["examples"] for line in found]
    one, other = ([line["validation_loss"] for line in lines if line["kind"] == "evaluate"] for lines in (plain, found))
    assert one == pytest.approx(other, abs=1e-3), "the same texts in the same steps, summed up in another order"
    stopped = pretrain(texts, tmp_path / "stopped", stop=StopAfter(3), auto_batch=True)
    limit[0] = 10**6  # there is more room now
    pretrain(texts, stopped, resume=True, auto_batch=True)
    assert batch_of(stopped) == (4, 2)
    assert_same_weights(folder, stopped)
    again = tmp_path / "again"
    assert rerun_command(folder, again, Console(quiet=True)) == 0
    assert batch_of(again) == (4, 2)


def test_the_batch_that_is_tried_is_as_long_as_all_others() -> None:
    batch = trial_batch(3, 32)
    assert batch.input_ids.shape == batch.labels.shape == (3, 32)
    assert (batch.labels != NOT_LEARNED).all() and not batch.documents.any()


@pytest.mark.parametrize("place", ["loss", "evaluate", "baselines"])
def test_memory_that_runs_out_later_gives_the_estimate_and_a_resumed_run_ends_the_same(
    texts: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fails(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    with monkeypatch.context() as little:
        little.setattr(Corpus, place, fails)
        with pytest.raises(UserError, match="memory ran out on cpu: a run with batches of 8 x 32 tokens"):
            pretrain(texts, tmp_path / "run")
    pretrain(texts, tmp_path / "run", resume=True)
    assert_same_weights(pretrained, tmp_path / "run")


def test_a_loss_beyond_all_perplexity_is_still_told() -> None:
    assert figures(2 * math.log(8), 2, 1)["perplexity"] == pytest.approx(8)
    diverged = figures(9000.0, 9, 1)
    assert diverged["validation_loss"] == 1000 and math.isfinite(diverged["perplexity"])
    assert math.isnan(figures(math.nan, 9, 1)["perplexity"])


def test_what_the_baselines_will_count_is_guessed_from_the_files(tmp_path: Path) -> None:
    for name in ("a.txt", "b.jsonl.xz", "c.txt.gz"):
        (tmp_path / name).write_bytes(b"x" * 3000)
    sources = parse_sources([str(tmp_path / name) for name in ("a.txt", "b.jsonl.xz", "c.txt.gz")])
    assert about_counted(sources, 10**9) == 750 + 3000 + 2000
    assert about_counted(sources, 500) == 500


def test_the_optimizer_decides_what_moments_take(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works = []
    monkeypatch.setattr(task, "fit_into_memory", lambda config, run, work, *rest: works.append(work) or config)
    for optimizer in ("adamw", "muon"):
        pretrain(texts, tmp_path / optimizer, optimizer=optimizer, tokens=256)
    one, other = works
    assert one.trained == other.trained and one.moments == 2 * one.trained
    assert one.moments - other.moments == 2 * 12 * 16**2, "one moment less of each matrix of two blocks"


def test_a_base_is_kept_in_bf16_and_trained_further(texts: Path, pretrained: Path, tmp_path: Path) -> None:
    folder = pretrain(texts, tmp_path / "run", base=str(pretrained), tokens=256, save_in="bf16")
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    before, after = (json.loads((place / "metrics.json").read_text()) for place in (pretrained, folder))
    assert after["validation_loss"] < before["validation_loss"] + 0.1, "it goes on from where the base was"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (["absent.jsonl"], "there is no file absent.jsonl"),
        (["."], r"\. is a folder"),
        (["{texts}@often"], "'often' is no number"),
        (["{texts}@0", "absent"], "2 problems"),
    ],
)
def test_sources_that_cannot_be_meant(texts: Path, data: list[str], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        parse_sources([name.format(texts=texts) for name in data])


def test_sources_have_weights(texts: Path) -> None:
    assert [source.weight for source in parse_sources([str(texts), f"{texts}@2.5"])] == [1.0, 2.5]


def test_a_tokenizer_of_its_own(texts: Path, tmp_path: Path) -> None:
    tokenizer_command([texts], tmp_path / "tokens", 300, "text", Console(quiet=True))
    assert Tokenizer.load(tmp_path / "tokens").vocab_size == 300
    with pytest.raises(UserError, match="already holds"):
        tokenizer_command([texts], tmp_path / "tokens", 300, "text", Console(quiet=True))
    with pytest.raises(UserError, match="WEIGHT for a tokenizer"):
        tokenizer_command([Path(f"{texts}@2")], tmp_path / "other", 300, "text", Console(quiet=True))


def test_a_tokenizer_tells_what_it_could_not_read(texts: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=300, quiet=False, file=io.StringIO())
    tokenizer_command([texts], tmp_path / "tokens", 99_999, "text", console)
    told = console.export_text()
    assert "left out: 1 × not valid JSON" in told and "texts.jsonl:101" in told
    assert "the texts give no more than" in told and "99,999 were asked for" in told


def test_a_file_that_gives_nothing_does_not_take_the_folder(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is: 'text'"):
        pretrain(texts, tmp_path / "run", text="body")
    assert not (tmp_path / "run").exists()


def test_a_sample_of_nothing_is_refused(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 1 character"):
        pretrain(texts, tmp_path / "run", sample="")


def test_nothing_held_out_is_told(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("just one text, and nothing to measure on\n" * 50, encoding="utf-8")
    with pytest.raises(UserError, match="is held out"):
        pretrain(tmp_path / "one.txt", tmp_path / "run")


def test_random_weights_have_nothing_to_say() -> None:
    with pytest.raises(UserError, match="nothing to say"):
        generate_command("random:tiny", "Hello", Sampling(5), "cpu")
