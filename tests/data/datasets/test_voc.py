import json

import numpy as np
import pytest

from pipeline.data.datasets import voc2007, voc2012
from pipeline.data.store import Store
from pipeline.errors import PipelineError
from tests.data.datasets.originals import jpeg, palette_png, picture, serve, tarred

HEIGHT, WIDTH = 24, 30
CAT, DOG = 7, 11


def xml(name, objects):
    """An annotation as VOC writes it, parts and all; corners count from 1."""
    parts = []
    for label, difficult, (x1, y1, x2, y2) in objects:
        box = f"<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox>"
        part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
        parts.append(
            f"<object><name>{label}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>"
            f"{box}{part}</object>"
        )
    return (
        f"<annotation><folder>VOC</folder><filename>{name}.jpg</filename><source><database>The VOC</database></source>"
        f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size><segmented>1</segmented>"
        f"{''.join(parts)}</annotation>"
    ).encode()


def maps(index):
    """Class and object map: object 1 a dog, object 2 a cat, each with a border of 255."""
    classes, instances = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    for number, label, (x1, y1, x2, y2) in ((1, DOG, (2, 3, 10, 12)), (2, CAT, (14, 6, 22 + index % 5, 20))):
        for target, value in ((classes, label + 1), (instances, number)):
            target[y1 - 1 : y2 + 1, x1 - 1 : x2 + 1] = 255
            target[y1:y2, x1:x2] = value
    return classes, instances


def release(year, sets, segmented):
    """Members of a release: `sets` are the image sets' names, `segmented` those with maps."""
    root = f"VOCdevkit/VOC{year}"
    members = {}
    for image_set, names in sets.items():
        members[f"{root}/ImageSets/Main/{image_set}.txt"] = "".join(f"{name}\n" for name in names).encode()
        members[f"{root}/ImageSets/Main/cat_{image_set}.txt"] = "".join(f"{name} -1\n" for name in names).encode()
        chosen = [name for name in names if name in segmented]
        members[f"{root}/ImageSets/Segmentation/{image_set}.txt"] = "".join(f"{name}\n" for name in chosen).encode()
        for name in names:
            index = int(name[-3:])
            objects = [("dog", 0, (3, 4, 10, 12)), ("cat", index % 2, (15, 7, 22 + index % 5, 20))]
            members[f"{root}/Annotations/{name}.xml"] = xml(name, objects)
            members[f"{root}/JPEGImages/{name}.jpg"] = jpeg(picture(HEIGHT, WIDTH, index))
        for name in chosen:
            classes, instances = maps(int(name[-3:]))
            members[f"{root}/SegmentationClass/{name}.png"] = palette_png(classes)
            members[f"{root}/SegmentationObject/{name}.png"] = palette_png(instances)
    return members


SETS_2007 = {"train": ["000001", "000002", "000003"], "val": ["000004", "000005"]}
TEST_2007 = {"test": ["000006", "000007"]}
SETS_2012 = {"train": [f"2008_000{i:03d}" for i in range(1, 11)], "val": ["2009_000011", "2009_000012"]}


@pytest.fixture
def served_2007(cache, server, monkeypatch):
    trainval = release(2007, SETS_2007, {"000001", "000004"})
    test = release(2007, TEST_2007, {"000006"})
    serve(server, monkeypatch, voc2007, {"trainval": tarred(trainval), "test": tarred(test)})
    return trainval, test


def test_2007_boxes_count_from_zero_and_difficult_is_a_crowd(tmp_path, served_2007):
    voc2007.prepare(tmp_path / "voc", seed=0)
    store = Store(tmp_path / "voc")
    assert store.info.tasks == ["detection"]
    ids = {split: store.split(split).column("image_id") for split in ("train", "val", "test")}
    assert ids == SETS_2007 | TEST_2007
    for split in ids:
        for position, name in enumerate(ids[split]):
            sample = store.split(split).read(position)
            index = int(name)
            # 3..10 from 1, the last one inside, is 2 to 10
            assert sample.objects.boxes.tolist() == [[2, 3, 10, 12], [14, 6, 22 + index % 5, 20]]
            assert [store.info.classes[label] for label in sample.objects.labels] == ["dog", "cat"]
            assert sample.objects.iscrowd.tolist() == [False, index % 2 == 1]
            assert sample.file_name == f"JPEGImages/{name}.jpg"
            original = served_2007[split == "test"][f"VOCdevkit/VOC2007/JPEGImages/{name}.jpg"]
            assert store.split(split).row(position)["image"] == original


def test_2007_segmentation_is_the_maps_of_the_images_that_have_them(tmp_path, served_2007):
    voc2007.prepare(tmp_path / "voc", seed=0, truth="segmentation")
    store = Store(tmp_path / "voc")
    assert store.info.tasks == ["detection", "instance", "semantic"]
    assert store.info.semantic_classes[:2] == ["background", "aeroplane"]
    assert store.info.thing_of_semantic == [-1, *range(20)]
    assert store.info.colours[1 + store.info.classes.index("dog")] == "#400080"  # 12 in VOC's palette
    assert {split: store.split(split).column("image_id") for split in store.info.counts} == {
        "train": ["000001"],
        "val": ["000004"],
        "test": ["000006"],
    }
    sample = store.split("val").read(0, masks=True)
    classes, instances = maps(4)
    assert np.array_equal(sample.semantic, classes)  # value i is semantic class i, 255 is not scored
    assert np.array_equal(sample.objects.masks, np.stack([instances == 1, instances == 2]))
    assert [store.info.classes[label] for label in sample.objects.labels] == ["dog", "cat"]
    assert sample.objects.boxes.tolist() == [[2, 3, 10, 12], [14, 6, 26, 20]]


def test_2012_val_is_test_and_a_share_of_train_is_val(tmp_path, cache, server, monkeypatch):
    everything = {name for names in SETS_2012.values() for name in names}
    serve(server, monkeypatch, voc2012, {"trainval": tarred(release(2012, SETS_2012, everything))})
    for truth in ("boxes", "segmentation"):
        voc2012.prepare(tmp_path / truth, seed=0, truth=truth, val=0.2)
        store = Store(tmp_path / truth)
        assert store.info.counts == {"train": 8, "val": 2, "test": 2}
        assert store.split("test").column("image_id") == SETS_2012["val"]
        names = store.split("train").column("image_id") + store.split("val").column("image_id")
        assert sorted(names) == SETS_2012["train"]


@pytest.mark.parametrize(
    ("member", "content", "message"),
    [
        ("Annotations/000002.xml", xml("000002", [("cat", 0, (1, 1, 5, 5))])[:-30], r"Annotations/000002\.xml cut off"),
        ("Annotations/000002.xml", xml("000002", [("kat", 0, (1, 1, 5, 5))]), r"000002\.xml#0 name: 'kat' .*'cat'"),
        ("ImageSets/Main/train.txt", None, r"it holds no 'ImageSets/Main/train\.txt'"),
        ("JPEGImages/000002.jpg", None, r"000002"),
    ],
)
def test_faulty_original_is_named(tmp_path, cache, server, monkeypatch, member, content, message):
    members = release(2007, SETS_2007, set())
    del members[f"VOCdevkit/VOC2007/{member}"]
    if content is not None:
        members[f"VOCdevkit/VOC2007/{member}"] = content
    archives = {"trainval": tarred(members), "test": tarred(release(2007, TEST_2007, set()))}
    serve(server, monkeypatch, voc2007, archives)
    with pytest.raises(PipelineError, match=message) as told:
        voc2007.prepare(tmp_path / "voc", seed=0)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "voc").exists()


def test_object_without_a_class_under_it_is_told_and_skipped(tmp_path, cache, server, monkeypatch):
    members = release(2007, SETS_2007, {"000001", "000004"})
    classes, _ = maps(1)
    classes[classes == CAT + 1] = 0
    members["VOCdevkit/VOC2007/SegmentationClass/000001.png"] = palette_png(classes)
    archives = {"trainval": tarred(members), "test": tarred(release(2007, TEST_2007, {"000006"}))}
    serve(server, monkeypatch, voc2007, archives)
    with pytest.raises(PipelineError, match=r"JPEGImages/000001\.jpg#2 .*SegmentationObject/000001\.png"):
        voc2007.prepare(tmp_path / "voc", seed=0, truth="segmentation")
    voc2007.prepare(tmp_path / "voc", seed=0, truth="segmentation", on_error="skip")
    assert [len(sample.objects) for sample in Store(tmp_path / "voc").split("train")] == [1]
    findings = json.loads((tmp_path / "voc" / "findings.json").read_text())
    assert [(found["file"], found["index"], found["action"]) for found in findings] == [
        ("JPEGImages/000001.jpg", 2, "dropped annotation")
    ]
