import gzip
import json

import numpy as np
import pytest

from pipeline.data.datasets import fashion_mnist, mnist
from pipeline.data.store import Store
from pipeline.errors import PipelineError
from tests.data.datasets.originals import serve
from tests.data.test_idx import idx

NUM = {"train": 40, "t10k": 6}


def arrays():
    rng = np.random.default_rng(0)
    made = {}
    for prefix, num in NUM.items():
        made[f"{prefix}-images-idx3-ubyte.gz"] = rng.integers(0, 256, (num, 28, 28), dtype=np.uint8)
        made[f"{prefix}-labels-idx1-ubyte.gz"] = (np.arange(num) % 2 * 3).astype(np.uint8)  # classes 0 and 3
    return made


def originals():
    return {name: gzip.compress(idx(values)) for name, values in arrays().items()}


@pytest.mark.parametrize("module", [mnist, fashion_mnist])
def test_pixels_labels_and_splits_are_the_originals(tmp_path, cache, server, monkeypatch, module):
    serve(server, monkeypatch, module, originals())
    module.prepare(tmp_path / "digits", seed=0, val=0.25)
    store, files = Store(tmp_path / "digits"), arrays()
    assert store.info.counts == {"train": 30, "val": 10, "test": 6}  # a quarter of 40
    assert store.info.classes == module.CLASSES
    assert len(set(module.CLASSES)) == 10
    assert store.info.image_size == [28, 28]
    seen = []
    for split, prefix in (("train", "train"), ("val", "train"), ("test", "t10k")):
        for sample in store.split(split):
            index = int(sample.image_id.rpartition("_")[2])
            seen.append((prefix, index))
            assert np.array_equal(sample.image[..., 0], files[f"{prefix}-images-idx3-ubyte.gz"][index])
            assert sample.label == files[f"{prefix}-labels-idx1-ubyte.gz"][index]
    assert sorted(seen) == sorted((prefix, index) for prefix, num in NUM.items() for index in range(num))
    # of 20 images of each class a quarter
    assert sorted(store.split("val").column("label")) == [0] * 5 + [3] * 5
    assert json.loads((tmp_path / "digits/findings.json").read_text()) == []


def test_the_two_sets_have_other_files_of_the_same_names():
    assert {name: asset.name for name, asset in mnist.ASSETS.items()} == {name: f"mnist/{name}" for name in originals()}
    for name, asset in fashion_mnist.ASSETS.items():
        assert asset.name == f"fashion_mnist/{name}"
        assert asset.checksum != mnist.ASSETS[name].checksum


def test_the_same_seed_gives_the_same_bytes(tmp_path, cache, server, monkeypatch):
    serve(server, monkeypatch, mnist, originals())
    stores = []
    for name, seed in (("a/x", 0), ("b/x", 0), ("c/x", 1)):
        mnist.prepare(tmp_path / name, seed=seed, val=0.25)
        stores.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert stores[0] == stores[1]
    assert stores[0]["train-00000.arrow"] != stores[2]["train-00000.arrow"]
    assert stores[0]["test-00000.arrow"] == stores[2]["test-00000.arrow"]


def test_a_label_that_is_no_class_names_its_image(tmp_path, cache, server, monkeypatch):
    files = arrays()
    files["t10k-labels-idx1-ubyte.gz"][4] = 10
    serve(server, monkeypatch, mnist, {name: gzip.compress(idx(values)) for name, values in files.items()})
    with pytest.raises(PipelineError, match=r"test_000004\.png label: .*10"):
        mnist.prepare(tmp_path / "digits", seed=0)
    assert not (tmp_path / "digits").exists()
    mnist.prepare(tmp_path / "digits", seed=0, on_error="skip")
    assert Store(tmp_path / "digits").info.counts["test"] == 5
    (finding,) = json.loads((tmp_path / "digits/findings.json").read_text())
    assert (finding["file"], finding["action"]) == ("test_000004.png", "dropped image")


def test_images_and_labels_of_other_numbers_are_refused(tmp_path, cache, server, monkeypatch):
    files = arrays()
    files["t10k-labels-idx1-ubyte.gz"] = files["t10k-labels-idx1-ubyte.gz"][:-1]
    serve(server, monkeypatch, mnist, {name: gzip.compress(idx(values)) for name, values in files.items()})
    with pytest.raises(PipelineError, match="digits: 6 images and 5 labels in 'test'"):
        mnist.prepare(tmp_path / "digits", seed=0)
