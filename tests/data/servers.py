"""Local web servers: one that plays the mirrors which fail, and one that plays the Hugging Face hub."""

from __future__ import annotations

import json
import re
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self


@dataclass
class Play:
    """How one request is answered.

    Attributes:
        status: other than 200: nothing but this status.
        content: what is sent instead of the file.
        cut: bytes of the body after which the connection is closed.
        stall: seconds to wait there before.
        ranges: whether a Range is obeyed.
        conditions: whether an If-Range is.
        length: whether the length of the body is said; without it the end of the connection ends the body.
        chunked: whether the body comes in chunks, the last of which is empty, instead.
        headers: sent too; an ETag makes If-Range work.
    """

    status: int = 200
    content: bytes | None = None
    cut: int | None = None
    stall: float = 0.0
    ranges: bool = True
    conditions: bool = True
    length: bool = True
    chunked: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class Server:
    """Files served on 127.0.0.1; each request for one takes the next of its plays, and the last play stays."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.plays: dict[str, list[Play]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_of_files": self}))
        self._server.daemon_threads = True
        self.scheme = "http"
        if certificate is not None:
            self.scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def url(self, name: str) -> str:
        """The address of a file."""
        return f"{self.scheme}://127.0.0.1:{self._server.server_port}/{name}"

    def serve(self, name: str, content: bytes, plays: Sequence[Play] = (Play(),)) -> str:
        """Serves a file as its plays say; returns its address."""
        self.files[f"/{name}"], self.plays[f"/{name}"] = content, list(plays)
        return self.url(name)

    def ranges(self) -> list[str | None]:
        """The Range of each request so far."""
        return [headers.get("Range") for _, headers in self.requests]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of_files: Server

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        server, path = self.server_of_files, self.path.partition("?")[0]
        server.requests.append((self.path, dict(self.headers)))
        plays = server.plays.get(path, [Play(status=404)])
        play = plays.pop(0) if len(plays) > 1 else plays[0]
        self.close_connection = True
        if play.status != 200:
            self.send_response(play.status)
            self._send_headers({"Content-Length": "0", **play.headers})
            return
        body = server.files[path] if play.content is None else play.content
        start = self._start(play)
        if start > 0 and start >= len(body):
            self.send_response(416)
            self._send_headers({"Content-Length": "0", "Content-Range": f"bytes */{len(body)}"})
            return
        self.send_response(206 if start else 200)
        headers = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        if play.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif play.length:
            headers["Content-Length"] = str(len(body) - start)
        self._send_headers({**headers, **play.headers})
        end = len(body) if play.cut is None else play.cut
        piece = body[start:end]
        if play.chunked:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece) + (b"0\r\n\r\n" if play.cut is None else b"")
        self.wfile.write(piece)
        self.wfile.flush()
        if play.stall:
            time.sleep(play.stall)

    def _start(self, play: Play) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        is_same = not play.conditions or condition in (
            None,
            play.headers.get("ETag"),
            play.headers.get("Last-Modified"),
        )
        return int(asked[1]) if asked and play.ranges and is_same else 0

    def _send_headers(self, headers: dict[str, str]) -> None:
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()


class Hub:
    """The part of the Hugging Face hub's interface that reads one repository, `somebody/pictures`, from a folder.

    Attributes:
        folder: the repository's files.
        asked: method and path of each request.
    """

    COMMIT = "0123456789abcdef" * 2 + "01234567"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_HubHandler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        if re.fullmatch(r"/api/datasets/somebody/pictures(/revision/[^/]+)?", path):
            siblings = [{"rfilename": str(p.relative_to(self.hub.folder))} for p in self.hub.folder.rglob("*.*")]
            content = {
                "id": "somebody/pictures",
                "sha": Hub.COMMIT,
                "siblings": siblings,
                "cardData": {"license": "mit"},
            }
            self._answer(json.dumps(content).encode())
        elif match := re.fullmatch(r"/api/datasets/somebody/pictures/tree/[^/]+/?(.*)", path):
            entries = [
                {
                    "type": "file" if p.is_file() else "directory",
                    "path": str(p.relative_to(self.hub.folder)),
                    "size": p.stat().st_size,
                    "oid": "0" * 40,
                }
                for p in sorted((self.hub.folder / match[1]).iterdir())
            ]
            self._answer(json.dumps(entries).encode())
        elif match := re.fullmatch(r"/datasets/somebody/pictures/resolve/[^/]+/(.+)", path):
            file = self.hub.folder / match[1]
            self._answer(file.read_bytes() if file.is_file() else None)
        else:
            self._answer(None)

    def _answer(self, body: bytes | None) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        headers = {"X-Repo-Commit": Hub.COMMIT, "ETag": '"one"'}
        if body is None:
            self.send_response(404)
            headers["X-Error-Code"] = "EntryNotFound"
            body = b""
        elif asked:
            start, end = int(asked[1]), int(asked[2] or len(body) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(body)}"
            body = body[start : end + 1]
            self.send_response(206)
        else:
            self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
