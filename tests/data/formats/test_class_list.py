import pytest

from pipeline.data.formats.class_list import numbered, read_classes
from pipeline.errors import PipelineError


@pytest.fixture
def read(tmp_path):
    def read(text, name="data.yaml"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_classes(tmp_path / name, name)

    return read


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("names: [cat, dog]", {0: "cat", 1: "dog"}),
        ("names:\n  3: dog\n  0: cat\n", {0: "cat", 3: "dog"}),
        ("train: x\nclasses:\n  - no\n  - 01\n  - null\n  - 1e3\n", {0: "no", 1: "01", 2: "null", 3: "1e3"}),
    ],
)
def test_names_of_a_yaml_file_are_text_whatever_they_look_like(read, text, names):
    assert read(text) == names


def test_other_files_have_a_name_in_each_line(read):
    assert read("\ufeffcat\r\n\r\n traffic light \r\n", "classes.txt") == {0: "cat", 1: "traffic light"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 2", "data.yaml: neither names nor classes in it"),
        ("names: 2", "data.yaml names: neither a list nor a mapping ('2')"),
        ("names: []", "data.yaml names: names no class"),
        ("names: [cat, cat]", "data.yaml names: 'cat' or its number 1 stands there twice"),
        ("names: ['']", "data.yaml names: the name of class 0 is no text ('')"),
        ("names: [[a]]", "data.yaml names: the name of class 0 is no text (['a'])"),
        ("names: {one: cat}", "data.yaml names: not a class number ('one')"),
        ("names: {-1: cat}", "data.yaml names: not a class number ('-1')"),
        ("- cat", "data.yaml: not a mapping"),
        ("names: [cat", "data.yaml: not valid YAML"),
        ("names: [cat]\nnames: [dog]", "data.yaml: not valid YAML"),
        (b"names: [\xff]", "data.yaml: not UTF-8"),
        (" " * 2**20 + "names: [a]", "data.yaml: larger than 1 MiB"),
    ],
)
def test_a_faulty_list_is_one_line(read, text, message):
    with pytest.raises(PipelineError) as caught:
        read(text)
    assert str(caught.value).startswith(message)
    assert "; fix: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(PipelineError, match=r"^x.txt: no such file; fix"):
        read_classes(tmp_path / "x.txt", "x.txt")


def test_numbers_may_be_text_and_come_in_any_order():
    assert numbered({"10": "b", "9": "a"}, "classes") == {9: "a", 10: "b"}
