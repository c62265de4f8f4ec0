"""Train thimble, the base model that comes with GPTailor, and put it into its place among the assets.

    python scripts/make_thimble.py TEXT [--measured FOLDER] [--run runs/thimble]

TEXT is the folder of the source files that make_thimble.yaml names; nothing that stands in the data sets of FOLDER is
written into the project's own text. Ctrl-C stops the training; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

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
SHIPPED = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Train thimble.")
    parser.add_argument("text", type=Path, help="folder of the source files")
    parser.add_argument("--measured", type=Path, help="folder of the data sets that models are measured on")
    parser.add_argument("--run", type=Path, default=Path("runs/thimble"), help="folder of the training run")
    arguments = parser.parse_args()
    recipe = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    own = write_own(recipe["own"], arguments.run.with_name("thimble-own.jsonl"), arguments.measured)
    data = [f"{arguments.text / source['file']}@{source['weight']}" for source in recipe["sources"]]
    train([*data, f"{own}@{recipe['own']['weight']}"], recipe["options"], arguments.run)
    if not json.loads((arguments.run / "metrics.json").read_text(encoding="utf-8"))["finished"]:
        sys.exit("not finished: the same command goes on")
    PLACE.mkdir(exist_ok=True)
    for name in SHIPPED:
        shutil.copyfile(arguments.run / name, PLACE / name)
    card = PLACE / "README.md"
    told, end, _ = card.read_text(encoding="utf-8").rpartition("`report.html` beside this file")
    assert end, "the card does not end as it used to"
    told += "`make thimble` repeats the run.\n"
    card.write_text(told + credits(recipe), encoding="utf-8")
    print(f"thimble is in {PLACE}")


def write_own(own: dict[str, int], file: Path, measured: Path | None) -> Path:
    """The project's own text, unless an earlier call has written it."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished")
        numbers = ["--documents", str(own["documents"]), "--seed", str(own["seed"])]
        apart = ["--data", str(measured)] if measured else []
        subprocess.run([sys.executable, str(SCRIPTS / "make_text.py"), str(unfinished), *numbers, *apart], check=True)
        unfinished.rename(file)
    return file


def train(data: list[str], options: dict[str, object], run: Path) -> None:
    """Begins the run, or goes on with it."""
    flags = [part for key, value in options.items() for part in ("--" + key.replace("_", "-"), str(value))]
    resume = ["--resume"] if (run / "run.yaml").exists() else []
    command = [sys.executable, "-m", "gptailor", "train", "base", *data, *flags, "--out", str(run), *resume]
    if subprocess.run(command).returncode not in (0, 130):
        sys.exit("the training failed")


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
