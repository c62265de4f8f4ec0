"""Train thimble, the base model that comes with GPTailor, and put it into its place among the assets.

    python scripts/make_thimble.py TEXT [--measured FOLDER] [--run runs/thimble]

TEXT is the folder of the source files that make_thimble.yaml names; nothing that stands in the data sets of FOLDER is
written into the project's own text. First it learns the next token (`gptailor train base`), then also to tell labelled
texts apart (make_thimble_labels.py). Ctrl-C stops the training; the same command goes on.
"""

from __future__ import annotations

import argparse
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

What is told above is the first stage, of the next token alone. Then the model read {tokens:,} tokens more of the same
text, and beside them learned to tell {labels} labels of {texts:,} short texts apart at their last token, with
{drop:.0%} of their tokens left out at random; the mean loss of these texts counted {weight} times as much as the mean
loss of the tokens. The texts are written by scripts/make_text_labels.py; the head that named the labels is not part of
the model.

| | before | after |
|---|---|---|
| nats per token, on the held-out documents above | {before:.3f} | {text_loss:.3f} |
| perplexity | {before_perplexity:.1f} | {perplexity:.1f} |
| right labels of {held_out_texts:,} texts that were not learned | | {label_accuracy:.1%} |
"""
SHIPPED = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train thimble.")
    parser.add_argument("text", type=Path, help="folder of the source files")
    parser.add_argument("--measured", type=Path, help="folder of the data sets that models are measured on")
    parser.add_argument("--run", type=Path, default=Path("runs/thimble"), help="folder of the training run")
    arguments = parser.parse_args()
    recipe = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    own, labels = recipe["own"], recipe["labels"]
    beside, taught = arguments.run.with_name, arguments.run.with_name(f"{arguments.run.name}-taught")
    documents = ["--documents", str(own["documents"]), "--seed", str(own["seed"])]
    written = write("make_text.py", documents, beside("thimble-own.jsonl"), arguments.measured)
    data = [f"{arguments.text / source['file']}@{source['weight']}" for source in recipe["sources"]]
    data.append(f"{written}@{own['weight']}")
    if not finished(arguments.run):
        train(data, recipe["options"], arguments.run)
    texts = ["--texts", str(labels["texts"]), "--seed", str(labels["seed"])]
    labelled = write("make_text_labels.py", texts, beside("thimble-labels.csv"), arguments.measured)
    if not (finished(arguments.run) and teach(arguments.run, data, labelled, taught, labels["options"])):
        sys.exit("not finished: the same command goes on")
    PLACE.mkdir(exist_ok=True)
    for name in SHIPPED:
        shutil.copyfile(taught / name, PLACE / name)
    (PLACE / "README.md").write_text(card(recipe, arguments.run, taught), encoding="utf-8")
    print(f"thimble is in {PLACE}")


def finished(run: Path) -> bool:
    file = run / "metrics.json"
    return file.exists() and json.loads(file.read_text(encoding="utf-8"))["finished"]


def write(script: str, numbers: list[str], file: Path, measured: Path | None) -> Path:
    """The project's own text, unless an earlier call has written it."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        apart = ["--data", str(measured)] if measured else []
        subprocess.run([sys.executable, str(SCRIPTS / script), str(unfinished), *numbers, *apart], check=True)
        unfinished.rename(file)
    return file


def train(data: list[str], options: dict[str, object], run: Path) -> None:
    """Begins the run, or goes on with it."""
    flags = [part for key, value in options.items() for part in ("--" + key.replace("_", "-"), str(value))]
    resume = ["--resume"] if (run / "run.yaml").exists() else []
    command = [sys.executable, "-m", "gptailor", "train", "base", *data, *flags, "--out", str(run), *resume]
    if subprocess.run(command).returncode not in (0, 130):
        sys.exit("the training failed")


def card(recipe: dict, run: Path, taught: Path) -> str:
    """The card of the first stage, with what the second did and the credits."""
    told, end, _ = (run / "README.md").read_text(encoding="utf-8").rpartition("`report.html` beside this file")
    assert end, "the card does not end as it used to"
    metrics = recipe["labels"]["options"] | json.loads((taught / "metrics.json").read_text(encoding="utf-8"))
    metrics["before_perplexity"] = math.exp(metrics["before"])
    return told + "`make thimble` repeats both stages.\n" + SECOND.format(**metrics) + credits(recipe)


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
