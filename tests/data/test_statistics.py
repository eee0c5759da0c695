from dataclasses import replace

import numpy as np

from pipeline.data.statistics import statistics
from pipeline.data.store import Store, to_row, writing


def test_statistics_count_what_was_written(tmp_path, info, sample):
    cat_only = replace(
        sample,
        image_id="b",
        objects=replace(
            sample.objects,
            boxes=sample.objects.boxes[:1],
            labels=sample.objects.labels[:1],
            area=sample.objects.area[:1],
            iscrowd=sample.objects.iscrowd[:1],
            masks=sample.objects.masks[:1],
            keypoints=sample.objects.keypoints[:1],
        ),
    )
    with writing(tmp_path / "toy", info) as writer:
        writer.add("train", to_row(sample))
        writer.add("train", to_row(cat_only))
        writer.add("test", to_row(cat_only))
    numbers = statistics(Store(tmp_path / "toy"))
    assert numbers["licence"] == "none"
    assert numbers["counts"] == {"test": 1, "train": 2}
    assert numbers["image_size"] == [20, 30]
    assert numbers["objects"] == {"test": 1, "train": 3}
    assert numbers["objects_per_class"] == {"cat": {"test": 1, "train": 2}, "dog": {"test": 0, "train": 1}}
    assert numbers["objects_per_image"] == {"1": {"test": 1, "train": 1}, "2": {"test": 0, "train": 1}}
    assert numbers["groups"] == {"test": 1, "train": 1}
    # the cat has 36 pixels: side 6; the dog 48: side 6.93
    assert numbers["object_side"]["smallest"]["train"] == 6.0
    assert numbers["object_side"]["largest"] == {"test": 6.0, "train": round(float(np.sqrt(48)), 1)}
    # of 600 pixels 150 are grass, 36 cat, 48 dog, the rest background
    assert {name: row["test"] for name, row in numbers["semantic_share"].items()} == {
        "background": 0.61,
        "cat": 0.06,
        "dog": 0.08,
        "grass": 0.25,
    }
    assert "images_per_class" not in numbers
