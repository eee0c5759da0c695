"""What a writer of a format writes, its reader reads: random small stores go out and come back."""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data import store
from pipeline.data.datasets import local
from pipeline.data.export import export
from pipeline.data.store import Store
from pipeline.ops.masks import boxes_of
from pipeline.structures import IGNORE, DatasetInfo, Objects, Sample, Segments

CLASSES = ["cat", "No", "01", 'a "b" ä']
STUFF = ["grass", "sky"]
TASKS = {
    "boxes": ["detection"],
    "masks": ["detection", "instance"],
    "maps": ["detection", "instance", "semantic"],
    "everything": ["detection", "instance", "semantic", "panoptic", "keypoints", "captions"],
    "semantic": ["semantic"],
    "labels": ["classification"],
    "targets": ["regression"],
}


@st.composite
def stores(draw, kind):
    """An info and samples by split, of one kind of truth."""
    tasks = TASKS[kind]
    stuff = kind in ("everything", "semantic")
    info = DatasetInfo("toy", list(tasks), CLASSES, channels=3, licence="none", attribution="none", source="drawn")
    if "semantic" in tasks:
        info.semantic_classes = ["background", *CLASSES, *(STUFF if stuff else [])]
        info.thing_of_semantic = [-1, 0, 1, 2, 3, *([-1, -1] if stuff else [])]
    if "keypoints" in tasks:
        info.keypoints, info.skeleton = ["nose", "tail"], [[0, 1]]
    numbers = itertools.count()
    samples = {
        split: [_sample(draw, info, f"{next(numbers)}") for _ in range(draw(st.integers(1, 3)))]
        for split in draw(st.sampled_from([("train",), ("train", "val"), ("train", "test", "val")]))
    }
    return info, samples


def _sample(draw, info, name):
    """One image; what numbers there are come from one seed, so that failures are found again quickly."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    height, width = draw(st.integers(4, 24)), draw(st.integers(4, 24))
    sample = Sample(name, f"{name}.png", rng.integers(0, 256, (height, width, 3), np.uint8))
    if "classification" in info.tasks:
        sample.label = int(rng.integers(len(CLASSES)))
    if "regression" in info.tasks:
        sample.target = float(np.float32(rng.normal() * 10.0 ** rng.integers(-6, 6)))
        sample.group = f"g{rng.integers(2)}"
    num = draw(st.integers(0, 4))
    # one map of parts, so that masks do not overlap
    parts = rng.integers(0, num + 2, (height, width)) if draw(st.booleans()) else np.zeros((height, width), int)
    masks = np.stack([parts == index + 1 for index in range(num)]) if num else np.zeros((0, height, width), bool)
    masks = masks[masks.any((1, 2))]
    labels = rng.integers(0, len(CLASSES), len(masks))
    semantic = np.zeros((height, width), np.uint8)
    if len(info.semantic_classes) > 5:
        semantic[parts == 0] = 5
    for mask, label in zip(masks, labels, strict=True):
        semantic[mask] = label + 1
    semantic[parts == num + 1] = IGNORE
    if "detection" in info.tasks:
        boxes = boxes_of(masks)
        area = masks.sum((1, 2)).astype(np.float32)
        if "instance" not in info.tasks:
            corners = rng.uniform(0, [[[width - 1, height - 1]]], (num, 1, 2))
            sides = rng.uniform(0.25, 1, (num, 1, 2)) * ([width, height] - corners)
            boxes = np.concatenate([corners, corners + sides], 1).reshape(num, 4).astype(np.float32)
            boxes = np.minimum(boxes, np.array([width, height] * 2, np.float32))
            labels = rng.integers(0, len(CLASSES), num)
            area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).astype(np.float32)
            masks = None
        points = None
        if info.keypoints:
            points = rng.uniform(0, 4, (len(boxes), 2, 3)).astype(np.float32)
            points[..., 2] = rng.integers(0, 3, (len(boxes), 2))
        sample.objects = Objects(boxes, labels, area, np.zeros(len(boxes), bool), masks, points)
    if "semantic" in info.tasks:
        sample.semantic = semantic
    if "panoptic" in info.tasks:
        ids = np.where(semantic == IGNORE, 0, parts + 70_000).astype(np.int32)
        occurring = np.unique(ids[ids > 0])
        of_segment = [int(semantic[ids == number][0]) for number in occurring]
        sample.segments = Segments(ids, occurring.astype(np.int64), np.array(of_segment, np.int64))
    if "captions" in info.tasks:
        sample.captions = ['A "cat", é.'] * int(rng.integers(0, 3))
    return sample


def there_and_back(case, form, **options):
    """The store, and the one that is read from its export."""
    info, samples = case
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with store.writing(folder / "toy", info) as writer:
            for split, members in samples.items():
                for sample in members:
                    writer.add(split, store.to_row(sample))
        first = Store(folder / "toy")
        export(first, form, folder / "out")
        export(first, form, folder / "again")
        assert contents(folder / "out") == contents(folder / "again")
        local.prepare(folder / "back", seed=0, inputs=str(folder / "out"), **{"format": form} | options)
        second = Store(folder / "back")
        assert second.info.counts == first.info.counts
        assert (folder / "back/findings.json").read_text(encoding="utf-8") == "[]\n"
        return second.info, {split: pairs(first, second, split) for split in first.info.counts}


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pairs(first, second, split):
    """The samples of a split before and after, with the same image bytes."""
    before, after = first.split(split), second.split(split)
    places = {bytes(data): index for index, data in enumerate(after.column("image"))}
    return [
        (before.read(index, masks=True), after.read(places[bytes(data)], masks=True))
        for index, data in enumerate(before.column("image"))
    ]


def assert_same_objects(before, after, classes, tolerance=0.0):
    assert len(before) == len(after)
    assert np.abs(before.boxes - after.boxes).max(initial=0) <= tolerance
    assert [CLASSES[label] for label in before.labels] == [classes[label] for label in after.labels]


def assert_same_masks(before, after):
    assert (before.masks is None) == (after.masks is None)
    if before.masks is not None:
        assert np.array_equal(before.masks, after.masks)


quick = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(stores("everything"))
def test_coco_keeps_everything_but_the_semantic_map(case):
    info, splits = there_and_back(case, "coco")
    assert info.classes == CLASSES
    assert (info.semantic_classes, info.thing_of_semantic) == (case[0].semantic_classes, case[0].thing_of_semantic)
    assert (info.keypoints, info.skeleton) == (case[0].keypoints, case[0].skeleton)
    for before, after in itertools.chain(*splits.values()):
        assert_same_objects(before.objects, after.objects, info.classes)
        assert np.array_equal(before.objects.area, after.objects.area)
        assert np.array_equal(before.objects.keypoints, after.objects.keypoints)
        if len(before.objects):
            assert_same_masks(before.objects, after.objects)
        assert np.array_equal(before.segments.ids, after.segments.ids)
        assert np.array_equal(before.segments.labels, after.segments.labels)
        assert (before.captions, before.file_name) == (after.captions, after.file_name)


@quick
@given(stores("everything"))
def test_panoptic_maps_come_back_by_themselves(case):
    info, splits = there_and_back(case, "coco", format="panoptic")
    assert info.semantic_classes == case[0].semantic_classes
    for before, after in itertools.chain(*splits.values()):
        assert np.array_equal(before.segments.ids, after.segments.ids)
        assert np.array_equal(before.segments.segment_ids, after.segments.segment_ids)
        assert np.array_equal(before.segments.labels, after.segments.labels)


@quick
@given(stores("boxes"))
def test_voc_keeps_boxes_to_float32(case):
    info, splits = there_and_back(case, "voc", classes=CLASSES)
    for before, after in itertools.chain(*splits.values()):
        assert_same_objects(before.objects, after.objects, info.classes)


@quick
@given(stores("maps"))
def test_voc_keeps_masks_that_do_not_overlap_and_class_maps(case):
    info, splits = there_and_back(case, "voc", classes=CLASSES)
    assert info.semantic_classes == case[0].semantic_classes
    for before, after in itertools.chain(*splits.values()):
        assert_same_objects(before.objects, after.objects, info.classes)
        assert_same_masks(before.objects, after.objects)
        assert np.array_equal(before.semantic, after.semantic)


@quick
@given(stores("boxes"))
def test_yolo_keeps_boxes_to_a_ten_thousandth_of_a_pixel(case):
    info, splits = there_and_back(case, "yolo")
    assert info.classes == CLASSES
    for before, after in itertools.chain(*splits.values()):
        assert_same_objects(before.objects, after.objects, info.classes, tolerance=1e-4)


@quick
@given(stores("masks"))
def test_yolo_polygons_keep_masks_with_their_parts_and_holes(case):
    if any(len(sample.objects) for sample in itertools.chain(*case[1].values())):
        info, splits = there_and_back(case, "yolo")
        for before, after in itertools.chain(*splits.values()):
            assert_same_objects(before.objects, after.objects, info.classes)
            if len(before.objects):
                assert_same_masks(before.objects, after.objects)


@quick
@given(stores("boxes"))
def test_csv_keeps_boxes_to_float32(case):
    info, splits = there_and_back(case, "csv", classes=CLASSES)
    for before, after in itertools.chain(*splits.values()):
        assert_same_objects(before.objects, after.objects, info.classes)


@quick
@given(stores("targets"))
def test_csv_keeps_targets_to_float32_and_groups(case):
    _, splits = there_and_back(case, "csv")
    for before, after in itertools.chain(*splits.values()):
        assert (before.target, before.group) == (after.target, after.group)


@quick
@given(stores("labels"), st.sampled_from(["imagefolder", "csv"]))
def test_folders_and_tables_keep_labels_by_name(case, form):
    case[0].classes = ["cat", "No", "01", "a 'b' ä"]  # a quotation mark is in no folder's name
    info, splits = there_and_back(case, form)
    for before, after in itertools.chain(*splits.values()):
        assert case[0].classes[before.label] == info.classes[after.label]


@quick
@given(stores("semantic"))
def test_masks_keep_class_maps_with_what_is_not_scored(case):
    info, splits = there_and_back(case, "masks")
    assert info.semantic_classes == case[0].semantic_classes
    for before, after in itertools.chain(*splits.values()):
        assert np.array_equal(before.semantic, after.semantic)


@quick
@given(stores("maps"))
def test_masks_keep_instances_by_the_class_under_them(case):
    info, splits = there_and_back(case, "masks", things=CLASSES)
    for before, after in itertools.chain(*splits.values()):
        assert_same_objects(before.objects, after.objects, info.classes)
        assert_same_masks(before.objects, after.objects)
        assert np.array_equal(before.semantic, after.semantic)


@pytest.mark.parametrize("form", ["yolo", "imagefolder", "masks", "csv"])
def test_a_store_without_what_a_format_is_for_is_refused(form, tmp_path):
    from pipeline.errors import PipelineError

    info = DatasetInfo("toy", ["captions"], ["cat"], channels=3, licence="", attribution="", source="")
    with store.writing(tmp_path / "toy", info) as writer:
        writer.add("train", store.to_row(Sample("a", "a.png", np.zeros((2, 2, 3), np.uint8), semantic=None)))
    with pytest.raises(PipelineError, match=r"^toy: .*; fix: "):
        export(Store(tmp_path / "toy"), form, tmp_path / "out")
    assert not (tmp_path / "out").exists()
