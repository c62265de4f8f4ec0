"""The command line: parse, call a task, print. Whatever is heavy is imported inside the commands."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from gptailor import __version__
from gptailor.config import (
    AssistantConfig,
    BaseConfig,
    ClassifierConfig,
    PreferencesConfig,
    RunConfig,
    load_config,
)
from gptailor.errors import UserError
from gptailor.options import ConfigFile, Device, Precision, Resume, with_options, with_sampling

app = typer.Typer(
    help="Tailor a small language model to your own task: from a data file to an evaluated model folder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
train = typer.Typer(help="Train a model and evaluate it.", no_args_is_help=True)
app.add_typer(train, name="train")
tokenizer = typer.Typer(help="Work with tokenizers.", no_args_is_help=True)
app.add_typer(tokenizer, name="tokenizer")
console = Console(stderr=True)


def _resumed(config: Path | None, resume: bool, given: dict[str, Any]) -> Path | None:
    """The configuration to begin with: that of the run to resume, when there is no other."""
    if config is not None or not resume or "out" not in given:
        return config
    saved = Path(given["out"]) / "run.yaml"
    if not saved.exists():
        raise UserError(f"{given['out']} holds no run to resume", hint="leave --resume out to begin one")
    return saved


def _train(run: Callable[..., Path], options: RunConfig, resume: bool, show: Callable[..., None]) -> None:
    """Runs a task to its end or until it is stopped, and shows what came of it."""
    from gptailor.show import show_resume
    from gptailor.tasks.run import RunFolder
    from gptailor.train.loop import stop_on_interrupt

    with stop_on_interrupt() as stop:
        folder = run(options, resume=resume, console=console, stop=stop)
    metrics = RunFolder(folder, resume=True).read_json("metrics.json")
    show(console, metrics, folder)
    if stop.requested and metrics["finished"]:
        console.print("[yellow]Stopped[/] before all seeds were trained.")
        show_resume(console, folder)
    if stop.requested:
        raise typer.Exit(130)


@train.command("classifier")
@with_options(ClassifierConfig)
def train_classifier(*, config: ConfigFile = None, resume: Resume = False, given: dict[str, Any]) -> None:
    """Train a classifier on labelled texts.

    Example: gptailor train classifier messages.csv --text message --label topic --out runs/topics
    """
    options = load_config(ClassifierConfig, _resumed(config, resume, given), given)
    from gptailor.evaluate.verdict import verdict
    from gptailor.show import show_results
    from gptailor.tasks.classifier import run_classifier

    def show(console: Console, metrics: dict[str, Any], folder: Path) -> None:
        told = verdict(metrics["test_unseen"], metrics["baselines_unseen"]).sentence if metrics["finished"] else ""
        show_results(console, metrics, told, folder)

    _train(run_classifier, options, resume, show)


@train.command("assistant")
@with_options(AssistantConfig)
def train_assistant(*, config: ConfigFile = None, resume: Resume = False, given: dict[str, Any]) -> None:
    """Train an assistant on instructions or conversations with answers.

    Example: gptailor train assistant questions.json --template chatml --out runs/helper
    """
    options = load_config(AssistantConfig, _resumed(config, resume, given), given)
    from gptailor.show import show_assistant
    from gptailor.tasks.assistant import run_assistant

    _train(run_assistant, options, resume, show_assistant)


@train.command("preferences")
@with_options(PreferencesConfig)
def train_preferences(*, config: ConfigFile = None, resume: Resume = False, given: dict[str, Any]) -> None:
    """Train an assistant to prefer the better of two answers.

    Example: gptailor train preferences pairs.json --base runs/helper --out runs/better
    """
    options = load_config(PreferencesConfig, _resumed(config, resume, given), given)
    from gptailor.show import show_preferences
    from gptailor.tasks.preferences import run_preferences

    _train(run_preferences, options, resume, show_preferences)


@train.command("base")
@with_options(BaseConfig)
def train_base(*, config: ConfigFile = None, resume: Resume = False, given: dict[str, Any]) -> None:
    """Train a base model on plain text, from random weights or further from a base.

    Example: gptailor train base books.jsonl.xz talk.jsonl@3 --base random:tiny --tokens 20_000_000 --out runs/mine
    """
    options = load_config(BaseConfig, _resumed(config, resume, given), given)
    from gptailor.show import show_base
    from gptailor.tasks.base import run_base

    _train(run_base, options, resume, show_base)


@tokenizer.command("train")
def train_tokenizer(
    files: Annotated[list[Path], typer.Argument(help="text or jsonl files", show_default=False)],
    out: Annotated[Path, typer.Option(help="folder to write the tokenizer to", show_default=False)],
    vocab: Annotated[int, typer.Option(help="number of tokens", min=257)] = 8192,
    text: Annotated[str, typer.Option(help="key of a jsonl line that holds the text")] = "text",
) -> None:
    """Train a byte-level BPE tokenizer, for --tokenizer."""
    from gptailor.tasks.tokenizer import tokenizer_command

    tokenizer_command(files, out, vocab, text, console)


@app.command()
@with_sampling
def generate(
    *,
    folder: Annotated[str, typer.Argument(help="a folder or Hub name of a language model", show_default=False)],
    prompt: Annotated[
        str | None, typer.Argument(help="the text to continue, or the question", show_default=False)
    ] = None,
    input: Annotated[str, typer.Option(help="for an assistant: what the instruction is about")] = "",
    file: Annotated[Path | None, typer.Option(help="answer the records of this file: json, jsonl, csv ...")] = None,
    out: Annotated[Path | None, typer.Option(help="json file for the answers to --file")] = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    sampling: Any,
) -> None:
    """Continue a text with a language model, or let an assistant answer; one prompt, or a file of them.

    Examples: gptailor generate runs/helper "Make this sentence negative." --input "The nurse sings." --temperature 0

    gptailor generate runs/helper --file questions.json --out answers.json
    """
    from gptailor.show import plain
    from gptailor.tasks.generate import answer_file, check_places, generate_command

    check_places(prompt, input, file, out)
    if file and out:
        if not answer_file(folder, file, out, sampling, device, console, precision):
            raise typer.Exit(130)
        return
    notes: list[str] = []
    streams = sys.stdout.isatty()
    text = generate_command(
        folder,
        prompt or "",
        sampling,
        device,
        input,
        on_text=lambda piece: print(plain(piece), end="", flush=True) if streams else None,
        on_note=notes.append,
        precision=precision,
    )
    print("" if streams else text)
    for note in notes:
        console.print(f"[yellow]note:[/] {note}", highlight=False)


@app.command()
@with_sampling
def chat(
    *,
    folder: Annotated[str, typer.Argument(help="a folder with an assistant", show_default=False)],
    device: Device = "auto",
    precision: Precision = "fp32",
    sampling: Any,
) -> None:
    """Talk with an assistant: questions at the terminal, or one on each line of standard input.

    Example: gptailor chat runs/helper --temperature 0
    """
    from gptailor.tasks.chat import chat_command

    chat_command(folder, sampling, device, console, precision)


@app.command()
@with_options(ClassifierConfig, AssistantConfig)
def inspect(
    *,
    task: Annotated[str, typer.Option(metavar="classifier|assistant", help="what would be trained")] = "classifier",
    ids: Annotated[bool, typer.Option("--ids", help="for an assistant: show the number of each token")] = False,
    config: ConfigFile = None,
    given: dict[str, Any],
) -> None:
    """Look at data as a training run would see it, without training.

    Shows the data receipt, some texts in tokens, and for a classifier an estimate of memory and time.
    """
    if task not in ("classifier", "assistant"):
        raise UserError(f"--task {task}", expected="classifier or assistant")
    from gptailor.tasks.inspect import inspect_assistant, inspect_classifier

    if task == "assistant":
        inspect_assistant(load_config(AssistantConfig, config, given), Console(), ids=ids)
    else:
        inspect_classifier(load_config(ClassifierConfig, config, given), Console())


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(help="a model folder", show_default=False)],
    texts: Annotated[list[str] | None, typer.Argument(help="texts to label", show_default=False)] = None,
    file: Annotated[Path | None, typer.Option(help="label the texts of this file: csv, tsv, json, jsonl ...")] = None,
    out: Annotated[
        Path | None, typer.Option(help="write the rows with label and probabilities to this csv file")
    ] = None,
    text: Annotated[str | None, typer.Option(help="column of --file that holds the text")] = None,
    encoding: Annotated[str, typer.Option(help="encoding of --file, such as cp1252")] = "auto",
    delimiter: Annotated[
        str, typer.Option(metavar="auto|comma|semicolon|tab|pipe", help="what separates the columns of --file")
    ] = "auto",
    header: Annotated[
        str, typer.Option(metavar="auto|yes|no", help="whether the first line of --file names the columns")
    ] = "auto",
    quoting: Annotated[str, typer.Option(metavar="auto|yes|no", help="whether quotes enclose its fields")] = "auto",
    device: Device = "auto",
    precision: Precision = "fp32",
) -> None:
    """Label texts with a trained classifier: from arguments, a file, or one per line from standard input."""
    from gptailor.tasks.predict import predict_command

    how = {"encoding": encoding, "delimiter": delimiter, "header": header, "quoting": quoting}
    predict_command(folder, texts or [], file, out, text, how, device, console, precision)


@app.command()
def merge(
    folder: Annotated[Path, typer.Argument(help="an adapter: a run with --layers lora", show_default=False)],
    out: Annotated[Path, typer.Option(help="folder to write the whole model to", show_default=False)],
    base: Annotated[str | None, typer.Option(help="the base, where it lies elsewhere than it did")] = None,
    save_in: Annotated[str, typer.Option(metavar="fp32|bf16", help="precision of the weights")] = "fp32",
) -> None:
    """Join an adapter with its base: one plain model folder that needs neither.

    Example: gptailor merge runs/adapter --out runs/whole
    """
    from gptailor.tasks.merge import merge_command

    merge_command(folder, out, base, save_in, console)


@app.command()
def judge(
    answers: Annotated[Path, typer.Argument(help="records with a response to each", show_default=False)],
    judge: Annotated[
        str,
        typer.Option(
            "--with",
            metavar="JUDGE",
            help="rules, ollama:MODEL, openai:MODEL or http(s)://HOST/v1#MODEL",
            show_default=False,
        ),
    ],
    other: Annotated[
        Path | None, typer.Argument(help="other responses to the same records, to compare with", show_default=False)
    ] = None,
    response: Annotated[str, typer.Option(help="key of the response")] = "model_response",
    other_response: Annotated[
        str | None, typer.Option(help="key of the response to compare with, in the other file or the same one")
    ] = None,
    pairwise: Annotated[bool, typer.Option("--pairwise", help="ask which of two is better, in both orders")] = False,
    repeats: Annotated[int, typer.Option(help="ask everything this often, and average", min=1)] = 1,
    workers: Annotated[int, typer.Option(help="questions asked at the same time", min=1, max=64)] = 4,
    out: Annotated[
        Path | None, typer.Option(help="file that keeps the replies; without it, one beside the answers")
    ] = None,
) -> None:
    """Score answers from 0 to 100, or compare two, by a language model or by fixed rules.

    Example: gptailor judge runs/assistant/responses.json --with ollama:llama3
    """
    from gptailor.tasks.judge import judge as judge_answers

    figures = judge_answers(
        answers,
        judge,
        other=other,
        response=response,
        other_response=other_response,
        pairwise=pairwise,
        repeats=repeats,
        workers=workers,
        out=out,
        console=console,
    )
    if not sys.stdout.isatty():
        print(json.dumps(figures, indent=2, ensure_ascii=False, allow_nan=False))


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="a YAML file with a task and rows of options", show_default=False)],
    data: Annotated[
        list[str] | None, typer.Option(help="train on this instead of what the file names", show_default=False)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="folder of the runs and the table; without it, one in runs/ with the name of FILE"),
    ] = None,
    workers: Annotated[int, typer.Option(help="runs at the same time; they share the processor's cores", min=1)] = 1,
    table: Annotated[
        bool, typer.Option("--table", help="train nothing, write the table of the runs that are there")
    ] = False,
) -> None:
    """Train every setting of a file with several seeds, and put what they reach into one table.

    The same command goes on after Ctrl-C, and tries again what has failed.
    Example: gptailor sweep recipes/ablation.yaml --out runs/ablation
    """
    from gptailor.tasks.sweep import sweep_command

    status = sweep_command(file, data or [], out, workers, only_table=table, console=console)
    if status:
        raise typer.Exit(status)


@app.command()
def rerun(
    folder: Annotated[Path, typer.Argument(help="the folder of a finished run", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="folder of the new run; without it, FOLDER-rerun", show_default=False)
    ] = None,
) -> None:
    """Repeat a finished run from what its folder holds, and say whether the same came out.

    Exit code 1 when it differs on the same machine and with the same versions.
    Example: gptailor rerun runs/helper
    """
    from gptailor.tasks.rerun import rerun_command

    status = rerun_command(folder, out, console)
    if status:
        raise typer.Exit(status)


@app.callback(invoke_without_command=True)
def version(
    version: Annotated[bool, typer.Option("--version", help="print the version", is_eager=True)] = False,
) -> None:
    """Tailor a small language model to your own task: from a data file to an evaluated model folder."""
    if version:
        print(f"gptailor {__version__}")
        raise typer.Exit


def main() -> None:
    """Runs the command line; what the user can mend is told without a traceback."""
    try:
        app()
    except (UserError, OSError) as error:
        told = str(error) if isinstance(error, UserError) else f"{error.filename or ''}: {error.strerror or error}"
        _fail(told.removeprefix(": "))
    except (MemoryError, RuntimeError) as error:
        from gptailor.tasks.memory import is_out_of_memory, ran_out

        if not is_out_of_memory(error):
            raise
        _fail(str(ran_out(*_called())))
    except KeyboardInterrupt:
        console.print("stopped at once; what was saved last is intact")
        sys.exit(130)


def _fail(told: str) -> NoReturn:
    from gptailor.show import plain

    console.print("[bold red]Error:[/] ", end="")
    console.print(plain(told), markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


def _called() -> tuple[str, list[str]]:
    """The command that was called, in words, and the names of its arguments and options."""
    command: Any = typer.main.get_command(app)
    words = ["gptailor"]
    for word in sys.argv[1:]:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
        words.append(word)
    return " ".join(words), [name for parameter in command.params for name in parameter.opts]
