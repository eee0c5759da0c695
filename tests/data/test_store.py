import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.data import store
from pipeline.data.store import Store, to_row, writing
from pipeline.errors import PipelineError
from pipeline.structures import Sample


@pytest.fixture
def folder(info, sample, tmp_path):
    with writing(tmp_path / "toy", info) as writer:
        writer.add("train", to_row(sample))
        writer.add("test", to_row(sample))
    return tmp_path / "toy"


def test_every_kind_of_truth_comes_back(folder, sample):
    read = Store(folder).split("train").read(0, masks=True)
    assert (read.image_id, read.file_name, read.group) == ("a", "folder/a.jpg", "g")
    assert read.captions == sample.captions
    assert np.array_equal(read.image, sample.image)
    assert np.array_equal(read.semantic, sample.semantic)
    for name in ("boxes", "labels", "area", "iscrowd", "masks", "keypoints"):
        assert np.array_equal(getattr(read.objects, name), getattr(sample.objects, name)), name
    for name in ("ids", "segment_ids", "labels"):
        assert np.array_equal(getattr(read.segments, name), getattr(sample.segments, name)), name
    assert (read.label, read.target) == (None, None)


def test_masks_are_decoded_only_when_asked_for(folder):
    read = Store(folder).split("train").read(0)
    assert read.objects.masks is None
    assert read.segments is None
    assert len(read.objects) == 2


def test_encoded_bytes_of_the_source_are_kept(info, sample, tmp_path):
    source = store.encode_png(sample.image) + b"trailing"
    with writing(tmp_path / "toy", info) as writer:
        writer.add("train", to_row(sample, source))
    assert Store(tmp_path / "toy").split("train").row(0)["image"] == source


@pytest.mark.parametrize("shape", [(7, 5), (7, 5, 1), (7, 5, 3), (1, 1, 3)])
def test_quick_png_is_lossless_and_holds_nothing_else(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)[::-1]
    encoded = store.encode_png(image, quick=True)
    assert np.array_equal(store.decode_image(encoded, 3 if shape[-1] == 3 else 1).squeeze(), image.squeeze())
    chunks, place = [], 8
    while place < len(encoded):
        chunks.append(encoded[place + 4 : place + 8])
        place += 12 + int.from_bytes(encoded[place : place + 4])
    assert chunks == [b"IHDR", b"IDAT", b"IEND"]


def test_segment_ids_up_to_24_bits_come_back():
    ids = np.array([[0, 255, 256], [65535, 65536, 2**24 - 1]], np.int32)
    assert np.array_equal(store.decode_ids(store.encode_ids(ids)), ids)


def test_mean_std_counts_and_size_are_measured_on_train(info, tmp_path):
    with writing(tmp_path / "toy", info) as writer:
        writer.add("train", to_row(Sample("a", "", np.zeros((2, 4, 3), np.uint8))))
        writer.add("train", to_row(Sample("b", "", np.full((2, 4, 3), 255, np.uint8))))
        writer.add("test", to_row(Sample("c", "", np.full((5, 5, 3), 9, np.uint8))))
    found = Store(tmp_path / "toy").info
    assert (found.mean, found.std) == ([0.5] * 3, [0.5] * 3)
    assert found.counts == {"test": 1, "train": 2}
    assert found.image_size == [2, 4]


def test_many_rows_become_batches_and_shards(info, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROWS_PER_BATCH", 4)
    monkeypatch.setattr(store, "MAX_SHARD_BYTES", 1000)
    with writing(tmp_path / "toy", info) as writer:
        for i in range(14):
            writer.add("train", to_row(Sample(f"i{i}", "", np.full((2, 2, 3), i, np.uint8), label=i % 2)))
    assert len(list((tmp_path / "toy").glob("train-*.arrow"))) > 1
    split = Store(tmp_path / "toy").split("train")
    assert split.column("image_id") == [f"i{i}" for i in range(14)]
    assert [int(sample.image[0, 0, 0]) for sample in split] == list(range(14))
    assert split.row(13)["label"] == 1


def test_a_column_that_comes_late_is_null_before(info, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROWS_PER_BATCH", 2)
    with writing(tmp_path / "toy", info) as writer:
        for i in range(7):
            late = {"captions": [f"{i}"]} if i > 3 else {}
            writer.add("train", to_row(Sample(f"i{i}", "", np.zeros((2, 2, 3), np.uint8), **late)))
        writer.add("test", to_row(Sample("t", "", np.zeros((2, 2, 3), np.uint8), label=1)))
    read = Store(tmp_path / "toy")
    assert read.split("train").column("captions") == [None] * 4 + [["4"], ["5"], ["6"]]
    assert read.split("train").column("image_id") == [f"i{i}" for i in range(7)]
    assert read.split("test").column("captions") == [None]
    assert read.split("train").column("label") == [None] * 7
    assert "target" not in read.split("train").table.column_names


def test_how_rows_came_leaves_no_trace(info, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROWS_PER_BATCH", 4)
    monkeypatch.setattr(store, "MAX_BATCH_BYTES", 900)
    rows = [to_row(Sample(f"i{i}", "", np.zeros((2 + 9 * (i % 5 == 0), 9, 3), np.uint8), label=1)) for i in range(23)]
    written = []
    for sizes in ([1] * 23, [23], [3, 9, 1, 10]):
        folder = tmp_path / str(len(written))
        with writing(folder, info) as writer:
            for size, end in zip(sizes, np.cumsum(sizes), strict=True):
                if size == 1:
                    writer.add("train", rows[end - 1])
                else:
                    writer.add_batch("train", store.to_batch(rows[end - size : end]))
        written.append((folder / "train-00000.arrow").read_bytes())
    assert written[0] == written[1] == written[2]


def test_objects_come_as_flat_arrays(info, sample, tmp_path):
    none = Sample("b", "", sample.image)
    with writing(tmp_path / "toy", info) as writer:
        for one in (none, sample, none, sample):
            writer.add("train", to_row(one))
    found = Store(tmp_path / "toy").split("train").objects()
    assert found["image"].tolist() == [1, 1, 3, 3]
    assert found["label"].tolist() == [0, 1, 0, 1]
    assert found["bbox"].tolist() == sample.objects.boxes.tolist() * 2
    assert found["area"].tolist() == [36, 48, 36, 48]
    assert found["iscrowd"].tolist() == [False] * 4


def test_a_function_of_every_map_comes_in_order_without_the_absent(info, sample, tmp_path):
    with writing(tmp_path / "toy", info) as writer:
        for i in range(4):
            semantic = np.full((20, 30), i, np.uint8) if i != 2 else None
            writer.add("train", to_row(Sample(f"{i}", "", sample.image, semantic=semantic)))
    values = store.map_encoded(tmp_path / "toy", "train", "semantic", store.decode_image)
    assert [int(value[0, 0, 0]) for value in values] == [0, 1, 3]


def test_pandas_opens_a_shard_as_it_is(folder):
    table = pd.read_feather(folder / "train-00000.arrow")
    assert table["captions"][0].tolist() == ["A cat left of a dog."]
    assert "target" not in table.columns


@pytest.mark.parametrize("box", [[3, 3, 3, 9], [3, 9, 8, 3], [np.nan, 0, 1, 1], [0, 0, np.inf, 1]])
def test_an_impossible_box_is_refused_by_image_and_index(sample, box):
    sample.objects.boxes[1] = box
    with pytest.raises(PipelineError, match=r"folder/a\.jpg#1 bbox: not a box with positive area .*; fix: "):
        to_row(sample)


def test_a_label_map_of_another_size_is_refused(sample):
    sample.semantic = sample.semantic[:5]
    with pytest.raises(PipelineError, match=r"a\.jpg semantic: the map is \(5, 30\), the image \(20, 30\)"):
        to_row(sample)


def test_a_store_that_failed_half_way_leaves_nothing(info, sample, tmp_path):
    def fail():
        with writing(tmp_path / "toy", info) as writer:
            writer.add("train", to_row(sample))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_absent_folder_split_and_damaged_info_are_named(folder, tmp_path):
    with pytest.raises(PipelineError, match=r"none: no dataset there; fix: dvc repro"):
        Store(tmp_path / "none")
    with pytest.raises(PipelineError, match=r"no split 'val'; choices: test, train"):
        Store(folder).split("val")
    path = folder / "info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colors": []}))
    with pytest.raises(PipelineError, match=r"info\.json: not readable \(.*colors.*\); fix: dvc repro"):
        Store(folder)


def test_a_shard_that_has_lost_rows_is_refused(folder):
    """A flipped bit in the number of its blocks does it, and what is left reads well."""
    (shard,) = folder.glob("train-*.arrow")
    schema = pa.ipc.open_file(pa.OSFile(str(shard))).schema
    with pa.ipc.new_file(str(shard), schema):
        pass
    with pytest.raises(PipelineError, match=r"train is damaged \(0 rows, and \d in info.json\); fix: "):
        Store(folder).split("train")


def test_same_samples_same_bytes(folder, info, sample, tmp_path):
    with writing(tmp_path / "again", info) as writer:
        writer.add("train", to_row(sample))
        writer.add("test", to_row(sample))
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_no_objects_are_an_empty_answer_not_an_absent_one(info, sample, tmp_path):
    empty = store.Objects(
        np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, bool)
    )
    sample.objects = empty
    with writing(tmp_path / "toy", info) as writer:
        writer.add("train", to_row(sample))
    read = Store(tmp_path / "toy").split("train").read(0, masks=True)
    assert read.objects.boxes.shape == (0, 4)
    assert read.objects.masks.shape == (0, 20, 30)
    assert read.objects.keypoints.shape == (0, 3, 3)
