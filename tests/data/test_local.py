import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipeline.data import findings
from pipeline.data.datasets import local
from pipeline.data.export import export
from pipeline.data.store import Store
from pipeline.errors import ParamsError, PipelineError
from pipeline.params import check_options

PROJECT = Path(__file__).parent.parent.parent
SHARED = PROJECT.parent / "shared/data"
DOCS = (PROJECT / "docs/own_data.md").read_text(encoding="utf-8")
SNIPPETS = {
    name: entry
    for block in re.findall(r"```yaml\n(.*?)```", DOCS, re.S)
    for name, entry in YAML(typ="safe").load(block).items()
    if entry["source"] == "local"
}


@pytest.fixture
def in_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})


@pytest.fixture
def mine(tmp_path, monkeypatch, in_this_process):
    """A project folder; the working folder of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path, height=20, width=30):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(list(str(path.name).encode())).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def put_map(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def prepared(folder, **options):
    local.prepare(folder, **{"seed": 0} | options)
    return Store(folder)


def folders(root, classes, num):
    for name in classes:
        for index in range(num):
            picture(root / name / f"{name}{index}.png", 4, 4)


def write_coco(root):
    for number, split in enumerate(("train", "val")):
        picture(root / f"photos/{split}.png")
        put(
            root / f"{split}.json",
            {
                "images": [{"id": 1, "file_name": f"{split}.png", "height": 20, "width": 30}],
                "categories": [{"id": 1, "name": "cat"}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3 + number, 4]}],
            },
        )


def write_voc(root):
    for stem in (f"{letter}{number}" for letter in "abcdefgh" for number in (1, 2)):
        picture(root / f"JPEGImages/{stem}.png")
        box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>{}</xmax><ymax>6</ymax></bndbox>"
        objects = "".join(f"<object><name>cat</name>{box.format(x)}</object>" for x in (5, 1))
        put(root / f"Annotations/{stem}.xml", f"<annotation>{objects}</annotation>")


def write_yolo(root):
    for split in ("train", "val"):
        picture(root / f"images/{split}/a.png")
        put(root / f"labels/{split}/a.txt", "0 0.5 0.5 0.5 0.5 0.5 0.25 2 0.5 0.75 1\n")


def write_folders(root):
    folders(root, ("cat", "dog"), 5)


def write_table(root):
    rows = ["filename,cell_type,xmin,xmax,ymin,ymax"]
    for index in range(4):
        picture(root / f"photos/{index}.png")
        rows.append(f"{index}.png,RBC,1,5,2,8")
    put(root / "boxes.csv", "\n".join(rows) + "\n")


def write_masks(root):
    for split in ("train", "val"):
        values = np.zeros((20, 30))
        values[2:5], values[10:12] = 21, 99
        picture(root / f"images/{split}/a.png")
        put_map(root / f"masks/{split}/a.png", values)
        put_map(root / f"instances/{split}/a.png", values == 21)


def write_panoptic(root):
    for number, split in enumerate(("train", "val"), start=1):
        picture(root / f"photos/{split}.png")
        put(
            root / f"annotations/panoptic_{split}.json",
            {
                "images": [{"id": number, "file_name": f"{split}.png"}],
                "categories": [{"id": 9, "name": "cat", "isthing": 1}, {"id": 4, "name": "sky", "isthing": 0}],
                "annotations": [
                    {"image_id": number, "file_name": f"{split}.png", "segments_info": [{"id": 258, "category_id": 9}]}
                ],
            },
        )
        ids = np.zeros((20, 30, 3))
        ids[3:7] = 2, 1, 0  # 2 + 256 x 1 = 258
        put_map(root / f"annotations/panoptic_{split}/{split}.png", ids)


WRITERS = {
    "my_coco": write_coco,
    "my_voc": write_voc,
    "my_yolo": write_yolo,
    "my_folders": write_folders,
    "my_table": write_table,
    "my_masks": write_masks,
    "my_panoptic": write_panoptic,
}


@pytest.fixture
def documented(mine):
    """The store that an entry of docs/own_data.md makes of files in that layout."""

    def make(name):
        entry = SNIPPETS[name]
        WRITERS[name](mine / entry["inputs"])
        options = {"seed": 0, "inputs": entry["inputs"], **entry["options"]}
        check_options(local.prepare, options, f"datasets.{name}.options")
        return prepared(mine / name, **options)

    return make


def test_every_format_is_documented_with_an_entry_that_is_tried():
    assert SNIPPETS.keys() == WRITERS.keys()
    assert {entry["options"]["format"] for entry in SNIPPETS.values()} == set(local.READERS)


def test_documented_coco(documented):
    store = documented("my_coco")
    assert store.info.counts == {"train": 1, "val": 1}
    assert store.info.tasks == ["detection"]
    assert store.split("val").read(0).objects.boxes.tolist() == [[1, 2, 5, 6]]
    assert store.split("train").column("image_id") == ["train/1"], "both files number their images from 1"


def test_documented_voc_with_groups_and_a_skipped_box(documented):
    store = documented("my_voc")
    assert store.info.counts == {"train": 8, "val": 4, "test": 4}
    groups = [set(store.split(split).column("group")) for split in store.info.counts]
    assert len(groups) == 3
    assert set().union(*groups) == set("abcdefgh")
    assert sum(map(len, groups)) == 8, "no group is in two splits"
    findings = json.loads((store.folder / "findings.json").read_text(encoding="utf-8"))
    assert len(findings) == 16
    assert {(f["kind"], f["index"], f["action"]) for f in findings} == {("zero-area box", 1, "dropped annotation")}
    assert all(len(sample.objects) == 1 for split in store.info.counts for sample in store.split(split))


def test_documented_yolo_with_keypoints(documented):
    store = documented("my_yolo")
    assert store.info.tasks == ["detection", "keypoints"]
    assert (store.info.keypoints, store.info.skeleton) == (["head", "foot"], [[0, 1]])
    objects = store.split("train").read(0).objects
    assert objects.boxes.tolist() == [[7.5, 5, 22.5, 15]]
    assert objects.keypoints.tolist() == [[[15, 5, 2], [15, 15, 1]]]


def test_documented_folders_in_grey_and_stratified(documented):
    store = documented("my_folders")
    assert store.info.channels == 1
    assert store.split("train").read(0).image.shape == (4, 4, 1)
    # 5 images of each of two classes: 3, 1 and 1
    for split, num in (("train", 3), ("val", 1), ("test", 1)):
        assert sorted(store.split(split).column("label")) == [0] * num + [1] * num


def test_documented_table(documented):
    store = documented("my_table")
    assert store.info.counts == {"train": 2, "val": 1, "test": 1}
    assert store.info.classes == ["RBC"]
    assert store.split("test").read(0).objects.boxes.tolist() == [[1, 2, 5, 8]]


def test_documented_masks(documented):
    store = documented("my_masks")
    sample = store.split("val").read(0, masks=True)
    assert np.unique(sample.semantic).tolist() == [0, 1, 255], "99 is no class"
    unnamed = [found for found in findings.read(store.folder) if found.kind == "unnamed value"]
    assert [found.split for found in unnamed] == ["train", "val"]
    assert {found.what for found in unnamed} == {"semantic: the map has values without a name, not scored (99)"}
    assert {found.action for found in unnamed} == {"kept"}
    assert sample.objects.boxes.tolist() == [[0, 2, 30, 5]]
    assert store.info.thing_of_semantic == [-1, 0]
    assert len(store.info.colours) == 2


def test_documented_panoptic(documented):
    store = documented("my_panoptic")
    segments = store.split("train").read(0, masks=True).segments
    assert store.info.semantic_classes == ["sky", "cat"]
    assert (segments.ids == 258).sum() == 4 * 30
    assert segments.labels.tolist() == [1]
    semantic = store.split("train").read(0).semantic
    assert np.array_equal(semantic == 1, segments.ids == 258)
    assert (semantic == 255).sum() == 16 * 30, "void is not scored"
    assert (store.info.licence, store.info.attribution, store.info.source) == ("CC BY 4.0", "me", "data/mine/panoptic")


def test_what_a_reader_finds_wrong_ends_the_work_or_is_counted(mine):
    write_coco(mine / "in")
    truth = json.loads((mine / "in/train.json").read_text(encoding="utf-8"))
    truth["annotations"].append({"id": 2, "image_id": 9, "category_id": 1, "bbox": [1, 1, 2, 2]})
    put(mine / "in/train.json", truth)
    options = {"inputs": "in", **SNIPPETS["my_coco"]["options"]}
    with pytest.raises(PipelineError) as caught:
        prepared(mine / "toy", **options)
    assert str(caught.value) == (
        "train.json#2 image_id: no such image (9); fix: add the image to `images` or remove the annotation, "
        "or set on_error: skip"
    )
    store = prepared(mine / "toy", on_error="skip", **options)
    assert json.loads((store.folder / "findings.json").read_text(encoding="utf-8")) == [
        {
            "action": "dropped annotation",
            "file": "train.json",
            "index": 2,
            "kind": "unknown image",
            "split": "train",
            "what": "image_id: no such image (9)",
        }
    ]


def test_keypoints_that_the_data_do_not_name_are_named_in_params(mine):
    write_coco(mine / "in")
    for split in ("train", "val"):
        truth = json.loads((mine / f"in/{split}.json").read_text(encoding="utf-8"))
        truth["annotations"][0]["keypoints"] = [2, 3, 2, 4, 5, 1]
        put(mine / f"in/{split}.json", truth)
    options = {"inputs": "in", **SNIPPETS["my_coco"]["options"]}
    store = prepared(mine / "toy", keypoints=["head", "foot"], skeleton=[(0, 1)], **options)
    assert store.info.tasks == ["detection", "keypoints"]
    assert store.split("val").read(0).objects.keypoints.tolist() == [[[2, 3, 2], [4, 5, 1]]]


def test_file_names_may_hold_what_people_and_cameras_write(mine):
    names = ["a b.png", "-rf.png", "ä\u202fü.png", "<b>'x'=1.png"]
    for name in names:
        picture(mine / "in/cat" / name)
    store = prepared(mine / "toy", inputs="in", format="imagefolder", splits={"train": {"images": "."}})
    assert store.split("train").column("file_name") == sorted(f"cat/{name}" for name in names)


def test_a_file_name_that_no_report_can_show_is_told(mine):
    folders(mine / "in", ("cat", "dog"), 1)
    os.rename(os.fsencode(mine / "in/cat/cat0.png"), os.fsencode(mine / "in/cat") + b"/\xff.png")
    with pytest.raises(PipelineError, match=r"^'cat/\\udcff.png': a file name that cannot be shown; fix: rename"):
        prepared(mine / "toy", inputs="in", format="imagefolder")


def test_classes_of_all_splits_are_joined(mine):
    folders(mine / "in/train", ("cat", "dog"), 1)
    folders(mine / "in/valid", ("ant", "dog"), 1)
    store = prepared(mine / "toy", inputs="in", format="imagefolder")
    assert store.info.classes == ["ant", "cat", "dog"]
    assert store.split("train").column("label") == [1, 2]
    assert store.split("val").column("label") == [0, 2]


def test_a_class_that_is_called_like_a_split_needs_a_word(mine):
    folders(mine / "in", ("car", "train"), 1)
    with pytest.raises(PipelineError, match=r"^train: no folder of a class .* write `places` with `images: \.`$"):
        prepared(mine / "toy", inputs="in", format="imagefolder")
    options = {"places": {"images": "."}, "shares": {"train": 1.0}}
    store = prepared(mine / "toy", inputs="in", format="imagefolder", **options)
    assert (store.info.classes, store.info.counts) == (["car", "train"], {"train": 2})


def test_shares_may_divide_the_train_images_alone(mine):
    folders(mine / "in/train", ("cat", "dog"), 10)
    folders(mine / "in/test", ("cat", "dog"), 3)
    splits = {"train": {"images": "train"}, "test": {"images": "test"}}
    shares = {"train": 0.8, "val": 0.2}
    store = prepared(mine / "toy", inputs="in", format="imagefolder", splits=splits, shares=shares, stratify=True)
    assert store.info.counts == {"test": 6, "train": 16, "val": 4}
    assert sorted(store.split("val").column("label")) == [0, 0, 1, 1]


def test_the_split_depends_on_the_seed_and_not_on_other_images(mine):
    folders(mine / "in", ("cat", "dog"), 20)
    first = prepared(mine / "a", inputs="in", format="imagefolder")
    again = prepared(mine / "b", inputs="in", format="imagefolder")
    other = prepared(mine / "c", inputs="in", format="imagefolder", seed=1)
    ids = [store.split("test").column("image_id") for store in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]
    assert first.info.counts == {"train": 28, "val": 6, "test": 6}


def test_a_table_that_names_splits_decides(mine):
    for name in "abc":
        picture(mine / f"in/{name}.png")
    put(mine / "in/t.csv", "file,class,split\na.png,x,train\nb.png,y,validation\nc.png,x,test\n")
    store = prepared(mine / "toy", inputs="in", format="csv")
    assert store.info.counts == {"test": 1, "train": 1, "val": 1}


def test_shares_deal_out_the_train_images_of_a_table_alone(mine):
    rows = ["file,class,split"]
    for index in range(20):
        picture(mine / f"in/{index}.png")
        rows.append(f"{index}.png,x,{'train' if index < 10 else 'test'}")
    put(mine / "in/t.csv", "\n".join(rows) + "\n")
    store = prepared(mine / "toy", inputs="in", format="csv", shares={"train": 0.8, "val": 0.2})
    assert store.info.counts == {"test": 10, "train": 8, "val": 2}
    assert store.split("test").column("file_name") == [f"{index}.png" for index in range(10, 20)]
    shares = {"train": 0.8, "test": 0.2}
    with pytest.raises(ParamsError, match=r"options\.shares\.test: shares deal out .* test is given by the table; fix"):
        prepared(mine / "toy", inputs="in", format="csv", shares=shares)


def test_what_is_wrong_with_an_image_is_told_of_the_split_that_it_is_dealt_to(mine):
    for index in range(6):
        picture(mine / f"in/images/{index}.png")
        put(mine / f"in/labels/{index}.txt", "0 0.5 0.5 0.5 0.5\n7 0.5 0.5 0.2 0.2\n")
    shares = {"train": 0.5, "val": 0.5}
    store = prepared(mine / "toy", inputs="in", format="yolo", classes=["cat"], shares=shares, on_error="skip")
    told = {finding.file: finding.split for finding in findings.read(store.folder)}
    dealt = {name: split for split in shares for name in store.split(split).column("image_id")}
    assert told == {f"labels/{name}.txt:2": split for name, split in dealt.items()}
    assert sorted(told.values()) == ["train"] * 3 + ["val"] * 3


def test_an_image_in_two_lists_of_voc_is_told(mine):
    write_voc(mine / "in")
    for split, stem in (("train", "a1"), ("val", "a1")):
        put(mine / f"in/ImageSets/Main/{split}.txt", f"{stem}\n")
        put(mine / f"in/Annotations/{stem}.xml", "<annotation/>")
    with pytest.raises(PipelineError, match=r"another image has the id 'a1'"):
        prepared(mine / "toy", inputs="in", format="voc")


def test_an_image_with_objects_counts_for_its_rarest_class(mine):
    # every image shows a cat, three of nine a dog too: stratified, each split has one dog
    for index in range(9):
        picture(mine / f"in/images/{index}.png")
        put(mine / f"in/labels/{index}.txt", "0 0.5 0.5 0.5 0.5\n" + ("1 0.5 0.5 0.2 0.2\n" if index < 3 else ""))
    shares = {"train": 1 / 3, "val": 1 / 3, "test": 1 / 3}
    options = {"inputs": "in", "format": "yolo", "classes": ["cat", "dog"], "shares": shares, "stratify": True}
    store = prepared(mine / "toy", **options)
    assert [sum(1 in sample.objects.labels for sample in store.split(s)) for s in shares] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "coco"}, ": in is not laid out as coco data mostly are; fix: write `places` or `splits`, with im"),
        ({"columns": {"class": "x"}}, ".columns: means nothing to imagefolder; fix: leave it out"),
        ({"one_based": True}, ".one_based: means nothing to imagefolder"),
        ({"places": {"labels": "x"}}, ".places.labels: imagefolder has no such place; choices: images"),
        ({"format": "masks", "places": {"masks": "m"}, "classes": ["a"]}, ".places: no 'images'; fix: write"),
        ({"format": "yolo", "places": {"images": "cat"}}, ".classes: missing; yolo data hold numbers"),
        ({"classes": ["cat", "cat"]}, ".classes: 'cat' or its number 1 stands there twice"),
        ({"shares": {"train": 0.5, "val": 0.2}}, ".shares: should have train and add up to 1"),
        ({"shares": {"val": 0.5, "test": 0.5}}, ".shares: should have train and add up to 1"),
        ({"shares": {"train": 0.98, "val": 0.01, "test": 0.01}}, ".shares: split"),
        ({"group": "("}, ".group: not a regular expression"),
        ({"group": "cat"}, ".group: has no group ('cat'); fix: put the part that counts in brackets"),
        ({"group": "^(x)"}, ".group: finds nothing in 'cat/cat0.png'"),
        ({"splits": {"train": {"images": "."}}, "stratify": True}, ".stratify: the splits are given"),
        (
            {"splits": {"train": {"images": "."}, "val": {"images": "."}}, "shares": {"train": 0.5, "val": 0.5}},
            ".shares.val: shares deal out the images of `train`, and val is given by `splits`",
        ),
        ({"keypoints": ["a"], "skeleton": [(0, 1)]}, ".skeleton.0: should be two of the keypoints 0 to 0 ([0, 1])"),
    ],
)
def test_options_that_do_not_fit_are_told_by_their_place(mine, options, message):
    folders(mine / "in", ("cat", "dog"), 3)
    with pytest.raises(ParamsError) as caught:
        prepared(mine / "toy", **{"inputs": "in", "format": "imagefolder"} | options)
    assert str(caught.value).startswith(f"params.yaml datasets.toy.options{message}")
    assert "\n" not in str(caught.value)
    assert not (mine / "toy").exists()


def needs(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"no {SHARED / name} on this machine")
    return str(SHARED / name)


COCO = "coco_permissive"
REAL = {
    "boxes": {
        "format": "yolo",
        "classes": "object_detection/config.yaml",
        "places": {"images": "images/{}2017", "labels": "object_detection/labels/{}2017"},
    },
    "polygons": {
        "format": "yolo",
        "classes": "instance_segmentation/config.yaml",
        "places": {"images": "images/{}2017", "labels": "instance_segmentation/labels/{}2017"},
    },
    "semantic": {
        "format": "masks",
        "classes": "semantic_segmentation/config.yaml",
        "places": {"images": "images/{}2017", "masks": "semantic_segmentation/masks/{}2017"},
    },
    "panoptic": {
        "format": "panoptic",
        "places": {
            "images": "images/{}2017",
            "annotations": "panoptic_segmentation/annotations/panoptic_{}2017.json",
        },
    },
}


@pytest.mark.slow
def test_bccds_box_without_area_is_named_or_counted(tmp_path):
    inputs = needs("bccd_train")
    with pytest.raises(PipelineError, match=r"BloodImage_00343.jpg#3 bbox: a box without area .*181, 329, 181, 329"):
        prepared(tmp_path / "bccd", inputs=inputs, format="voc")
    assert not (tmp_path / "bccd").exists()
    store = prepared(tmp_path / "bccd", inputs=inputs, format="voc", on_error="skip")
    (finding,) = json.loads((store.folder / "findings.json").read_text(encoding="utf-8"))
    assert (finding["kind"], finding["index"], finding["action"]) == ("zero-area box", 3, "dropped annotation")
    assert finding["file"] == "JPEGImages/BloodImage_00343.jpg"
    assert sum(store.info.counts.values()) == 205
    assert store.info.classes == ["Platelets", "RBC", "WBC"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["coco", "voc", "yolo", "csv"])
def test_bccd_comes_out_of_every_format_as_it_went_in(tmp_path, form):
    store = prepared(tmp_path / "bccd", inputs=needs("bccd_train"), format="voc", on_error="skip")
    export(store, form, tmp_path / "out")
    back = prepared(tmp_path / "back", inputs=str(tmp_path / "out"), format=form)
    assert_same(store, back, 1e-4 if form == "yolo" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["imagefolder", "csv"])
def test_silhouettes_go_in_and_come_out(tmp_path, form):
    options = {"channels": 1, "stratify": True}
    store = prepared(tmp_path / "a", inputs=needs("animal_silhouettes"), format="imagefolder", **options)
    assert store.info.counts == {"train": 1400, "val": 300, "test": 300}
    assert len(store.info.classes) == 10
    assert np.bincount(store.split("test").column("label")).tolist() == [30] * 10
    export(store, form, tmp_path / "out")
    assert_same(store, prepared(tmp_path / "back", inputs=str(tmp_path / "out"), format=form, channels=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("boxes", "coco"),
        ("boxes", "yolo"),
        ("polygons", "coco"),
        ("polygons", "yolo"),
        ("semantic", "masks"),
        ("panoptic", "coco"),
    ],
)
def test_coco_photographs_go_in_and_come_out(tmp_path, kind, form):
    options = dict(REAL[kind])
    places = options.pop("places")
    options["splits"] = {s: {key: place.format(s) for key, place in places.items()} for s in ("train", "val")}
    check_options(local.prepare, {"seed": 0, "inputs": "x", **options}, "datasets.real.options")
    store = prepared(tmp_path / "a", inputs=needs(COCO), **options)
    assert store.info.counts == {"train": 14, "val": 18}
    export(store, form, tmp_path / "out")
    back = prepared(tmp_path / "back", inputs=str(tmp_path / "out"), format="panoptic" if kind == "panoptic" else form)
    assert_same(store, back, 1e-4 if form == "yolo" and kind == "boxes" else 0)


@pytest.mark.slow
def test_class_maps_of_panoptic_maps_are_those_that_the_photographs_come_with(tmp_path):
    needs(COCO)
    stores = {}
    for kind in ("semantic", "panoptic"):
        options = dict(REAL[kind])
        places = options.pop("places")
        options["splits"] = {s: {key: place.format(s) for key, place in places.items()} for s in ("train", "val")}
        stores[kind] = prepared(tmp_path / kind, inputs=needs(COCO), **options)
    names = {kind: np.array(store.info.semantic_classes) for kind, store in stores.items()}
    num_crowds = 0
    for split in ("train", "val"):
        files = [Path(name).name for name in stores["panoptic"].split(split).column("file_name")]
        for sample in stores["semantic"].split(split):
            other = stores["panoptic"].split(split).read(files.index(Path(sample.file_name).name))
            void = other.semantic == 255
            shown = names["semantic"][sample.semantic]
            assert np.array_equal(shown[~void], names["panoptic"][other.semantic[~void]])
            assert void[shown == "unlabeled"].all()
            num_crowds += int((void & (shown != "unlabeled")).any())
    assert num_crowds == 3, "so many of the 32 annotations have a crowd, which is void"


def assert_same(first, second, tolerance=0.0):
    assert first.info.counts == second.info.counts
    for split in first.info.counts:
        before, after = first.split(split), second.split(split)
        places = {bytes(data): index for index, data in enumerate(after.column("image"))}
        for index, data in enumerate(before.column("image")):
            a, b = before.read(index, masks=True), after.read(places[bytes(data)], masks=True)
            if a.label is not None:
                assert first.info.classes[a.label] == second.info.classes[b.label]
            if a.objects is not None:
                assert len(a.objects) == len(b.objects)
                assert np.abs(a.objects.boxes - b.objects.boxes).max(initial=0) <= tolerance
                names = [
                    [info.classes[label] for label in objects.labels]
                    for info, objects in ((first.info, a.objects), (second.info, b.objects))
                ]
                assert names[0] == names[1]
                if a.objects.masks is not None:
                    assert np.array_equal(a.objects.masks, b.objects.masks)
            if a.semantic is not None:
                assert np.array_equal(a.semantic, b.semantic)
            if a.segments is not None:
                assert np.array_equal(a.segments.ids, b.segments.ids)
                assert np.array_equal(a.segments.labels, b.segments.labels)
