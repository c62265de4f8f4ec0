"""Servers on this machine that speak the protocols of judges, and misbehave as real ones do."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

Say = Callable[[dict[str, Any]], str]  # the body of a request -> what to reply, or the name of a misbehaviour


class FakeServer(ThreadingHTTPServer):
    """Replies to each question with what ``say`` returns for it.

    Misbehaviours, as replies: ``status:500``, ``status:429:0.01`` (with Retry-After), ``cut`` (the stream stops early),
    ``torn`` (the connection breaks), ``error`` (one in the stream), ``types``, ``length`` (stopped by a limit), and
    ``seen:N`` (the model saw N tokens of the question, or as many as it was given room for).

    Args:
        forms: what ``format`` or ``response_format`` may be; others are refused.
        refuses: settings that are refused by name.
    """

    daemon_threads = True

    def __init__(
        self,
        say: Say,
        handler: type[Handler],
        *,
        models: tuple[str, ...] = ("llama3:latest",),
        forms: tuple[str, ...] = ("json_schema", "json_object", "plain"),
        refuses: tuple[str, ...] = (),
        key: str = "",
        slow: float = 0.0,
    ) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.say, self.models, self.forms, self.refuses, self.key, self.slow = say, models, forms, refuses, key, slow
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a client may go before the end
            super().handle_error(request, client_address)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """What both protocols share."""

    protocol_version = "HTTP/1.1"

    @property
    def fake(self) -> FakeServer:
        return cast("FakeServer", self.server)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def whole(self, value: object, status: int = 200, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.fake.lock:
            self.fake.bodies.append(body)
            self.fake.headers.append(dict(self.headers))
            self.fake.at_once += 1
            self.fake.most_at_once = max(self.fake.most_at_once, self.fake.at_once)
        try:
            self.answer(body)
        finally:
            with self.fake.lock:
                self.fake.at_once -= 1

    def answer(self, body: dict[str, Any]) -> None:
        if self.fake.key and self.headers["Authorization"] != f"Bearer {self.fake.key}":
            told = f"Incorrect API key provided: {self.headers['Authorization']}"
            return self.whole({"error": {"message": told}}, 401)
        for name in self.fake.refuses:
            if name in body or name in body.get("options", {}):
                return self.whole({"error": {"message": f"Unsupported parameter: '{name}'"}}, 400)
        if self.form(body) not in self.fake.forms:
            return self.whole({"error": f"the form {self.form(body)} is not supported"}, 400)
        reply = self.fake.say(body)
        if reply.startswith("status:"):
            _, status, *wait = reply.split(":")
            return self.whole({"error": "out of luck"}, int(status), **({"Retry_After": wait[0]} if wait else {}))
        if reply == "torn":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"message": ')
            self.close_connection = True
            return None
        time.sleep(self.fake.slow)
        return self.reply(body, reply)

    def form(self, body: dict[str, Any]) -> str:
        raise NotImplementedError

    def reply(self, body: dict[str, Any], reply: str) -> None:
        raise NotImplementedError


class OllamaHandler(Handler):
    """GET /api/tags, and POST /api/chat as chunked JSON lines, one for each few characters."""

    def do_GET(self) -> None:
        if self.path != "/api/tags":
            return self.whole({"error": "not found"}, 404)
        return self.whole({"models": [{"name": name, "model": name} for name in self.fake.models]})

    def form(self, body: dict[str, Any]) -> str:
        return {dict: "json_schema", str: "json_object"}.get(type(body.get("format")), "plain")

    def reply(self, body: dict[str, Any], reply: str) -> None:
        assert self.path == "/api/chat" and body["stream"] is True
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        seen = sum(len(message["content"]) for message in body["messages"]) // 4
        end = {"done": True, "done_reason": "length" if reply == "length" else "stop", "prompt_eval_count": seen}
        if reply.startswith("seen:"):
            end["prompt_eval_count"], reply = min(int(reply[5:]), body["options"]["num_ctx"]), "50"
        if reply == "types":
            self.line({"message": {"role": "assistant", "content": 85}, "done": False})
        for start in range(0, len(reply), 3):
            self.line({"message": {"role": "assistant", "content": reply[start : start + 3]}, "done": False})
            time.sleep(self.fake.slow)
        if reply == "error":
            self.line({"error": "the model runner has stopped"})
        elif reply != "cut":
            self.line({"model": body["model"], "message": {"role": "assistant", "content": ""}, **end})
        self.wfile.write(b"0\r\n\r\n")

    def line(self, value: object) -> None:
        line = json.dumps(value).encode() + b"\n"
        self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.flush()


class OpenAIHandler(Handler):
    """GET /v1/models and POST /v1/chat/completions, as OpenAI and its kin answer."""

    def do_GET(self) -> None:
        if self.path != "/v1/models" or not self.fake.models:
            return self.whole({"error": {"message": "unknown path"}}, 404)
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "us"} for name in self.fake.models]
        return self.whole({"object": "list", "data": models})

    def form(self, body: dict[str, Any]) -> str:
        return body.get("response_format", {}).get("type", "plain")

    def reply(self, body: dict[str, Any], reply: str) -> None:
        assert self.path == "/v1/chat/completions"
        message = {"role": "assistant", "content": reply, "refusal": None}
        if reply == "types":
            message["content"] = 85
        if reply.startswith("refusal:"):
            message |= {"content": None, "refusal": reply[8:]}
        finish = "length" if reply == "length" else "stop"
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        made = {"id": "c1", "object": "chat.completion", "created": 0, "model": body["model"], "usage": usage}
        self.whole({**made, "choices": [choice]})


@contextmanager
def serving(server: FakeServer) -> Iterator[FakeServer]:
    """Runs a server while the block does."""
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
