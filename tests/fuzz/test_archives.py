"""Archives with random damage: their files, or one line and nothing unpacked; nothing outside of the folder."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.data.archives import extract
from tests.fuzz.cases import SIZES, answer, broken, fuzz

FILES = {"a.txt": b"some text " * 20, "deep/b.bin": bytes(range(256)), "deep/c": b""}


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def tarred(mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in FILES.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("cases", SIZES)
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_an_archive_is_unpacked_or_refused(tmp_path: Path, kind: str, cases: int) -> None:
    good = zipped() if kind == "zip" else tarred(f"w:{kind[4:]}")
    path, inside = tmp_path / f"x.{kind}", tmp_path / "in"
    inside.mkdir()

    def one(content: bytes) -> None:
        path.write_bytes(content)
        answer(extract, path, inside / "out")
        found = {p.relative_to(inside / "out").as_posix(): p for p in (inside / "out").rglob("*")}
        for name, p in found.items():
            assert stat.S_ISREG(p.lstat().st_mode) or stat.S_ISDIR(p.lstat().st_mode), name
            assert p.lstat().st_mode & 0o7000 == 0
        if kind != "tar":  # which has checksums of headers alone
            known = [p.read_bytes() for p in found.values() if p.is_file()]
            assert set(known) <= set(FILES.values())
        for p in sorted(found.values(), reverse=True):
            p.rmdir() if p.is_dir() else p.unlink()
        if (inside / "out").exists():
            (inside / "out").rmdir()
        assert list(inside.iterdir()) == []
        assert sorted(p.name for p in tmp_path.iterdir()) == ["in", path.name]

    fuzz(one, broken(good), cases)
