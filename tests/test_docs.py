"""What the documents show is run, and every option that they name exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from gptailor.cli import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GUIDES = [
    "assistant.md",
    "classification.md",
    "faults.md",
    "judging.md",
    "preferences.md",
    "pretraining.md",
    "sweep.md",
    "thimble.md",
]
COMMANDS: dict[str, Any] = vars(typer.main.get_command(app))["commands"]


def options(command: Any) -> set[str]:
    """Every flag of a command, and of those below it."""
    own = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    return own.union({"--help"}, *map(options, getattr(command, "commands", {}).values()))


KNOWN = set().union(*map(options, COMMANDS.values()))


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", document.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_option_exists(document: Path) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", document.read_text(encoding="utf-8")))
    assert named <= KNOWN


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
    assert targets == [] or all((document.parent / target).exists() for target in targets)


@pytest.mark.parametrize("name", GUIDES)
def test_every_command_of_a_guide_is_a_command(name: str) -> None:
    lines = [line for block in blocks(ROOT / "docs" / name, "") for line in block.splitlines()]
    verbs = [shlex.split(line, comments=True)[1] for line in lines if line.startswith("gptailor ")]
    assert verbs and set(verbs) <= COMMANDS.keys()


def test_the_python_of_the_guide_runs(
    trained: Path, moods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "messages.csv").write_bytes(moods.read_bytes())
    rows = [line.rsplit(",", 1) for line in moods.read_text(encoding="utf-8").splitlines()[1:41]]
    names = {"texts": [text for text, _ in rows], "labels": [label for _, label in rows]}
    shown = blocks(ROOT / "docs" / "classification.md", "python")
    assert len(shown) == 3
    for block in shown:
        exec(block.replace("FOLDER", str(trained)), names)
    assert (tmp_path / "runs" / "messages" / "report.html").exists()
