import json
import re

import msgspec
import pytest

from pipeline.data.formats.json_file import decode, top_level
from pipeline.errors import PipelineError


class Entry(msgspec.Struct):
    id: int
    name: str = ""


@pytest.fixture
def read(tmp_path):
    def read(content):
        (tmp_path / "a.json").write_bytes(content)
        return {key: bytes(value) for key, value in top_level(tmp_path / "a.json", "a.json", ["images"]).items()}

    return read


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf", b" \n"])
def test_values_stay_text_whatever_stands_before_the_object(read, prefix):
    assert read(prefix + b'{"images": [1, 2], "x" :\n{"a": "}"}}') == {"images": b"[1, 2]", "x": b'{"a": "}"}'}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.json: an empty file"),
        (b"[1]", "a.json: should be object, not array at the top"),
        (b'{"images": [\n1,', "a.json:2: the file is cut off there"),
        (b'{"images": [\n1,,2]}', "a.json:2: not JSON"),
        ('{"images": []}'.encode("utf-16"), "a.json: UTF-16 or UTF-32, not UTF-8; fix: save the file as UTF-8"),
        ('{"images": []}'.encode("utf-32-be"), "a.json: UTF-16 or UTF-32"),
        (b'{"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "a.json: nested too deeply"),
        (b'{"images": ' + b"[" * 100_000, "a.json: nested too deeply"),
        (b'{"other": 1}', "a.json images: missing; it has other"),
        (b'{"images": [], "images": []}', "a.json images: the key stands there twice"),
        (b'{"images": [], "a": 1, "images": [1]}', "a.json images: the key stands there twice"),
        (b'{"a": 1, "images": [], "a": 1}', "a.json a: the key stands there twice"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_one_line(read, content, message):
    with pytest.raises(PipelineError) as caught:
        read(content)
    assert str(caught.value).startswith(message)
    assert "; fix: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    with pytest.raises(PipelineError, match=r"a\.json: no such file"):
        top_level(tmp_path / "a.json", "a.json", [])
    with pytest.raises(PipelineError, match="b: a folder, not a file"):
        top_level(tmp_path, "b", [])


def test_nan_is_quoted_so_that_its_annotation_can_be_named(read):
    assert read(b'{"images": [{"a": NaN, "b": [-Infinity,1]}]}')["images"] == b'[{"a": "NaN", "b": ["-Infinity",1]}]'


def test_top_level_keys_are_found_among_values_of_every_kind(read):
    content = {"images": [{"a": [1, {"b": 'c, "d": 1'}]}], "s": "x", "n": None, "e": {}, "l": [], "t": 'ä\\"'}
    for text in (json.dumps(content), json.dumps(content, indent=3), json.dumps(content, separators=(",", ":"))):
        assert {key: json.loads(value) for key, value in read(text.encode()).items()} == content


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"name": "a"}', "id: missing"),
        (b'{"id": "1"}', "id: should be int, not str ('1')"),
        (b'{"id": 1.5}', "id: should be int, not float (1.5)"),
        (b'{"id": 1, "id": 2}', "id: the key stands twice (2)"),
        (b'{"id": 1, "x": {"y": 1, "y": 2}}', "y: the key stands twice"),
        (b'{"id": 1, "name": "\xff"}', "not UTF-8 (byte 0xff)"),
    ],
)
def test_an_entry_that_is_wrong_says_its_key_and_value(raw, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        decode(raw, Entry)


def test_an_entry_may_have_keys_in_its_texts():
    assert decode(b'{"id": 1, "name": "\\"id\\": 2"}', Entry) == Entry(1, '"id": 2')
