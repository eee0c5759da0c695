import json
from copy import deepcopy

import pytest

from pipeline.data.formats import coco, panoptic
from pipeline.data.records import RawObject
from pipeline.errors import ParamsError, PipelineError

TRUTH = {
    "images": [
        {"id": 7, "file_name": "a.png", "height": 20, "width": 30},
        {"id": 5, "file_name": "sub/b.png", "height": 20, "width": 30},
    ],
    "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": "None"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 2, 3.5, 4], "area": 9.5, "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 3, "segmentation": [[1, 1, 5, 1, 5, 5]], "iscrowd": 0},
        {"id": 3, "image_id": 7, "category_id": 3, "segmentation": {"size": [20, 30], "counts": "abc"}, "iscrowd": 1},
    ],
}


@pytest.fixture
def read(tmp_path):
    def read(**files):
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content)
            (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
        roles = {name: f"{name}.json" for name in files}
        return coco.read(tmp_path, split="val", images="pictures", maps="maps", **roles)

    return read


def changed(index=0, drop=(), **values):
    """TRUTH with another value in one annotation."""
    truth = deepcopy(TRUTH)
    truth["annotations"][index].update(values)
    for key in drop:
        del truth["annotations"][index][key]
    return truth


def test_instances_become_records_with_boxes_by_their_corners(read, parted, tmp_path):
    source = read(annotations=TRUTH)
    (first, second), faults = parted(source)
    assert faults == []
    assert source.num_records == 2
    assert source.info.classes == ["None", "dog"], "in the order of the ids"
    assert source.info.tasks == ["detection", "instance"]
    assert (first.split, first.image_id, first.file_name, first.size) == ("val", "7", "a.png", (20, 30))
    assert first.image == tmp_path / "pictures/a.png"
    assert first.annotation == "annotations.json"
    assert first.objects == [
        RawObject(label=1, bbox=[1.0, 2.0, 4.5, 6.0], area=9.5, index=1),
        RawObject(label=0, mask=[[1.0, 1.0, 5.0, 1.0, 5.0, 5.0]], index=2),
        RawObject(label=0, mask={"size": [20, 30], "counts": "abc"}, iscrowd=True, index=3),
    ]
    assert (second.file_name, second.objects) == ("sub/b.png", [])


def test_boxes_alone_are_no_instances(read):
    truth = {**TRUTH, "annotations": [TRUTH["annotations"][0] | {"segmentation": []}]}
    assert read(annotations=truth).info.tasks == ["detection"]


def test_ids_from_0_and_ids_as_text_are_ids(read, parted):
    truth = deepcopy(TRUTH)
    truth["images"][0]["id"], truth["images"][1]["id"] = 0, "x"
    for index, entry in enumerate(truth["annotations"]):
        entry["id"], entry["image_id"] = index, 0
    truth["annotations"][2]["image_id"] = "x"
    (first, second), faults = parted(read(annotations=truth))
    assert faults == []
    assert [obj.index for obj in first.objects] == [0, 1]
    assert [obj.index for obj in second.objects] == [2]


@pytest.mark.parametrize(
    ("truth", "fault"),
    [
        (changed(1, id=1), "annotations.json#1 id: annotation 0 in the file has it too (1, here at 1)"),
        (changed(image_id=8), "annotations.json#1 image_id: no such image (8)"),
        (changed(image_id="7"), "annotations.json#1 image_id: no such image ('7'; 7 is there, of another type)"),
        (changed(category_id=4), "annotations.json#1 category_id: no such category (4)"),
        (changed(category_id="90"), "annotations.json#1 category_id: no such category ('90'; 90 is there, of another"),
        (changed(drop=["image_id"]), "annotations.json#0 image_id: missing"),
        (changed(drop=["category_id"]), "annotations.json#1 category_id: missing"),
        (changed(drop=["bbox"]), "annotations.json#1 bbox: missing, and no segmentation to take it from"),
        (changed(bbox=[1, 2, 3]), "annotations.json#1 bbox: 3 numbers instead of 4 ([1.0, 2.0, 3.0])"),
        (changed(bbox=[1, 2, 3, 4, 5]), "annotations.json#1 bbox: 5 numbers instead of 4"),
        (changed(bbox=[1, 2, float("nan"), 4]), "annotations.json#1 bbox[2]: should be float, not str ('NaN')"),
        (changed(bbox="1 2 3 4"), "annotations.json#1 bbox: should be array or null, not str ('1 2 3 4')"),
        (changed(iscrowd=2), "annotations.json#1 iscrowd: Invalid enum value 2 (2)"),
        (
            changed(segmentation={"size": [20, 30], "counts": [1.5]}),
            "annotations.json#1 segmentation.counts[0]: should",
        ),
        (changed(segmentation={"counts": [600]}), "annotations.json#1 segmentation.size: missing"),
        (changed(segmentation=[1, 2, 3, 4]), "annotations.json#1 segmentation[0]: should be array"),
        (changed(area="9"), "annotations.json#1 area: should be float or null, not str ('9')"),
    ],
)
def test_a_faulty_annotation_is_named_and_the_others_stay(read, parted, truth, fault):
    (first, _), faults = parted(read(annotations=truth))
    assert len(faults) == 1
    assert faults[0].startswith(fault)
    assert "; fix: " in faults[0]
    assert len(first.objects) == 2


def test_a_key_that_stands_twice_in_an_annotation_is_a_fault_of_it(read, parted):
    text = json.dumps(TRUTH).replace('"area": 9.5', '"area": 9.5, "bbox": [0, 0, 1, 1]')
    (first, _), faults = parted(read(annotations=text))
    assert faults == [
        "annotations.json#1 bbox: the key stands twice ([0, 0, 1, 1]); fix: correct or remove this annotation"
    ]
    assert [obj.index for obj in first.objects] == [2, 3]


def test_an_annotation_needs_neither_an_id_nor_an_area_nor_iscrowd(read, parted):
    (first, _), faults = parted(read(annotations=changed(drop=["id", "area", "iscrowd"])))
    assert faults == []
    assert first.objects[0] == RawObject(label=1, bbox=[1.0, 2.0, 4.5, 6.0], index=0)


@pytest.mark.parametrize(
    ("image", "fault"),
    [
        ({"id": 7, "file_name": "c.png"}, "annotations.json#images[2] id: another image of this file has it too (7)"),
        (
            {"id": "7", "file_name": "c.png"},
            "annotations.json#images[2] id: another image of this file has it too ('7')",
        ),
        ({"id": 8, "file_name": "a.png"}, "annotations.json#images[2] file_name: image 7 has it too ('a.png')"),
        ({"id": 8, "file_name": "../c.png"}, "annotations.json#images[2] file_name: leaves the folder of images"),
        ({"id": 8, "file_name": "/etc/passwd"}, "annotations.json#images[2] file_name: leaves the folder of images"),
        ({"id": 8, "file_name": "..\\c.png"}, "annotations.json#images[2] file_name: leaves the folder of images"),
        ({"id": 8}, "annotations.json#images[2] file_name: missing"),
        ({"id": None, "file_name": "c.png"}, "annotations.json#images[2] id: should be int or str, not null"),
    ],
)
def test_a_faulty_image_is_named_and_left_out(read, parted, image, fault):
    records, faults = parted(read(annotations={**TRUTH, "images": [*TRUTH["images"], image]}))
    assert [record.image_id for record in records] == ["7", "5"]
    assert len(faults) == 1
    assert faults[0].startswith(fault)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (TRUTH["annotations"], "annotations.json: should be object, not array at the top"),
        ({"images": [], "annotations": []}, "annotations.json categories: missing; it has images, annotations"),
        ({**TRUTH, "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "annotations.json categories: two"),
        ({**TRUTH, "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "annotations.json categories: two"),
        ({**TRUTH, "categories": [{"id": 1}]}, "annotations.json categories: name: missing"),
        ({**TRUTH, "images": {}}, "annotations.json images: should be array, not object"),
    ],
)
def test_what_is_wrong_as_a_whole_ends_the_work(read, truth, message):
    with pytest.raises(PipelineError) as caught:
        read(annotations=truth)
    assert str(caught.value).startswith(message)


def test_an_empty_file_of_annotations_has_images_without_objects(read, parted):
    records, faults = parted(read(annotations={**TRUTH, "annotations": []}))
    assert faults == []
    assert [record.objects for record in records] == [[], []]


def test_chosen_classes_set_the_order_and_others_are_faults(read, parted, tmp_path):
    read(annotations=TRUTH)
    source = coco.read(tmp_path, split="val", images=".", annotations="annotations.json", classes=["dog"])
    (first, _), faults = parted(source)
    assert [obj.label for obj in first.objects] == [0]
    assert [fault.partition(";")[0] for fault in faults] == [
        f"annotations.json#{number} category_id: 'None' is not among the classes" for number in (2, 3)
    ]


PERSON = {"id": 90, "name": "dog", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]]}


def test_keypoints_join_the_annotation_of_their_id(read, parted):
    points = {
        "images": TRUTH["images"],
        "categories": [PERSON],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "bbox": [0, 0, 1, 1], "keypoints": [1, 2, 2, 0, 0, 0]},
            {"id": 9, "image_id": 5, "category_id": 90, "bbox": [0, 0, 1, 1], "keypoints": [3, 4, 1, 5, 6, 2]},
        ],
    }
    source = read(annotations=TRUTH, keypoints=points)
    (first, second), faults = parted(source)
    assert faults == []
    assert source.info.keypoints == ["nose", "tail"]
    assert source.info.skeleton == [[0, 1]]
    assert source.info.tasks == ["detection", "instance", "keypoints"]
    assert first.objects[0].bbox == [1.0, 2.0, 4.5, 6.0], "that of the instances file"
    assert first.objects[0].keypoints == [1, 2, 2, 0, 0, 0]
    assert first.objects[1].keypoints is None
    assert second.objects == [RawObject(label=1, bbox=[0.0, 0.0, 1.0, 1.0], keypoints=[3, 4, 1, 5, 6, 2], index=9)]


def test_an_annotation_without_an_id_is_not_taken_for_one_whose_id_is_its_place(read, parted):
    truth = changed(index=1, drop=["id"])  # the second of the file, beside one that is called 1
    (first, _), faults = parted(read(annotations=truth))
    assert faults == []
    assert [(each.index, each.label) for each in first.objects] == [(1, 1), (1, 0), (3, 0)]


def test_keypoints_without_an_id_join_no_object(read, parted):
    points = {
        "images": TRUTH["images"],
        "categories": [{"id": 90, "name": "dog", "keypoints": ["nose"], "skeleton": []}],
        "annotations": [{"image_id": 7, "category_id": 90, "bbox": [1, 2, 3, 4], "keypoints": [3, 4, 1]}],
    }
    (first, _), faults = parted(read(annotations=TRUTH, keypoints=points))
    what = "id: missing, by which it would be joined to an object of annotations.json"
    assert faults == [f"keypoints.json#0 {what}; fix: correct or remove this annotation"]
    assert all(each.keypoints is None for each in first.objects)


def test_files_that_number_categories_otherwise_are_refused(read):
    points = {
        "images": TRUTH["images"],
        "categories": [{"id": 3, "name": "dog", "keypoints": ["nose"], "skeleton": []}],
        "annotations": [],
    }
    message = r"^annotations.json categories: 'None' has the id 3 there, which is 'dog' in keypoints.json; fix: number"
    with pytest.raises(PipelineError, match=message):
        read(annotations=TRUTH, keypoints=points)


def test_captions_are_gathered_by_image(read, parted):
    captions = {
        "images": TRUTH["images"],
        "annotations": [
            {"id": 1, "image_id": 7, "caption": "A dog."},
            {"id": 2, "image_id": 7, "caption": 'No cat, NaN, "quoted".'},
            {"id": 3, "image_id": 5, "caption": 4},
        ],
    }
    source = read(captions=captions)
    (first, second), faults = parted(source)
    assert source.info.tasks == ["captions"]
    assert first.captions == ["A dog.", 'No cat, NaN, "quoted".']
    assert first.objects is None
    assert second.captions == []
    assert faults == ["captions.json#2 caption: should be str, not int (4); fix: correct or remove this annotation"]


PANOPTIC = {
    "images": TRUTH["images"],
    "categories": [
        {"id": 193, "name": "grass", "isthing": 0},
        {"id": 90, "name": "dog", "isthing": 1},
    ],
    "annotations": [
        {"image_id": 7, "file_name": "a.png", "segments_info": [{"id": 258, "category_id": 193}]},
        {"image_id": 5, "file_name": "b.png", "segments_info": [{"id": 3, "category_id": 90}]},
    ],
}


def test_panoptic_segments_have_semantic_classes_of_which_some_are_things(read, parted, tmp_path):
    source = read(annotations=TRUTH, panoptic=PANOPTIC)
    (first, second), faults = parted(source)
    assert faults == []
    assert source.info.semantic_classes == ["dog", "grass"]
    assert source.info.thing_of_semantic == [1, -1], "dog is class 1 of the instances"
    assert (first.panoptic, first.segments) == (tmp_path / "maps/a.png", [(258, 1)])
    assert (second.panoptic, second.segments) == (tmp_path / "maps/b.png", [(3, 0)])


def test_a_crowd_is_no_segment_and_void_in_the_map(read, parted, tmp_path):
    truth = deepcopy(PANOPTIC)
    truth["annotations"][0]["segments_info"].append({"id": 9, "category_id": 90, "iscrowd": 1})
    (first, second), faults = parted(read(panoptic=truth))
    assert faults == []
    assert (first.segments, first.void) == ([(258, 1)], [9])
    assert second.void == []


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"file_name": "../a.png"}, "file_name: leaves the folder of maps"),
        ({"segments_info": [{"id": 1, "category_id": 5}]}, "segments_info: no such category (5)"),
        ({"segments_info": [{"id": 1, "category_id": 90}] * 2}, "segments_info: two segments share an id"),
        ({"image_id": 5}, "image_id: a second annotation of image 5"),
    ],
)
def test_a_faulty_panoptic_annotation_is_named(read, parted, values, what):
    truth = deepcopy(PANOPTIC)
    truth["annotations"] = [truth["annotations"][1], truth["annotations"][0] | values]
    _, faults = parted(read(panoptic=truth))
    assert f"panoptic.json#annotations[1] {what}" in {fault.partition(";")[0].partition(" ('")[0] for fault in faults}


@pytest.mark.parametrize(("reader", "kind"), [(coco, "instances"), (panoptic, "panoptic")])
def test_a_split_whose_files_are_not_found_for_sure_is_told(tmp_path, reader, kind):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images/val2017").mkdir(parents=True)
    for tag in ("train2014", "train2017", "val2017"):
        (tmp_path / f"annotations/{kind}_{tag}.json").touch()
    two = f"annotations/{kind}_train2014.json and annotations/{kind}_train2017.json"
    with pytest.raises(ParamsError, match=f"^{two}: each may be meant by train; fix: write `splits`$"):
        reader.layout(tmp_path)
    (tmp_path / f"annotations/{kind}_train2014.json").unlink()
    with pytest.raises(
        ParamsError,
        match=f"^annotations/{kind}_train2017.json: no folder train2017 or images/train2017 of its images; fix",
    ):
        reader.layout(tmp_path)
    (tmp_path / "train2017").mkdir()
    assert reader.layout(tmp_path) == {
        "train": {"annotations": f"annotations/{kind}_train2017.json", "images": "train2017"},
        "val": {"annotations": f"annotations/{kind}_val2017.json", "images": "images/val2017"},
    }


def test_two_exports_of_one_split_are_told(tmp_path):
    for spelling in ("val", "valid"):
        (tmp_path / spelling).mkdir()
        (tmp_path / spelling / "_annotations.coco.json").touch()
    with pytest.raises(ParamsError, match=r"^val/_annotations.coco.json and valid/_annotations.coco.json: each"):
        coco.layout(tmp_path)
    (tmp_path / "val/_annotations.coco.json").unlink()
    assert coco.layout(tmp_path) == {"val": {"annotations": "valid/_annotations.coco.json", "images": "valid"}}
