import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipeline.data import archives, originals
from pipeline.data.download import Asset
from pipeline.data.originals import Original
from pipeline.errors import PipelineError
from tests.data.datasets.originals import palette_png, picture, png, zipped


def test_archive_of_this_machine_is_unpacked_once_for_each_content(tmp_path, cache):
    archive = tmp_path / "mine.zip"
    archive.write_bytes(zipped({"a/x.txt": b"first"}))
    first = originals.unpacked(archive)
    assert first.path("a/x.txt").read_text() == "first"
    assert first.name == "mine.zip"
    before = first.path("a/x.txt").stat().st_mtime_ns
    assert originals.unpacked(archive) == first
    assert first.path("a/x.txt").stat().st_mtime_ns == before
    archive.write_bytes(zipped({"a/x.txt": b"second"}))
    assert originals.unpacked(archive).path("a/x.txt").read_text() == "second"


def test_lines_are_numbered_as_in_the_file_without_comments(tmp_path):
    (tmp_path / "list.txt").write_text("# heading\n\n a 1 \nb 2\n", encoding="utf-8")
    assert Original(tmp_path, "x.zip").lines("list.txt") == [(3, "a 1"), (4, "b 2")]


def test_members_are_sorted_and_none_is_a_mac_s_shadow(tmp_path):
    for name in ("b.png", "a.png", "._a.png", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in Original(tmp_path, "x.zip").members(".", "*.png")] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda files: files.path("gone"), r"^x\.zip: it holds no 'gone'; fix: "),
        (lambda files: files.lines("gone.txt"), r"^x\.zip: it holds no 'gone\.txt'; fix: "),
        (lambda files: files.lines("latin.txt"), r"^x\.zip/latin\.txt: not readable as text \(.*\); fix: "),
        (lambda files: files.members(".", "*.jpg"), r"^x\.zip/\.: no file like '\*\.jpg' in it; fix: "),
        (lambda files: originals.read_map(files.path("latin.txt")), r"/latin\.txt: .*; fix: "),
        (lambda files: originals.read_map(files.path("colours.png")), r"/colours\.png: a picture in colours .*; fix: "),
        (lambda files: originals.read_map(files.root / "gone.png"), r"/gone\.png: No such file or directory; fix: "),
    ],
)
def test_what_is_missing_or_unreadable_is_one_line(tmp_path, call, message):
    (tmp_path / "latin.txt").write_bytes("Käfer".encode("latin-1"))
    (tmp_path / "colours.png").write_bytes(png(picture(4, 5)))
    with pytest.raises(PipelineError, match=message) as told:
        call(Original(tmp_path, "x.zip"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("encode", [png, palette_png])
def test_maps_of_grey_values_and_of_palettes_are_read_alike(tmp_path, encode):
    values = np.arange(20, dtype=np.uint8).reshape(4, 5)
    (tmp_path / "map.png").write_bytes(encode(values))
    assert np.array_equal(originals.read_map(tmp_path / "map.png"), values)


def test_maps_of_sixteen_bits_keep_large_numbers(tmp_path):
    values = (np.arange(20, dtype=np.uint16) * 1500).reshape(4, 5)
    (tmp_path / "map.png").write_bytes(png(values))
    assert np.array_equal(originals.read_map(tmp_path / "map.png"), values)


def test_checksums_name_every_archive_and_the_size_where_none_is_published():
    assets = [Asset("a.zip", (), "md5:ab"), Asset("b/c.zip", (), size=7)]
    assert originals.checksums(assets) == "a.zip md5:ab; b/c.zip 7 bytes"


def test_two_processes_unpack_an_archive_once(tmp_path, cache, monkeypatch):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.txt", b"a")
    asked = []
    extract = archives.extract

    def slowly(archive, folder):
        asked.append(folder)
        time.sleep(0.3)
        extract(archive, folder)

    monkeypatch.setattr(archives, "extract", slowly)
    with ThreadPoolExecutor(2) as pool:
        roots = {found.root for found in pool.map(originals.unpacked, [tmp_path / "x.zip"] * 2)}
    assert len(asked) == len(roots) == 1
