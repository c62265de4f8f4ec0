"""Train thimble, the base model that comes with GPTailor, and put it into its place among the assets.

    python scripts/make_thimble.py TEXT MEASURED [--run runs/thimble]

TEXT is the folder of the source files that make_thimble.yaml names, MEASURED that of the data sets that models are
measured on: nothing that stands there is written into the project's own text. First it learns the next token
(`gptailor train base`), then also to tell labelled texts apart (make_thimble_labels.py), in rounds. Ctrl-C stops the
training; the same command goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from make_thimble_labels import teach

SCRIPTS = Path(__file__).parent
PLACE = SCRIPTS.parent / "src" / "gptailor" / "assets" / "thimble"
CREDITS = """
## Sources and credits

A weight of 2 samples a source twice as often as 1, for its size.

| source | weight | what it is | licence |
|---|---|---|---|
{table}

The texts were prepared for training: headers, markup and figures removed, cut into tokens. The folder contains none of
them. The weights are offered under Apache-2.0.
"""
SECOND = """
## The second stage

What is told above is the first stage, of the next token alone. Then the model read more of the same text, and beside
it learned to tell {labels} labels of short texts apart at their last token, with {drop:.0%} of their tokens left out at
random; the mean loss of these texts counted {weight} times as much as the mean loss of the tokens. The texts are
written by scripts/make_text_labels.py; the head that named the labels is not part of the model.

| round | tokens of text | perplexity before | after | labelled texts | right labels of held-out ones |
|---|---|---|---|---|---|
{rounds}

The perplexity is that of held-out documents of that text. {note}
"""
ROUND = (
    "| {round} | {tokens:,} | {before_perplexity:.1f} | {perplexity:.1f} | {texts:,} |"
    " {label_accuracy:.1%} of {held_out_texts:,} |"
)
SHIPPED = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train thimble.")
    parser.add_argument("text", type=Path, help="folder of the source files")
    parser.add_argument("measured", type=Path, help="folder of the data sets that models are measured on")
    parser.add_argument("--run", type=Path, default=Path("runs/thimble"), help="folder of the training run")
    arguments = parser.parse_args()
    recipe = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    own, labels, beside = recipe["own"], recipe["labels"], arguments.run.with_name
    documents = ["--documents", str(own["documents"]), "--seed", str(own["seed"])]
    written = write("make_text.py", documents, beside("thimble-own.jsonl"), arguments.measured)
    data = [f"{arguments.text / source['file']}@{source['weight']}" for source in recipe["sources"]]
    data.append(f"{written}@{own['weight']}")
    if not finished(arguments.run, "README.md"):
        train(data, recipe["options"], arguments.run)
    texts = ["--texts", str(labels["texts"]), "--seed", str(labels["seed"])]
    labelled = write("make_text_labels.py", texts, beside("thimble-labels.csv"), arguments.measured)
    runs = [arguments.run, *(beside(f"{arguments.run.name}-taught-{i + 1}") for i in range(len(labels["rounds"])))]
    for base, taught, options in zip(runs, runs[1:], labels["rounds"], strict=False):
        if not (finished(base) and (finished(taught) or teach(base, data, labelled, taught, options))):
            sys.exit("not finished: the same command goes on")
    PLACE.mkdir(exist_ok=True)
    for name in SHIPPED:
        shutil.copyfile(runs[-1] / name, PLACE / name)
    (PLACE / "README.md").write_text(card(recipe, runs), encoding="utf-8")
    print(f"thimble is in {PLACE}")


def finished(run: Path, last: str = "metrics.json") -> bool:
    """Whether a training was brought to its end; ``last`` is the file that it writes last."""
    if not (run / last).exists():
        return False
    return json.loads((run / "metrics.json").read_text(encoding="utf-8"))["finished"]


def write(script: str, numbers: list[str], file: Path, measured: Path) -> Path:
    """The project's own text, unless an earlier call has written it."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        numbers = [*numbers, "--data", str(measured)]
        subprocess.run([sys.executable, str(SCRIPTS / script), str(unfinished), *numbers], check=True)
        unfinished.rename(file)
    return file


def train(data: list[str], options: dict[str, object], run: Path) -> None:
    """Begins the run, or goes on with it."""
    flags = [part for key, value in options.items() for part in ("--" + key.replace("_", "-"), str(value))]
    resume = ["--resume"] if (run / "run.yaml").exists() else []
    command = [sys.executable, "-m", "gptailor", "train", "base", *data, *flags, "--out", str(run), *resume]
    training = subprocess.Popen(command)
    while training.poll() is None:
        with contextlib.suppress(KeyboardInterrupt):  # the training has it too: it finishes its step and saves
            training.wait()
    if training.returncode not in (0, 130):
        sys.exit("the training failed")


def card(recipe: dict, runs: list[Path]) -> str:
    """The card of the first stage, with what the rounds of the second did and the credits."""
    told, end, _ = (runs[0] / "README.md").read_text(encoding="utf-8").rpartition("`report.html` beside this file")
    assert end, "the card does not end as it used to"
    rounds = [json.loads((run / "metrics.json").read_text(encoding="utf-8")) for run in runs[1:]]
    for number, metrics in enumerate(rounds, 1):
        metrics |= {"round": number, "before_perplexity": math.exp(metrics["before"])}
    rows = "\n".join(ROUND.format(**metrics) for metrics in rounds)
    options = recipe["labels"]["rounds"][-1]
    second = SECOND.format(labels=rounds[-1]["labels"], rounds=rows, note=recipe["labels"]["note"], **options)
    return told + "`make thimble` repeats both stages.\n" + second + credits(recipe)


def credits(recipe: dict) -> str:
    """The section of the model card that names every source, its weight and its licence."""
    rows = [(f"`{s['file'].split('.')[0]}`", s["weight"], s["credit"], s["licence"]) for s in recipe["sources"]]
    own = recipe["own"]
    written = f"{own['documents']:,} short messages, opinions, questions and instructions by scripts/make_text.py"
    rows.append(("own text", own["weight"], written, "Apache-2.0"))
    table = "\n".join(f"| {name} | {weight:g} | {credit} | {licence} |" for name, weight, credit, licence in rows)
    return CREDITS.format(table=table)


if __name__ == "__main__":
    main()
