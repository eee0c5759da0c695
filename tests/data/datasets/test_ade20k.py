import numpy as np
import pytest

from pipeline.data.datasets import ade20k
from pipeline.data.store import Store
from pipeline.errors import PipelineError
from tests.data.datasets.originals import jpeg, picture, png, serve, zipped

ROOT = "ADEChallengeData2016"
TRAINING = [f"training/ADE_train_{i:08d}" for i in range(1, 11)]
VALIDATION = [f"validation/ADE_val_{i:08d}" for i in range(1, 3)]


def label_map(index):
    """Value 0 (other objects), 1 (wall), 150 (flag) and one of the image's own."""
    values = np.zeros((12, 16), np.uint8)
    values[:, 4:8], values[:, 8:12], values[:, 12:] = 1, 150, 2 + index
    return values


def originals():
    members = {f"{ROOT}/objectInfo150.txt": b"...", f"{ROOT}/sceneCategories.txt": b"..."}
    for index, name in enumerate(TRAINING + VALIDATION):
        members[f"{ROOT}/images/{name}.jpg"] = jpeg(picture(12, 16, index))
        members[f"{ROOT}/annotations/{name}.png"] = png(label_map(index))
    return members


def test_value_zero_is_ignored_and_the_others_are_one_less(tmp_path, cache, server, monkeypatch):
    members = originals()
    serve(server, monkeypatch, ade20k, {"all": zipped(members)})
    ade20k.prepare(tmp_path / "ade", seed=0, val=0.2)
    store = Store(tmp_path / "ade")
    assert store.info.counts == {"train": 8, "val": 2, "test": 2}  # a fifth of 10
    assert len(store.info.semantic_classes) == 150
    names = {split: {f"training/{row}" for row in store.split(split).column("image_id")} for split in ("train", "val")}
    assert names["train"] | names["val"] == set(TRAINING)
    assert store.split("test").column("file_name") == [f"images/{name}.jpg" for name in VALIDATION]
    for position, name in enumerate(VALIDATION):
        sample = store.split("test").read(position)
        original = label_map(10 + position)
        assert (sample.semantic[original == 0] == 255).all()
        assert np.array_equal(sample.semantic[original > 0], original[original > 0] - 1)
        # the image's bytes are the original's
        assert store.split("test").row(position)["image"] == members[f"{ROOT}/images/{name}.jpg"]


def test_classes_stand_in_the_official_order():
    # objectInfo150.txt: 1 wall, 13 person, 76 swivel chair, 116 bag, 150 flag
    assert [ade20k.CLASSES[index - 1] for index in (1, 13, 76, 116, 150)] == [
        "wall",
        "person",
        "swivel chair",
        "bag",
        "flag",
    ]
    assert len(set(ade20k.CLASSES)) == 150


def test_missing_map_is_named(tmp_path, cache, server, monkeypatch):
    members = originals()
    del members[f"{ROOT}/annotations/{TRAINING[3]}.png"]
    serve(server, monkeypatch, ade20k, {"all": zipped(members)})
    with pytest.raises(PipelineError, match=r"semantic: cannot be read .*annotations/training/ADE_train_00000004\.png"):
        ade20k.prepare(tmp_path / "ade", seed=0, val=0.2)
    assert not (tmp_path / "ade").exists()
    ade20k.prepare(tmp_path / "ade", seed=0, val=0.2, on_error="skip")
    assert sum(Store(tmp_path / "ade").info.counts.values()) == 11


def test_missing_folder_is_named(tmp_path, cache, server, monkeypatch):
    members = {name: content for name, content in originals().items() if "/images/validation/" not in name}
    serve(server, monkeypatch, ade20k, {"all": zipped(members)})
    with pytest.raises(PipelineError, match=r"it holds no 'ADEChallengeData2016/images/validation'"):
        ade20k.prepare(tmp_path / "ade", seed=0)
