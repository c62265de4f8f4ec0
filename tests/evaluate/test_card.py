"""The model cards: who can read the model, what is known of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gptailor.evaluate.card import hub_name, write_assistant_card, write_base_card, write_classifier_card
from gptailor.evaluate.format import interval, markdown_cell, percent, signed
from tests.evaluate.folders import write_assistant_folder

MakeFolder = Callable[..., Path]


def card(folder: Path) -> tuple[dict[str, Any], str]:
    _, front, body = write_classifier_card(folder).read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), body


def test_card_has_front_matter_use_figures_and_limits(model_folder: MakeFolder) -> None:
    front, body = card(model_folder())
    assert front["pipeline_tag"] == "text-classification"
    assert "license" not in front and "base_model" not in front
    for said in (
        "gptailor predict",
        "AutoModelForSequenceClassification",
        "never seen in training",
        "## Limits",
        "Wilson",
    ):
        assert said in body
    assert "Only GPTailor reads" not in body
    compile(re.findall(r"```python\n(.*?)```", body, flags=re.DOTALL)[0], "card", "exec")


def test_card_names_a_base_from_the_hub(model_folder: MakeFolder) -> None:
    folder = model_folder()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["model"]["base"] = "openai-community/gpt2"
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert card(folder)[0]["base_model"] == "openai-community/gpt2"


@pytest.mark.parametrize(
    ("base", "on_hub"),
    [
        ("gpt2", True),
        ("gpt2-xl", True),
        ("openai-community/gpt2", True),
        ("random:tiny", False),
        ("thimble", False),
        ("../models/gpt2", False),
        ("/models/gpt2", False),
        ("./a/b", False),
        ("", False),
    ],
)
def test_hub_names(base: str, on_hub: bool) -> None:
    assert hub_name(base) is on_hub


def test_an_existing_folder_is_no_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not hub_name("runs/base")


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("read: last", "read: mean", "the class is read from `mean`"),
        ("read: last", "read: first", "the class is read from `first`"),
        ("causal: true", "causal: false", "tokens see those after them"),
    ],
)
def test_card_says_when_only_gptailor_reads_it_right(
    model_folder: MakeFolder, before: str, after: str, reason: str
) -> None:
    folder = model_folder()
    settings = (folder / "run.yaml").read_text(encoding="utf-8")
    (folder / "run.yaml").write_text(settings.replace(before, after), encoding="utf-8")
    body = card(folder)[1]
    assert "Only GPTailor reads this model right" in body and reason in body
    assert "AutoModelForSequenceClassification" not in body


def test_card_keeps_hostile_labels_in_their_cell(model_folder: MakeFolder) -> None:
    body = card(model_folder(("ham | <script>\n# x", "spam"), (90, 90)))[1]
    [row] = [line for line in body.splitlines() if line.startswith("| ham")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 7
    assert "<script>" not in body
    assert markdown_cell("a_b\n`c`") == "a\\_b \\`c\\`"


# --- Assistants and bases ---


def test_an_assistants_card_has_intervals_and_the_difference(assistant_folder: Path) -> None:
    metrics = json.loads((assistant_folder / "metrics.json").read_text(encoding="utf-8"))
    body = write_assistant_card(assistant_folder).read_text(encoding="utf-8")
    for key, name in (("test", "this model"), ("base", "its base")):
        answers = metrics[key]["answers"]
        (low, high), exact = answers["chrf"]["interval"], answers["exact"]
        share = f"{percent(exact['accuracy'])} ({interval(exact['interval'])})"
        assert f"| {name} | {share} | {answers['chrf']['mean']:.1f} ({low:.1f} to {high:.1f}) |" in body
    told = metrics["difference"]["chrf"]
    assert f"| {signed(told['difference'])} ({signed(told['interval'][0])} to {signed(told['interval'][1])}) |" in body
    assert "Its answers are nearer to the references than those of its base" in body
    assert "<script>" not in body and "<style>" not in body
    rows = [line for line in body.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} <= {5, 6}


def test_the_card_of_a_stopped_assistant_claims_nothing(tmp_path: Path) -> None:
    body = write_assistant_card(write_assistant_folder(tmp_path / "run", finished=False)).read_text(encoding="utf-8")
    assert "it has not been tested" in body and "chrF" not in body and "responses.json" not in body


def test_a_bases_card_has_its_curve(base_folder: Path) -> None:
    body = write_base_card(base_folder).read_text(encoding="utf-8")
    assert "| this model | 3.000 | 20.1 | 1.500 |" in body and "| 5-gram model | 4.000 | 54.6 | 2.000 |" in body
    mean = sum(3 + 2 / step for step in range(1, 11)) / 10
    assert f"| 10 | 900 | {mean:.3f} | 3.600 |" in body
