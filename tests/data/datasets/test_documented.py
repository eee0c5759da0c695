"""Every source is told of in docs/own_data.md, and each entry there is one that params.yaml takes."""

import importlib
import inspect
import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from pipeline.data.columns import Mapped, Table
from pipeline.data.datasets import parquet
from pipeline.data.store import Store
from pipeline.params import Dataset, check_options
from tests.data.datasets.originals import picture, png

PROJECT = Path(__file__).parents[3]
DOCS = (PROJECT / "docs/own_data.md").read_text(encoding="utf-8")
ENTRIES = {
    name: entry
    for block in re.findall(r"```yaml\n(.*?)```", DOCS, re.S)
    for name, entry in YAML(typ="safe").load(block).items()
}


def test_every_source_is_told_of():
    sources = {path.stem for path in (PROJECT / "pipeline/data/datasets").glob("*.py")} - {"__init__"}
    rows = [line.split("|")[1] for line in DOCS.splitlines() if line.startswith("| `")]
    known = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert sources - known == {"local", "huggingface", "parquet"}
    assert known - {"source"} <= sources
    assert {entry["source"] for entry in ENTRIES.values()} >= {"local", "huggingface", "parquet"}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_one_that_params_take(name):
    entry = Dataset.model_validate(ENTRIES[name])
    prepare = importlib.import_module(f"pipeline.data.datasets.{entry.source}").prepare
    given = {"seed": 0, "inputs": entry.inputs}
    given = {key: value for key, value in given.items() if key in inspect.signature(prepare).parameters}
    check_options(prepare, given | entry.options, f"datasets.{name}.options")


def test_the_columns_of_the_hubs_entry_fit_that_repository():
    options = ENTRIES["my_hub"]["options"]
    assert options["repository"] == "uoft-cs/cifar10"
    Mapped("options", options["columns"]).check(Table([], {}, ["img", "label"]))


def test_the_entry_of_parquet_files_is_tried(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    entry = ENTRIES["my_parquet"]
    folder = Path(entry["inputs"])
    folder.mkdir(parents=True)
    for name, numbers in (("train-0", range(8)), ("test-0", range(8, 10))):
        rows = {
            "image": [png(picture(8, 10, number)) for number in numbers],
            "objects": [{"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": [number % 2]} for number in numbers],
            "patient": [number // 2 for number in numbers],
        }
        pq.write_table(pa.table(rows), folder / f"{name}.parquet")
    parquet.prepare(Path("mine"), seed=0, inputs=entry["inputs"], **entry["options"])
    store = Store(Path("mine"))
    assert store.info.counts == {"train": 6, "val": 2, "test": 2}
    assert store.info.classes == ["cell", "debris"]
    assert len(set(store.split("val").column("group"))) == 1, "a patient is in one split"
    assert store.split("test").read(0).objects.boxes.tolist() == [[1, 2, 4, 6]]
