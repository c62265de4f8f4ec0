"""Imports point one way: a file may use the rooms that its own room is given here, and no others."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "gptailor"
FILES = sorted(PACKAGE.rglob("*.py"))

GROUND = {"errors", "config"}
BELOW_TASKS = GROUND | {"tokenizer", "model", "data", "weights", "train", "evaluate", "predict", "show"}
MAY_USE: dict[str, set[str]] = {
    # 0
    "errors": set(),
    "config": {"errors"},
    # 1
    "tokenizer": {"errors"},
    "model": {"errors"},  # tensors and ids only
    # 2
    "data": GROUND | {"tokenizer"},
    "weights": GROUND | {"tokenizer", "model"},
    # 3
    "train": {"errors", "model.linear"},  # knows torch and the callables that it is given
    "evaluate": GROUND | {"model", "data"},
    "predict": GROUND | {"tokenizer", "model", "data", "weights", "evaluate.metrics"},
    "show": GROUND,
    # 4
    "tasks": BELOW_TASKS,
    "estimator": BELOW_TASKS | {"tasks"},
    # 5
    "options": GROUND | {"model"},
    "cli": BELOW_TASKS | {"tasks", "estimator", "options"},
    "__main__": {"cli"},
}
OUTSIDE = {
    "model": {"torch"},
    "train": {"torch", "safetensors", "rich"},
    "errors": set(),
    "config": {"pydantic", "yaml"},
}
HEAVY = {"torch", "numpy", "scipy", "sklearn", "transformers", "tokenizers", "safetensors", "matplotlib", "pyarrow"}
HEAVY |= {"huggingface_hub", "httpx2", "jinja2", "tensorboard"}


def module_of(file: Path) -> str:
    """``data/splits.py`` -> ``data.splits``; the package itself is ``""``."""
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


def for_typing_only(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def statements(node: ast.AST, *, when_loaded: bool) -> Iterator[ast.AST]:
    """All nodes below, or only those that are run when the module is loaded."""
    for child in ast.iter_child_nodes(node):
        skipped = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(child, ast.stmt) and for_typing_only(child)
        )
        if not (when_loaded and skipped):
            yield child
            yield from statements(child, when_loaded=when_loaded)


def imports(file: Path, *, when_loaded: bool = False) -> set[str]:
    """Full names of what is imported: ``gptailor.data.splits`` also for ``from gptailor.data import splits``."""
    found: set[str] = set()
    for node in statements(ast.parse(file.read_text(encoding="utf-8")), when_loaded=when_loaded):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            found |= {_member(node.module or "", alias.name) for alias in node.names}
    return found


def _member(module: str, name: str) -> str:
    """The module that is meant: ``name`` may be one itself, or something in ``module``."""
    path = PACKAGE.parent.joinpath(*module.split("."), name)
    return f"{module}.{name}" if path.with_suffix(".py").exists() or path.is_dir() else module


def own(file: Path, *, when_loaded: bool = False) -> set[str]:
    """The modules of the package that are imported, without its name in front."""
    names = imports(file, when_loaded=when_loaded)
    return {name.removeprefix("gptailor").lstrip(".") for name in names if name.split(".")[0] == "gptailor"} - {""}


def within(module: str, rooms: set[str]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


# --- the rule ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.parent != PACKAGE or file.stem != "__init__"], ids=module_of
)
def test_a_file_imports_only_from_the_rooms_below_its_own(file: Path) -> None:
    module = module_of(file)
    room = module.split(".")[0]
    assert room in MAY_USE, f"{module} has no place yet: give its room one in MAY_USE"
    wrong = {name for name in own(file) if not within(name, MAY_USE[room] | {room})}
    assert not wrong, f"{module} may not import {sorted(wrong)}"


@pytest.mark.parametrize("file", [file for file in FILES if module_of(file).split(".")[0] in OUTSIDE], ids=module_of)
def test_some_rooms_know_few_packages(file: Path) -> None:
    allowed = OUTSIDE[module_of(file).split(".")[0]] | sys.stdlib_module_names | {"gptailor"}
    assert {name.split(".")[0] for name in imports(file)} <= allowed


def test_no_module_needs_itself_to_load() -> None:
    graph = {module_of(file): own(file, when_loaded=True) for file in FILES}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")
    assert order.index("errors") < order.index("cli")  # so the graph is not empty


def test_the_rule_has_no_room_that_is_gone() -> None:
    rooms = {module_of(file).split(".")[0] for file in FILES} - {""}
    assert rooms == MAY_USE.keys()


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nimport os.path\n"
        "from gptailor.data import splits\nfrom gptailor.config import option\n"
        "if TYPE_CHECKING:\n    import typed_only\n"
        "def f():\n    import later\nclass C:\n    import now\n"
        "try:\n    import tried\nexcept ImportError:\n    pass\n",
        encoding="utf-8",
    )
    loaded = {"typing", "os.path", "gptailor.data.splits", "gptailor.config", "now", "tried"}
    assert imports(file, when_loaded=True) == loaded
    assert imports(file) == loaded | {"typed_only", "later"}
    assert own(file) == {"data.splits", "config"}


# --- the command line is there at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["gptailor", "gptailor.cli"])
def test_nothing_heavy_is_loaded_before_it_is_needed(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
