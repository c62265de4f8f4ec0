"""The one self-contained HTML page about a run, from the files of the model folder alone."""

from __future__ import annotations

from pathlib import Path

from gptailor.evaluate.format import environment
from gptailor.evaluate.report_assistant import assistant_page
from gptailor.evaluate.report_base import base_page
from gptailor.evaluate.report_classifier import classifier_page
from gptailor.evaluate.report_preferences import preferences_page
from gptailor.evaluate.run import read_run

PAGES = {
    "classifier": classifier_page,
    "assistant": assistant_page,
    "preferences": preferences_page,
    "base": base_page,
}


def write_report(folder: Path) -> Path:
    """Writes ``report.html`` into a model folder from the files there, and returns its path.

    Parts of the page whose file is missing or unfinished are left out or say so.

    Raises:
        UserError: if ``folder`` is no folder.
    """
    run = read_run(folder)
    task = run.metrics.get("task", "classifier")
    record = {"run": run, "metrics": run.metrics, "receipt": run.receipt, "manifest": run.manifest}
    template = environment(autoescape=True).get_template(f"{task}.html.j2")
    path = folder / "report.html"
    path.write_text(template.render(**record, **PAGES[task](run)), encoding="utf-8")
    return path
