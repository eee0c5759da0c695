import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.data import findings, store
from pipeline.data.ingest import ingest
from pipeline.data.records import RawObject, Record
from pipeline.data.store import Store
from pipeline.errors import PipelineError
from pipeline.structures import IGNORE

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def encoded(pixels=PIXELS, form="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def turned(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(exif=exif)


def record(number=0, **changes):
    plain = Record("train", f"id{number}", f"folder/{number}.png", encoded())
    return replace(plain, **changes)


@pytest.fixture
def take(tmp_path, info, monkeypatch):
    """Ingests records in this process; the split's first rows, or the whole store."""
    monkeypatch.setattr("pipeline.data.pool.os.sched_getaffinity", lambda _: {0})

    def run(*records, **options):
        ingest(tmp_path / "toy", info, iter(records), **options)
        return Store(tmp_path / "toy")

    return run


def only(made, masks=True):
    return made.split("train").read(0, masks=masks)


def notes(made):
    return [(one.kind, one.file, one.index, one.action) for one in findings.read(made.folder)]


def test_every_kind_of_truth_comes_back(take, sample):
    objects = [
        RawObject(
            int(label), box.tolist(), mask=mask, iscrowd=bool(crowd), keypoints=points.ravel().tolist(), index=number
        )
        for number, (label, box, mask, crowd, points) in enumerate(
            zip(
                sample.objects.labels,
                sample.objects.boxes,
                sample.objects.masks,
                sample.objects.iscrowd,
                sample.objects.keypoints,
                strict=True,
            )
        )
    ]
    source = encoded(sample.image) + b"trailing"
    made = take(
        record(
            image=source,
            size=(20, 30),
            label=1,
            objects=objects,
            semantic=sample.semantic,
            panoptic=store.encode_ids(sample.segments.ids),
            segments=list(zip(sample.segments.segment_ids.tolist(), sample.segments.labels.tolist(), strict=True)),
            captions=sample.captions,
            target=0.5,
            group="g",
        )
    )
    read = only(made)
    assert np.array_equal(read.image, sample.image)
    assert np.array_equal(read.semantic, sample.semantic)
    for name in ("boxes", "labels", "area", "iscrowd", "masks", "keypoints"):
        assert np.array_equal(getattr(read.objects, name), getattr(sample.objects, name)), name
    for name in ("ids", "segment_ids", "labels"):
        assert np.array_equal(getattr(read.segments, name), getattr(sample.segments, name)), name
    assert (read.label, read.target, read.group, read.captions) == (1, 0.5, "g", sample.captions)
    assert made.split("train").row(0)["image"] == source
    assert notes(made) == []


def test_mean_and_std_are_those_of_the_train_images(take):
    black, white = (encoded(np.full((4, 4, 3), value, np.uint8)) for value in (0, 255))
    made = take(record(0, image=black), record(1, image=white), record(2, split="val"))
    assert (made.info.mean, made.info.std, made.info.image_size) == ([0.5] * 3, [0.5] * 3, [4, 4])
    assert made.info.counts == {"train": 2, "val": 1}


def test_mean_of_large_images_is_measured_even_where_none_is_chosen(take):
    large = np.full((300, 300, 3), 51, np.uint8)  # 51 / 255 = 0.2
    made = take(record(0, image=encoded(large, "JPEG", quality=100)))
    assert made.info.mean == [0.2] * 3


BROKEN = {
    "label": record(label=7),
    "target": record(target=math.nan),
    "image": record(image=encoded(form="JPEG")[:-2]),
    "size": record(size=(21, 30)),
    "semantic": record(semantic=np.full((20, 30), 4, np.uint8)),
    "split": record(split="validation"),
}
WORDS = {
    "label": "no class 7 (there are 2: 0 to 1)",
    "target": "not a finite number in single precision (nan)",
    "image": "cannot be decoded (image file is truncated",
    "size": "the annotations are for 30 x 21, the image is 30 x 20",
    "semantic": "no class 4 (there are 4)",
    "split": "no split 'validation'; choices: train, val, test",
}


@pytest.mark.parametrize("key", BROKEN)
def test_a_fault_of_an_image_is_named_or_the_image_is_left_out(take, key, tmp_path):
    with pytest.raises(PipelineError) as caught:
        take(record(1), BROKEN[key])
    message = str(caught.value)
    assert message.startswith(f"folder/0.png {key}: {WORDS[key]}")
    assert message.endswith("; fix: correct or remove it, or set on_error: skip")
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []
    made = take(record(1), BROKEN[key], on_error="skip")
    assert made.split("train").column("image_id") == ["id1"]
    [found] = findings.read(made.folder)
    assert (found.file, found.index, found.action) == ("folder/0.png", None, "dropped image")
    assert found.what.startswith(f"{key}: {WORDS[key]}")
    assert findings.skipped(made.folder) == {"annotations": 0, "images": 1}


def test_a_fault_of_an_annotation_is_named_or_the_annotation_is_left_out(take):
    broken = record(
        objects=[RawObject(0, [1, 1, 5, 5], index=70), RawObject(1, [4, 4, 4, 4], index=71)], annotation="boxes.json"
    )
    with pytest.raises(PipelineError) as caught:
        take(broken)
    assert str(caught.value) == (
        "folder/0.png#71 bbox: a box without area (x1, y1, x2, y2 = 4, 4, 4, 4), says boxes.json; "
        "fix: correct or remove it, or set on_error: skip"
    )
    made = take(broken, on_error="skip")
    assert only(made).objects.boxes.tolist() == [[1, 1, 5, 5]]
    assert notes(made) == [("zero-area box", "folder/0.png", 71, "dropped annotation")]
    assert findings.skipped(made.folder) == {"annotations": 1, "images": 0}


def test_faults_of_an_image_that_is_left_out_count_once(take):
    made = take(record(0), record(1, label=9, objects=[RawObject(0, [3, 3, 3, 3])]), on_error="skip")
    assert notes(made) == [("unknown class", "folder/1.png", None, "dropped image")]


def test_a_target_that_single_precision_cannot_hold_is_a_fault(take):
    with pytest.raises(PipelineError, match=r"target: not a finite number in single precision \(-1e\+39\)"):
        take(record(target=-1e39))


def test_an_image_whose_objects_are_all_left_out_has_none(take):
    made = take(record(objects=[RawObject(9, [1, 1, 5, 5])]), on_error="skip")
    assert len(only(made).objects) == 0


def test_no_image_left_is_an_error(take):
    with pytest.raises(PipelineError, match=r"toy: no image is left \(1 faults, the first: folder/0\.png label: no cl"):
        take(record(label=9), on_error="skip")
    with pytest.raises(PipelineError, match=r"toy: no image is left \(0 faults\)"):
        take()


def test_an_id_that_stood_before_is_a_fault(take):
    with pytest.raises(PipelineError, match=r"folder/0\.png image_id: another image has the id 'id0' too; fix: "):
        take(record(0), record(1), record(0))
    made = take(record(0), record(1), record(0, split="val"), record(0), on_error="skip")
    assert made.info.counts == {"train": 2}
    assert [note[0] for note in notes(made)] == ["duplicate id"] * 2
    assert len(np.load(made.folder / "fingerprints.npy")) == 2


@pytest.mark.parametrize("name", ["gone.png", "folder.png", "loop.png"])
def test_a_file_that_cannot_be_read_is_named(take, tmp_path, name):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(PipelineError, match=r"folder/0\.png image: cannot be read \(\w+"):
        take(record(image=tmp_path / name))


@pytest.mark.parametrize("name", ["with space.png", "日本語.png", "--flag.png", "a=b.png", 'it\'s "q".png', "<b>.png"])
def test_any_file_name_comes_back(take, tmp_path, name):
    (tmp_path / name).write_bytes(encoded())
    made = take(record(file_name=name, image=tmp_path / name))
    assert only(made).file_name == name


def test_annotations_of_the_unturned_image_are_turned(take):
    box = RawObject(0, [2, 3, 10, 7], index=5)
    semantic = np.zeros((20, 30), np.uint8)
    semantic[3:7, 2:10] = 2
    made = take(record(image=turned(6), size=(20, 30), objects=[box], semantic=semantic))
    read = only(made)
    assert read.image.shape == (30, 20, 3)
    # turned by a quarter clockwise: x' = 20 - y, y' = x
    assert read.objects.boxes.tolist() == [[13, 2, 17, 10]]
    assert (read.semantic[2:10, 13:17] == 2).all()
    assert (read.semantic == 2).sum() == 4 * 8
    assert np.array_equal(read.image, PIXELS[::-1].swapaxes(0, 1))
    assert notes(made) == [("turned", "folder/0.png", None, "kept")]


def test_annotations_of_the_shown_image_stay(take):
    made = take(record(image=turned(6), size=(30, 20), objects=[RawObject(0, [2, 3, 10, 7])]))
    assert only(made).objects.boxes.tolist() == [[2, 3, 10, 7]]
    assert notes(made) == []
    row = made.split("train").row(0)
    assert (row["height"], row["width"]) == (30, 20)


def test_several_frames_are_noted(take):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    made = take(record(image=buffer.getvalue()))
    assert only(made).image[0, 0].tolist() == [255, 0, 0]
    assert notes(made) == [("several pages", "folder/0.png", None, "kept")]


def test_values_of_a_semantic_map_become_class_indices(take):
    raw = np.zeros((20, 30), np.uint16)
    raw[:5], raw[5:8], raw[8:9] = 7, 300, 65000
    buffer = io.BytesIO()
    Image.fromarray(raw).save(buffer, "PNG")
    made = take(record(semantic=buffer.getvalue()), semantic_values={7: 1, 300: 3})
    semantic = only(made).semantic
    assert [int(semantic[row, 0]) for row in (0, 5, 8, 9)] == [1, 3, IGNORE, IGNORE]
    made = take(record(semantic=np.full((20, 30), 7, np.uint8)), semantic_values={7: 1, 300: 3})
    assert (only(made).semantic == 1).all()


def test_negative_values_of_a_map_are_no_class(take):
    values = np.full((20, 30), -1, np.int64)
    made = take(record(semantic=values), semantic_values={0: 2})
    assert (only(made).semantic == IGNORE).all()
    with pytest.raises(PipelineError, match=r"semantic: no class -1 \(there are 4\)"):
        take(record(semantic=values))


def test_a_map_of_another_size_is_a_fault(take):
    with pytest.raises(PipelineError, match="semantic: the map is 9 x 5, the image is 30 x 20"):
        take(record(semantic=np.zeros((5, 9), np.uint8)))


def test_a_segment_that_is_not_listed_is_a_fault(take):
    ids = np.full((20, 30), 4, np.int32)
    for segments, words in (
        [[(5, 1)], "shows segment 4"],
        [[(4, 9)], "segment 4: no class 9"],
        [[(4, 1), (2**24, 1)], "segment 16777216: an id that no colour stands for"],
        [[(4, 1), (0, 1)], "segment 0: an id that no colour stands for"],
    ):
        with pytest.raises(PipelineError, match=f"panoptic: {words}"):
            take(record(panoptic=store.encode_ids(ids), segments=segments))


def test_crowds_of_a_panoptic_map_are_void(take):
    ids = np.full((20, 30), 4, np.int32)
    ids[:5] = 9
    made = take(record(panoptic=store.encode_ids(ids), segments=[(4, 1)], void=[9]))
    assert np.array_equal(only(made).segments.ids, np.where(ids == 9, 0, 4))


def test_several_processes_write_the_same_bytes_as_one(tmp_path, info, monkeypatch):
    def records():
        for number in range(60):
            objects = [RawObject(0, [1, 1, 5, 5]), RawObject(0, [4, 4, 4, 4], index=1)]
            split = "train" if number % 3 else "test"
            image = encoded(PIXELS[: 10 + number % 7])
            captions = ["late"] if number > 50 else None
            yield record(number, split=split, image=image, objects=objects, captions=captions)

    monkeypatch.setattr(store, "ROWS_PER_BATCH", 16)
    written = []
    for cores in ({0}, {0, 1}):
        monkeypatch.setattr("pipeline.data.pool.os.sched_getaffinity", lambda _, cores=cores: cores)
        folder = tmp_path / str(len(cores))
        ingest(folder, replace(info, counts={}, mean=[]), records(), on_error="skip", num_records=60)
        written.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert written[0] == written[1]
    assert len(json.loads(written[0]["findings.json"])) == 60
    made = Store(tmp_path / "2")
    assert made.split("test").column("captions")[:2] == [None, None]
    assert made.split("train").column("captions")[-1] == ["late"]
