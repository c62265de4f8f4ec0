"""The report is one safe page that says who wins; the model card says who can read the model."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from gptailor.errors import UserError
from gptailor.evaluate import charts
from gptailor.evaluate.format import interval, markdown_cell
from gptailor.evaluate.report import Dots, _epoch_size, hub_name, page_parts, read_run, write_model_card, write_report

MakeFolder = Callable[..., Path]
MANY = tuple(f"<i>class</i>_{index}" for index in range(77))


class Page(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def report(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def change(folder: Path, **values: Any) -> None:
    path = folder / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


# --- The page as a file ---


@pytest.mark.parametrize(("labels", "supports"), [(("ham", "spam"), (150, 150)), (MANY, (20,) * 77)])
def test_page_loads_nothing_and_runs_nothing(model_folder: MakeFolder, labels: Any, supports: Any) -> None:
    path = write_report(model_folder(labels, supports))
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    assert not {"script", "img", "link", "iframe", "object", "embed", "base", "video", "image"} & set(page.tags)
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            assert value.startswith("#"), (name, value)
        assert not name.startswith("on"), (name, value)
        assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", value)), (name, value)
    [style] = re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL)
    assert "url(" not in style and "@import" not in style
    assert len(html.encode()) < 1_000_000


def test_page_shows_hostile_texts_as_they_are(model_folder: MakeFolder) -> None:
    page = report(model_folder(edge=0.5))
    assert "<script>alert(1)</script><img src=https://evil.example/x.png" in page.text
    assert "<b>37 test texts</b> are in training" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "سلام، غذا خیلی دیر رسید" in page.text
    assert ("dir", "auto") in page.attributes
    assert page.tags.count("style") == 1


def test_hostile_labels_are_text_everywhere(model_folder: MakeFolder) -> None:
    labels = ("<u>ham</u>", '"><script>x</script>')
    page = report(model_folder(labels, (400, 60)))
    assert "u" not in page.tags and "script" not in page.tags
    assert page.text.count('"><script>x</script>') > 4


def test_writing_twice_gives_the_same_page(model_folder: MakeFolder) -> None:
    folder = model_folder()
    assert write_report(folder).read_bytes() == write_report(folder).read_bytes()


def test_ids_on_the_page_are_unique(model_folder: MakeFolder) -> None:
    ids = [value for name, value in report(model_folder()).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_a_folder_without_any_file_says_so(tmp_path: Path) -> None:
    page = report(tmp_path)
    assert "This run did not finish." in page.text and "No figures were measured." in page.text
    assert "nothing was measured" in write_model_card(tmp_path).read_text(encoding="utf-8")


def test_half_written_files_are_left_out(model_folder: MakeFolder) -> None:
    folder = model_folder()
    history = (folder / "history.jsonl").read_text(encoding="utf-8")
    (folder / "history.jsonl").write_text(history[:-20], encoding="utf-8")
    (folder / "receipt.json").write_text('{"files": [', encoding="utf-8")
    page = report(folder)
    assert "How it learned" in page.text
    assert "What became of the data" not in page.text


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    for write in (write_report, write_model_card):
        with pytest.raises(UserError, match="is no folder"):
            write(tmp_path / "absent")


# --- The headline ---


def test_page_leads_with_accuracy_when_classes_are_even(model_folder: MakeFolder) -> None:
    page = report(model_folder(seeds=True))
    unseen = json.loads((model_folder(seeds=True) / "metrics.json").read_text(encoding="utf-8"))["test_unseen"]
    assert f"accuracy on {unseen['n']} test texts never seen in training" in page.text
    assert f"{unseen['correct']} right; 95\u202f% interval {interval(unseen['interval'])}" in page.text
    assert "over 3 seeds" in page.text and "The classes are uneven" not in page.text


def test_page_leads_with_macro_f1_when_classes_are_uneven(model_folder: MakeFolder) -> None:
    folder = model_folder(("ham", "spam"), (400, 60))
    parts = page_parts(read_run(folder))
    assert parts["dots"].title == "Macro F1"
    assert [row["name"] for row in parts["class_dots"].rows] == ["spam", "ham"]
    text = report(folder).text
    assert text.index("macro F1 on") < text.index("accuracy ")
    assert "The classes are uneven" in text


def test_an_interrupted_run_shows_validation_figures_and_says_so(model_folder: MakeFolder) -> None:
    folder = model_folder()
    change(folder, finished=False, test=None, test_unseen=None, baselines=None, baselines_unseen=None, calibration=None)
    (folder / "predictions.csv").unlink()
    text = report(folder).text
    assert "This run did not finish." in text and "likely to be too good" in text
    assert "accuracy on 90 validation texts" in text
    assert "No test texts were answered." in text


# --- The parts of the page ---


def test_dots_lie_where_their_values_are() -> None:
    dots = Dots("accuracy", [{"value": 0.95, "low": 0.91, "high": 0.98}, {"value": 0.5, "low": 0.44, "high": 0.57}])
    assert dots.low == 0.4
    assert dots.ticks == [0.4, 0.6, 0.8, 1.0]
    assert (dots.at(0.4), dots.at(0.7), dots.at(1.0)) == ("0.00%", "50.00%", "100.00%")
    assert Dots("high", [{"value": 0.97, "low": 0.93, "high": 1.0}]).ticks == [0.9, 0.92, 0.94, 0.96, 0.98, 1.0]
    assert Dots("none").ticks[0] == 0.0


def test_few_classes_have_a_matrix_and_many_their_confused_pairs(model_folder: MakeFolder) -> None:
    few = page_parts(read_run(model_folder(("a", "b", "c"), (50, 50, 50))))
    assert len(few["matrix"]) == 3 and few["heat_map"] == []
    confusion = few["headline"].figures["confusion"]
    assert few["matrix"][1]["cells"][0] == (confusion[1][0], confusion[1][0] / sum(confusion[1]))
    many = page_parts(read_run(model_folder(MANY, (12,) * 77)))
    assert many["matrix"] == [] and len(many["heat_map"]) > 1 and len(many["confused"]) == 15
    counts = [pair["count"] for pair in many["confused"]]
    assert counts == sorted(counts, reverse=True) and counts[0] > 0
    assert many["classes"][0]["f1"] == min(each["f1"] for each in many["classes"])


def test_heat_map_draws_each_cell_once(model_folder: MakeFolder) -> None:
    parts = page_parts(read_run(model_folder(MANY, (12,) * 77)))
    cells = [cell for path in parts["heat_map"] for cell in path["path"].split("M")[1:]]
    filled = sum(count > 0 for row in parts["headline"].figures["confusion"] for count in row)
    assert len(cells) == len(set(cells)) == filled


def test_mistakes_are_the_most_confident_twenty(model_folder: MakeFolder) -> None:
    folder = model_folder(edge=0.3)
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        wrong = [float(row["probability"]) for row in csv.DictReader(file) if row["correct"] == "false"]
    run = read_run(folder)
    assert run.mistakes_in_all == len(wrong) > 20
    assert [row["probability"] for row in run.mistakes] == sorted(wrong, reverse=True)[:20]


def test_a_very_long_mistake_is_shortened(model_folder: MakeFolder) -> None:
    folder = model_folder()
    row = ["data.tsv:1", "long " * 60_000, "ham", "spam", "0.999", "0.001", "false", "true"]
    with (folder / "predictions.csv").open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(row)
    path = write_report(folder)
    assert "299,300 more characters" in path.read_text(encoding="utf-8")
    assert path.stat().st_size < 400_000


def test_settings_keep_their_groups_and_descriptions(model_folder: MakeFolder) -> None:
    groups = dict(read_run(model_folder()).setting_groups)
    assert list(groups) == ["Data", "Model", "Training"]
    assert ("lr", 0.001, "peak learning rate of AdamW [default: by base]") in groups["Training"]


def test_receipt_is_on_the_page(model_folder: MakeFolder) -> None:
    text = report(model_folder()).text
    for said in (
        "quotes read as ordinary characters",
        "repeats an earlier text",
        "13 of 149 validation texts",
        "sha256",
    ):
        assert said in text


# --- Charts ---


def history_of_two_epochs() -> list[dict[str, Any]]:
    train = [{"kind": "train", "step": s, "epoch": 1 + s // 6, "examples": 10 * s, "loss": 1 / s} for s in range(1, 11)]
    ends = [
        {"kind": "evaluate", "step": 5, "epoch": 1, "examples": 50, "validation_loss": 0.4},
        {"kind": "evaluate", "step": 10, "epoch": 2, "examples": 100, "validation_loss": 0.3},
    ]
    return train + ends


def test_learning_curve_has_both_axes_and_the_kept_weights() -> None:
    drawing = charts.learning_curve(history_of_two_epochs(), "loss", 10, 50)
    for said in (">epochs<", ">examples seen<", ">validation<", ">kept<", ">training<", "var(--accent)"):
        assert said in drawing
    assert ">kept<" not in charts.learning_curve(history_of_two_epochs(), "loss", 7, 50)
    assert charts.learning_curve(history_of_two_epochs(), "accuracy", 10, 50) == ""


def test_charts_leave_the_page_alone() -> None:
    drawing = charts.learning_curve(history_of_two_epochs(), "loss", 10, 50)
    assert "<style" not in drawing and "<metadata" not in drawing and "font-family" not in drawing
    assert not re.search(r"#00000[1-5]", drawing)


def test_epoch_size_comes_from_the_history_or_in_the_first_epoch_from_the_receipt(model_folder: MakeFolder) -> None:
    run = read_run(model_folder())
    run.history = history_of_two_epochs()
    assert _epoch_size(run) == 50
    run.history = [{"kind": "train", "step": 1, "epoch": 1, "examples": 8, "loss": 1.0}]
    assert _epoch_size(run) == sum(each["train"] for each in run.receipt["labels"].values())


def test_reliability_diagram_and_lengths_of_nothing_are_empty() -> None:
    assert charts.reliability_diagram([]) == ""
    assert charts.length_histogram({}, None) == ""
    assert ">cut at 64 <" in charts.length_histogram({"edges": [0, 50, 100], "counts": [3, 4]}, 64)


# --- The model card ---


def card(folder: Path) -> tuple[dict[str, Any], str]:
    _, front, body = write_model_card(folder).read_text(encoding="utf-8").split("---\n", 2)
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


# --- In a browser ---


@pytest.mark.browser
@pytest.mark.parametrize(("labels", "supports"), [(("ham", "spam"), (400, 60)), (MANY, (12,) * 77)])
def test_page_fits_a_phone_and_asks_for_nothing(model_folder: MakeFolder, labels: Any, supports: Any) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    path = write_report(model_folder(labels, supports, data="a-very-long-name-without-any-space-in-it" * 3))
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert asked == [path.as_uri()] and said == []
        browser.close()
