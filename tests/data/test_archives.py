import gzip
import io
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data import archives, download
from pipeline.data.archives import extract
from pipeline.data.download import Asset, extracted
from pipeline.errors import PipelineError

PROJECT = Path(__file__).parents[2]
FILES = {"top.txt": b"top", "a/b/deep.bin": np.random.default_rng(0).bytes(5000), "a/empty": b"", "a/ü ß.txt": b"x"}
KINDS = ["zip", "stored.zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]


def packed(path, files, kind=None):
    """An archive of the files, of the kind that its name says."""
    kind = kind or path.name.partition(".")[2]
    if kind.endswith("zip"):
        method = zipfile.ZIP_STORED if kind.startswith("stored") else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        mode = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}[kind]
        with tarfile.open(path, mode) as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def unpacked(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_refused(path, match, folder=None):
    """One line, nothing under the final name, nothing left over, the archive as it was."""
    folder = folder or path.parent / "out"
    before = path.read_bytes()
    with pytest.raises(PipelineError, match=match) as caught:
        extract(path, folder)
    assert "\n" not in str(caught.value)
    assert "; fix: " in str(caught.value)
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", KINDS)
def test_all_members_are_unpacked(tmp_path, kind):
    extract(packed(tmp_path / f"x.{kind}", FILES), tmp_path / "out")
    assert unpacked(tmp_path / "out") == FILES


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(
        st.lists(st.text("abAB.é 中", min_size=1, max_size=4), min_size=1, max_size=3).map("/".join), max_size=6
    ),
    kind=st.sampled_from(["zip", "tar.gz"]),
)
def test_names_are_kept_or_the_archive_is_refused(tmp_path_factory, names, kind):
    folder = tmp_path_factory.mktemp("names")
    path = packed(folder / "x", {name: name.encode() for name in names}, kind)
    try:
        extract(path, folder / "in/out")
    except PipelineError:
        assert not (folder / "in/out").exists()
    else:
        found = {str(Path(name)): content for name, content in unpacked(folder / "in/out").items()}
        assert found == {str(Path(name)): name.encode() for name in names}
    assert {p.name for p in folder.iterdir()} <= {"x", "in"}


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/evil", "..\\evil", "a\\b", "C:/evil", "C:evil", "a/..", ".."]
)
def test_members_that_leave_the_folder_are_refused(tmp_path, kind, name):
    path = packed(tmp_path / f"x.{kind}", {"good": b"1", name: b"2"})
    assert_refused(path, "would be written outside of the folder")
    assert not (tmp_path.parent / "evil").exists()


def special(path, kind, **fields):
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("special")
        member.type = kind
        for name, value in fields.items():
            setattr(member, name, value)
        archive.addfile(member)
        inside = tarfile.TarInfo("special/inside")
        inside.size = 1
        archive.addfile(inside, io.BytesIO(b"x"))
    return path


@pytest.mark.parametrize(
    ("kind", "fields", "told"),
    [
        (tarfile.SYMTYPE, {"linkname": "/etc"}, "a link"),
        (tarfile.SYMTYPE, {"linkname": "inside"}, "a link"),
        (tarfile.LNKTYPE, {"linkname": "../x"}, "a link"),
        (tarfile.FIFOTYPE, {}, "a FIFO"),
        (tarfile.CHRTYPE, {"devmajor": 1, "devminor": 3}, "a device"),
        (tarfile.BLKTYPE, {}, "a device"),
    ],
)
def test_links_and_devices_in_tar_are_refused(tmp_path, kind, fields, told):
    assert_refused(special(tmp_path / "x.tar", kind, **fields), f"'special' is {told}, which is not unpacked")


@pytest.mark.parametrize(
    ("mode", "told"), [(stat.S_IFLNK, "a link"), (stat.S_IFIFO, "a FIFO"), (stat.S_IFCHR, "a device")]
)
def test_links_and_devices_in_zip_are_refused(tmp_path, mode, told):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("special")
        member.external_attr = (mode | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    assert_refused(path, f"'special' is {told}")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_permission_bits_of_the_archive_are_dropped(tmp_path, kind):
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            member = zipfile.ZipInfo("tool")
            member.external_attr = (stat.S_IFREG | 0o6777) << 16
            archive.writestr(member, b"x")
    else:
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo("tool")
            member.size, member.mode, member.uid = 1, 0o6777, 12345
            archive.addfile(member, io.BytesIO(b"x"))
    extract(path, tmp_path / "out")
    made = (tmp_path / "out/tool").stat()
    assert made.st_mode & 0o7133 == 0  # no special bit, nothing to execute, written by its owner alone
    assert made.st_uid == os.getuid()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    "names", [("a", "a"), ("a", "./a"), ("Readme", "README"), ("straße", "STRASSE"), ("é", "e\u0301"), ("x/a", "X/A")]
)
def test_names_that_meet_are_refused(tmp_path, kind, names):
    path = tmp_path / f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, name)
    else:
        with tarfile.open(path, "w") as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(name))
    assert_refused(path, f"'{names[1]}' would overwrite '{names[0]}'")


@pytest.mark.parametrize("names", [("a", "a/b"), ("A/b", "a")])
def test_a_file_where_a_folder_is_needed_is_refused(tmp_path, names):
    path = packed(tmp_path / "x.zip", dict.fromkeys(names, b"1"))
    assert_refused(path, "is a folder where 'a' is a file|'a' would overwrite 'a folder'")


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_bomb_is_refused_by_its_ratio(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 2**20)
    path = packed(tmp_path / f"x.{kind}", {"zeros": bytes(20 * 2**20)})
    assert path.stat().st_size * archives.MAX_RATIO < 20 * 2**20  # so that the ratio forbids it
    assert_refused(path, "a zip bomb's ratio")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_cannot_fill_the_memory(tmp_path, kind):
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, 2 * 2**20
    path = tmp_path / "x.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(header.tobuf())
        file.write(bytes(3 * 2**20))
    assert_refused(path, "a header of 2097152 bytes, where 1048576 hold any name; fix")


def test_a_name_of_any_length_is_no_bomb(tmp_path):
    name = f"{'d' * 200}/{'é' * 100}"
    extract(packed(tmp_path / "x.tar.gz", {name: b"x"}), tmp_path / "out")
    assert unpacked(tmp_path / "out") == {name: b"x"}


def test_a_file_that_packs_well_is_no_bomb_while_it_is_small(tmp_path):
    extract(packed(tmp_path / "x.zip", {"zeros": bytes(2**20)}), tmp_path / "out")
    assert unpacked(tmp_path / "out") == {"zeros": bytes(2**20)}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_too_many_members_are_refused(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 20)
    at_limit = packed(tmp_path / f"x.{kind}", {str(i): b"" for i in range(20)})
    extract(at_limit, tmp_path / "out")
    assert len(unpacked(tmp_path / "out")) == 20
    (tmp_path / "more").mkdir()
    assert_refused(packed(tmp_path / f"more/x.{kind}", {str(i): b"" for i in range(21)}), "more than 20 members")


def test_a_million_members_are_refused_by_the_end_record_alone(tmp_path):
    # the directory that it promises is not even there: reading it would fail in another way
    zip64 = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, 46 * 10**6, 8)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 8, 1)
    end = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path = tmp_path / "x.zip"
    path.write_bytes(b"PK\x03\x04\0\0\0\0" + zip64 + locator + end)
    assert_refused(path, f"more than {archives.MAX_MEMBERS} members")


def test_a_zip_that_lies_about_a_size_is_refused(tmp_path):
    path = packed(tmp_path / "x.zip", {"a": bytes(1000)})
    data = bytearray(path.read_bytes())
    central = data.rfind(b"PK\x01\x02")
    data[central + 24 : central + 28] = struct.pack("<L", 10)  # the size in the directory
    path.write_bytes(data)
    assert_refused(path, "damaged or cut short|has not the 10 bytes")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_archive_is_refused(tmp_path, kind, share):
    files = {str(i): np.random.default_rng(i).bytes(3000) for i in range(8)}
    path = packed(tmp_path / f"x.{kind}", files)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert_refused(path, "damaged or cut short|not a zip or tar")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_tar_cut_between_two_members_is_refused(tmp_path, kind):
    whole = packed(tmp_path / "whole.tar", {"a": b"1" * 512, "b": b"2" * 512}).read_bytes()
    (tmp_path / "whole.tar").unlink()
    openers = {"tar": open, "tar.gz": gzip.open, "tar.bz2": archives.bz2.open, "tar.xz": archives.lzma.open}
    path = tmp_path / f"x.{kind}"
    with openers[kind](path, "wb") as file:
        file.write(whole[:1024])  # the header and the content of the first
    assert_refused(path, "no end mark")


@pytest.mark.parametrize("kind", ["zip", "stored.zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_flipped_bit_is_refused(tmp_path, kind):
    path = packed(tmp_path / f"x.{kind}", {"a": np.random.default_rng(0).bytes(20_000)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert_refused(path, "damaged or cut short")


def test_the_checksum_at_the_end_of_gzip_is_held_against_the_content(tmp_path):
    path = packed(tmp_path / "x.tar.gz", FILES)
    data = bytearray(path.read_bytes())
    data[-8] ^= 1  # of the CRC, which comes after all members
    path.write_bytes(data)
    assert_refused(path, r"damaged or cut short \(CRC")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_empty_archive_is_refused(tmp_path, kind):
    assert_refused(packed(tmp_path / f"x.{kind}", {}), "no files in it")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"hello there", "it starts with b'hello th'"),
        (b"PK\x05\x06", "no end record"),
        (b"\x1f\x8b", "damaged or cut short"),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path, content, told):
    path = tmp_path / "x.zip"
    path.write_bytes(content)
    assert_refused(path, told)


def test_an_encrypted_member_is_refused(tmp_path):
    path = packed(tmp_path / "x.stored.zip", {"a": b"secret"})
    data = bytearray(path.read_bytes())
    data[data.find(b"PK\x03\x04") + 6] |= 1
    data[data.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert_refused(path, "'a' is encrypted")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_name_too_long_for_the_disk_is_one_line(tmp_path, kind):
    path = packed(tmp_path / f"x.{kind}", {"n" * 300: b"1"})
    assert_refused(path, "cannot be written")


def test_what_stood_there_stays_where_the_archive_is_bad(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/kept").write_text("old")
    path = packed(tmp_path / "x.zip", {"../evil": b"1"})
    with pytest.raises(PipelineError):
        extract(path, tmp_path / "out")
    assert unpacked(tmp_path / "out") == {"kept": b"old"}


EXTRACT = """
import os, signal, sys
from pathlib import Path
from pipeline.data import archives
from pipeline.data.download import Asset, extracted
if sys.argv[2] == "kill":
    write = archives._Target.write
    def killing(self, *arguments):
        write(self, *arguments)
        if len(self.files) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    archives._Target.write = killing
extracted(Asset("set/x.zip", (sys.argv[1],)))
"""


def run(cache, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-c", EXTRACT, *arguments],
        cwd=PROJECT,
        env={**os.environ, "PIPELINE_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_killed_while_unpacking_the_next_run_completes(tmp_path, server, cache):
    files = {f"{i}/{i}": str(i).encode() for i in range(6)}
    url = server.serve("x", packed(tmp_path / "x.zip", files).read_bytes())
    assert run(cache, url, "kill").returncode == -signal.SIGKILL
    names = [p.name for p in (cache / "extracted/set").iterdir() if not p.name.endswith(".lock")]
    assert len(names) == 1
    assert names[0].startswith(".x.zip-")  # the temporary folder of the killed one, nothing under the final name
    folder = extracted(Asset("set/x.zip", (url,)))
    assert unpacked(folder) == files
    assert [p for p in folder.parent.iterdir() if not p.name.endswith(".lock")] == [folder]
    assert len(server.requests) == 1


def test_a_disk_that_fills_while_unpacking_is_one_line_and_leaves_nothing(tmp_path, server, cache):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    url = server.serve("x", packed(tmp_path / "x.zip", {"small": b"1", "large": bytes(1_000_000)}).read_bytes())
    done = run(cache, url, "whole", preexec_fn=limit)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("pipeline.errors.PipelineError: ")
    assert last.endswith("cannot be written (File too large); fix: free some space or name another folder")
    assert [p for p in (cache / "extracted/set").iterdir() if not p.name.endswith(".lock")] == []
    assert len(unpacked(extracted(Asset("set/x.zip", (url,))))) == 2


def test_an_archive_larger_than_the_free_space_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    usage = archives.shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: usage)
    assert_refused(packed(tmp_path / "x.zip", {"a": bytes(101)}), "101 bytes are to be unpacked and 100 are free")


def test_an_archive_is_fetched_and_unpacked_once(tmp_path, server, cache):
    content = packed(tmp_path / "x.tar.gz", FILES).read_bytes()
    asset = Asset("x.tar.gz", (server.serve("x", content),), f"md5:{download.hashlib.md5(content).hexdigest()}")
    folder = extracted(asset)
    assert unpacked(folder) == FILES
    (cache / "files/x.tar.gz").unlink()
    assert extracted(asset) == folder
    assert len(server.requests) == 1


def test_two_versions_of_an_archive_have_two_folders(tmp_path, server, cache):
    folders = []
    for number in (b"1", b"2"):
        content = packed(tmp_path / "x.zip", {"a": number}).read_bytes()
        asset = Asset("x.zip", (server.serve("x", content),), f"md5:{download.hashlib.md5(content).hexdigest()}")
        folders.append(extracted(asset))
    assert [unpacked(folder)["a"] for folder in folders] == [b"1", b"2"]
