from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.data import findings, health
from pipeline.data.ingest import ingest
from pipeline.data.records import RawObject, Record
from pipeline.data.store import Store, encode_png, to_row, writing
from pipeline.structures import Objects, Sample


def blurred(seed):
    """48 x 64 of soft blobs."""
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize((64, 48), Image.Resampling.BICUBIC)


def objects(boxes, labels, crowd=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    num = len(boxes)
    iscrowd = np.zeros(num, bool) if crowd is None else np.array(crowd)
    return Objects(boxes, np.array(labels, np.int64), np.ones(num, np.float32), iscrowd)


@pytest.fixture
def write(tmp_path, info):
    def run(*samples, tasks=("detection",)):
        """A store of (split, sample)."""
        plain = replace(info, tasks=list(tasks), keypoints=[], skeleton=[])
        with writing(tmp_path / "toy", plain) as writer:
            for split, sample in samples:
                writer.add(split, to_row(sample))
        return Store(tmp_path / "toy")

    return run


def image(seed, **truth):
    return Sample(f"id{seed}", f"{seed}.png", np.asarray(blurred(seed)), **truth)


def listed(store, kind):
    return health.health(store).report["checks"].get(kind, {"listed": []})["listed"]


def test_a_store_without_faults_has_no_findings(write):
    store = write(("train", image(0, label=0)), ("test", image(1, label=1)))
    found = health.health(store)
    assert found.pairs == []
    assert found.report == {
        "skipped": {"annotations": 0, "images": 0},
        "checks": {},
        "image_side": [{"range": "33 to 64", "images": {"test": 1, "train": 1}}],
        "aspect": [{"range": "1.05 to 1.33", "images": {"test": 1, "train": 1}}],  # 64 / 48 is 4 / 3, on the edge
        "classes_without_samples": {"test": ["cat"], "train": ["dog"]},
    }


def test_equal_images_across_splits_are_a_leak_and_told_with_their_labels(write):
    store = write(
        ("train", image(0, label=0)),
        ("train", image(1, label=0)),
        ("test", replace(image(0, label=1), image_id="x", file_name="copy.png")),
    )
    found = health.health(store)
    assert found.report["checks"] == {
        "equal images across splits": {
            "total": 1,
            "by_split": {"test": 1},
            "by_action": {"kept": 1},
            "listed": [
                {
                    "split": "test",
                    "file": "copy.png",
                    "index": 0,
                    "what": "image: equal to 0.png (train 0), labelled dog and cat",
                    "action": "kept",
                }
            ],
        }
    }
    assert found.pairs == [(("test", 0), ("train", 0))]


def test_nearly_equal_images_within_a_split_stand_after_those_across(write):
    half = np.asarray(blurred(0).resize((32, 24)))
    store = write(
        ("train", image(0)),
        ("train", Sample("a", "half.png", half)),
        ("train", image(1)),
        ("val", replace(image(1), image_id="b")),
    )
    found = health.health(store)
    assert {kind: check["total"] for kind, check in found.report["checks"].items()} == {
        "equal images across splits": 1,
        "nearly equal images within a split": 1,
    }
    assert found.pairs == [(("train", 2), ("val", 0)), (("train", 0), ("train", 1))]


def test_of_three_equal_images_each_further_one_counts_once(write):
    store = write(*(("train", replace(image(0), image_id=f"{number}")) for number in range(3)))
    assert [one["what"] for one in listed(store, "equal images within a split")] == [
        "image: equal to 0.png (train 1)",
        "image: equal to 0.png (train 2)",
    ]
    assert listed(store, "nearly equal images within a split") == []


def test_nearly_equal_boxes_of_one_class_are_told(write):
    # 0 and 2 share 19 * 20 of 20 * 20 pixels: 0.95; 0 and 3 are of two classes; 4 is a crowd
    boxes = [[0, 0, 20, 20], [30, 0, 40, 9], [0, 0, 19, 20], [0, 0, 20, 20], [0, 0, 20, 20]]
    truth = objects(boxes, [0, 0, 0, 1, 0], [False] * 4 + [True])
    store = write(("train", image(9, objects=objects([[1, 1, 5, 5]], [1]))), ("train", image(0, objects=truth)))
    assert listed(store, "near-duplicate boxes") == [
        {
            "split": "train",
            "file": "0.png",
            "index": 2,
            "what": "bbox: overlaps number 0, also cat, with an IoU of 0.950",
            "action": "kept",
        }
    ]


def test_a_box_beyond_the_image_is_told_in_a_store_that_was_not_ingested(write):
    store = write(("train", image(0, objects=objects([[0, 0, 9, 9], [60, 40, 70, 48]], [0, 1]))))
    [found] = listed(store, "box partly outside")
    assert (found["file"], found["index"]) == ("0.png", 1)
    assert found["what"] == "bbox: 60, 40, 70, 48 reaches beyond the image of 64 x 48"


def test_what_ingest_left_out_is_counted(tmp_path, info):
    def record(number, **changes):
        plain = Record("train", f"{number}", f"{number}.png", encode_png(np.asarray(blurred(number))))
        return replace(plain, **changes)

    ingest(
        tmp_path / "toy",
        info,
        [
            record(0, objects=[RawObject(0, [3, 3, 3, 9], index=8), RawObject(1, [-5, 0, 9, 9], index=9)]),
            record(1, image=b"<html>", objects=[]),
            record(2, objects=[RawObject(0, [7, 7, 7, 7], index=1)]),
        ],
        on_error="skip",
    )
    store = Store(tmp_path / "toy")
    report = health.health(store).report
    assert report["skipped"] == findings.skipped(store.folder) == {"annotations": 2, "images": 1}
    assert {kind: check["by_action"] for kind, check in report["checks"].items()} == {
        "box partly outside": {"kept": 1},
        "unreadable image": {"dropped image": 1},
        "zero-area box": {"dropped annotation": 2},
    }
    assert [(one["file"], one["index"]) for one in listed(store, "zero-area box")] == [("0.png", 8), ("2.png", 1)]
    assert report["classes_without_samples"] == {"train": ["cat"]}


def test_long_lists_are_cut_and_their_totals_are_not(write, monkeypatch):
    monkeypatch.setattr(health, "MAX_LISTED", 3)
    store = write(*(("train", replace(image(0), image_id=f"{number}")) for number in range(9)))
    check = health.health(store).report["checks"]["equal images within a split"]
    assert check["total"] == 8
    assert len(check["listed"]) == 3


def test_sizes_are_counted_by_the_longer_side(write):
    shapes = [(16, 3), (17, 17), (40, 4000)]
    samples = [Sample(f"{n}", "", np.full((*shape, 3), n, np.uint8)) for n, shape in enumerate(shapes)]
    report = health.health(write(*(("train", sample) for sample in samples))).report
    assert {entry["range"]: entry["images"]["train"] for entry in report["image_side"]} == {
        "up to 16": 1,
        "17 to 32": 1,
        "2049 to 4096": 1,
    }
    # 3 / 16 = 0.19, 1, 100
    assert {entry["range"]: entry["images"]["train"] for entry in report["aspect"]} == {
        "up to 0.33": 1,
        "0.95 to 1.05": 1,
        "above 3.00": 1,
    }
