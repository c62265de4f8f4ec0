"""``gptailor`` and ``python -m gptailor``: the front page at once, all else by the command line, slower to load."""

from __future__ import annotations

import sys

FRONT = """\
Tailor a small language model to your own task: from a data file to an evaluated model folder.

Usage: gptailor COMMAND ...

Train
  train classifier DATA     labelled texts become a classifier
  train assistant DATA      instructions with answers become an assistant
  train preferences DATA    better and worse answers make it a better one
  train base FILES...       plain texts become a base model of your own
  inspect DATA              look at data as a run would see it, without training
  sweep FILE                train every setting of a file, and compare them in one table
  rerun FOLDER              repeat a finished run, and say whether the same came out

Use
  predict FOLDER TEXTS...   label texts: arguments, a file, or lines from standard input
  generate FOLDER TEXT      continue a text, or answer a question; a file of them
  chat FOLDER               talk with an assistant
  judge FILE                score answers, or compare two, by another model or by rules
  merge FOLDER              join an adapter with its base: a folder that needs neither
  tokenizer train FILES...  a tokenizer of your own

Begin with  gptailor train classifier YOUR_TEXTS.csv
All options of a command:  gptailor COMMAND --help;  the version:  gptailor --version"""


def main() -> None:
    """Shows the front page or runs a command."""
    if sys.argv[1:] in ([], ["--help"]):
        print(FRONT)
        return
    from gptailor.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
