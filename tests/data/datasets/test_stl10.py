import numpy as np
import pytest

from pipeline.data.datasets import stl10
from pipeline.data.store import Store
from pipeline.errors import PipelineError
from tests.data.datasets.originals import serve, tarred

NAMES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


def images(num, seed):
    return np.random.default_rng(seed).integers(0, 256, (num, 96, 96, 3), dtype=np.uint8)


def rows(pixels):
    """STL's page: red, green, blue, each plane in column-major order."""
    return b"".join(image[:, :, channel].tobytes(order="F") for image in pixels for channel in range(3))


def originals():
    members = {
        "class_names.txt": "\n".join(NAMES).encode(),
        "fold_indices.txt": b"0 1\n",
        "train_X.bin": rows(images(10, 1)),
        "train_y.bin": bytes([1, 10] * 5),  # counted from 1
        "test_X.bin": rows(images(2, 2)),
        "test_y.bin": bytes([2, 9]),
        "unlabeled_X.bin": rows(images(1, 3)),
    }
    return {f"stl10_binary/{name}": content for name, content in members.items()}


def test_pixels_labels_and_splits_are_the_originals(tmp_path, cache, server, monkeypatch):
    serve(server, monkeypatch, stl10, {"archive": tarred(originals(), "w:gz")})
    stl10.prepare(tmp_path / "stl", seed=0)
    store = Store(tmp_path / "stl")
    assert store.info.classes == NAMES
    assert store.info.counts == {"train": 8, "val": 2, "test": 2}  # a fifth of 10
    found = {s.image_id: (s.image, s.label) for split in ("train", "val", "test") for s in store.split(split)}
    for index, image in enumerate(images(10, 1)):
        pixels, label = found[f"train_{index:06d}"]
        assert np.array_equal(pixels, image)
        assert label == (0, 9)[index % 2]
    for index, image in enumerate(images(2, 2)):
        pixels, label = found[f"test_{index:06d}"]
        assert np.array_equal(pixels, image)
        assert label == (1, 8)[index]
    assert sorted(store.split("val").column("label")) == [0, 9]


def test_a_label_of_no_class_is_refused(tmp_path, cache, server, monkeypatch):
    members = {**originals(), "stl10_binary/test_y.bin": bytes([2, 0])}
    serve(server, monkeypatch, stl10, {"archive": tarred(members, "w:gz")})
    with pytest.raises(PipelineError, match=r"test_000001\.png label: .*-1"):
        stl10.prepare(tmp_path / "stl", seed=0)
