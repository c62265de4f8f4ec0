"""GPTailor by its public functions, as its user calls them; an option that it does not have yet is not offered."""

from __future__ import annotations

import csv
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from work import Skip, Work


def options(command: list[str], precision: str, wanted: dict[str, Any]) -> dict[str, Any]:
    """The options for a command, if its own help has all of them and names these values.

    Raises:
        Skip: for one that is not offered.
    """
    import typer

    from gptailor.cli import app

    found: Any = typer.main.get_command(app)
    for word in command:
        found = found.commands[word]
    values = {parameter.name: (parameter.metavar or "").split("|") for parameter in found.params}
    if precision != "fp32" or "precision" in values:  # without a choice it is fp32
        wanted = {**wanted, "precision": precision}
    for name, value in wanted.items():
        if name not in values or (len(values[name]) > 1 and str(value) not in values[name]):
            raise Skip(f"not offered: {' '.join(command)} --{name.replace('_', '-')} {value}")
    return wanted


def spam(work: Work, precision: str, **wanted: Any) -> dict[str, float]:
    """The book's split, last block trained; validation in every epoch, all parts, report and a proven folder."""
    return classifier(work.folder / "sms.csv", work, work.epochs, precision, {**wanted, "split": "book"})


def scaling(work: Work, precision: str, *, texts: int = 1, length: int = 1, epochs: int = 1) -> dict[str, float]:
    """The same on random texts: so many times more of them, as long, as often."""
    from material import words

    rng, scale = random.Random(3), work.scale
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.csv"
        with file.open("w", encoding="utf-8", newline="") as opened:
            rows = [("ab"[n % 2], words(rng, scale["words"] * length)) for n in range(scale["texts"] * texts)]
            csv.writer(opened).writerows([("label", "text"), *rows])
        return classifier(file, work, scale["epochs"] * epochs, precision, {})


def classifier(data: Path, work: Work, epochs: int, precision: str, wanted: dict[str, Any]) -> dict[str, float]:
    chosen = options(["train", "classifier"], precision, wanted)
    from gptailor import train_classifier

    same = {"base": str(work.folder / "model"), "layers": "1", "epochs": epochs, "batch_size": work.batch_size}
    with tempfile.TemporaryDirectory() as folder:
        train_classifier(data, out=f"{folder}/run", quiet=True, device="cpu", **same, **chosen)
    return {}


def instructions(work: Work, precision: str, **wanted: Any) -> dict[str, float]:
    """One epoch with all parameters, every token learned; the seconds are those of the training steps."""
    chosen = options(["train", "assistant"], precision, {"layers": "all", **wanted})
    from gptailor import train_assistant
    from gptailor.train.log import read_history

    same = {"base": str(work.folder / "model"), "epochs": 1, "batch_size": work.batch_size, "learn": "all"}
    least = {"split": "book", "evaluate_every": 10**6, "answers": 1, "max_new_tokens": 1}
    with tempfile.TemporaryDirectory() as folder:
        data = work.folder / "instructions.json"
        run = train_assistant(data, out=f"{folder}/run", quiet=True, device="cpu", **same, **least, **chosen)
        lines = [line for line in read_history(run) if line["kind"] == "train"]
    done = [line["examples"] for line in lines]
    assert done[-1] == work.learned, "the work is not the same as that of the others"
    steps = zip(lines, done, [0, *done], strict=False)
    return {
        "seconds": sum((now - before) / line["examples_per_second"] for line, now, before in steps),
        "done": done[-1],
    }


def lora(work: Work, precision: str, **wanted: Any) -> dict[str, float]:
    """Adapters of rank 16 on every matrix of the blocks."""
    return instructions(work, precision, layers="lora", **wanted)


def classify(work: Work, precision: str) -> dict[str, float]:
    """A list of texts to labels."""
    chosen = options(["predict"], precision, {})
    from gptailor import load

    ready = load(work.folder / "classifier", device="cpu", **chosen)
    begun = time.perf_counter()
    ready.predict(work.texts)
    return {"seconds": time.perf_counter() - begun, "done": len(work.texts)}


def generate(work: Work, precision: str) -> dict[str, float]:
    """One prompt, greedy, by what ``gptailor generate`` calls."""
    speaker = opened(work, precision)
    begun = time.perf_counter()
    ended = speaker.say(work.prompts[0], 0, lambda text: None)
    assert ended == "length", "fewer tokens than the others were asked for"
    return {"seconds": time.perf_counter() - begun, "done": work.new_tokens}


def generate_many(work: Work, precision: str) -> dict[str, float]:
    """Many prompts, by what ``gptailor generate --file`` calls."""
    speaker = opened(work, precision)
    from rich.console import Console

    from gptailor.tasks.answers import answer, endings

    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "answers.jsonl"
        how = {**speaker.sampling.options(), "kept": kept, "console": Console(quiet=True), "told": ""}
        begun = time.perf_counter()
        answer(speaker.decoder, speaker.tokenizer, work.prompts, **how)
        seconds = time.perf_counter() - begun
        assert endings(kept) == {"length": len(work.prompts)}, "fewer tokens than the others were asked for"
    return {"seconds": seconds, "done": len(work.prompts) * work.new_tokens}


def opened(work: Work, precision: str) -> Any:
    """The language model, its weights read."""
    chosen = options(["generate"], precision, {})
    from gptailor.model.sampling import Sampling
    from gptailor.tasks.speaker import Speaker

    speaker = Speaker(str(work.folder / "model"), Sampling(work.new_tokens), "cpu", **chosen)
    assert speaker.decoder is not None
    return speaker
