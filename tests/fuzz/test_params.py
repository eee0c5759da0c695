"""params.yaml with random mistakes: params that are right, or one line."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import YAMLFileCorruptedError, load_yaml
from ruamel.yaml import YAML

from pipeline.document import Document
from pipeline.params import Params, Section, load
from tests.fuzz.cases import SIZES, answer, broken, edited, fuzz

TOY = (Path(__file__).parents[1] / "toy_params.yaml").read_bytes()
CONTENT = YAML(typ="safe").load(TOY.decode())


def assert_sound(value: Any) -> None:
    """No number that is none, and names that a shell and a file system take as they are."""
    if isinstance(value, Section):
        for name in type(value).model_fields:
            assert_sound(getattr(value, name))
    elif isinstance(value, dict):
        for inner in value.values():
            assert_sound(inner)
    elif isinstance(value, list):
        for inner in value:
            assert_sound(inner)
    elif isinstance(value, float):
        assert math.isfinite(value)


def check(path: Path) -> None:
    params = answer(load, path)
    if params is None:
        return
    assert isinstance(params, Params)
    assert_sound(params)
    for section in ("datasets", "augmentations", "features", "runs", "generators", "visualisations"):
        for name in getattr(params, section):
            assert name.replace("_", "").isalnum()
            assert name.isascii()
            assert name.islower() or not any(map(str.isalpha, name))
    for run in params.runs.values():
        assert params.dataset_of(run.inputs) == run.dataset


@pytest.mark.parametrize("cases", SIZES)
def test_values_of_any_kind(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "params.yaml"

    def one(content: Any) -> None:
        text = json.dumps(content).replace("NaN", ".nan").replace("-Infinity", "-.inf").replace("Infinity", ".inf")
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        check(path)

    fuzz(one, edited(CONTENT), cases)


@pytest.mark.parametrize("cases", SIZES)
def test_bytes_of_any_kind_are_read_as_dvc_reads_them_or_refused(tmp_path: Path, cases: int) -> None:
    path = tmp_path / "params.yaml"

    def one(content: bytes) -> None:
        path.write_bytes(content)
        check(path)
        document = answer(Document, path)
        if document is not None and document.content is not None:  # DVC takes an empty file for {}, which load refuses
            try:
                theirs = load_yaml(str(path))
            except (YAMLFileCorruptedError, UnicodeDecodeError):
                return  # DVC refuses to run then
            assert document.content == theirs

    fuzz(one, broken(TOY[:1500]), cases)
