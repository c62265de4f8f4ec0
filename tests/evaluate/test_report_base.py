"""The page of a base model sets it beside models that count, and shows what it read and how it came to write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gptailor.evaluate.format import number
from gptailor.evaluate.report_base import SAMPLES, models, sources, verdict
from gptailor.evaluate.run import read_run
from tests.evaluate.folders import write_base_folder
from tests.evaluate.pages import report


def test_the_figures_are_those_of_metrics_json(base_folder: Path) -> None:
    words = report(base_folder).words
    metrics = json.loads((base_folder / "metrics.json").read_text(encoding="utf-8"))
    counting = {f"{name} model": figures for name, figures in metrics["baselines"].items()}
    for name, each in {"this model": metrics, **counting}.items():
        told = (
            f"{name} {number(each['validation_loss'])} {number(each['perplexity'], 1)} {number(each['bits_per_byte'])}"
        )
        assert told in words
    assert "perplexity on 12 held-out documents 3,456 tokens, 10,020 bytes; 1.500 bits per byte" in words
    assert "2,000 a second" in words, "40,000 tokens in 20 seconds"


@pytest.mark.parametrize(
    ("bits", "kind", "said"),
    [
        (1.5, "better", "with 25.0\u202f% fewer bits than the 5-gram model of the same text (1.500 against 2.000 bits"),
        (3.0, "worse", "It needs 50.0\u202f% more bits than the 5-gram model"),
    ],
)
def test_the_verdict_is_against_the_best_that_counts(tmp_path: Path, bits: float, kind: str, said: str) -> None:
    run = read_run(write_base_folder(tmp_path / "run", bits=bits))
    assert verdict(run.metrics).kind == kind and said in verdict(run.metrics).sentence
    assert [row["share"] for row in models(run.metrics)] == pytest.approx([bits / 3.5, 2 / 3.5, 1])


def test_tokens_read_are_shared_out_by_what_was_planned(base_folder: Path) -> None:
    """6 passes over 1,000 tokens and 3 over 2,000 are as much; 40,000 tokens are 20,000 of each file."""
    rows = sources(read_run(base_folder))
    assert [row["read"] for row in rows] == [20_000, 20_000]
    assert [row["passes"] for row in rows] == [20, 10]
    words = report(base_folder).words
    assert "<u>one.jsonl 2 9 1,000 6 1 20,000 20.00" in words
    assert "/data/<u>one.jsonl@2, /data/two.txt@1" in words, "the option data"
    assert "not valid <b>JSON</b> /data/<u>one.jsonl:9" in words and "a <b>mark</b>" in words


def test_samples_are_spread_over_the_run(base_folder: Path) -> None:
    page = report(base_folder)
    assert page.tags.count("li") == SAMPLES
    assert "step 0 The <script>alert(1)</script>" in page.words and "step 30 held-out loss" in page.words
    assert "How it continued The <u> at evaluations" in page.words


def test_a_stopped_run_says_so(tmp_path: Path) -> None:
    words = report(write_base_folder(tmp_path / "run", finished=False)).words
    assert "This run did not finish. The figures are those of the weights that it had kept" in words
    assert "of step 30." in words


def test_a_run_without_figures_has_a_page(tmp_path: Path) -> None:
    folder = write_base_folder(tmp_path / "run")
    (folder / "metrics.json").write_text('{"task": "base"}', encoding="utf-8")
    words = report(folder).words
    assert "This run did not finish." in words and "perplexity" not in words
