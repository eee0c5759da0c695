import json

import numpy as np
import pytest

from pipeline.data.datasets import coco2017
from pipeline.data.store import Store, encode_ids
from pipeline.errors import ParamsError, PipelineError
from tests.data.datasets.originals import jpeg, picture, serve, zipped

HEIGHT, WIDTH = 24, 32
TRAIN, VAL = list(range(9, 19)), [139, 285]
# COCO's ids are not dense: person 1, bicycle 2, stop sign 13 (there is no 12)
THINGS = [(1, "person"), (2, "bicycle"), (13, "stop sign")]
STUFF = [(92, "banner"), (200, "rug-merged")]
POINTS = ["nose", "left_eye", "right_eye"]


def person(image_id):
    """[x, y, width, height] and the polygon of its box."""
    x = 2 + image_id % 5
    return [x, 3, 8, 10], [[x, 3, x + 8, 3, x + 8, 13, x, 13]]


def image_entries(ids):
    return [
        {"id": i, "file_name": f"{i:012d}.jpg", "height": HEIGHT, "width": WIDTH, "license": 1, "coco_url": "http://x"}
        for i in ids
    ]


def runs():
    """Uncompressed run lengths by columns of a crowd of bicycles in columns 20..27, rows 0..11."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:12, 20:28] = 1
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    return mask.astype(bool), np.diff([0, *ends, flat.size]).tolist()


def instances(ids):
    annotations = []
    for image_id in ids[:-1]:  # the last image shows nothing
        box, polygon = person(image_id)
        annotations.append(
            {
                "id": image_id * 10,
                "image_id": image_id,
                "category_id": 1,
                "bbox": box,
                "segmentation": polygon,
                "area": 77.5,
                "iscrowd": 0,
            }
        )
        annotations.append(
            {
                "id": image_id * 10 + 1,
                "image_id": image_id,
                "category_id": 2,
                "bbox": [20, 0, 8, 12],
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs()[1]},
                "area": 96,
                "iscrowd": 1,
            }
        )
    categories = [{"id": i, "name": name, "supercategory": "x"} for i, name in THINGS]
    return {"images": image_entries(ids), "annotations": annotations, "categories": categories}


def keypoints(ids):
    content = instances(ids)
    content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] == 1]
    for entry in content["annotations"]:
        x = entry["bbox"][0]
        entry |= {"keypoints": [x + 1, 4, 2, x + 3, 4, 1, 0, 0, 0], "num_keypoints": 2}
    content["categories"] = [{"id": 1, "name": "person", "keypoints": POINTS, "skeleton": [[1, 2], [1, 3]]}]
    return content


def captions(ids):
    annotations = [{"id": 100 * i + k, "image_id": i, "caption": f"Caption {k} of {i}."} for k in range(2) for i in ids]
    return {"images": image_entries(ids), "annotations": annotations}


def panoptic_ids(image_id):
    values = np.full((HEIGHT, WIDTH), 70000, np.int32)  # rug
    values[:4] = 0  # void
    (x, y, width, height), _ = person(image_id)
    values[y : y + height, x : x + width] = 300 + image_id
    values[20:, 20:] = 5  # a crowd
    return values


def panoptic(ids):
    annotations = [
        {
            "image_id": i,
            "file_name": f"{i:012d}.png",
            "segments_info": [
                {"id": 70000, "category_id": 200, "area": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0},
                {"id": 300 + i, "category_id": 1, "area": 80, "bbox": person(i)[0], "iscrowd": 0},
                {"id": 5, "category_id": 2, "area": 48, "bbox": [20, 20, 12, 4], "iscrowd": 1},
            ],
        }
        for i in ids
    ]
    categories = [{"id": i, "name": name, "isthing": 1, "supercategory": "x"} for i, name in THINGS]
    categories += [{"id": i, "name": name, "isthing": 0, "supercategory": "x"} for i, name in STUFF]
    return {"images": image_entries(ids), "annotations": annotations, "categories": categories}


def originals():
    """Members of each archive; JSON as objects."""
    archives = {"train": {}, "val": {}, "annotations": {}, "panoptic": {}}
    for official, ids in (("train", TRAIN), ("val", VAL)):
        for i in ids:
            archives[official][f"{official}2017/{i:012d}.jpg"] = jpeg(picture(HEIGHT, WIDTH, i))
        archives["annotations"] |= {
            f"annotations/instances_{official}2017.json": instances(ids),
            f"annotations/person_keypoints_{official}2017.json": keypoints(ids),
            f"annotations/captions_{official}2017.json": captions(ids),
        }
        maps = {f"panoptic_{official}2017/{i:012d}.png": encode_ids(panoptic_ids(i)) for i in ids}
        archives["panoptic"] |= {
            f"annotations/panoptic_{official}2017.json": panoptic(ids),
            f"annotations/panoptic_{official}2017.zip": zipped(maps),
        }
    return archives


@pytest.fixture
def prepare(tmp_path, cache, server, monkeypatch):
    def run(archives, **options):
        as_bytes = {
            key: zipped({n: c if isinstance(c, bytes) else json.dumps(c).encode() for n, c in members.items()})
            for key, members in archives.items()
        }
        serve(server, monkeypatch, coco2017, as_bytes)
        coco2017.prepare(tmp_path / "coco", seed=0, **{"val": 0.2, **options})
        return Store(tmp_path / "coco")

    return run


def test_official_val_is_test_and_a_share_of_train_is_val(prepare):
    archives = originals()
    store = prepare(archives)
    assert store.info.counts == {"train": 8, "val": 2, "test": 2}
    ids = {split: store.split(split).column("image_id") for split in ("train", "val", "test")}
    assert sorted(map(int, ids["train"] + ids["val"])) == TRAIN
    assert ids["test"] == ["139", "285"]
    assert store.split("test").row(0)["image"] == archives["val"]["val2017/000000000139.jpg"]
    assert store.split("test").row(0)["file_name"] == "000000000139.jpg"


def test_boxes_masks_and_crowds_are_the_originals(prepare):
    store = prepare(originals())
    assert store.info.tasks == ["detection", "instance"]
    assert store.info.classes == ["person", "bicycle", "stop sign"]
    first, last = (store.split("test").read(i, masks=True) for i in (0, 1))
    x = 2 + 139 % 5
    assert first.objects.boxes.tolist() == [[x, 3, x + 8, 13], [20, 0, 28, 12]]
    assert first.objects.labels.tolist() == [0, 1]
    assert first.objects.area.tolist() == [77.5, 96]  # as stated, not counted anew
    assert first.objects.iscrowd.tolist() == [False, True]
    person_mask = np.zeros((HEIGHT, WIDTH), bool)
    person_mask[3:13, x : x + 8] = True
    assert np.array_equal(first.objects.masks, np.stack([person_mask, runs()[0]]))
    assert len(last.objects) == 0


def test_all_kinds_of_truth_meet_in_one_store(prepare):
    store = prepare(originals(), truth=["instances", "keypoints", "captions", "panoptic"])
    info = store.info
    assert info.tasks == ["detection", "instance", "keypoints", "captions", "panoptic"]
    assert info.keypoints == POINTS
    assert info.skeleton == [[0, 1], [0, 2]]  # COCO's count from 1
    assert info.semantic_classes == ["person", "bicycle", "stop sign", "banner", "rug-merged"]
    assert info.thing_of_semantic == [0, 1, 2, -1, -1]
    sample = store.split("test").read(0, masks=True)
    x = 2 + 139 % 5
    assert sample.objects.keypoints.tolist() == [
        [[x + 1, 4, 2], [x + 3, 4, 1], [0, 0, 0]],
        [[0, 0, 0]] * 3,  # a bicycle has none
    ]
    assert sample.captions == ["Caption 0 of 139.", "Caption 1 of 139."]
    original = panoptic_ids(139)
    assert np.array_equal(sample.segments.ids, np.where(original == 5, 0, original))  # a crowd is void
    found = dict(zip(sample.segments.segment_ids.tolist(), sample.segments.labels.tolist(), strict=True))
    assert found == {70000: 4, 439: 0}


@pytest.mark.parametrize("kind", ["keypoints", "captions", "panoptic"])
def test_one_kind_of_truth_alone(prepare, kind):
    archives = originals()
    if kind == "panoptic":
        archives["annotations"] = {"README": b"..."}  # not even opened
    else:
        archives["panoptic"] = {"README": b"..."}
    store = prepare(archives, truth=[kind])
    assert kind in store.info.tasks
    assert store.info.counts == {"train": 8, "val": 2, "test": 2}
    assert ("panoptic" in store.info.checksum) == (kind == "panoptic")
    if kind == "keypoints":
        assert store.info.classes == ["person"]


def test_kind_of_truth_named_twice_is_refused(prepare):
    with pytest.raises(ParamsError, match=r"datasets\.coco\.options\.truth: a kind stands twice"):
        prepare(originals(), truth=["captions", "captions"])


def test_faulty_originals_are_named(prepare, tmp_path):
    archives = originals()
    archives["annotations"]["annotations/instances_train2017.json"] = b'{"images": [{"id": 9, "file_na'
    with pytest.raises(PipelineError, match=r"instances_train2017\.json:1: the file is cut off there"):
        prepare(archives)
    archives = originals()
    del archives["annotations"]["annotations/instances_val2017.json"]
    with pytest.raises(PipelineError, match=r"it holds no 'annotations/instances_val2017\.json'"):
        prepare(archives)
    archives = originals()
    archives["annotations"]["annotations/instances_train2017.json"]["annotations"][2]["category_id"] = 12
    with pytest.raises(PipelineError, match=r"instances_train2017\.json#100 category_id: no such category \(12\)"):
        prepare(archives)
    archives = originals()
    del archives["train"]["train2017/000000000012.jpg"]
    with pytest.raises(PipelineError, match=r"^000000000012\.jpg image: "):
        prepare(archives)
    assert not (tmp_path / "coco").exists()
