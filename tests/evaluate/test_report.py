"""The report of any task is one safe page without anything from outside."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gptailor.errors import UserError
from gptailor.evaluate.card import write_classifier_card
from gptailor.evaluate.report import write_report
from tests.evaluate.conftest import write_model_folder
from tests.evaluate.folders import write_assistant_folder, write_base_folder
from tests.evaluate.pages import Page, report

MANY = tuple(f"<i>class</i>_{index}" for index in range(77))
LONG = "a-very-long-name-without-any-space-in-it" * 3
FOLDERS: dict[str, Callable[[Path], Path]] = {
    "two classes": lambda folder: write_model_folder(folder, ("ham", "spam"), (400, 60), edge=0.5, data=LONG),
    "many classes": lambda folder: write_model_folder(folder, MANY, (20,) * 77),
    "assistant": write_assistant_folder,
    "stopped assistant": lambda folder: write_assistant_folder(folder, finished=False),
    "base": write_base_folder,
}


@pytest.fixture(scope="module", params=FOLDERS.values(), ids=list(FOLDERS))
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with its page."""
    folder = request.param(tmp_path_factory.mktemp("run") / "model")
    return write_report(folder).parent


@pytest.fixture
def html(written: Path) -> str:
    return (written / "report.html").read_text(encoding="utf-8")


def test_page_loads_nothing_and_runs_nothing(html: str) -> None:
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


def test_hostile_texts_are_text(html: str) -> None:
    page = Page(html)
    assert page.tags.count("style") == 1 and not {"u", "script"} & set(page.tags)
    assert re.search("<(i|u|b|script)>", page.text), "the texts of these folders hold such marks, and they are shown"


def test_writing_twice_gives_the_same_page(written: Path, html: str) -> None:
    assert write_report(written).read_text(encoding="utf-8") == html


def test_ids_are_unique_and_links_lead_to_them(html: str) -> None:
    attributes = Page(html).attributes
    ids = [value for name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value.removeprefix("#") for name, value in attributes if name in ("href", "for")} <= set(ids)


def test_options_command_and_run_are_on_the_page(html: str) -> None:
    words = Page(html).words
    for said in ("How to repeat it", "gptailor train", "seed 123", "torch 2.13.0", "What became of the data"):
        assert said in words


def test_half_written_files_are_left_out(written: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written, tmp_path / "run")
    history = (folder / "history.jsonl").read_text(encoding="utf-8")
    (folder / "history.jsonl").write_text(history[:-20], encoding="utf-8")
    (folder / "receipt.json").write_text('{"files": [', encoding="utf-8")
    (folder / "responses.json").write_text('[{"instruction": "', encoding="utf-8")
    page = report(folder)
    assert "How it learned" in page.text
    assert "What became of the data" not in page.text


def test_a_folder_without_any_file_says_so(tmp_path: Path) -> None:
    page = report(tmp_path)
    assert "This run did not finish." in page.text and "No figures were measured." in page.text
    assert "nothing was measured" in write_classifier_card(tmp_path).read_text(encoding="utf-8")


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        write_report(tmp_path / "absent")


@pytest.mark.browser
def test_page_fits_a_phone_and_asks_for_nothing(written: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    path = written / "report.html"
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
