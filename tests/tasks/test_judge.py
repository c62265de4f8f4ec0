"""``gptailor judge`` as it is typed: figures on the terminal and as JSON, files beside the answers, clear errors."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gptailor
from gptailor import cli
from gptailor.evaluate import remote
from gptailor.evaluate.judges import Rules
from gptailor.evaluate.questions import Question, Reply
from tests.evaluate.servers import FakeServer, OllamaHandler, OpenAIHandler, serving

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs ``gptailor judge`` in this process: exit code, standard output, standard error."""
    monkeypatch.setattr(remote, "WAIT", 0.005)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gptailor", "judge", *map(str, arguments)])
        monkeypatch.setattr(cli, "console", cli.Console(stderr=True, width=200))
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def saved(folder: Path, name: str, responses: list[Any], **more: list[Any]) -> Path:
    """Records ``What is 1?``, whose reference is ``It is 1.``, with these responses."""
    records = [
        {"instruction": f"What is {n}?", "input": "", "output": f"It is {n}.", "model_response": text}
        | {key: values[n - 1] for key, values in more.items()}
        for n, text in enumerate(responses, 1)
    ]
    file = folder / name
    file.write_text(json.dumps(records), encoding="utf-8")
    return file


GOOD = [f"It is {n}." for n in range(1, 13)]
BAD = [f"Was {n}" for n in range(1, 13)]


def by_the_response(body: dict[str, Any]) -> str:
    """A judge that knows what is right: 90 for it, else 20; or A for the first response, if it is, else B."""
    asked = body["messages"][1]["content"]
    if "[response A," in asked:
        first, second = (asked.split(f"[response {name},")[1].split("\n")[1] for name in "AB")
        return "tie" if first == second else "A" if first.startswith("It is") else "B"
    return "90" if asked.split("[response,")[1].split("\n")[1].startswith("It is") else "20"


def test_rules_need_no_server(judge: Cli, tmp_path: Path) -> None:
    code, out, told = judge(saved(tmp_path, "answers.json", [*GOOD[:11], ""]), "--with", "rules")
    figures = json.loads(out)
    assert code == 0, told
    assert figures["scores"][0]["mean"] == pytest.approx(1100 / 12) and figures["scores"][0]["n"] == 12
    assert figures["reference"][0]["exact"]["correct"] == 11
    assert "score 91.67 of 100 (95 %: " in told and "n = 12" in told and "(11 of 12)" in told
    assert len((tmp_path / "answers.judged.jsonl").read_text(encoding="utf-8").splitlines()) == 12


def test_the_python_function_gives_the_same_figures_and_prints_nothing(
    judge: Cli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(tmp_path, "answers.json", [*GOOD[:11], "It is"])
    _, out, _ = judge(file, "--with", "rules", "--out", tmp_path / "one.jsonl")
    figures = gptailor.judge(str(file), "rules", out=tmp_path / "other.jsonl")
    assert figures == json.loads(out) and capsys.readouterr() == ("", "")


def test_a_file_through_ollama_twice(judge: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = saved(tmp_path, "answers.json", [*GOOD[:10], *BAD[10:]])
    replies = {3: "130", 5: "I would say 80.", 7: "cut"}

    def say(body: dict[str, Any]) -> str:
        number = int(body["messages"][1]["content"].split("What is ")[1].split("?")[0])
        return replies.get(number) or by_the_response(body)

    with serving(FakeServer(say, OllamaHandler)) as fake:
        monkeypatch.setenv("OLLAMA_HOST", fake.address)
        code, out, told = judge(file, "--with", "ollama:llama3", "--workers", 3)
        assert code == 0, told
        assert fake.most_at_once <= 3
    (scores,) = json.loads(out)["scores"]
    assert scores["mean"] == pytest.approx((7 * 90 + 2 * 20) / 9) and scores["n"] == 9
    assert scores["unreadable"] == 3 and scores["unreadable_as_100"] == pytest.approx((7 * 90 + 2 * 20 + 300) / 12)
    assert "3 of 12 replies cannot be read; were all of them 0, or 100, the mean would be 55.83 or 80.83" in told
    assert "1 × outside 0 to 100, such as '130'" in told
    assert "1 × not a whole number alone, such as 'I would say 80.'" in told
    assert "1 × no reply: the reply broke off, 5 times" in told
    del replies[7]
    with serving(FakeServer(say, OllamaHandler)) as fake:
        monkeypatch.setenv("OLLAMA_HOST", fake.address)
        code, out, told = judge(file, "--with", "ollama:llama3")
        assert code == 0 and "11 of them answered before" in told and len(fake.bodies) == 1
    assert json.loads(out)["scores"][0]["n"] == 10
    code, again, _ = judge(file, "--with", "ollama:llama3")  # the server is gone, and not needed any more
    assert code == 0 and json.loads(again) == json.loads(out)


def test_an_interrupted_run_says_how_to_go_on(judge: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, real, asked, over = saved(tmp_path, "answers.json", GOOD), Rules.ask, [], threading.Event()

    def interrupted(self: Rules, question: Question, seed: int) -> Reply:
        asked.append(question)
        while len(asked) == 5 and not over.is_set():  # a slow server, for which nobody waits
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            over.wait(10)  # Python drops an interrupt that falls into a destructor: then it is pressed once more
        return real(self, question, seed)

    monkeypatch.setattr(Rules, "ask", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever ran before in this process
    try:
        code, out, told = judge(file, "--with", "rules", "--workers", 1)
    finally:
        over.set()
        signal.signal(signal.SIGINT, before)
    assert code == 130 and out == "" and "the same command goes on" in told
    kept = (tmp_path / "answers.judged.jsonl").read_text(encoding="utf-8")
    assert kept.count("\n") == 4
    asked.extend([asked[0]] * 5)
    code, _, told = judge(file, "--with", "rules")
    assert code == 0 and "4 of them answered before" in told


def test_two_files_are_compared(judge: Cli, tmp_path: Path) -> None:
    tuned, base = saved(tmp_path, "tuned.json", GOOD), saved(tmp_path, "base.json", BAD)
    with serving(FakeServer(by_the_response, OpenAIHandler, models=("tiny",))) as fake:
        code, out, told = judge(tuned, base, "--with", f"{fake.address}/v1")
        assert code == 0, told
        assert "tuned.json model_response scores higher than base.json model_response: difference +70.00" in told
        assert json.loads(out)["difference"]["n"] == 12 and (tmp_path / "base.judged.jsonl").exists()
        code, out, told = judge(base, tuned, "--with", f"{fake.address}/v1#tiny", "--pairwise", "--repeats", 2)
        pairs = json.loads(out)["pairs"]
        assert code == 0 and (pairs["losses"], pairs["wins"], pairs["replies"]) == (24, 0, 48)
        assert "worse 24" in told and f"{fake.address}/v1#tiny: 48 questions" in told


def test_two_responses_in_one_file_are_compared(judge: Cli, tmp_path: Path) -> None:
    file, kept = saved(tmp_path, "answers.json", GOOD, base_response=BAD), tmp_path / "kept.jsonl"
    code, out, told = judge(file, "--other-response", "base_response", "--with", "rules", "--out", kept)
    figures = json.loads(out)
    assert code == 0, told
    assert figures["answers"] == ["answers.json model_response", "answers.json base_response"]
    assert figures["difference"]["difference"] > 50 and figures["difference"]["p"] < 0.001
    assert len(kept.read_text(encoding="utf-8").splitlines()) == 24
    code, out, told = judge(file, "--other-response", "base_response", "--with", "rules", "--pairwise", "--out", kept)
    assert code == 0 and json.loads(out)["pairs"]["wins"] == 12 and "100.0" in told


def test_answers_that_are_alike_cannot_be_told_apart(judge: Cli, tmp_path: Path) -> None:
    one, other = (
        saved(tmp_path, "one.json", [*GOOD[:6], *BAD[6:]]),
        saved(tmp_path, "other.json", [*BAD[:6], *GOOD[6:]]),
    )
    code, _, told = judge(one, other, "--with", "rules")
    assert code == 0 and "cannot be told apart" in told


def test_what_a_server_does_not_take_is_said(judge: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(FakeServer(by_the_response, OllamaHandler, forms=("plain",))) as fake:
        monkeypatch.setenv("OLLAMA_HOST", fake.address)
        code, out, told = judge(saved(tmp_path, "answers.json", GOOD), "--with", "ollama:llama3")
    assert code == 0 and json.loads(out)["scores"][0]["mean"] == 90
    assert told.count("note: it does not take json_schema, json_object: asked for plain replies") == 1


def test_no_key_is_written(judge: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "sk-secret")
    with serving(FakeServer(lambda body: "no", OpenAIHandler, key="sk-secret")) as fake:
        code, out, told = judge(saved(tmp_path, "answers.json", GOOD), "--with", f"{fake.address}/v1#tiny")
    assert code == 0 and "no reply could be read as a score" in told
    written = "".join(file.read_text(encoding="utf-8") for file in tmp_path.iterdir())
    assert "sk-secret" not in out + told + written


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{dir}/absent.json"], "no such file"),
        (["{one}", "--pairwise"], "--other-response"),
        (["{one}", "{one}"], "the same ones"),
        (["{one}", "{short}"], "has 12 records and"),
        (["{one}", "{other}"], "of the records 2"),
        (["{one}", "--response", "model_respons"], "did you mean 'model_response'?"),
        (["{one}", "--out", "{one}"], "is no line of a judged file"),
        (["{one}", "--out", "{dir}/absent/x.jsonl"], "cannot be written"),
        (["{one}", "--with", "ollama"], "expected: rules, ollama:MODEL"),
        (["{one}", "--with", "ollama:llama3"], "ollama serve"),
        (["{one}", "--with", "openai:gpt-4.1-mini"], "OPENAI_API_KEY is not set"),
        (["{one}", "--with", "http://127.0.0.1:9/v1"], "no server answers at http://127.0.0.1:9/v1"),
    ],
)
def test_what_cannot_be_judged_is_told_and_nothing_is_written(
    judge: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: str
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    files = {name: saved(tmp_path, f"{name}.json", GOOD) for name in ("one", "other")}
    files["short"] = saved(tmp_path, "short.json", GOOD[:3])
    files["other"].write_text(files["other"].read_text().replace("What is 2?", "What is two?"), encoding="utf-8")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    filled = [part.format(dir=tmp_path, **files) for part in arguments]
    code, out, told = judge(*filled, *([] if "--with" in filled else ["--with", "rules"]))
    assert code == 1 and "Error:" in told and expected in told, told
    assert out == "" and "Traceback" not in told
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_real_answers_by_the_rules(judge: Cli, shared_data: Path, tmp_path: Path) -> None:
    file = shared_data / "instruction" / "instruction-data-with-response.json"
    code, out, told = judge(file, "--with", "rules", "--out", tmp_path / "judged.jsonl")
    (scores,) = json.loads(out)["scores"]
    assert code == 0 and (scores["n"], scores["unreadable"]) == (110, 0), told
    assert 50 < scores["mean"] < 65
