import numpy as np
import pytest

from pipeline.data.datasets import cifar10, cifar100
from pipeline.data.store import Store
from pipeline.errors import PipelineError
from tests.data.datasets.originals import serve, tarred

NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FINE, COARSE = [f"fine {i}" for i in range(100)], [f"coarse {i}" for i in range(20)]


def images(num, seed):
    return np.random.default_rng(seed).integers(0, 256, (num, 32, 32, 3), dtype=np.uint8)


def rows(pixels, *labels):
    """CIFAR's page: labels, then 1024 bytes of red, of green and of blue, each row by row."""
    made = []
    for index, image in enumerate(pixels):
        planes = b"".join(image[:, :, channel].tobytes() for channel in range(3))
        made.append(bytes(column[index] for column in labels) + planes)
    return b"".join(made)


def cifar10_originals():
    members = {"batches.meta.txt": "\n".join([*NAMES10, ""]).encode(), "readme.html": b"<html>"}
    for batch in range(1, 6):
        members[f"data_batch_{batch}.bin"] = rows(images(8, batch), [0, 0, 9, 9, 0, 0, 9, 9])
    members["test_batch.bin"] = rows(images(3, 6), [1, 2, 3])
    return {f"cifar-10-batches-bin/{name}": content for name, content in members.items()}


def cifar100_originals():
    members = {
        "fine_label_names.txt": "\n".join([*FINE, ""]).encode(),
        "coarse_label_names.txt": "\n".join([*COARSE, ""]).encode(),
        "train.bin": rows(images(12, 1), [3, 19] * 6, [14, 99] * 6),
        "test.bin": rows(images(2, 2), [0, 19], [0, 98]),
    }
    return {f"cifar-100-binary/{name}": content for name, content in members.items()}


def read(store, split):
    return {sample.image_id: (sample.image, sample.label) for sample in store.split(split)}


def test_cifar10_is_the_originals(tmp_path, cache, server, monkeypatch):
    serve(server, monkeypatch, cifar10, {"archive": tarred(cifar10_originals(), "w:gz")})
    cifar10.prepare(tmp_path / "cifar", seed=0, val=0.2)
    store = Store(tmp_path / "cifar")
    assert store.info.counts == {"train": 32, "val": 8, "test": 3}  # a fifth of 40
    assert store.info.classes == NAMES10
    found = read(store, "train") | read(store, "val")
    for batch in range(1, 6):
        for index, (image, label) in enumerate(zip(images(8, batch), [0, 0, 9, 9] * 2, strict=True)):
            pixels, class_index = found.pop(f"train_{8 * (batch - 1) + index:06d}")
            assert np.array_equal(pixels, image)
            assert class_index == label
    assert not found
    assert sorted(store.split("val").column("label")) == [0] * 4 + [9] * 4
    test = read(store, "test")
    assert [test[f"test_{i:06d}"][1] for i in range(3)] == [1, 2, 3]
    assert all(np.array_equal(test[f"test_{i:06d}"][0], image) for i, image in enumerate(images(3, 6)))


@pytest.mark.parametrize(
    ("labels", "names", "wanted"), [("fine", FINE, ([14, 99], [0, 98])), ("coarse", COARSE, ([3, 19], [0, 19]))]
)
def test_cifar100_has_either_of_its_labels(tmp_path, cache, server, monkeypatch, labels, names, wanted):
    serve(server, monkeypatch, cifar100, {"archive": tarred(cifar100_originals(), "w:gz")})
    cifar100.prepare(tmp_path / "cifar", seed=0, val=1 / 3, labels=labels)
    store = Store(tmp_path / "cifar")
    assert store.info.classes == names
    assert store.info.counts == {"train": 8, "val": 4, "test": 2}
    found = read(store, "train") | read(store, "val")
    for index, image in enumerate(images(12, 1)):
        pixels, label = found[f"train_{index:06d}"]
        assert np.array_equal(pixels, image)
        assert label == wanted[0][index % 2]
    assert [label for _, label in read(store, "test").values()] == wanted[1]


def test_a_batch_of_half_a_row_is_refused(tmp_path, cache, server, monkeypatch):
    members = cifar10_originals()
    members["cifar-10-batches-bin/data_batch_3.bin"] += b"\0" * 1000
    serve(server, monkeypatch, cifar10, {"archive": tarred(members, "w:gz")})
    # 8 rows of 1 + 3 * 1024 bytes, and 1000 more
    with pytest.raises(PipelineError, match=r"data_batch_3\.bin: 25584 bytes are not a whole number of rows of 3073"):
        cifar10.prepare(tmp_path / "cifar", seed=0)


def test_a_missing_batch_is_named(tmp_path, cache, server, monkeypatch):
    members = cifar10_originals()
    del members["cifar-10-batches-bin/data_batch_5.bin"]
    serve(server, monkeypatch, cifar10, {"archive": tarred(members, "w:gz")})
    with pytest.raises(PipelineError, match=r"holds no 'cifar-10-batches-bin/data_batch_5\.bin'"):
        cifar10.prepare(tmp_path / "cifar", seed=0)


def test_too_few_class_names_are_refused(tmp_path, cache, server, monkeypatch):
    members = cifar100_originals()
    members["cifar-100-binary/fine_label_names.txt"] = b"a\nb\n"
    serve(server, monkeypatch, cifar100, {"archive": tarred(members, "w:gz")})
    with pytest.raises(PipelineError, match="2 class names, not 100"):
        cifar100.prepare(tmp_path / "cifar", seed=0)
