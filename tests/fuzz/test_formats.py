"""Annotation files with random mistakes: a store whose truth holds within its images, or one line."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from pipeline.data.datasets import local
from pipeline.data.store import Store
from tests.fuzz.cases import HOSTILE_TEXT, NUMBERS, SIZES, answer, broken, edited, fuzz

HEIGHT, WIDTH = 12, 16
SHARES = {"train": 0.5, "test": 0.5}


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with two images, in an empty working folder; all work stays in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    (tmp_path / "mine/images").mkdir(parents=True)
    for index in range(2):
        (tmp_path / f"mine/images/{index}.png").write_bytes(png(40 * index))
    return tmp_path / "mine"


def check(root: Path, **options: Any) -> None:
    """Reads the folder as a user's data, once strictly and once leaving out what is wrong."""
    for on_error in ("fail", "skip"):
        out = root.parent / "out"
        answer(local.prepare, out, seed=0, inputs=str(root), on_error=on_error, shares=SHARES, **options)
        if not out.exists():
            continue
        store = Store(out)
        for name in store.info.counts:
            for sample in store.split(name):
                assert sample.image.shape == (HEIGHT, WIDTH, 3)
                assert_within(sample.objects, len(store.info.classes))
        for path in sorted(out.iterdir()):
            path.unlink()
        out.rmdir()
    assert sorted(path.name for path in root.parent.iterdir()) == ["mine"]


def assert_within(objects: Any, num_classes: int) -> None:
    """Boxes with an area within the image, numbers that are some, classes that there are."""
    if objects is None:
        return
    x1, y1, x2, y2 = objects.boxes.T
    assert np.isfinite(objects.boxes).all()
    assert ((x1 >= 0) & (x1 < x2) & (x2 <= WIDTH) & (y1 >= 0) & (y1 < y2) & (y2 <= HEIGHT)).all()
    assert ((objects.labels >= 0) & (objects.labels < num_classes)).all()
    assert (np.isfinite(objects.area) & (objects.area >= 0)).all()


COCO = {
    "images": [{"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in range(2)],
    "categories": [
        {"id": 3, "name": "cat", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]},
        {"id": 7, "name": "dog"},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 0,
            "category_id": 3,
            "bbox": [1, 2, 5, 6],
            "area": 20.5,
            "iscrowd": 0,
            "segmentation": [[1, 2, 6, 2, 6, 8]],
            "keypoints": [2, 3, 2, 0, 0, 0],
            "num_keypoints": 1,
        },
        {
            "id": 2,
            "image_id": 1,
            "category_id": 7,
            "bbox": [0, 0, 4, 4],
            "area": 16,
            "iscrowd": 1,
            "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, 4, HEIGHT * WIDTH - 4]},
        },
    ],
}


@pytest.mark.parametrize("cases", SIZES)
def test_coco_with_values_of_any_kind(root: Path, cases: int) -> None:
    def one(content: Any) -> None:
        (root / "annotations.json").write_text(json.dumps(content), encoding="utf-8")
        check(root, format="coco", places={"images": "images", "annotations": "annotations.json"})

    fuzz(one, edited(COCO), cases)


@pytest.mark.parametrize("cases", SIZES)
def test_coco_with_bytes_of_any_kind(root: Path, cases: int) -> None:
    def one(content: bytes) -> None:
        (root / "annotations.json").write_bytes(content)
        check(root, format="coco", places={"images": "images", "annotations": "annotations.json"})

    fuzz(one, broken(json.dumps(COCO).encode()), cases)


def xml(values: list[str]) -> bytes:
    name, width, height, label, x1, y1, x2, y2, difficult = map(escape, values)
    text = (
        f"<annotation><filename>{name}</filename><size><width>{width}</width><height>{height}</height></size>"
        f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object></annotation>"
    )
    return text.encode("utf-8", "surrogatepass")


RIGHT = ["0.png", str(WIDTH), str(HEIGHT), "cat", "1", "2", "6", "8", "0"]
TEXT_VALUES = HOSTILE_TEXT | NUMBERS.map(str) | st.text(max_size=6)


def with_some(values: list[str]) -> st.SearchStrategy[list[str]]:
    """The values with up to three of them replaced."""
    edits = st.lists(st.tuples(st.integers(0, len(values) - 1), TEXT_VALUES), min_size=1, max_size=3)
    return edits.map(lambda some: [dict(some).get(index, value) for index, value in enumerate(values)])


@pytest.mark.parametrize("cases", SIZES)
@pytest.mark.parametrize("kind", ["values", "bytes"])
def test_voc(root: Path, kind: str, cases: int) -> None:
    (root / "xml").mkdir()
    (root / "xml/1.xml").write_bytes(xml(["1.png", *RIGHT[1:]]))

    def one(content: bytes) -> None:
        (root / "xml/0.xml").write_bytes(content)
        check(root, format="voc", places={"images": "images", "annotations": "xml"})

    fuzz(one, with_some(RIGHT).map(xml) if kind == "values" else broken(xml(RIGHT)), cases)


ROW = ["1", "0.5", "0.5", "0.25", "0.5"]
POLYGON = ["0", "0.1", "0.1", "0.9", "0.1", "0.5", "0.8"]


@pytest.mark.parametrize("cases", SIZES)
@pytest.mark.parametrize("kind", ["values", "bytes"])
@pytest.mark.parametrize("row", [ROW, POLYGON], ids=["boxes", "polygons"])
def test_yolo(root: Path, row: list[str], kind: str, cases: int) -> None:
    (root / "labels").mkdir()
    (root / "labels/1.txt").write_text(" ".join(row))

    def one(content: bytes) -> None:
        (root / "labels/0.txt").write_bytes(content)
        places = {"images": "images", "labels": "labels"}
        check(root, format="yolo", places=places, classes={"0": "cat", "1": "dog"})

    other = POLYGON if row is ROW else ROW
    rows = st.lists(with_some(row) | st.sampled_from([row, other]), min_size=1, max_size=3).map(
        lambda some: "\n".join(map(" ".join, some)).encode("utf-8", "surrogatepass")
    )
    fuzz(one, rows if kind == "values" else broken("\n".join([" ".join(row)] * 2).encode()), cases)


@pytest.mark.parametrize("cases", SIZES)
@pytest.mark.parametrize("kind", ["values", "bytes"])
def test_csv(root: Path, kind: str, cases: int) -> None:
    head, row = "file,class,xmin,ymin,xmax,ymax\n", ["0.png", "cat", "1", "2", "6", "8"]

    def one(content: bytes) -> None:
        (root / "table.csv").write_bytes(content)
        check(root, format="csv", places={"images": "images", "annotations": "table.csv"})

    made = with_some(row).map(lambda v: f"{head}1.png,dog,0,0,4,4\n{','.join(v)}\n".encode("utf-8", "surrogatepass"))
    fuzz(one, made if kind == "values" else broken(f"{head}1.png,dog,0,0,4,4\n{','.join(row)}\n".encode()), cases)
