"""The comment under a pull request, against a forge on this machine: posted once, then updated."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / ".ci" / "comment.py"
MARKER = "<!-- pipeline compare -->"


@pytest.fixture
def forge() -> Iterator[tuple[str, dict[int, str]]]:
    comments = {1: "a person's words"}

    class Handler(BaseHTTPRequestHandler):
        def answer(self, content: object) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def body(self) -> str:
            return json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]

        def do_GET(self) -> None:
            first = self.path.endswith("page=1")
            self.answer([{"id": key, "body": body} for key, body in comments.items()] if first else [])

        def do_POST(self) -> None:
            comments[len(comments) + 1] = self.body()
            self.answer({})

        def do_PATCH(self) -> None:
            comments[int(self.path.rsplit("/", 1)[1])] = self.body()
            self.answer({})

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", comments
    server.shutdown()
    thread.join()
    server.server_close()


def post(path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "CI_"))}
    return subprocess.run([sys.executable, SCRIPT, path], env=kept | environment, capture_output=True, text=True)


def test_one_comment_is_posted_and_then_updated(forge: tuple[str, dict[int, str]], tmp_path: Path) -> None:
    address, comments = forge
    github = {"GITHUB_API_URL": address, "GITHUB_REPOSITORY": "o/r", "NUMBER": "7", "GH_TOKEN": "t"}
    path = tmp_path / "compare.md"
    for text, said in ((f"{MARKER}\none", "comment posted\n"), (f"{MARKER}\nanother", "comment updated\n")):
        path.write_text(text)
        done = post(path, **github)
        assert (done.returncode, done.stdout) == (0, said), done.stderr
    assert comments == {1: "a person's words", 2: f"{MARKER}\nanother"}


def test_without_a_pull_request_nothing_is_posted_and_a_dead_forge_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "compare.md"
    path.write_text(MARKER)
    assert "no pull request" in post(path).stdout
    dead = {"GITHUB_API_URL": "http://127.0.0.1:9", "GITHUB_REPOSITORY": "o/r", "NUMBER": "7", "GH_TOKEN": "t"}
    done = post(path, **dead)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the comment was not posted")
    assert done.stderr.count("\n") == 1
