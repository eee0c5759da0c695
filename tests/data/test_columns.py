import numpy as np
import pytest

from pipeline.data import columns
from pipeline.data.columns import Mapped, Part, Table, corners, write
from pipeline.data.store import Store
from pipeline.errors import ParamsError, PipelineError
from pipeline.structures import DatasetInfo
from tests.data.datasets.originals import picture, png


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})


def table(rows, features=None, name="train", split="train"):
    """One part of the rows, of which only the wanted columns are read."""

    def read(wanted):
        for index, row in enumerate(rows):
            yield f"{name}:{index}", {column: row[column] for column in wanted}

    return Table([Part(name, split, read, len(rows))], features or {}, sorted(rows[0]))


def info():
    return DatasetInfo("toy", [], [], channels=3, licence="", attribution="", source="")


def stored(tmp_path, source, mapping, on_error="fail", **options):
    mapped = Mapped("params.yaml datasets.toy.options", mapping, **options)
    write(tmp_path / "toy", source, mapped, info(), seed=0, on_error=on_error)
    return Store(tmp_path / "toy")


def rows_of(store, split="train"):
    part = store.split(split)
    return [part.row(index) for index in range(len(part))]


IMAGES = [png(picture(20, 40, seed)) for seed in range(12)]
BOXES = [[1.0, 2.0, 11.0, 12.0], [4.0, 5.0, 24.0, 9.0]]


@pytest.mark.parametrize(
    ("box", "box_format", "size", "expected"),
    [
        ([1, 2, 11, 12], "xyxy", (1, 1), [1, 2, 11, 12]),
        ([1, 2, 10, 10], "xywh", (1, 1), [1, 2, 11, 12]),
        ([6, 7, 10, 10], "cxcywh", (1, 1), [1, 2, 11, 12]),
        # height 20, width 40: x times 40, y times 20
        ([0.1, 0.2, 0.5, 0.8], "xyxy", (20, 40), [4, 4, 20, 16]),
        ([0.1, 0.2, 0.4, 0.6], "xywh", (20, 40), [4, 4, 20, 16]),
        ([0.3, 0.5, 0.4, 0.6], "cxcywh", (20, 40), [4, 4, 20, 16]),
    ],
)
def test_corners_of_each_format(box, box_format, size, expected):
    assert corners(box, box_format, *size) == pytest.approx(expected)


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 3, "4"], [1, 2, None, 4], 7, "1234", [True, 2, 3, 4]])
def test_what_is_no_box_is_left_to_ingest(box):
    assert corners(box, "xywh") == (list(box) if isinstance(box, list) else [box])


@pytest.mark.parametrize("layout", ["struct of lists", "list of structs"])
@pytest.mark.parametrize("box_format", ["xyxy", "xywh", "cxcywh"])
@pytest.mark.parametrize("relative", [False, True])
def test_objects_of_each_layout_and_format(tmp_path, layout, box_format, relative):
    given = []
    for x1, y1, x2, y2 in BOXES:
        box = {
            "xyxy": [x1, y1, x2, y2],
            "xywh": [x1, y1, x2 - x1, y2 - y1],
            "cxcywh": [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1],
        }[box_format]
        given.append([v / s for v, s in zip(box, (40, 20, 40, 20), strict=True)] if relative else box)
    objects = {"bbox": given, "category": ["dog", "cat"], "crowd": [0, 1]}
    if layout == "list of structs":
        objects = [dict(zip(objects, values, strict=True)) for values in zip(*objects.values(), strict=True)]
    mapping = {"image": "i", "bbox": "o.bbox", "category": "o.category", "iscrowd": "o.crowd"}
    source = table([{"i": {"bytes": IMAGES[0], "path": None}, "o": objects}])
    store = stored(tmp_path, source, mapping, box_format=box_format, relative_boxes=relative)
    assert store.info.classes == ["cat", "dog"]
    assert store.info.tasks == ["detection"]
    objects = store.split("train").read(0).objects
    assert objects.boxes == pytest.approx(np.array(BOXES), rel=1e-6)
    assert objects.labels.tolist() == [1, 0]
    assert objects.iscrowd.tolist() == [False, True]
    assert objects.area == pytest.approx([100, 80], rel=1e-5)


def test_every_other_role_is_taken(tmp_path):
    semantic = np.arange(800).reshape(20, 40).astype(np.uint8) % 2
    polygon = [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0, 1.0, 9.0]]
    row = {
        "pixels": IMAGES[0],
        "key": 17,
        "name": "a/b.png",
        "kind": "b",
        "things": {"shape": [polygon], "what": ["a"], "size": [64.0]},
        "map": png(semantic),
        "said": [{"raw": "one."}, {"raw": "two."}],
        "value": 2.5,
        "patient": 3,
    }
    mapping = {
        "image": "pixels",
        "id": "key",
        "file_name": "name",
        "label": "kind",
        "mask": "things.shape",
        "category": "things.what",
        "area": "things.size",
        "semantic": "map",
        "captions": "said.raw",
        "target": "value",
        "group": "patient",
    }
    store = stored(tmp_path, table([row]), mapping, classes=["a", "b"], semantic_classes=["off", "on"])
    sample = store.split("train").read(0, masks=True)
    assert (sample.image_id, sample.file_name, sample.label, sample.target, sample.group) == (
        "17",
        "a/b.png",
        1,
        2.5,
        "3",
    )
    assert sample.captions == ["one.", "two."]
    assert np.array_equal(sample.semantic, semantic)
    assert sample.objects.boxes.tolist() == [[1, 1, 9, 9]]
    assert sample.objects.labels.tolist() == [0]
    assert sample.objects.area.tolist() == [64]
    assert store.info.tasks == ["classification", "instance", "semantic", "captions", "regression"]
    assert store.split("train").row(0)["image"] == IMAGES[0]


@pytest.mark.parametrize(
    ("features", "labels", "classes", "wanted_classes", "wanted"),
    [
        ({}, [2, 0, 1], [], ["0", "1", "2"], [2, 0, 1]),
        ({}, ["b", "c", "a"], [], ["a", "b", "c"], [1, 2, 0]),
        ({}, ["b", "c", "a"], ["c", "b", "a"], ["c", "b", "a"], [1, 0, 2]),
        ({"l": {"_type": "ClassLabel", "names": ["x", "y", "z"]}}, [2, 0, 1], [], ["x", "y", "z"], [2, 0, 1]),
        ({"l": {"_type": "ClassLabel", "names": ["x", "y", "z"]}}, [2, 0, 1], list("pqr"), list("pqr"), [2, 0, 1]),
        ({}, [True, False, True], [], ["0", "1"], [1, 0, 1]),
    ],
)
def test_classes_come_from_the_options_the_types_or_the_rows(
    tmp_path, features, labels, classes, wanted_classes, wanted
):
    source = table([{"i": image, "l": label} for image, label in zip(IMAGES, labels, strict=False)], features)
    store = stored(tmp_path, source, {"image": "i", "label": "l"}, classes=classes)
    assert store.info.classes == wanted_classes
    assert store.split("train").column("label") == wanted


@pytest.mark.parametrize(
    "feature",
    [
        {"category": {"feature": {"names": ["x", "y"], "_type": "ClassLabel"}, "_type": "List"}},
        {"feature": {"category": {"names": ["x", "y"], "_type": "ClassLabel"}}, "_type": "Sequence"},
        [{"category": {"names": ["x", "y"], "_type": "ClassLabel"}}],
    ],
)
def test_class_names_are_found_inside_of_lists_and_structs(feature):
    assert columns._class_names({"o": feature}, ["o", "category"]) == ["x", "y"]
    assert columns._class_names({"o": feature}, ["o", "other"]) == []


def test_missing_splits_are_dealt_by_class_and_group(tmp_path):
    rows = [{"i": IMAGES[n], "l": n % 2, "g": n // 2} for n in range(12)]
    store = stored(tmp_path, table(rows), {"image": "i", "label": "l"}, val=1 / 3, test=1 / 6)
    assert store.info.counts == {"train": 6, "val": 4, "test": 2}
    assert [sorted(store.split(name).column("label")) for name in ("val", "test")] == [[0, 0, 1, 1], [0, 1]]
    store = stored(tmp_path, table(rows), {"image": "i", "group": "g", "label": "l"}, val=1 / 3, test=1 / 6)
    groups = [set(store.split(name).column("group")) for name in ("train", "val", "test")]
    assert [len(group) for group in groups] == [3, 2, 1]
    assert len(set.union(*groups)) == 6


def test_a_row_without_a_group_has_none(tmp_path):
    rows = [{"i": IMAGES[n], "l": 0, "g": group} for n, group in enumerate((7, None, None))]
    mapping = {"image": "i", "group": "g", "label": "l"}
    assert stored(tmp_path, table(rows), mapping).split("train").column("group") == ["7", None, None]
    with pytest.raises(ParamsError, match=r"options: 2 images have no group; fix: give each one"):
        stored(tmp_path, table(rows), mapping, val=1 / 3)


def test_splits_that_are_there_are_kept(tmp_path):
    train, test = (table([{"i": IMAGES[n], "l": 0}], name=name, split=name) for n, name in enumerate(("train", "test")))
    both = Table(train.parts + test.parts, {}, train.columns)
    store = stored(tmp_path, both, {"image": "i", "label": "l"}, val=0.0, test=0.5)
    assert store.info.counts == {"train": 1, "test": 1}


def test_a_split_column_tells(tmp_path):
    names = ["training", "Validation", "dev", "TEST"]
    rows = [{"i": image, "l": 0, "s": name} for image, name in zip(IMAGES, names, strict=False)]
    mapping = {"image": "i", "label": "l", "split": "s"}
    assert stored(tmp_path, table(rows), mapping).info.counts == {"train": 1, "val": 2, "test": 1}
    rows[1]["s"] = "holdout"
    with pytest.raises(PipelineError, match="train:1 split: 'holdout' is none of train"):
        stored(tmp_path, table(rows), mapping)
    assert stored(tmp_path, table(rows), mapping, "skip").info.counts == {"train": 1, "val": 1, "test": 1}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"i": None}, r"train:1 image: neither encoded bytes nor a file's name \(NoneType\)"),
        ({"i": {"bytes": None, "path": None}}, r"train:1 image: neither"),
        ({"i": "../secret.png"}, r"train:1 image: neither"),
        ({"i": b"<html>"}, r"train_0000001 image: .*says train:1|train:1"),
        ({"l": None}, "train:1 label: none"),
        ({"l": "cat"}, "label: no class 'cat'"),
        ({"l": 1.5}, r"label: no class 1\.5"),
        ({"l": -1}, r"label: no class -1"),
        ({"o": {"b": [[1, 1, 2, 2]], "c": []}}, r"train:1 objects: not the same number .*\(1 of bbox, 0 of category\)"),
        ({"o": {"b": [1, 1, 2, 2], "c": [0, 0, 0, 0]}}, r"#0 bbox"),
        ({"o": {"b": 1, "c": [0]}}, r"train:1 objects: .*no list of bbox"),
        ({"o": {"b": [[1, 1, 2]], "c": [0]}}, r"#0 bbox"),
        ({"o": {"b": [[1, 1, 2, 2]], "c": ["cat"]}}, r"#0 label: no class 'cat'"),
        ({"t": "x"}, "train:1 target: not a number"),
        ({"s": [1]}, "train:1 captions: not sentences"),
    ],
)
def test_each_fault_names_row_and_value_and_is_counted_where_skipped(tmp_path, change, told):
    good = {"i": IMAGES[0], "l": 0, "o": {"b": [], "c": []}, "t": 1.0, "s": "said."}
    rows = [good, {**good, "i": IMAGES[1], **change}]
    mapping = {"image": "i", "label": "l", "bbox": "o.b", "category": "o.c", "target": "t", "captions": "s"}
    with pytest.raises(PipelineError, match=told) as caught:
        stored(tmp_path, table(rows), mapping, classes=["a"])
    assert "\n" not in str(caught.value)
    store = stored(tmp_path, table(rows), mapping, "skip", classes=["a"])
    assert rows_of(store)[0]["image"] == IMAGES[0]
    assert (tmp_path / "toy/findings.json").read_text().count('"action": "dropped') >= 1


@pytest.mark.parametrize(
    ("mapping", "options", "told"),
    [
        ({"image": "i", "lable": "l"}, {}, r"columns\.lable: unknown key; did you mean 'label'\?"),
        ({"image": "img", "label": "l"}, {}, r"columns\.image: no column 'img'; .*choices: i, l, o"),
        ({"label": "l"}, {}, r"options\.columns: no 'image'; fix: write `image: COLUMN`"),
        ({"image": "i"}, {}, "columns: no truth; fix: name a column of label, bbox"),
        ({"image": "i", "category": "o.c"}, {}, "objects without bbox and mask"),
        ({"image": "i", "bbox": "o.b"}, {}, "objects without category"),
        ({"image": "i", "semantic": "o"}, {}, "a semantic column and semantic_classes go together"),
        ({"image": "i", "label": "l"}, {"val": 0.5, "test": 0.5}, "val and test leave no row for train"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(tmp_path, mapping, options, told):
    source = table([{"i": IMAGES[0], "l": 0, "o": {"b": [], "c": []}}])
    with pytest.raises(ParamsError, match=told):
        stored(tmp_path, source, mapping, **options)
    assert not (tmp_path / "toy").exists()


def test_one_class_of_objects_needs_no_column(tmp_path):
    source = table([{"i": IMAGES[0], "b": BOXES}])
    store = stored(tmp_path, source, {"image": "i", "bbox": "b"}, classes=["face"])
    assert store.split("train").read(0).objects.labels.tolist() == [0, 0]


def test_rows_without_train_are_refused(tmp_path):
    source = table([{"i": IMAGES[0], "l": 0}], name="test", split="test")
    with pytest.raises(PipelineError, match=r"no train rows \(the source has test\)"):
        stored(tmp_path, source, {"image": "i", "label": "l"})


def test_label_and_category_of_other_classes_are_refused(tmp_path):
    features = {name: {"_type": "ClassLabel", "names": [name]} for name in ("l", "c")}
    source = table([{"i": IMAGES[0], "l": 0, "b": [], "c": []}], features)
    with pytest.raises(ParamsError, match="label and category have different classes"):
        stored(tmp_path, source, {"image": "i", "label": "l", "bbox": "b", "category": "c"})


def test_whole_numbers_that_pandas_made_floats_are_class_indices(tmp_path):
    rows = [{"image": IMAGES[index], "label": label} for index, label in enumerate([0.0, 2.0, 1.0])]
    store = stored(tmp_path, table(rows), {"image": "image", "label": "label"})
    assert store.info.classes == ["0", "1", "2"]
    assert store.split("train").column("label") == [0, 2, 1]


def test_ids_of_other_things_are_no_class_numbers(tmp_path):
    rows = [{"image": IMAGES[0], "label": 2**31}]
    with pytest.raises(ParamsError, match=r"options\.classes: missing, and the numbers of classes go up to 2147483648"):
        stored(tmp_path, table(rows), {"image": "image", "label": "label"})
