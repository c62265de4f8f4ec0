"""The command line: parse, call a task, print. Whatever is heavy is imported inside the commands."""

from __future__ import annotations

import inspect as python_inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo
from rich.console import Console

from gptailor import __version__
from gptailor.config import ClassifierConfig, RunConfig, group_of, load_config
from gptailor.errors import UserError

app = typer.Typer(
    help="Tailor a small language model to your own task: from a data file to an evaluated model folder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
train = typer.Typer(help="Train a model and evaluate it.", no_args_is_help=True)
app.add_typer(train, name="train")
console = Console(stderr=True)


def with_options(kind: type[RunConfig]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of ``kind``; it receives those that were given as ``given``.

    Values stay strings here: the configuration checks them all together.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in kind.model_fields}
            command(given={name: value for name, value in given.items() if value is not None}, **values)

        own = [p for p in python_inspect.signature(command, eval_str=True).parameters.values() if p.name != "given"]
        parameters = [*(_parameter(name, kind) for name in kind.model_fields), *own]
        setattr(run, "__signature__", python_inspect.Signature(parameters))  # noqa: B010
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__name__, run.__doc__ = getattr(command, "__name__", ""), command.__doc__
        return run

    return decorate


def _parameter(name: str, kind: type[RunConfig]) -> python_inspect.Parameter:
    """A configuration field as a command-line parameter."""
    field = kind.model_fields[name]
    flag = "--" + name.replace("_", "-")
    if name == "data":
        annotation: Any = Annotated[str | None, typer.Argument(help=field.description, show_default=False)]
    elif isinstance(field.default, bool):
        declared = f"{flag}/--no-{flag[2:]}" if field.default else flag
        annotation = Annotated[bool | None, _option(declared, field, metavar=None)]
    else:
        annotation = Annotated[str | None, _option(flag, field, metavar=_metavar(field))]
    return python_inspect.Parameter(name, python_inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _option(declared: str, field: FieldInfo, *, metavar: str | None) -> Any:
    shown = "" if field.default is None or metavar is None else f" [default: {field.default}]"
    text = f"{field.description}{shown}".replace("[", "\\[")
    return typer.Option(declared, help=text, metavar=metavar, rich_help_panel=group_of(field), show_default=False)


def _metavar(field: FieldInfo) -> str:
    kinds = getattr(field.annotation, "__args__", (field.annotation,))
    if all(isinstance(kind, str) for kind in kinds):
        return "|".join(map(str, kinds))
    return "NUMBER" if {int, float} & set(kinds) else "TEXT"


ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file with options; flags override it", rich_help_panel="Run")
]


@train.command("classifier")
@with_options(ClassifierConfig)
def train_classifier(
    *,
    config: ConfigFile = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in --out", rich_help_panel="Run")] = False,
    given: dict[str, Any],
) -> None:
    """Train a classifier on labelled texts.

    Example: gptailor train classifier messages.csv --text message --label topic --out runs/topics
    """
    if resume and "out" in given and config is None:
        config = Path(given["out"]) / "run.yaml"
        if not config.exists():
            raise UserError(f"{given['out']} holds no run to resume", hint="leave --resume out to begin one")
    options = load_config(ClassifierConfig, config, given)
    from gptailor.evaluate.report import verdict
    from gptailor.show import show_results, show_resume
    from gptailor.tasks.classifier import run_classifier
    from gptailor.tasks.run import RunFolder
    from gptailor.train.loop import stop_on_interrupt

    with stop_on_interrupt() as stop:
        folder = run_classifier(options, resume=resume, console=console, stop=stop)
    metrics = RunFolder(folder, resume=True).read_json("metrics.json")
    told = verdict(metrics["test_unseen"], metrics["baselines_unseen"]).sentence if metrics["finished"] else ""
    show_results(console, metrics, told, folder)
    if stop.requested and metrics["finished"]:
        console.print("[yellow]Stopped[/] before all seeds were trained.")
        show_resume(console, folder)
    if stop.requested:
        raise typer.Exit(130)


@app.command()
@with_options(ClassifierConfig)
def inspect(*, config: ConfigFile = None, given: dict[str, Any]) -> None:
    """Look at data as a training run would see it, without training.

    Shows the data receipt, some texts in tokens, and an estimate of memory and time.
    """
    options = load_config(ClassifierConfig, config, given)
    from gptailor.tasks.inspect import inspect_classifier

    inspect_classifier(options, Console())


@app.command()
def predict(
    folder: Annotated[Path, typer.Argument(help="a model folder", show_default=False)],
    texts: Annotated[list[str] | None, typer.Argument(help="texts to label", show_default=False)] = None,
    file: Annotated[Path | None, typer.Option(help="label the texts of this file: csv, tsv, json, jsonl ...")] = None,
    out: Annotated[
        Path | None, typer.Option(help="write the rows with label and probabilities to this csv file")
    ] = None,
    text: Annotated[str | None, typer.Option(help="column of --file that holds the text")] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="where to compute")] = "auto",
) -> None:
    """Label texts with a trained classifier: from arguments, a file, or one per line from standard input."""
    from gptailor.tasks.predict import predict_command

    predict_command(folder, texts or [], file, out, text, device, console)


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
        from gptailor.show import plain

        told = str(error) if isinstance(error, UserError) else f"{error.filename or ''}: {error.strerror or error}"
        console.print("[bold red]Error:[/] ", end="")
        console.print(plain(told.removeprefix(": ")), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped at once; what was saved last is intact")
        sys.exit(130)
