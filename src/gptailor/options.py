"""Options of commands: the fields of a configuration, and what several commands share."""

from __future__ import annotations

import inspect as python_inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer
from pydantic.fields import FieldInfo

from gptailor.config import RunConfig, group_of

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file with options; flags override it", rich_help_panel="Run")
]


Resume = Annotated[bool, typer.Option("--resume", help="continue the run in --out", rich_help_panel="Run")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="where to compute")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="fp32|bf16|int8",
        help="fp32 is exact; bf16 takes half the memory, int8 (CPU only) a quarter, and both less time",
    ),
]


def with_options(*kinds: type[RunConfig]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of all ``kinds``; it receives those that were given as ``given``.

    Values stay strings here: the configuration checks them all together.
    """

    fields = {name: field for kind in reversed(kinds) for name, field in kind.model_fields.items()}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in fields}
            command(given={name: value for name, value in given.items() if value is not None}, **values)

        parameters = [_parameter(name, field) for name, field in fields.items()]
        return _signed(run, [*parameters, *_parameters(command, without="given")], like=command)

    return decorate


def _parameters(function: Callable[..., Any], *, without: str = "") -> list[python_inspect.Parameter]:
    signature = python_inspect.signature(function, eval_str=True)
    return [parameter for parameter in signature.parameters.values() if parameter.name != without]


def _signed(run: Any, parameters: list[python_inspect.Parameter], *, like: Callable[..., None]) -> Callable[..., None]:
    """``run`` with these parameters, and the name and the help of another function."""
    run.__signature__ = python_inspect.Signature(parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__name__, run.__doc__ = getattr(like, "__name__", ""), like.__doc__
    return run


def _parameter(name: str, field: FieldInfo) -> python_inspect.Parameter:
    """A configuration field as a command-line parameter."""
    flag = "--" + name.replace("_", "-")
    if name == "data":
        argument = typer.Argument(help=field.description, show_default=False)
        several = get_origin(field.annotation) is list
        annotation: Any = Annotated[list[str] | None, argument] if several else Annotated[str | None, argument]
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
    words = [word for kind in kinds for word in getattr(kind, "__args__", (kind,)) if word is not type(None)]
    if all(isinstance(word, str) for word in words):
        return "|".join(map(str, words))
    return "NUMBER" if {int, float} & set(kinds) else "TEXT"


def with_sampling(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of ``_sampling``; it receives what they make as ``sampling``."""
    options = _parameters(_sampling)

    def run(**values: Any) -> None:
        command(sampling=_sampling(**{option.name: values.pop(option.name) for option in options}), **values)

    return _signed(run, [*_parameters(command, without="sampling"), *options], like=command)


def _sampling(
    *,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="most tokens to add \\[default: 256 for an assistant, else 60]", min=1)
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time", min=0)] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="draw from the likeliest k tokens", min=1)] = None,
    top_p: Annotated[
        float | None, typer.Option(help="draw from the fewest tokens that reach p", min=0.01, max=1)
    ] = None,
    repetition_penalty: Annotated[
        float, typer.Option(help="above 1, tokens that were there already are less likely", min=0.01)
    ] = 1.0,
    stop: Annotated[
        list[str] | None, typer.Option(help="end before this string; may be given several times", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="seed of the draws", min=0, max=2**32)] = 123,
) -> Any:
    from gptailor.model.sampling import Sampling

    return Sampling(max_new_tokens, temperature, top_k, top_p, repetition_penalty, tuple(stop or ()), seed)
