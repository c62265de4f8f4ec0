"""The room in which a stranger's chat template runs: nothing of Python is in reach, and its work is bounded.

Jinja's sandbox keeps a template from Python's insides, but not from loops in loops, from strings that double, or from
lists that hold each other and are endless when written out. Here everything that a template makes or goes through is
paid for, one unit for about each character, before it is made; a rendering that has spent ``MOST`` is ended. The
measure is of work and not of time, so that the same template does the same on every machine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import cache, wraps
from typing import Any, NoReturn, cast

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

MOST = 20_000_000  # units of one rendering: a second or two, and at most 100 MB
STEP, CALL = 100, 500  # a turn of a loop; a call, a filter or a test, besides what it handles
ELEMENT = 20  # of a list or mapping
LONGEST = 10_000  # bits of a number
# What makes more than it is given: the sizes of its arguments are multiplied; a number counts as the size it may be.
GROWING = {"center", "indent", "replace", "join", "format", "batch", "slice", "truncate", "tojson", "sum", "round"}
GROWING |= {"ljust", "rjust", "zfill", "expandtabs", "format_map", "translate", "strftime_now"}
# What does not look at all that it is given.
CHEAP = {"length", "count", "first", "last", "default", "d", "defined", "undefined", "none", "string", "mapping"}
CHEAP |= {"sequence", "iterable", "number", "boolean", "true", "false", "sameas"}
# Of Jinja's names and filters, those for web pages; some take the square of a text's length.
LEFT_OUT = ("lipsum", "cycler", "joiner")
FILTERS_LEFT_OUT = ("wordwrap", "urlize", "xmlattr", "striptags", "pprint", "random", "filesizeformat")

_left: ContextVar[list[int]] = ContextVar("left")  # one number: the units of the rendering that goes on


@contextmanager
def bounded() -> Generator[None]:
    """Gives the block, a compilation or a rendering, its units. What goes beyond them raises ``SecurityError``."""
    token = _left.set([MOST])
    try:
        yield
    finally:
        _left.reset(token)


def spend(units: int) -> None:
    """Takes units from those of the block."""
    left = _left.get()
    left[0] -= units
    if left[0] < 0:
        raise SecurityError("it does or writes far more than a chat template has to")


def _weight(value: object) -> int:
    """Units of a value, with all that it holds as often as it is there; stops counting once there are too many."""
    weight, stack = 0, [value]
    while stack and weight <= MOST:
        one = stack.pop()
        weight += 1
        if isinstance(one, Namespace):
            one = object.__getattribute__(one, "_Namespace__attrs")
        if isinstance(one, str | bytes | range):
            weight += len(one)
        elif isinstance(one, int):
            weight += one.bit_length() // 8
        elif isinstance(one, Mapping):
            weight += ELEMENT * len(one)
            stack += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            weight += ELEMENT * len(one)
            stack += one
    return weight


def _growth(values: Iterable[object]) -> int:
    """The most that a growing operation can make of some values; a number, also one in a text, may be a width."""
    most = 1
    for value in values:
        factor = _weight(value)
        for one in value if isinstance(value, tuple | list) else (value,):
            numbers = map(float, re.findall("[0-9]{3,}", one[:MOST])) if isinstance(one, str) else ()
            factor = max(factor, int(min(MOST + 1, max(numbers, default=0))))
            factor = max(factor, min(MOST + 1, abs(one)) if isinstance(one, int) else 0)
        most = min(most * factor, MOST + 1)
    return most


def _paid(value: Any) -> Any:
    spend(_weight(value))
    return value


def _steps(values: Any, text: int) -> Iterator[Any]:
    """The values of a loop with ``text`` characters in its body, each paid for when its turn comes."""
    for value in values:
        spend(STEP + text)
        yield value


def _joined(values: list[Any]) -> str:
    """``a ~ b``."""
    return "".join(_paid(str(_paid(value))) for value in values)


def _metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or a test that is paid for."""

    @wraps(function)
    def run(*given: Any, **named: Any) -> Any:
        first = 1 if hasattr(function, "jinja_pass_arg") else 0
        values = [list(one) if isinstance(one, Iterator) else one for one in given[first:]]
        _spend_on(name, [*values, *named.values()])
        return _paid(function(*given[:first], *values, **named))

    return run


def _spend_on(name: str, values: list[Any]) -> None:
    spend(CALL + (0 if name in CHEAP else sum(map(_weight, values))))
    if name in GROWING:
        spend(_growth(values))


class _Meters(NodeTransformer):
    """Puts a meter where a template makes something without calling anything."""

    def visit_For(self, node: nodes.For) -> nodes.For:
        text = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        node.iter = _call("steps", cast("nodes.Expr", node.iter), nodes.Const(text, lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        self.generic_visit(node)
        return _call("joined", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Output(self, node: nodes.Output) -> nodes.Output:
        self.generic_visit(node)
        node.nodes = [one if isinstance(one, nodes.TemplateData) else _call("paid", one) for one in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Compare:
        self.generic_visit(node)
        node.expr = _call("paid", node.expr)
        for operand in node.ops:
            operand.expr = _call("paid", operand.expr)
        return node

    def _made(self, node: nodes.Expr) -> nodes.Expr:
        self.generic_visit(node)
        return _call("paid", node) if getattr(node, "ctx", "load") == "load" else node

    visit_List = visit_Tuple = visit_Dict = visit_Getitem = _made


def _call(name: str, *given: nodes.Expr) -> nodes.Expr:
    line = given[0].lineno
    return nodes.Call(nodes.EnvironmentAttribute(name, lineno=line), list(given), [], None, None, lineno=line)


class Sandbox(ImmutableSandboxedEnvironment):
    """White space, names and filters as in transformers, which opens the same templates."""

    intercepted_binops = frozenset(("+", "*", "**", "%"))
    paid, steps, joined = staticmethod(_paid), staticmethod(_steps), staticmethod(_joined)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Jinja's own hook: the tree before it is compiled."""
        tree = super()._parse(source, name, filename)
        return _Meters().visit(tree).set_environment(self)

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """Refuses at once, where Jinja waits until something is done with the result."""
        raise SecurityError(f"access to {attribute!r} of a {type(obj).__name__} is forbidden")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operation of two values, when there is room for what it makes."""
        if isinstance(left, int) and isinstance(right, int):
            sizes = left.bit_length(), right.bit_length()
            bits = sizes[0] * max(0, right) if operator == "**" else sum(sizes)
            if bits > LONGEST:
                raise SecurityError("a number is far larger than a chat template needs")
            return super().call_binop(context, operator, left, right)
        grows = operator == "*" or (operator == "%" and isinstance(left, str))
        spend(_growth((left, right)) if grows else _weight(left) + _weight(right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call, paid for; one of our own meters pays for itself."""
        if any(__obj is one for one in (_paid, _steps, _joined)):
            return __obj(*args)
        if isinstance(__obj, LoopContext):  # the next level of a recursive loop
            return super().call(__context, __obj, _steps(*args, 0))
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)  # wrapped: Jinja's own str.format
        owner = [owner] if isinstance(owner, str | bytes | list | tuple | dict) else []
        values = [list(one) if isinstance(one, Iterator) else one for one in args]
        _spend_on(
            "strftime_now" if __obj is _now else getattr(__obj, "__name__", ""), [*owner, *values, *kwargs.values()]
        )
        return _paid(super().call(__context, __obj, *values, **kwargs))


class RefusalError(jinja2.TemplateError):
    """What ``raise_exception`` in a template raises."""


def _refuse(message: str) -> NoReturn:
    raise RefusalError(str(message))


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """Unlike Jinja's own filter, it leaves ``<`` and other characters as they are."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(form: str) -> str:
    return datetime.now().strftime(form)


class _Undefined(jinja2.Undefined):
    """A name that is not there may be tested for, but written out it is a typo that would lose text in silence."""

    __slots__ = ()
    __str__: Callable[..., Any] = jinja2.StrictUndefined.__str__


class _SafeNamespace(Namespace):
    """Names with an underscore would be taken for Python's own."""

    def __init__(*args: Any, **values: Any) -> None:  # a template may name any of its values ``self``
        self, *rest = args
        Namespace.__init__(self)
        for name, value in dict(*rest, **values).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a name that begins with an underscore is forbidden: {name!r}")
        super().__setitem__(name, value)


class _Generation(Extension):
    """``{% generation %}`` tells transformers what is an answer; here it is only what it encloses."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The nodes up to ``{% endgeneration %}``."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@cache
def sandbox() -> Sandbox:
    """The one sandbox of all templates."""
    made = Sandbox(trim_blocks=True, lstrip_blocks=True, undefined=_Undefined, extensions=[loopcontrols, _Generation])
    names = cast("dict[str, Any]", made.globals)
    names.update(raise_exception=_refuse, strftime_now=_now, namespace=_SafeNamespace)
    for name in LEFT_OUT:
        del names[name]
    for name in FILTERS_LEFT_OUT:
        del made.filters[name]
    made.filters["tojson"] = _to_json
    made.filters.update({name: _metered(name, one) for name, one in made.filters.items()})
    tests = cast("dict[str, Any]", made.tests)
    tests.update({name: _metered(name, one) for name, one in tests.items()})
    return made
