import threading

import numpy as np
import pytest
import torch

from pipeline.data import loader as loader_module
from pipeline.data.loader import Buffers, Loader, collate, common_size
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
    batch = collate([a_sample(5), a_sample(6)], 2, (2, 4))
    assert batch.images[0, 0].tolist() == [[0, 0, 255, 255]] * 2
    assert batch.images.dtype == torch.uint8
    assert batch.image_ids == ["i5", "i6"]
    assert batch.sizes == [(2, 4), (2, 4)]
    assert batch.labels.tolist() == [5, 6]
    assert batch.boxes[1].tolist() == [[2, 0, 4, 2]]
    assert batch.box_labels[1].tolist() == [6]
    assert batch.semantic.dtype == torch.int64
    assert batch.semantic[0].tolist() == [[0, 0, 3, 3]] * 2


def test_images_boxes_and_label_maps_are_stretched_alike():
    batch = collate([a_sample(), a_sample(height=4, width=2), a_sample(height=12, width=16)], 3, (6, 8))
    assert batch.sizes == [(2, 4), (4, 2), (12, 16)]
    for image, boxes, semantic in zip(batch.images, batch.boxes, batch.semantic, strict=True):
        assert boxes.tolist() == [[4, 0, 8, 6]]
        assert semantic.tolist() == [[0, 0, 0, 0, 3, 3, 3, 3]] * 6
        assert (image[0, :, :2] < 0.01).all()
        assert (image[0, :, 6:] > 0.99).all()


def test_halving_an_image_averages_with_antialias_weights():
    image = np.array([[[0], [0], [255], [255]]], np.uint8)
    found = collate([Sample("a", "", image)], 1, (1, 2)).images
    # the triangle of width 2 around the centre 1 of the first pixel weighs 3, 3, 1: its share of light is 1 / 7
    assert found.flatten().tolist() == pytest.approx([1 / 7, 6 / 7], abs=1e-6)


def test_absent_truth_stays_absent():
    batch = collate([Sample("a", "", np.zeros((2, 2, 3), np.uint8))], 1, (2, 2))
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
    moved = collate([a_sample(5)], 1, (2, 4)).to("meta")
    tensors = [moved.images, moved.labels, moved.semantic, *moved.boxes, *moved.box_labels]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert (moved.image_ids, moved.sizes) == (["i5"], [(2, 4)])


def test_images_become_floats_where_they_are_moved_to():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    moved = collate([Sample("a", "", levels)], 1, (16, 16)).to("cpu")
    assert moved.images.dtype == torch.float32
    # as NumPy divides: torch's division of a GPU's tensor by a plain number differs in the last bit
    assert np.array_equal(moved.images.numpy().ravel(), levels.ravel() / np.float32(255))
    assert moved.to("cpu").images is moved.images


def test_one_image_to_stretch_makes_floats_of_all():
    images = [np.full((2, side, 3), value, np.uint8) for side, value in ((4, 51), (8, 102), (4, 153))]
    batch = collate([Sample("a", "", image) for image in images], 3, (2, 4))
    assert batch.images.dtype == torch.float32
    assert torch.allclose(batch.images.amin((1, 2, 3)), torch.tensor([0.2, 0.4, 0.6]), rtol=0, atol=1e-7)
    assert torch.equal(
        batch.images[[0, 2]], collate([Sample("a", "", images[i]) for i in (0, 2)], 2, (2, 4)).to("cpu").images
    )


def test_batches_are_the_same_whatever_the_number_of_workers(split, monkeypatch):
    order = np.array([6, 2, 0, 5, 1, 3, 4])
    for cache_bytes in (loader_module.CACHE_BYTES, 10):
        monkeypatch.setattr(loader_module, "CACHE_BYTES", cache_bytes)
        one, four = (list(Loader(split, 2, (3, 5), workers=workers).batches(order)) for workers in (1, 4))
        assert [batch.image_ids for batch in four] == [["i6", "i2"], ["i0", "i5"], ["i1", "i3"], ["i4"]]
        for a, b in zip(one, four, strict=True):
            assert torch.equal(a.images, b.images)
            assert torch.equal(a.semantic, b.semantic)
            assert all(torch.equal(x, y) for x, y in zip(a.boxes, b.boxes, strict=True))


def test_images_lie_in_memory_with_channels_last():
    images = collate([Sample("a", "", np.zeros((4, 6, 3), np.uint8))] * 2, 2, (4, 6)).images
    assert images.stride() == (72, 1, 18, 3)
    assert images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("workers", [1, 3])
def test_fault_of_a_decoder_names_the_image(split, monkeypatch, workers):
    read = split.read

    def fails_at_four(index):
        if index == 4:
            raise OSError("image file is truncated\n(3 bytes not processed)")
        return read(index)

    monkeypatch.setattr(split, "read", fails_at_four)
    batches = Loader(split, 2, (2, 4), workers=workers).batches()
    assert [next(batches).image_ids for _ in range(2)] == [["i0", "i1"], ["i2", "i3"]]
    with pytest.raises(
        PipelineError, match=r"dataset toy image 4 .*truncated \(3 bytes not processed\).*fix: "
    ) as caught:
        next(batches)
    assert "\n" not in str(caught.value)


def test_memory_is_used_again_only_when_nobody_holds_its_batch():
    buffers = Buffers()
    samples = [Sample("a", "", np.full((4, 6, 3), value, np.uint8)) for value in (51, 102)]
    first = collate(samples[:1], 1, (4, 6), buffers).images
    held = collate(samples[1:], 1, (4, 6), buffers).images
    assert (first.max().item(), held.min().item()) == (51, 102)
    place = first.data_ptr()
    view = first[0, 0]  # holds it as well
    del first
    assert collate(samples[1:], 1, (4, 6), buffers).images.data_ptr() != place
    del view
    assert collate(samples[1:], 1, (4, 6), buffers).images.data_ptr() == place
    assert held.min().item() == 102


def test_a_reader_that_stops_early_leaves_no_thread(split):
    before = set(threading.enumerate())  # a training that a test broke off may have left its own
    batches = Loader(split, 1, (2, 4), workers=3).batches()
    next(batches)
    assert set(threading.enumerate()) - before
    batches.close()
    assert set(threading.enumerate()) <= before


def test_an_image_that_stands_several_times_in_a_batch_is_read_once(split, monkeypatch):
    monkeypatch.setattr(loader_module, "CACHE_BYTES", 10)
    reads = []
    read = split.read
    monkeypatch.setattr(split, "read", lambda index: reads.append(index) or read(index))
    (batch,) = Loader(split, 5, (3, 5)).batches(np.array([2, 2, 4, 5, 2]))
    assert reads == [2, 4, 5]
    assert batch.labels.tolist() == [2, 2, 4, 5, 2]
    assert all(torch.equal(batch.images[i], batch.images[0]) for i in (1, 4))


def test_few_batches_are_made_ahead(split, monkeypatch):
    monkeypatch.setattr(loader_module, "CACHE_BYTES", 10)
    reads = []
    read = split.read
    monkeypatch.setattr(split, "read", lambda index: reads.append(index) or read(index))
    batches = Loader(split, 1, (2, 4), workers=1).batches()
    next(batches)
    batches.close()
    assert len(reads) <= 1 + loader_module.AHEAD


def test_batches_are_not_pinned_beside_a_gpu_that_is_not_at_work(split, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.Tensor, "pin_memory", None)  # which would set up CUDA for a stage that runs on the CPU
    assert not next(Loader(split, 2, (2, 4)).batches()).images.is_pinned()


@pytest.mark.gpu
def test_batches_are_pinned_beside_a_gpu(split):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    torch.cuda.init()
    batch = next(Loader(split, 2, (2, 4)).batches())
    assert all(tensor.is_pinned() for tensor in (batch.images, batch.labels, batch.semantic, *batch.boxes))
    assert torch.equal(batch.to("cuda").images.cpu(), batch.to("cpu").images)
