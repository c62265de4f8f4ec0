"""A Hub of a few folders on the loopback, with as much of the real one's interface as a download needs."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_of_the_test"  # what opens the models of the owner "private"


class Hub(BaseHTTPRequestHandler):
    """Serves the folders ``root/OWNER/NAME``; those of the owner "gated" are listed and not handed out.

    Unless it is honest, other owners have weights that come wrongly: "cut" sends half of what it announces, "stalling"
    half and then nothing, "short" announces half, "changed" has another last byte, "endless" redirects to itself.
    """

    root: Path
    honest: bool
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        if path.startswith("api/models/"):
            owner, name, *rest = path.removeprefix("api/models/").split("/")
            self._list(owner, name, tree=rest[:1] == ["tree"])
        else:
            owner, name, _, _, *file = path.split("/")
            self._hand_out(owner, self.root / owner / name / "/".join(file))

    def _list(self, owner: str, name: str, *, tree: bool) -> None:
        folder = self.root / owner / name
        if not folder.is_dir() or (owner == "private" and self.headers["Authorization"] != f"Bearer {TOKEN}"):
            return self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        files = sorted(file for file in folder.iterdir() if file.is_file())
        listed = [
            {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": etag(file.read_bytes())}
            for file in files
        ]
        about = {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": [{"rfilename": file.name} for file in files]}
        self._answer(200, json.dumps(listed if tree else about).encode(), {"Content-Type": "application/json"})

    def _hand_out(self, owner: str, file: Path) -> None:
        if owner == "gated":
            return self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        content = file.read_bytes()
        headers = {"ETag": f'"{etag(content)}"', "X-Repo-Commit": COMMIT}
        how = owner if file.suffix == ".safetensors" and self.command == "GET" and not self.honest else ""
        if how == "endless":
            return self._answer(302, b"", {"Location": self.path})
        if how == "changed":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if how == "short":
            content = content[: len(content) // 2]
        self._answer(200, content, headers, sent=len(content) // 2 if how in ("cut", "stalling") else None)
        if how == "stalling":
            time.sleep(3)
        self.close_connection = how in ("cut", "stalling")

    def _answer(self, status: int, content: bytes, headers: dict[str, str], sent: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:sent])
            self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


def etag(content: bytes) -> str:
    """The SHA-256, as the Hub names large files."""
    return hashlib.sha256(content).hexdigest()


@contextmanager
def serve(root: Path, *, honest: bool = True) -> Iterator[str]:
    """The address of a Hub that has the folders under ``root``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubOf", (Hub,), {"root": root, "honest": honest}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
