"""Archives unpacked so that none of them can write outside of its folder, fill the disk or leave half of itself.

zip and tar (plain, gzip, bzip2, xz), told by their first bytes. Only folders and plain files are taken: Python's `data`
filter has been passed by links before, and no dataset needs them. Permission bits of the archive are dropped.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from pipeline import paths
from pipeline.errors import PipelineError

MAX_MEMBERS = 500_000  # the largest dataset here, COCO 2017, has 118,287 images in one archive
MAX_RATIO = 200  # unpacked by packed bytes; label maps and text reach some tens, deflate's limit is 1,032
ALWAYS_ALLOWED = 256 * 2**20  # unpacked bytes that no ratio forbids
MAX_HEADER = 2**20  # bytes of a tar member's name and the like, which are read at once
EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
CHUNK = 2**20


class _Fault(Exception):
    """What is wrong with the archive, to be told with its name."""


def extract(archive: Path, folder: Path) -> None:
    """Unpacks into `folder`, which appears whole or not at all.

    Raises:
        PipelineError: not an archive, damaged or cut short, encrypted, empty; a member that would leave the folder, is
            a link or a device, or meets another one of its name (in any case of letters); more members or bytes than
            are sane; or the disk is full.
    """
    with _told(archive, folder), paths.written_whole(folder) as temporary:
        temporary.mkdir()
        target = _Target(temporary, archive.stat().st_size)
        with archive.open("rb") as file:
            start = file.read(512)
            file.seek(0)
            if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
                _unzip(file, target)
            else:
                _untar(file, start, target)
        if not target.files:
            raise _Fault("no files in it")


@contextmanager
def _told(archive: Path, folder: Path) -> Iterator[None]:
    """Turns what can go wrong into one line that names the archive."""
    again = f"fix: delete {archive} and run again, or ask its publisher"
    try:
        yield
    except _Fault as fault:
        raise PipelineError(f"{archive}: {fault}; {again}") from None
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile) as error:
        raise PipelineError(f"{archive}: damaged or cut short ({error}); {again}") from None
    except (NotImplementedError, RuntimeError, ValueError, OverflowError, struct.error) as error:
        raise PipelineError(f"{archive}: cannot be unpacked ({error}); {again}") from None
    except OSError as error:
        if error.errno is None:  # bz2's word for damage
            raise PipelineError(f"{archive}: damaged or cut short ({error}); {again}") from None
        raise PipelineError(
            f"{folder}: cannot be written ({error.strerror}); fix: free some space or name another folder"
        ) from None


class _Target:
    """The folder that is being filled, with all that was promised about its members."""

    def __init__(self, folder: Path, packed: int) -> None:
        self.folder = folder
        self.limit = max(ALWAYS_ALLOWED, MAX_RATIO * packed)
        self.bytes = 0
        self.members = 0
        self.files: dict[str, str] = {}
        self.folders: set[str] = set()
        self.made: set[tuple[str, ...]] = {()}

    def count(self, members: int, unpacked: int) -> None:
        """Notes what is to come, before it is unpacked."""
        self.members += members
        self.bytes += unpacked
        if self.members > MAX_MEMBERS:
            raise _Fault(f"more than {MAX_MEMBERS} members")
        if self.bytes > self.limit:
            raise _Fault(f"it would unpack to more than {self.limit} bytes, a zip bomb's ratio")

    def make_folder(self, name: str) -> None:
        """A folder member."""
        parts = _parts(name)
        self._enter(parts)

    def write(self, name: str, content: IO[bytes], size: int) -> None:
        """A file member of `size` bytes."""
        parts = _parts(name)
        if not parts:
            raise _Fault(f"{name!r} is not a file name")
        self._enter(parts[:-1])
        key = _folded(parts)
        if key in self.files or key in self.folders:
            other = self.files.get(key, "a folder")
            raise _Fault(f"{name!r} would overwrite {other!r}: names that are equal, or differ in case alone")
        self.files[key] = name
        left = size
        with open(os.path.join(self.folder, *parts), "xb") as file:
            while left and (chunk := content.read(min(CHUNK, left))):
                file.write(chunk)
                left -= len(chunk)
        if left or content.read(1):
            raise _Fault(f"{name!r} has not the {size} bytes that its header says")

    def _enter(self, parts: tuple[str, ...]) -> None:
        """Makes a folder, and those above it."""
        if parts in self.made:
            return
        for end in range(1, len(parts) + 1):
            key = _folded(parts[:end])
            if key in self.files:
                raise _Fault(f"{'/'.join(parts)!r} is a folder where {self.files[key]!r} is a file")
            self.folders.add(key)
        self.folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)
        self.made.add(parts)


def _parts(name: str) -> tuple[str, ...]:
    """The parts of a member's name.

    Raises:
        _Fault: it leaves the folder, or would on another system.
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    is_drive = bool(parts) and len(parts[0]) > 1 and parts[0][1] == ":"
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or is_drive:
        raise _Fault(f"the member {name!r} would be written outside of the folder")
    return parts


def _folded(parts: tuple[str, ...]) -> str:
    return unicodedata.normalize("NFC", "/".join(parts)).casefold()


def _unzip(file: BinaryIO, target: _Target) -> None:
    target.count(_declared_members(file), 0)
    target.members = 0
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        target.count(len(members), sum(member.file_size for member in members))
        _check_space(target)
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _Fault(f"{member.orig_filename!r} is {_kind(kind)}, which is not unpacked")
            if "\\" in member.orig_filename or "\0" in member.orig_filename:  # zipfile would rewrite them
                _parts(member.orig_filename)
            if member.is_dir():
                target.make_folder(member.filename)
                continue
            if member.flag_bits & 1:
                raise _Fault(f"{member.filename!r} is encrypted")
            with archive.open(member) as content:
                target.write(member.filename, content, member.file_size)


def _declared_members(file: BinaryIO) -> int:
    """What the end record says, read before `zipfile` lists all members in memory."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 2**16 - 42))  # the record's own 22 bytes, a comment, and the locator before it
    tail = file.read()
    file.seek(0)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise _Fault("damaged or cut short (no end record)")
    count = struct.unpack_from("<H", tail, at + 10)[0]
    if count == 0xFFFF and at >= 20 and tail[at - 20 : at - 16] == b"PK\x06\x07":  # zip64
        file.seek(struct.unpack_from("<Q", tail, at - 12)[0])
        record = file.read(56)
        file.seek(0)
        if record.startswith(b"PK\x06\x06") and len(record) == 56:
            count = struct.unpack_from("<Q", record, 32)[0]
    return int(count)


def _check_space(target: _Target) -> None:
    free = shutil.disk_usage(target.folder).free
    if target.bytes > free:
        raise PipelineError(
            f"{target.folder.parent.parent}: {target.bytes} bytes are to be unpacked and {free} are free; "
            "fix: free some space or name another folder"
        )


def _kind(kind: int) -> str:
    names = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
    return names.get(kind, "a device")


class _Limited:
    """The unpacked bytes of a compressed file, no more of them than the target allows."""

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self.stream, self.limit, self.position = stream, limit, 0
        self.last = b""

    def read(self, size: int = CHUNK) -> bytes:
        """Up to `size` bytes."""
        data = self.stream.read(size)
        self.position += len(data)
        if self.position > self.limit:
            raise _Fault(f"it would unpack to more than {self.limit} bytes, a zip bomb's ratio")
        self.last = (self.last + data)[-512:]
        return data


class _Header(tarfile.TarInfo):
    """A tar member's header."""

    def _proc_member(self, archive: Any) -> Any:
        """What `tarfile` asks to be overridden where another treatment of a member is wanted."""
        if self.type in EXTENSIONS and self.size > MAX_HEADER:
            raise _Fault(f"a header of {self.size} bytes, where {MAX_HEADER} hold any name")
        return super()._proc_member(archive)  # type: ignore[misc]


def _is_tar(start: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except cast(Any, tarfile).EOFHeaderError:  # the end mark at once
        return True
    except tarfile.HeaderError:
        return False
    return True


def _untar(file: BinaryIO, start: bytes, target: _Target) -> None:
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
    opener = next((opener for magic, opener in openers.items() if start.startswith(magic)), None)
    if opener is None and not _is_tar(start):
        shown = "a web page" if b"<html" in start.lower() else f"it starts with {start[:8]!r}"
        raise _Fault("empty" if not start else f"not a zip or tar archive ({shown})")
    # headers, padding and pax records come on top of the files' own bytes
    stream = _Limited(cast(BinaryIO, opener(file)) if opener else file, target.limit + 2048 * MAX_MEMBERS)
    with tarfile.open(fileobj=cast(Any, stream), mode="r|", bufsize=CHUNK, tarinfo=_Header) as archive:
        for member in archive:
            target.count(1, member.size)
            if member.isdir():
                target.make_folder(member.name)
            elif member.isreg():
                target.write(member.name, cast(IO[bytes], archive.extractfile(member)), member.size)
            else:
                kind = "a link" if member.issym() or member.islnk() else "a FIFO" if member.isfifo() else "a device"
                raise _Fault(f"{member.name!r} is {kind}, which is not unpacked")
            cast(Any, archive).members = []  # tarfile keeps them all
    while stream.read():  # to the end, where the compressed stream has its checksum
        pass
    if stream.last.strip(b"\0"):
        raise _Fault("damaged or cut short (no end mark)")
