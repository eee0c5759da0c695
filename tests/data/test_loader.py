import numpy as np
import pytest
import torch

from pipeline.data import loader as loader_module
from pipeline.data.loader import Loader, collate, common_size
from pipeline.data.store import Store, to_row, writing
from pipeline.errors import PipelineError
from pipeline.structures import DatasetInfo, Objects, Sample


def a_sample(value=0, height=2, width=4):
    """Left half dark, right half light, with a box and a label map that say the same."""
    image = np.zeros((height, width, 1), np.uint8)
    image[:, width // 2 :] = 255
    semantic = np.zeros((height, width), np.uint8)
    semantic[:, width // 2 :] = 3
    boxes = np.array([[width / 2, 0, width, height]], np.float32)
    objects = Objects(boxes, np.array([value]), np.array([4.0], np.float32), np.zeros(1, bool))
    return Sample(f"i{value}", "", image, label=value, objects=objects, semantic=semantic)


@pytest.fixture
def split(tmp_path):
    info = DatasetInfo("toy", ["classification"], list("abcdefg"), 1, "none", "none", "here")
    with writing(tmp_path / "toy", info) as writer:
        for value in range(7):
            writer.add("train", to_row(a_sample(value)))
    return Store(tmp_path / "toy").split("train")


def test_a_batch_of_its_own_size_is_what_is_stored():
    batch = collate([a_sample(5), a_sample(6)], (2, 4))
    assert batch.images[0, 0].tolist() == [[0, 0, 1, 1]] * 2
    assert batch.images.dtype == torch.float32
    assert batch.image_ids == ["i5", "i6"]
    assert batch.sizes == [(2, 4), (2, 4)]
    assert batch.labels.tolist() == [5, 6]
    assert batch.boxes[1].tolist() == [[2, 0, 4, 2]]
    assert batch.box_labels[1].tolist() == [6]
    assert batch.semantic.dtype == torch.int64
    assert batch.semantic[0].tolist() == [[0, 0, 3, 3]] * 2


def test_images_boxes_and_label_maps_are_stretched_alike():
    batch = collate([a_sample(), a_sample(height=4, width=2), a_sample(height=12, width=16)], (6, 8))
    assert batch.sizes == [(2, 4), (4, 2), (12, 16)]
    for image, boxes, semantic in zip(batch.images, batch.boxes, batch.semantic, strict=True):
        assert boxes.tolist() == [[4, 0, 8, 6]]
        assert semantic.tolist() == [[0, 0, 0, 0, 3, 3, 3, 3]] * 6
        assert (image[0, :, :2] < 0.01).all()
        assert (image[0, :, 6:] > 0.99).all()


def test_halving_an_image_averages_with_antialias_weights():
    image = np.array([[[0], [0], [255], [255]]], np.uint8)
    found = collate([Sample("a", "", image)], (1, 2)).images
    # the triangle of width 2 around the centre 1 of the first pixel weighs 3, 3, 1: its share of light is 1 / 7
    assert found.flatten().tolist() == pytest.approx([1 / 7, 6 / 7], abs=1e-6)


def test_absent_truth_stays_absent():
    batch = collate([Sample("a", "", np.zeros((2, 2, 3), np.uint8))], (2, 2))
    assert batch.images.shape == (1, 3, 2, 2)
    assert batch.labels is batch.boxes is batch.box_labels is batch.semantic is None


def test_batches_follow_the_order_and_the_last_is_smaller(split):
    loader = Loader(split, 3, (2, 4))
    assert len(loader) == 3
    assert [batch.labels.tolist() for batch in loader.batches()] == [[0, 1, 2], [3, 4, 5], [6]]
    order = np.array([6, 0, 5, 1])
    assert [batch.labels.tolist() for batch in loader.batches(order)] == [[6, 0, 5], [1]]


def test_a_split_too_large_for_the_cache_is_read_alike(split, monkeypatch):
    cached = [batch.images for batch in Loader(split, 3, (2, 4)).batches()]
    monkeypatch.setattr(loader_module, "CACHE_BYTES", 10)
    loader = Loader(split, 3, (2, 4))
    reads = []
    read = split.read
    monkeypatch.setattr(split, "read", lambda index: reads.append(index) or read(index))
    for _ in range(2):
        assert all(torch.equal(a, b.images) for a, b in zip(cached, loader.batches(), strict=True))
    assert reads == [*range(7), *range(7)]


def test_a_small_split_is_decoded_once(split, monkeypatch):
    loader = Loader(split, 3, (2, 4))
    reads = []
    read = split.read
    monkeypatch.setattr(split, "read", lambda index: reads.append(index) or read(index))
    for _ in range(3):
        list(loader.batches())
    assert reads == [*range(7)]


def test_common_size_is_the_wanted_one_or_the_images_own(split):
    assert common_size(split, None) == (2, 4)
    assert common_size(split, 16) == (16, 16)


def test_images_of_many_sizes_need_a_wanted_one(tmp_path):
    info = DatasetInfo("mixed", ["classification"], ["a"], 1, "none", "none", "here")
    with writing(tmp_path / "mixed", info) as writer:
        for width in (4, 6):
            writer.add("train", to_row(a_sample(width=width)))
    split = Store(tmp_path / "mixed").split("train")
    with pytest.raises(PipelineError, match=r"mixed: its images differ in size; fix: set training\.image_size"):
        common_size(split, None)
    assert common_size(split, 8) == (8, 8)


def test_a_batch_moves_whole():
    moved = collate([a_sample(5)], (2, 4)).to("meta")
    tensors = [moved.images, moved.labels, moved.semantic, *moved.boxes, *moved.box_labels]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (moved.image_ids, moved.sizes) == (["i5"], [(2, 4)])
