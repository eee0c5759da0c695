"""The table of faults is whole and names tests that there are; and the faults that no other file is about."""

import ast
import csv
import io
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pipeline import paths

PROJECT = Path(__file__).parent.parent
TABLE = (PROJECT / "tests/FAULTS.md").read_text(encoding="utf-8")
LINES = re.findall(r"^- (\d+) (.+)$", TABLE, re.M)
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TABLE)))


@cache
def _tests_in(file: str) -> set[str]:
    tree = ast.parse((PROJECT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_fault_has_its_line_in_order() -> None:
    assert [int(number) for number, _ in LINES] == list(range(1, 128))


def test_every_line_names_a_test_or_says_why_there_is_none() -> None:
    for number, text in LINES:
        assert "`tests/" in text or len(text.partition(": ")[2].split()) >= 10, number
    assert len(re.findall(r"`tests/", TABLE)) == len(re.findall(r"`tests/[\w/]+\.py(?:::\w+)?`", TABLE))


@pytest.mark.parametrize(("file", "test"), NAMED, ids=lambda value: value)
def test_every_test_that_is_named_exists(file: str, test: str) -> None:
    assert test in _tests_in(file)


def test_no_cell_of_a_csv_file_is_a_formula() -> None:
    number = re.compile(r"[+-]?[0-9.]+(?:e[+-]?[0-9]+)?")
    tables = list((PROJECT / "reports").rglob("*.csv"))
    assert {path.name for path in tables} >= {"training.csv", "trials.csv"}
    for path in tables:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        assert all(re.fullmatch(r"[a-z0-9_.]+", name) for name in header), path
        for cell in (cell for row in rows for cell in row):
            assert number.fullmatch(cell) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")), (path, cell)


def test_json_never_holds_a_bare_nan(tmp_path: Path) -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            paths.write_json(tmp_path / "x.json", {"a": [value]})
    assert list(tmp_path.iterdir()) == []
    files = list((PROJECT / "reports").rglob("*.json"))
    assert {path.name for path in files} >= {"metrics.json", "gallery.json", "best.json"}
    for path in files:
        assert not re.search(r"[:\[,]\s*(NaN|-?Infinity)\b", re.sub(r'"[^"]*"', '""', path.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_the_report_of_ten_thousand_images_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    from PIL import Image

    from pipeline.data.store import Store, to_row, writing
    from pipeline.params import ClassificationEvaluation
    from pipeline.reporting.verdicts import Predictions, classification
    from pipeline.stages import evaluate
    from pipeline.structures import DatasetInfo, Sample

    monkeypatch.chdir(tmp_path)
    number, classes = 10_000, [f"class {index}" for index in range(10)]
    rng = np.random.default_rng(0)
    with writing(tmp_path / "toy", DatasetInfo("toy", ["classification"], classes, 3, "CC0", "us", "here")) as writer:
        for index in range(number):
            image = np.full((8, 8, 3), index % 256, np.uint8)
            writer.add("test", to_row(Sample(f"image {index}", f"{index}.png", image, label=index % 10)))
    scores = rng.dirichlet(np.ones(10), number).astype(np.float32)
    split = Store(tmp_path / "toy").split("test")
    table = pa.table({"image_id": split.column("image_id"), "scores": pa.array(list(scores), pa.list_(pa.float32()))})
    info = {"probabilities": True, "classes": classes}
    verdict = classification.judge(Predictions("x", "y", table, info), split, ClassificationEvaluation(top_k=5))
    evaluate._write(tmp_path / "report", verdict)
    total = sum(path.stat().st_size for path in (tmp_path / "report").rglob("*") if path.is_file())
    assert total < 2_000_000
    for picture in (tmp_path / "report").rglob("*.png"):
        assert picture.stat().st_size < 200_000
        Image.open(io.BytesIO(picture.read_bytes())).verify()
