import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from pipeline.errors import PipelineError
from pipeline.metrics import coco_files, compiled_json
from pipeline.metrics.coco_files import read_results, read_truth
from pipeline.metrics.compiled_json import INTEGER
from pipeline.metrics.detection import evaluate_detections

IMAGES = [{"id": 7, "height": 40, "width": 50}, {"id": 3, "height": 40, "width": 50}]
CATEGORIES = [{"id": 9, "name": "disc"}, {"id": 2, "name": "square"}]
RUNS = {"size": [40, 50], "counts": [0, 400, 1600]}


def annotation(**more):
    return {"id": 0, "image_id": 7, "category_id": 9, "bbox": [0, 0, 10, 40], "area": 400.0, "iscrowd": 0} | more


def result(**more):
    return {"image_id": 7, "category_id": 9, "bbox": [0.0, 0.0, 10.0, 40.0], "score": 0.5} | more


@pytest.fixture
def write(tmp_path):
    def file(content, name="file.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return file


def truth_of(*annotations, **more):
    return {"images": IMAGES, "categories": CATEGORIES, "annotations": list(annotations)} | more


def test_ids_become_indices_in_their_order_and_0_is_an_id(write):
    truth = read_truth(write(truth_of(annotation(), annotation(id=1, image_id=3, category_id=2, iscrowd=1))))
    assert truth.image_ids.tolist() == [3, 7]
    assert truth.classes == ["square", "disc"]
    assert truth.columns.images.tolist() == [1, 0]
    assert truth.columns.labels.tolist() == [1, 0]
    assert truth.columns.iscrowd.tolist() == [False, True]
    found = read_results(write([result()], "results.json"), truth)
    judged = evaluate_detections(predictions=found, targets=truth.columns, num_images=2, num_classes=2)
    assert judged.metrics["map"] == pytest.approx(1)  # pycocotools says 0 for an annotation of id 0


def test_polygons_and_run_lengths_are_the_same_mask(write):
    polygon = [[0, 0, 10, 0, 10, 40, 0, 40]]
    truth = read_truth(write(truth_of(annotation(segmentation=polygon), annotation(id=1, segmentation=RUNS))), "masks")
    assert truth.columns.masks.areas.tolist() == [400, 400]
    assert truth.columns.masks.boxes.tolist() == [[0, 0, 10, 40]] * 2
    found = read_results(write([result(segmentation=RUNS)], "results.json"), truth, "masks")
    assert found.masks.areas.tolist() == [400]


def test_keypoints_and_truths_without_any(write):
    points = [1, 2, 2, 3, 4, 1]
    rows = [annotation(keypoints=points, num_keypoints=2), annotation(id=1, keypoints=[0] * 6, num_keypoints=0)]
    truth = read_truth(write(truth_of(*rows)), "keypoints")
    assert truth.columns.keypoints.shape == (2, 2, 3)
    assert truth.columns.ignored.tolist() == [False, True]
    found = read_results(write([result(keypoints=points)], "results.json"), truth, "keypoints")
    assert found.keypoints[0].ravel().tolist() == points


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "file.json: expected `object`, got `array`; fix:"),
        ('{"images": [', "file.json: no JSON"),
        (truth_of(annotation(image_id=8)), r"annotations#0 image_id: not in the truth \(8; 1 such rows\)"),
        (truth_of(annotation(), annotation(id=1, category_id=-4)), r"annotations#1 category_id: not in the truth \(-4"),
        (truth_of(annotation(), annotation()), "annotations: an id occurs twice"),
        (truth_of(images=[IMAGES[0]] * 2), "images: id 7 occurs twice"),
        (truth_of(annotation(bbox=[1, 2, 3])), "annotations#0 bbox: 3 numbers, not 4"),
        (truth_of(annotation(image_id="7")), "expected `int`, got `str`"),
        (truth_of({"image_id": 7, "category_id": 9, "bbox": [0, 0, 1, 1]}), "missing required field `area`"),
        ('{"images": [], "categories": [], "annotations": [{"area": NaN}]}', "NaN and Infinity are no numbers of JSON"),
    ],
)
def test_a_truth_that_is_not_in_order_is_named(write, content, message):
    with pytest.raises(PipelineError, match=message) as caught:
        read_truth(write(content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (
            {"size": [40, 50], "counts": [0, 400]},
            "annotations#0 segmentation: its runs add up to 400 pixels of 40 x 50",
        ),
        ([[0, 0, 5, 5]], "annotations#0 segmentation: no polygon"),
        ([], "annotations#0 segmentation: no polygon"),
        ([[0, 0, 1e9, 0, 5, 5]], r"annotations#0 segmentation: a corner far outside of the image \(1e\+09\)"),
    ],
)
def test_a_mask_that_is_not_in_order_is_named(write, segmentation, message):
    with pytest.raises(PipelineError, match=message):
        read_truth(write(truth_of(annotation(segmentation=segmentation))), "masks")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a": 1}, "results.json: expected `array`, got `object`"),
        ([result(), result(image_id=1)], r"results.json#1 image_id: not in the truth \(1; 1 such rows\)"),
        ([result(category_id=1)], "results.json#0 category_id: not in the truth"),
        ([result(), result(score="0.5")], "results.json#1 score: expected `float`, got `str`"),
        ([result(), result(score=None)], "results.json#1 score: expected `float`, got `null`"),
        ([result(bbox=[1, 2, 3, 4, 5])], "results.json#0 bbox: 5 numbers, not 4"),
        ([result(score=float("nan"))], "NaN and Infinity"),
        ('{"image_id": 1}\n{"image_id": 2}', "results.json: expected `array`, got `object`"),
        ('[{"image_id": 7,', "results.json: no JSON"),
    ],
)
@pytest.mark.parametrize("scanned", [False, True])
def test_results_that_are_not_in_order_are_named(write, monkeypatch, rows, message, scanned):
    if scanned:
        monkeypatch.setattr(coco_files, "SCANNED_FROM", 0)
    truth = read_truth(write(truth_of(annotation())))
    with pytest.raises(PipelineError, match=message) as caught:
        read_results(write(rows, "results.json"), truth)
    assert "\n" not in str(caught.value)


def test_masks_missing_where_masks_are_judged_are_refused(write):
    """pycocotools scores the boxes."""
    truth = read_truth(write(truth_of(annotation(segmentation=RUNS))), "masks")
    with pytest.raises(PipelineError, match=r"results\.json#0: object missing required field `segmentation`"):
        read_results(write([result()], "results.json"), truth, "masks")


def test_no_results_are_no_error(write):
    truth = read_truth(write(truth_of(annotation())))
    found = read_results(write([], "results.json"), truth)
    judged = evaluate_detections(predictions=found, targets=truth.columns, num_images=2, num_classes=2)
    assert judged.metrics["map"] == 0


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(PipelineError, match=r"absent\.json: not readable"):
        read_truth(tmp_path / "absent.json")


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "image_id": st.integers(-(2**60), 2**60) | st.integers(0, 99),
            "category_id": st.integers(0, 99),
            "bbox": st.lists(
                st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 999), min_size=4, max_size=4
            ),
            "score": st.floats(0, 1) | st.floats(0, 1, width=32) | st.integers(0, 1),
        }
    ),
    max_size=12,
)


OF_BOXES = {"image_id": INTEGER, "category_id": INTEGER, "score": 0, "bbox": 4}


@given(ROWS, st.sampled_from([None, 1]), st.sampled_from([(", ", ": "), (",", ":"), (" ,\n", "\t:  ")]))
def test_the_scanner_reads_what_json_reads(rows, indent, separators):
    scanned = compiled_json.read(json.dumps(rows, indent=indent, separators=separators).encode(), OF_BOXES)
    if any(abs(row["image_id"]) > 2**53 for row in rows):
        return  # left to msgspec
    assert scanned is not None
    for key in OF_BOXES:
        assert scanned.columns[key].tolist() == [row[key] for row in rows]


GOOD = '[{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5}]'


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[{", "{"),
        ("}]", "}"),
        ("}]", "},]"),
        ("}]", "}] 1"),
        ("0.5", "NaN"),
        ("0.5", "1e999"),
        ("0.5", "0.5.5"),
        ("0.5", ".5"),
        ("0.5", "05"),
        ("0.5", "5."),
        ("0.5", "1e"),
        ("0.5", "-"),
        ("0.5", '"0.5"'),
        ("0.5", "0.5, "),
        ("0.5", '0.5, "score": 0.5'),
        ("0.5", '0.5, "id": 3'),
        (', "score": 0.5', ""),
        ("[1, 2, 3, 4]", "[1, 2, 3]"),
        ("[1, 2, 3, 4]", "[1, 2, 3, 4, 5]"),
        ("[1, 2, 3, 4]", "[1, 2, 3 4]"),
        ('"image_id": 1', '"image_id": 1.0'),
        ('"image_id": 1', '"image_id": 1e3'),
        ('"image_id"', '"image\\u005fid"'),
        (": 2", " 2"),
        ("[{", "[[{"),
    ],
)
def test_the_scanner_gives_up_on_all_that_is_not_plain(old, new):
    assert compiled_json.read(GOOD.encode(), OF_BOXES) is not None
    assert compiled_json.read(GOOD.replace(old, new, 1).encode(), OF_BOXES) is None


def test_the_scanner_reads_in_two_parts_and_exactly():
    rng = np.random.default_rng(0)
    numbers = rng.random((4000, 5)) * 10.0 ** rng.integers(-12, 12, (4000, 5))
    rows = [
        {"score": row[4], "bbox": row[:4], "category_id": n % 80, "image_id": n // 8}
        for n, row in enumerate(numbers.tolist())
    ]
    scanned = compiled_json.read(json.dumps(rows).encode(), OF_BOXES)
    assert scanned.columns["image_id"].tolist() == [n // 8 for n in range(4000)]
    np.testing.assert_array_equal(np.column_stack([scanned.columns["bbox"], scanned.columns["score"]]), numbers)


@pytest.mark.parametrize("kind", ["boxes", "masks", "keypoints"])
def test_both_readers_give_the_same_columns(write, monkeypatch, kind):
    points = [1, 2, 2, 3, 4, 1]
    more = {"segmentation": RUNS, "keypoints": points, "num_keypoints": 2}
    truth = read_truth(write(truth_of(annotation(**more))), kind)
    rng = np.random.default_rng(0)
    rows = []
    for number in range(300):
        filled = np.asfortranarray(rng.random((40, 50)) < rng.choice([0.01, 0.5]), np.uint8)
        mask = coco_mask.encode(filled)
        extra = {
            "boxes": {"bbox": rng.uniform(0, 9, 4).tolist()},
            "masks": {"segmentation": {"size": [40, 50], "counts": mask["counts"].decode()}},
            "keypoints": {"keypoints": rng.uniform(0, 9, 6).tolist()},
        }[kind]
        rows.append({"image_id": 7, "category_id": 9, "score": number / 7} | extra)
    path = write(rows, "results.json")
    assert kind != "masks" or "\\\\" in path.read_text()  # the run lengths have backslashes
    monkeypatch.delitem(sys.modules, "pipeline.metrics.compiled", raising=False)
    slow = read_results(path, truth, kind)
    monkeypatch.setattr(coco_files, "SCANNED_FROM", 0)
    monkeypatch.setattr(coco_files, "_decoded", None)  # the scanner alone
    fast = read_results(path, truth, kind)
    for name in ("images", "labels", "scores", "boxes_xywh"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name))
    if kind == "masks":
        np.testing.assert_array_equal(fast.masks.begins, slow.masks.begins)
        np.testing.assert_array_equal(fast.masks.boxes, slow.masks.boxes)
    if kind == "keypoints":
        np.testing.assert_array_equal(fast.keypoints, slow.keypoints)


@pytest.mark.parametrize("kind", ["boxes", "keypoints"])
@pytest.mark.parametrize("indent", [None, 1])
def test_both_readers_give_the_same_truth_past_other_keys(write, monkeypatch, kind, indent):
    rng = np.random.default_rng(0)
    rows = [
        annotation(
            id=number * 10**10,
            image_id=int(rng.choice([3, 7])),
            iscrowd=number % 3 % 2,
            area=number / 7,
            bbox=rng.uniform(0, 9, 4).tolist(),
            segmentation=[[0, 0, 5, 5, 1, 2]] if number % 2 else {"size": [40, 50], "counts": '}],"\\" [{'},
            keypoints=rng.uniform(0, 9, 6).round(number % 20).tolist(),
            num_keypoints=number % 3,
            caption='\\"id": 5, [{',
            attributes={"id": 5, "nested": [{"area": [None, {}]}], "empty": {}},
        )
        for number in range(300)
    ]
    path = write(json.dumps(truth_of(*rows, info={"id": 1}), indent=indent))
    monkeypatch.delitem(sys.modules, "pipeline.metrics.compiled", raising=False)
    slow = read_truth(path, kind).columns
    monkeypatch.setattr(coco_files, "SCANNED_FROM", 0)
    monkeypatch.setattr(coco_files, "_integers", lambda rows, name: INTEGERS(rows, name) if name == "id" else None)
    fast = read_truth(path, kind).columns
    for name, values in vars(slow).items():
        np.testing.assert_array_equal(getattr(fast, name), values)


INTEGERS = coco_files._integers
