"""Files of the network in a cache that projects share: resumed when cut, verified before anything uses them.

A file has its final name only when it is whole and has the expected size and checksum; until then it is a `.part`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urljoin, urlsplit, urlunsplit

from pipeline import paths
from pipeline.data import archives
from pipeline.errors import PipelineError
from pipeline.progress import byte_progress

if TYPE_CHECKING:
    import requests

ATTEMPTS = 4  # at one address; an attempt that got further than all before it does not count
BACKOFF = 1.0  # seconds before the second attempt; doubled at each one after it
LONGEST_WAIT = 60.0  # seconds, whatever a server asks for in Retry-After
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two pieces of the answer
MAX_REDIRECTS = 10
CHUNK = 2**20  # bytes
BUSY = (408, 425, 429, 500, 502, 503, 504)  # answers that may be another one in a while
WEB_PAGE = "a web page, not the file"
ALGORITHMS = ("sha256", "sha512", "sha1", "md5")


@dataclass(frozen=True)
class Asset:
    """One file of the network.

    Attributes:
        name: its path in the cache, relative, with forward slashes; unique for all sources.
        urls: where to get it: the official address first, then mirrors.
        checksum: "sha256:..." or "md5:..." as its publisher states it; empty: none is published, so that only the
            size and the archive's own checks tell a damaged file.
        size: in bytes, if known.
        may_be_empty: whether no bytes at all may be the whole file.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str = ""
    size: int | None = None
    may_be_empty: bool = False

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.name).parts
        if not parts or self.name.startswith("/") or ".." in parts or "\\" in self.name:
            raise ValueError(f"{self.name!r} is not a relative path inside the cache")
        algorithm, _, digest = self.checksum.partition(":")
        if self.checksum and (algorithm not in ALGORITHMS or not re.fullmatch(r"[0-9a-f]+", digest)):
            raise ValueError(f"{self.name}: no checksum {self.checksum!r}; write one of {', '.join(ALGORITHMS)}:<hex>")


def cache() -> Path:
    """The folder that all projects of a user share: `$PIPELINE_CACHE` or `~/.cache/vision-pipeline`."""
    chosen = os.environ.get("PIPELINE_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "vision-pipeline"


def is_offline() -> bool:
    """Whether `PIPELINE_OFFLINE` forbids the network."""
    return os.environ.get("PIPELINE_OFFLINE", "").lower() not in ("", "0", "false", "no")


def redacted(url: str) -> str:
    """An address as it may be printed: without user, password and the values of its query, which may be tokens."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    with contextlib.suppress(ValueError):
        host += f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, host, parts.path, "..." if parts.query else "", ""))


def checksum_of(path: Path, algorithm: str = "sha256") -> str:
    """`algorithm:<hex>` of a file's bytes."""
    with path.open("rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def fetch(asset: Asset) -> Path:
    """The verified file, from the cache or else from the first address that has it.

    Raises:
        PipelineError: no address gave the file; or it is not in the cache and `PIPELINE_OFFLINE` is set; or the cache
            cannot be written. What was received is kept and resumed by the next call.
    """
    path = _place(asset)
    with locked(path):
        fault = _fault(path, asset)
        if not fault:
            return path
        if is_offline():
            raise PipelineError(f"{path}: {fault}, and PIPELINE_OFFLINE is set; fix: {_by_hand(asset, path)}")
        faults = []
        for url in asset.urls:
            try:
                _Download(asset, url, path).run()
                return path
            except _Refused as refused:
                faults.append(f"{redacted(url)}: {refused}")
        told = "; ".join(faults)
        raise PipelineError(
            f"{asset.name}: cannot be downloaded ({told}); fix: try again later, or {_by_hand(asset, path)}"
        )


def fetch_all(assets: Iterable[Asset]) -> list[Path]:
    """`fetch` of several files; offline, one message tells of all that are missing.

    Raises:
        PipelineError: see `fetch`.
    """
    assets = list(assets)
    if is_offline():
        missing = [asset for asset in assets if _fault(_place(asset), asset)]
        if len(missing) > 1:
            todo = ", and ".join(_by_hand(asset, _place(asset)) for asset in missing)
            raise PipelineError(
                f"{cache()}: {len(missing)} files are not there, and PIPELINE_OFFLINE is set; fix: {todo}"
            )
    return [fetch(asset) for asset in assets]


def extracted(asset: Asset) -> Path:
    """The folder with an archive's members; the archive is fetched and unpacked where that was not done before.

    Raises:
        PipelineError: see `fetch` and `archives.extract`.
    """
    digest = asset.checksum or checksum_of(fetch(asset))
    folder = cache() / "extracted" / f"{asset.name}-{digest.partition(':')[2][:12]}"
    with locked(folder):
        if not folder.exists():
            for left in folder.parent.glob(f".{folder.name}.*/"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            archives.extract(fetch(asset), folder)
    return folder


def _place(asset: Asset) -> Path:
    return cache() / "files" / asset.name


def _by_hand(asset: Asset, path: Path) -> str:
    known = [asset.checksum or "no published checksum"] + ([f"{asset.size} bytes"] if asset.size else [])
    address = redacted(asset.urls[0]) if asset.urls else "its source"
    return f"download {address} yourself ({', '.join(known)}) and put it at {path}"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time, over all projects; whoever comes second finds the work done."""
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.parent / f".{path.name}.lock")
        try:
            held = lock.acquire(blocking=False)
        except Timeout:
            print(f"{path.name}: waiting for another process that makes it", file=sys.stderr)
            held = lock.acquire()
        with held:
            yield
    except OSError as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: Path, error: OSError) -> PipelineError:
    return PipelineError(
        f"{path}: {error.strerror or error}; fix: free some space or name another folder in PIPELINE_CACHE"
    )


def _fault(path: Path, asset: Asset) -> str:
    """What keeps a file from being the asset; empty if nothing does."""
    if not path.exists():
        return "not there"
    size = path.stat().st_size
    with path.open("rb") as file:
        if _is_web_page(file.read(512), asset):
            return WEB_PAGE
    if asset.size is not None and size != asset.size:
        return f"{size} bytes, not {asset.size}"
    if asset.checksum:
        found = checksum_of(path, asset.checksum.partition(":")[0])
        if found != asset.checksum:
            return f"wrong checksum (expected {asset.checksum}, got {found})"
    return "" if size or asset.may_be_empty else "empty"


def _is_web_page(start: bytes, asset: Asset) -> bool:
    """Whether the first bytes are those of a web page, such as a server's excuse, where the asset is none."""
    is_html = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))
    return is_html and not asset.name.endswith((".html", ".htm"))


class _Refused(Exception):
    """This address does not give the file; its text says why, without secrets."""


class _Foreign(_Refused):
    """The bytes are not those of the asset; a part that was resumed may be to blame."""


class _Interrupted(Exception):
    """This attempt failed; another one may not. `wait` is what the server asks for, in seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Download:
    """One asset from one address into `<path>.part`, renamed to `path` once it is verified."""

    def __init__(self, asset: Asset, url: str, path: Path) -> None:
        self.asset, self.url, self.path = asset, url, path
        self.part = path.with_name(f"{path.name}.part")
        self.state = path.with_name(f"{path.name}.part.json")  # which version of the file the part is of

    def run(self) -> None:
        """Downloads, verifies and renames.

        Raises:
            _Refused: the address failed too often, or gave something else.
        """
        import requests

        if not self.asset.checksum:
            self._discard()  # nothing would tell whether an earlier process's part is of this file
        failed, furthest = 0, self._received()
        with requests.Session() as session:
            while True:
                resumed = self._received() > 0
                try:
                    self._attempt(session)
                    self._verify()
                    return
                except _Foreign:
                    self._discard()
                    if not resumed:
                        raise
                    failed += 1  # the part may be of another version: once more from the start
                except _Interrupted as interrupted:
                    failed = 1 if self._received() >= furthest + CHUNK else failed + 1
                    furthest = max(furthest, self._received())
                    if failed >= ATTEMPTS:
                        raise _Refused(f"{interrupted}, {ATTEMPTS} times") from None
                    time.sleep(min(max(BACKOFF * 2 ** (failed - 1), interrupted.wait), LONGEST_WAIT))

    def _received(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)

    def _verify(self) -> None:
        fault = _fault(self.part, self.asset)
        if fault:
            raise _Foreign(fault)
        self.state.unlink(missing_ok=True)
        os.replace(self.part, self.path)

    def _attempt(self, session: requests.Session) -> None:
        """Receives what is missing of the part."""
        validator = self._validator()
        if not (self.asset.checksum or validator):
            self._discard()  # nothing would tell whether the rest is of the same file
        offset = self._received()
        if offset and self.asset.size is not None and offset >= self.asset.size:
            return
        headers = {"Accept-Encoding": "identity"}  # the bytes as they are stored
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if validator:
                headers["If-Range"] = validator
        with _asked(session, self.url, headers) as answer:
            start = self._start(answer, offset, validator)
            if start is None:
                return
            paths.write_json(self.state, {"address": redacted(self.url), "validator": _validator_of(answer.headers)})
            self._receive(answer, start)

    def _validator(self) -> str:
        """The strong ETag or the date under which this address began the part; empty if none was given."""
        try:
            state = json.loads(self.state.read_text(encoding="utf-8"))
            return str(state["validator"]) if state["address"] == redacted(self.url) else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _start(self, answer: requests.Response, offset: int, validator: str) -> int | None:
        """Where the answer's bytes belong in the part of that validator; None if the part is whole already."""
        status = answer.status_code
        if status == 200:
            self._discard()  # the server ignores Range, or the file is another one by now
            return 0
        if status == 206:
            match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
            # not every server knows If-Range
            is_same = not validator or _validator_of(answer.headers) in ("", validator)
            if match and int(match[1]) == offset and is_same:
                return offset
            self._discard()
            raise _Interrupted("it sent another range than was asked for" if is_same else "the file there has changed")
        if status == 416 and offset:
            if answer.headers.get("Content-Range", "") == f"bytes */{offset}":
                return None
            self._discard()
            raise _Interrupted("it has fewer bytes than were received before")
        reason = f"status {status}" + (f" {answer.reason}" if answer.reason else "")
        if status in BUSY:
            raise _Interrupted(reason, _retry_after(answer.headers))
        raise _Refused(reason)

    def _receive(self, answer: requests.Response, start: int) -> None:
        import urllib3

        length = answer.headers.get("Content-Length", "")
        total = start + int(length) if length.isdigit() else self.asset.size
        if self.asset.size is not None and total != self.asset.size:
            raise _Foreign(f"{total} bytes, not {self.asset.size}")
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding != "identity" and not self.asset.name.endswith(("gz", encoding)):
            raise _Refused(f"sent {encoding}-encoded though the plain bytes were asked for")
        with self.part.open("r+b" if start else "wb") as file, byte_progress(self.asset.name, total, start) as advance:
            file.seek(start)
            file.truncate()
            try:
                for chunk in answer.raw.stream(CHUNK, decode_content=False):
                    self._write(file, chunk)
                    advance(len(chunk))
            except urllib3.exceptions.TimeoutError:
                raise _Interrupted(f"no answer for {TIMEOUT[1]:.0f} s") from None
            except (urllib3.exceptions.HTTPError, ConnectionError):
                raise _Interrupted("the connection was cut") from None
            file.flush()
            os.fsync(file.fileno())

    def _write(self, file: BinaryIO, chunk: bytes) -> None:
        if file.tell() == 0 and _is_web_page(chunk[:512], self.asset):
            raise _Foreign(WEB_PAGE)
        if self.asset.size is not None and file.tell() + len(chunk) > self.asset.size:
            raise _Foreign(f"more than {self.asset.size} bytes")
        try:
            file.write(chunk)
        except OSError as error:
            raise _cannot_write(self.part, error) from None


def _validator_of(headers: Any) -> str:
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _retry_after(headers: Any) -> float:
    value = headers.get("Retry-After", "")
    return float(value) if re.fullmatch(r"\d{1,6}", value) else 0.0  # a date, the other form, is taken as no wish


@contextlib.contextmanager
def _asked(session: requests.Session, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
    """The answer after redirects, body unread.

    Raises:
        _Interrupted: no connection, or it was cut.
        _Refused: a redirect from https to http or to something else than a web address.
    """
    import requests

    for _ in range(MAX_REDIRECTS):
        try:
            answer = session.get(url, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False)
        except requests.exceptions.SSLError:
            raise _Refused("its certificate cannot be verified") from None
        except requests.exceptions.Timeout:
            raise _Interrupted("no answer in time") from None
        except requests.exceptions.ConnectionError:
            raise _Interrupted("no connection") from None
        except (requests.exceptions.RequestException, ValueError):
            raise _Refused("not an address that can be asked") from None
        with answer:
            if answer.status_code not in (301, 302, 303, 307, 308):
                yield answer
                return
            target = urljoin(url, answer.headers.get("Location", ""))
        scheme = urlsplit(target).scheme
        if scheme not in ("http", "https") or (scheme == "http" and urlsplit(url).scheme == "https"):
            raise _Refused(f"it redirects to {redacted(target)}, which is not https")
        url = target
    raise _Refused(f"more than {MAX_REDIRECTS} redirects")
