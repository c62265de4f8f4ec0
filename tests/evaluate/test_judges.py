"""Judges on servers that speak the documented protocols, also slowly, brokenly and wrongly; and the fixed rules."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from gptailor.errors import UserError
from gptailor.evaluate import remote, server
from gptailor.evaluate.judges import Rules, open_judge
from gptailor.evaluate.questions import Question, Reply, Unanswered
from gptailor.evaluate.remote import Ollama, OpenAI
from tests.evaluate.servers import FakeServer, OllamaHandler, OpenAIHandler, Say, serving

SCORE = Question("Name a colour.", "", "Red.", ("Blue.",))
PAIR = Question("Name a colour.", "", "Red.", ("Blue.", "red"))
Serve = Callable[..., FakeServer]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_HOST", "OPENAI_API_KEY", "JUDGE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody is there: this machine must be reached without it
    monkeypatch.setattr(remote, "WAIT", 0.005)


@pytest.fixture
def ollama(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(say: Say, **settings: Any) -> FakeServer:
            fake = stack.enter_context(serving(FakeServer(say, OllamaHandler, **settings)))
            monkeypatch.setenv("OLLAMA_HOST", fake.address.removeprefix("http://"))
            return fake

        yield start


@pytest.fixture
def openai() -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda say, **settings: stack.enter_context(serving(FakeServer(say, OpenAIHandler, **settings)))


def after(*failures: str, then: str = "85") -> Say:
    """These replies, one after the other, and then always ``then``."""
    left = list(failures)
    return lambda body: left.pop(0) if left else then


def dead_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


# --- Ollama -----------------------------------------------------------------------------------------------------------


def test_ollama_is_asked_as_its_protocol_says(ollama: Serve) -> None:
    fake = ollama(lambda body: '{"score": 85}')
    judge = open_judge("ollama:llama3")
    judge.check()
    assert judge.name == "ollama:llama3"
    assert judge.ask(SCORE, 123) == Reply('{"score": 85}', "json_schema")
    (body,) = fake.bodies
    assert body["model"] == "llama3" and body["stream"] is True
    assert body["options"] == {"temperature": 0, "seed": 123, "num_ctx": 2048}
    assert body["format"] == SCORE.schema and body["messages"] == SCORE.messages(structured=True)
    assert judge.said == []


@pytest.mark.parametrize("failure", ["status:500", "status:503", "status:429", "cut", "torn", "error", "types"])
def test_what_fails_is_tried_again(ollama: Serve, failure: str) -> None:
    fake = ollama(after(failure, failure))
    assert open_judge("ollama:llama3").ask(SCORE, 1).text == "85"
    assert len(fake.bodies) == 3 and fake.bodies[0] == fake.bodies[2]


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        ("status:500", "HTTP 500: out of luck, 5 times"),
        ("cut", "the reply broke off, 5 times"),
        ("error", "it broke off with an error: the model runner has stopped"),
        ("types", "a line without text"),
        ("torn", "the connection broke"),
    ],
)
def test_what_fails_each_time_is_unanswered(ollama: Serve, failure: str, why: str) -> None:
    fake = ollama(lambda body: failure)
    with pytest.raises(Unanswered) as error:
        open_judge("ollama:llama3").ask(SCORE, 1)
    assert why in str(error.value) and len(fake.bodies) == 5


def test_the_server_says_how_long_to_wait(ollama: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAIT", 100.0)
    ollama(after("status:429:0.05"))
    begun = time.monotonic()
    assert open_judge("ollama:llama3").ask(SCORE, 1).text == "85"
    assert 0.05 <= time.monotonic() - begun < 5


def test_waits_grow(ollama: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(remote, "WAIT", 1.0)
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    judge = Ollama("llama3")
    monkeypatch.setattr(judge, "request", lambda *_: (_ for _ in ()).throw(server.Failed("no")))
    with pytest.raises(Unanswered):
        judge.ask(SCORE, 1)
    assert waits == [1, 2, 4, 8]


def test_a_slow_reply_is_waited_for_and_a_silent_server_is_not(ollama: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = ollama(lambda body: "85", slow=0.3)
    assert open_judge("ollama:llama3").ask(SCORE, 1).text == "85"
    monkeypatch.setitem(server.TIMEOUTS, "POST", 0.1)
    with pytest.raises(Unanswered, match=r"no answer within 0\.1 seconds, 5 times"):
        open_judge("ollama:llama3").ask(SCORE, 1)
    assert len(fake.bodies) == 6


@pytest.mark.parametrize(("limit", "value"), [("LARGEST", 2_000), ("LONGEST", 0.02)])
def test_a_reply_without_end_is_left(ollama: Serve, monkeypatch: pytest.MonkeyPatch, limit: str, value: float) -> None:
    monkeypatch.setattr(server, limit, value)
    ollama(lambda body: "blah " * 50, slow=0.001)
    with pytest.raises(Unanswered, match="would not stop"):
        open_judge("ollama:llama3").ask(SCORE, 1)


def test_a_reply_that_was_cut_says_so(ollama: Serve) -> None:
    ollama(lambda body: "length")
    assert open_judge("ollama:llama3").ask(SCORE, 1) == Reply("length", "json_schema", cut=True)


@pytest.mark.parametrize(
    ("forms", "requests"),
    [(("json_object", "plain"), ["json_schema", "json_object"]), (("plain",), ["json_schema", "json_object", "plain"])],
)
def test_the_form_falls_back_once_and_for_all(ollama: Serve, forms: tuple[str, ...], requests: list[str]) -> None:
    fake = ollama(lambda body: "85", forms=forms)
    judge = open_judge("ollama:llama3")
    assert judge.ask(SCORE, 1).form == requests[-1]
    assert judge.ask(PAIR, 1).form == requests[-1]
    told = [{dict: "json_schema", str: "json_object"}.get(type(body.get("format")), "plain") for body in fake.bodies]
    assert told == [*requests, requests[-1]]
    assert "JSON" not in fake.bodies[-1]["messages"][1]["content"] or requests[-1] != "plain"
    assert len(judge.said) == 1 and f"asked for {requests[-1]} replies" in judge.said[0]


def test_one_question_that_is_refused_in_every_form_changes_nothing(ollama: Serve) -> None:
    fake = ollama(after("status:400", "status:400", "status:400"))
    judge = open_judge("ollama:llama3")
    with pytest.raises(Unanswered, match="HTTP 400: out of luck"):
        judge.ask(SCORE, 1)
    assert judge.ask(SCORE, 1).form == "json_schema" and len(fake.bodies) == 4 and judge.said == []


def test_a_long_question_gets_a_longer_context(ollama: Serve) -> None:
    fake = ollama(lambda body: "85")
    judge = open_judge("ollama:llama3")
    judge.ask(Question("Repeat.", "", "word " * 2000, ("word " * 2000,)), 1)
    judge.ask(SCORE, 1)  # the model is not loaded anew for a shorter one
    assert [body["options"]["num_ctx"] for body in fake.bodies] == [16384, 16384]


def test_a_question_that_the_model_saw_only_a_part_of_is_asked_again(ollama: Serve) -> None:
    fake = ollama(lambda body: "seen:3000")
    assert open_judge("ollama:llama3").ask(SCORE, 1).text == "50"
    assert [body["options"]["num_ctx"] for body in fake.bodies] == [2048, 4096]
    ollama(lambda body: "seen:999999")
    with pytest.raises(Unanswered, match="does not fit into 131,072 tokens"):
        open_judge("ollama:llama3").ask(SCORE, 1)


def test_no_server_gets_how_to_start_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", address := dead_address())
    judge = open_judge("ollama:llama3")
    for call in (judge.check, lambda: judge.ask(SCORE, 1)):
        with pytest.raises(UserError) as error:
            call()
        told = str(error.value)
        assert address in told and "ollama serve" in told and "ollama pull llama3" in told


def test_a_model_that_is_not_there_gets_how_to_fetch_it(ollama: Serve) -> None:
    ollama(lambda body: "85", models=("phi3:latest", "llama3:70b"))
    open_judge("ollama:phi3").check()
    open_judge("ollama:llama3:70b").check()
    with pytest.raises(UserError) as error:
        open_judge("ollama:llama3").check()
    assert "ollama pull llama3" in str(error.value) and "phi3:latest, llama3:70b" in str(error.value)


def test_something_else_than_ollama_is_told(openai: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", openai(lambda body: "85").address)
    with pytest.raises(UserError, match=r"no Ollama server answers at .*: HTTP 404"):
        open_judge("ollama:llama3").check()


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        (":5000", "http://127.0.0.1:5000"),
        ("there:5000", "http://there:5000"),
        ("https://there/ollama/", "https://there:443/ollama"),
        ("http://[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_ollama_is_where_its_variable_says(monkeypatch: pytest.MonkeyPatch, told: str, address: str) -> None:
    monkeypatch.setenv("OLLAMA_HOST", told)
    assert Ollama("llama3").server.address == address


def test_a_variable_that_is_no_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "there:port")
    with pytest.raises(UserError, match="OLLAMA_HOST is 'there:port'"):
        open_judge("ollama:llama3")


# --- OpenAI and its kin -----------------------------------------------------------------------------------------------


def test_an_openai_server_is_asked_as_its_protocol_says(openai: Serve) -> None:
    fake = openai(lambda body: '{"score": 85}', models=("tiny",))
    judge = open_judge(f"{fake.address}/v1/")
    judge.check()
    assert judge.name == f"{fake.address}/v1#tiny"
    assert judge.ask(SCORE, 124) == Reply('{"score": 85}', "json_schema")
    (body,) = fake.bodies
    assert (body["model"], body["temperature"], body["seed"]) == ("tiny", 0, 124)
    schema = {"name": "score", "strict": True, "schema": SCORE.schema}
    assert body["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert "Authorization" not in fake.headers[0]


def test_the_fake_server_is_one_that_the_official_client_understands(
    openai: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openai import OpenAI as Official

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    fake = openai(lambda body: '{"score": 85}', models=("tiny",), key="sk-test")
    with Official(base_url=f"{fake.address}/v1", api_key="sk-test", max_retries=0) as official:
        assert [model.id for model in official.models.list()] == ["tiny"]
        made = official.chat.completions.create(
            model="tiny",
            messages=SCORE.messages(structured=True),
            temperature=0,
            seed=123,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "score", "strict": True, "schema": SCORE.schema},
            },
        )
    assert made.choices[0].message.content == '{"score": 85}'
    OpenAI(f"{fake.address}/v1", "tiny", "sk-test").ask(SCORE, 123)
    theirs, ours = fake.bodies
    assert theirs == ours, "the official client sends what we send"


@pytest.mark.parametrize("failure", ["status:500", "status:429:0.01", "torn", "types"])
def test_what_fails_on_an_openai_server_is_tried_again(openai: Serve, failure: str) -> None:
    fake = openai(after(failure, failure))
    assert OpenAI(f"{fake.address}/v1", "tiny").ask(SCORE, 1).text == "85"
    assert len(fake.bodies) == 3


def test_the_form_and_the_settings_that_a_server_takes_are_found(openai: Serve) -> None:
    fake = openai(lambda body: "85", forms=("json_object", "plain"), refuses=("temperature",))
    judge = OpenAI(f"{fake.address}/v1", "tiny")
    assert judge.ask(SCORE, 1).form == "json_object"
    assert judge.ask(SCORE, 1).form == "json_object"
    assert "temperature" not in fake.bodies[-1] and fake.bodies[-1]["seed"] == 1
    assert len(fake.bodies) == 4  # with everything, without temperature, as json_object; and the second question
    assert "temperature" in judge.said[0] and "json_object" in judge.said[1]


def test_a_server_that_calls_an_unknown_form_its_own_error_is_understood(openai: Serve) -> None:
    class Odd(OpenAIHandler):
        def whole(self, value: Any, status: int = 200, **headers: str) -> None:
            odd = status == 400
            super().whole({"error": {"message": "bad response_format"}} if odd else value, 500 if odd else status)

    with serving(FakeServer(lambda body: "85", Odd, forms=("plain",))) as fake:
        assert OpenAI(f"{fake.address}/v1", "tiny").ask(SCORE, 1).form == "plain"
        assert len(fake.bodies) == 3


def test_a_refusal_is_the_reply(openai: Serve) -> None:
    fake = openai(lambda body: "refusal:I would rather not.")
    reply = OpenAI(f"{fake.address}/v1", "tiny").ask(SCORE, 1)
    assert reply.text == "I would rather not." and SCORE.read(reply) == (None, "not a whole number alone")


def test_a_reply_that_ran_out_of_length_says_so(openai: Serve) -> None:
    fake = openai(lambda body: "length")
    assert OpenAI(f"{fake.address}/v1", "tiny").ask(SCORE, 1).cut


def test_the_key_comes_from_the_environment_and_is_never_shown(
    openai: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = openai(lambda body: "85", key="sk-right")
    monkeypatch.setenv("JUDGE_API_KEY", "sk-right")
    assert open_judge(f"{fake.address}/v1#tiny").ask(SCORE, 1).text == "85"
    monkeypatch.setenv("JUDGE_API_KEY", "sk-wrong")
    with pytest.raises(UserError) as error:
        open_judge(f"{fake.address}/v1#tiny").ask(SCORE, 1)
    assert "HTTP 401" in str(error.value) and "***" in str(error.value) and "sk-wrong" not in str(error.value)
    assert "sk-" not in "".join(capsys.readouterr())
    assert len(fake.bodies) == 2, "a wrong key is not tried again"


def test_the_key_for_openai_goes_to_openai_only(openai: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = openai(lambda body: "85")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    open_judge(f"{fake.address}/v1#tiny").ask(SCORE, 1)
    assert "Authorization" not in fake.headers[0]
    judge = open_judge("openai:gpt-4.1-mini")
    assert isinstance(judge, OpenAI)
    assert (judge.name, judge.server.address) == ("openai:gpt-4.1-mini", "https://api.openai.com/v1")
    assert judge.server.client.headers["Authorization"] == "Bearer sk-mine"


def test_a_server_that_is_not_there_gets_how_to_start_one() -> None:
    address = f"http://{dead_address()}/v1"
    with pytest.raises(UserError, match="llama-server"):
        open_judge(address)
    with pytest.raises(UserError, match="llama-server"):
        open_judge(f"{address}#tiny").check()


def test_one_of_several_models_must_be_named(openai: Serve) -> None:
    with pytest.raises(UserError, match=r"has 2 models[\s\S]*small, large[\s\S]*v1#MODEL"):
        open_judge(f"{openai(str, models=('small', 'large')).address}/v1")
    silent = openai(lambda body: "85", models=())
    with pytest.raises(UserError, match="does not tell its models"):
        open_judge(f"{silent.address}/v1")
    named = open_judge(f"{silent.address}/v1#tiny")
    named.check()
    assert named.ask(SCORE, 1).text == "85"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "no judge is called ''"),
        ("rule", "rules, ollama:MODEL"),
        ("ollama", "ollama:MODEL"),
        ("ollama:", "ollama:MODEL"),
        ("gpt-4", "openai:MODEL"),
        ("openai:gpt-4.1-mini", "OPENAI_API_KEY is not set"),
        ("http://", "names no server"),
        ("http://there:port/v1", "is no address"),
        ("http://me:secret@there/v1", "JUDGE_API_KEY"),
        ("http://there/v1?key=secret", "JUDGE_API_KEY"),
    ],
)
def test_what_names_no_judge_is_told(name: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        open_judge(name)
    assert expected in str(error.value) and "secret" not in str(error.value)


def test_a_key_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-Ω")
    with pytest.raises(UserError, match="characters that no API key has") as error:
        open_judge("openai:gpt-4.1-mini")
    assert "Ω" not in str(error.value)


# --- rules ------------------------------------------------------------------------------------------------------------


def scored(reference: str, response: str) -> int:
    question = Question("?", "", reference, (response,))
    verdict, problem = question.read(Rules().ask(question, 1))
    assert isinstance(verdict, int) and problem == ""
    return verdict


def test_rules_by_hand() -> None:
    from sacrebleu import sentence_chrf

    assert scored("Red.", "red") == 100
    assert scored("Red.", "") == 0
    rouge = 100 * 6 / 7  # see test_rouge_l_by_hand
    chrf = sentence_chrf("The cat, down!", ["the cat sat down"]).score
    assert scored("the cat sat down", "The cat, down!") == round((chrf + rouge) / 2)
    long = "red and blue and green " * 50
    assert scored(long, long + "!") == 99, "100 is kept for what is equal"


def test_rules_compare_by_their_scores() -> None:
    rules = Rules()
    assert rules.ask(PAIR, 1).text == "B"
    assert rules.ask(Question("?", "", "Red", ("red", "green")), 1).text == "A"
    assert rules.ask(Question("?", "", "Red", ("red", "RED.")), 1).text == "tie"


def test_rules_say_nothing_without_a_reference() -> None:
    question = Question("?", "", " ", ("red",))
    assert question.read(Rules().ask(question, 1))[0] is None
