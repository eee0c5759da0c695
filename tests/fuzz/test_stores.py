"""Files of our own with random damage: their content, or one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.store import Store, to_row, writing
from pipeline.structures import DatasetInfo, Objects, Sample, Segments
from pipeline.training import checkpoint as checkpoints
from tests.fuzz.cases import SIZES, answer, broken, edited, fuzz


def a_store(folder: Path) -> Path:
    info = DatasetInfo("toy", ["detection", "instance", "semantic"], ["cat", "dog"], 3, "CC0", "us", "here")
    masks = np.zeros((1, 6, 8), bool)
    masks[0, 1:4, 2:6] = True
    objects = Objects(
        np.array([[2, 1, 6, 4]], np.float32), np.array([1]), np.array([12], np.float32), np.zeros(1, bool)
    )
    objects.masks = masks
    with writing(folder, info) as writer:
        for index in range(3):
            image = np.full((6, 8, 3), 50 * index, np.uint8)
            segments = Segments(np.ones((6, 8), np.int32), np.array([1]), np.array([0]))
            semantic = np.zeros((6, 8), np.uint8)
            sample = Sample(f"id{index}", f"{index}.png", image, objects=objects, semantic=semantic, segments=segments)
            sample.captions = ["one", "two"]
            writer.add("train", to_row(sample))
    return folder


def read(folder: Path) -> list[Sample]:
    split = Store(folder).split("train")
    split.column("image_id")
    split.objects()
    return [split.read(index, masks=True) for index in range(len(split))]


@pytest.mark.parametrize("cases", SIZES)
def test_a_shard(tmp_path: Path, cases: int) -> None:
    folder = a_store(tmp_path / "toy")
    (shard,) = folder.glob("*.arrow")

    def one(content: bytes) -> None:
        shard.unlink()  # what has mapped the old one keeps it
        shard.write_bytes(content)
        found = answer(read, folder)
        assert found is None or len(found) == 3

    fuzz(one, broken(shard.read_bytes()), cases)


@pytest.mark.parametrize("cases", SIZES)
@pytest.mark.parametrize("kind", ["values", "bytes"])
def test_an_info(tmp_path: Path, kind: str, cases: int) -> None:
    folder = a_store(tmp_path / "toy")
    path = folder / "info.json"
    good = path.read_bytes()

    def one(content: Any) -> None:
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        answer(read, folder)

    fuzz(one, broken(good) if kind == "bytes" else edited(json.loads(good)), cases)


@pytest.mark.parametrize("cases", SIZES)
@pytest.mark.parametrize("file", ["weights.safetensors", "model.json", "values"])
def test_a_checkpoint(tmp_path: Path, file: str, cases: int) -> None:
    info = DatasetInfo("toy", ["classification"], ["cat", "dog"], 3, "CC0", "us", "here")
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    checkpoints.save(tmp_path / "run", checkpoints.Checkpoint("classification/x", {"a": 1}, info, {"weight": weight}))
    path = tmp_path / "run" / ("model.json" if file == "values" else file)
    good = path.read_bytes()

    def one(content: Any) -> None:
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        found = answer(checkpoints.load, tmp_path / "run")
        if found is not None and file != "values":
            assert np.array_equal(found.arrays["weight"], weight)

    fuzz(one, edited(json.loads(good)) if file == "values" else broken(good), cases)
