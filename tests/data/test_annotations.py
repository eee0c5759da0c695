import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from pipeline.data.annotations import Fault, Frame, class_index, object_row
from pipeline.data.images import turned_array
from pipeline.data.records import RawObject
from pipeline.ops import masks as mask_ops

FRAME = Frame(height=20, width=30)
SQUARE = [[5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0, 15.0]]


def row(frame=FRAME, num_keypoints=0, notes=None, **raw):
    note = (lambda kind, what: notes.append((kind, what))) if notes is not None else unexpected
    return object_row(RawObject(label=1, **raw), frame, num_classes=3, num_keypoints=num_keypoints, note=note)


def unexpected(kind, what):
    raise AssertionError(f"noted {kind}: {what}")


def mask_of(made, frame=FRAME):
    return mask_ops.decode(made["mask"], frame.height, frame.width)


def test_a_box_within_the_image_is_kept_as_it_is():
    assert row(bbox=[1.5, 2, 30, 20]) == {
        "label": 1,
        "iscrowd": False,
        "mask": None,
        "keypoints": None,
        "bbox": [1.5, 2.0, 30.0, 20.0],
        "area": 28.5 * 18,
    }


@pytest.mark.parametrize(
    ("box", "kind", "words"),
    [
        ([math.nan, 1, 2, 3], "bad box", "NaN or infinite"),
        ([0, 1, math.inf, 3], "bad box", "NaN or infinite"),
        ([0, 1, 1e39, 3], "bad box", "NaN or infinite in single precision"),
        ([9, 1, 2, 3], "bad box", "corners are swapped"),
        ([2, 1, 2, 3], "zero-area box", r"without area \(x1, y1, x2, y2 = 2, 1, 2, 3\)"),
        ([2, 3, 9, 3], "zero-area box", "without area"),
        ([1, 2, 3], "bad box", "3 numbers where 4 belong"),
        ([1, 2, 3, 4, 5], "bad box", "5 numbers where 4 belong"),
        (["1", "2", "3", "4"], "bad box", "not a number in it .*'1'"),
        ([True, 0, 2, 3], "bad box", "not a number in it"),
        ([None, 0, 2, 3], "bad box", "not a number in it"),
        ("1 2 3 4", "bad box", "not a list of numbers"),
        ([30, 1, 40, 9], "box outside", "wholly outside the image .* 30 x 20"),
        ([-9, -9, 0, 0], "box outside", "wholly outside"),
        ([1e9, 1e9, 2e9, 2e9], "box outside", "wholly outside"),
        ([3, 3, 3 + 1e-9, 9], "zero-area box", "single precision"),
    ],
)
def test_an_impossible_box_is_a_fault(box, kind, words):
    with pytest.raises(Fault) as caught:
        row(bbox=box)
    assert caught.value.kind == kind
    assert caught.value.key == "bbox"
    assert caught.match(words)


def test_a_box_partly_outside_is_clipped_and_noted():
    notes = []
    made = row(bbox=[-3, 4, 12, 25], notes=notes)
    assert made["bbox"] == [0, 4, 12, 20]
    assert made["area"] == 12 * 16
    assert notes == [
        ("box partly outside", "clipped to the image (x1, y1, x2, y2 = -3, 4, 12, 25; the image is 30 x 20)")
    ]


def test_rounding_beyond_the_edge_is_clipped_without_a_word():
    assert row(bbox=[-0.01, 0, 30.04, 20])["bbox"] == [0, 0, 30, 20]


def test_a_mask_gives_the_missing_box_and_area():
    made = row(mask=SQUARE)
    assert made["bbox"] == [5, 5, 15, 15]
    assert made["area"] == 100
    assert mask_of(made)[5:15, 5:15].all()


def test_a_given_area_stands():
    assert row(mask=SQUARE, bbox=[5, 5, 15, 15], area=97.5)["area"] == 97.5


@pytest.mark.parametrize("area", [-1, math.nan, math.inf, 1e39, "9", True])
def test_an_impossible_area_is_a_fault(area):
    with pytest.raises(Fault, match="not a size in pixels"):
        row(bbox=[1, 1, 5, 5], area=area)


def test_neither_box_nor_mask_is_a_fault():
    with pytest.raises(Fault, match="neither a box nor a mask"):
        row()


@pytest.mark.parametrize("label", [-1, 3, 1.0, "1", None, True])
def test_a_label_outside_the_classes_is_a_fault(label):
    with pytest.raises(Fault, match=r"no class .* \(there are 3: 0 to 2\)"):
        class_index(label, 3, "label")


@pytest.mark.parametrize(
    ("polygons", "words"),
    [
        ([], "neither polygons nor a run-length code"),
        ("square", "neither polygons nor"),
        ([[]], "fewer than 3 points"),
        ([[1, 1, 5, 5]], r"fewer than 3 points \(4 numbers\)"),
        ([[1, 1, 5, 5, 3]], "an odd number of coordinates"),
        ([[1, 1, 5, math.nan, 9, 9]], "NaN or infinite"),
        ([[1, 1, math.inf, 5, 9, 9]], "NaN or infinite"),
        ([[1, 1, 1e9, 5, 9, 9]], r"far outside \(a coordinate of 1e\+09\)"),
        ([[1, 1, "5", 5, 9, 9]], "not a number"),
        ([1, 1, 5, 5, 9, 9], "not a list of numbers"),
        ([[40, 1, 60, 1, 60, 9]], "shows no pixel of the image"),
        ([SQUARE[0], [1, 1, 5, 5]], "polygon 1 has fewer"),
    ],
)
def test_an_impossible_polygon_is_a_fault_and_never_hangs(polygons, words):
    with pytest.raises(Fault, match=words):
        row(mask=polygons, notes=[])


def test_a_polygon_partly_outside_is_kept_within_the_image_and_noted():
    notes = []
    made = row(mask=[[-10, 5, 10, 5, 10, 15, -10, 15]], notes=notes)
    assert mask_of(made)[5:15, :10].all()
    assert mask_of(made).sum() == 100
    assert notes == [("mask partly outside", "polygon 0 reaches 10.0 pixels beyond the image; the rest is kept")]


def test_several_polygons_are_one_mask():
    made = row(mask=[*SQUARE, [20, 1, 24, 1, 24, 5, 20, 5]])
    assert mask_of(made).sum() == 100 + 16
    assert made["bbox"] == [5, 1, 24, 15]


@given(st.lists(st.tuples(st.floats(-40, 70), st.floats(-40, 60)), min_size=3, max_size=8))
def test_any_finite_polygon_gives_a_mask_of_the_image_or_a_fault(points):
    polygon = [value for point in points for value in point]
    drawn = coco_mask.decode(coco_mask.frPyObjects([polygon], 20, 30))[..., 0].astype(bool)
    if not drawn.any():
        with pytest.raises(Fault, match="shows no pixel"):
            row(mask=[polygon], notes=[])
        return
    made = row(mask=[polygon], notes=[])
    assert np.array_equal(mask_of(made), drawn)
    assert made["area"] == drawn.sum()


def test_run_lengths_of_every_form_are_the_same_mask():
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:20] = True
    compressed = mask_ops.encode(mask)
    # down the columns: 4 columns of 20 and 3 rows before the first pixel, then runs of 6 with 14 between
    runs = [4 * 20 + 3, *[6, 14] * 15, 6, 20 * 30 - (83 + 15 * 20 + 6)]
    for counts in (runs, compressed["counts"], compressed["counts"].decode()):
        assert np.array_equal(mask_of(row(mask={"size": [20, 30], "counts": counts})), mask)
    assert np.array_equal(mask_of(row(mask=mask)), mask)


@pytest.mark.parametrize(
    ("rle", "words"),
    [
        ({"size": [20, 30], "counts": [10, 5]}, "run lengths of 15 pixels, the image has 600"),
        ({"size": [20, 30], "counts": [10, 5, 600]}, "run lengths of 615 pixels"),
        ({"size": [30, 20], "counts": [10, 590]}, r"of size \[30, 20\], the image is \[20, 30\]"),
        ({"size": None, "counts": [10, 590]}, "of size None"),
        ({"counts": [10, 590]}, "of size None"),
        ({"size": [20, 30]}, "not a list of numbers"),
        ({"size": [20, 30], "counts": [-10, 610]}, "not a run-length code"),
        ({"size": [20, 30], "counts": [10.5, 589.5]}, "not whole numbers"),
        ({"size": [20, 30], "counts": [math.nan, 5]}, "NaN"),
        ({"size": [20, 30], "counts": "!!"}, "not a run-length code"),
        ({"size": [20, 30], "counts": "o"}, "not a run-length code"),
        ({"size": [20, 30], "counts": "é"}, "run lengths of|not a run-length code"),
        ({"size": [20, 30], "counts": ""}, "run lengths of 0 pixels"),
        ({"size": [20, 30], "counts": [600]}, "shows no pixel"),
    ],
)
def test_an_impossible_run_length_code_is_a_fault(rle, words):
    with pytest.raises(Fault, match=words):
        row(mask=rle)


def test_a_doubly_escaped_or_cut_code_is_a_fault():
    mask = np.random.default_rng(0).random((20, 30)) < 0.3
    counts = coco_mask.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    for wrong in (counts[:-1], counts + "0", counts.replace(counts[3], "\\\\", 1)):
        with pytest.raises(Fault, match=r"run lengths of|not a run-length code"):
            row(mask={"size": [20, 30], "counts": wrong})


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40))
def test_run_lengths_come_back_from_the_compressed_code(runs):
    compressed = mask_ops.from_runs(runs, 1, sum(runs))["counts"]
    assert mask_ops.runs_of(compressed) == runs


def test_a_mask_array_of_another_size_is_a_fault():
    with pytest.raises(Fault, match=r"of size \(30, 20\), the image is \(20, 30\)"):
        row(mask=np.ones((30, 20), bool))


def test_keypoints_are_kept_and_absent_ones_are_zeros():
    points = [1, 2, 2, 0, 0, 0]
    assert row(bbox=[0, 0, 9, 9], keypoints=points, num_keypoints=2)["keypoints"] == points
    assert row(bbox=[0, 0, 9, 9], num_keypoints=2)["keypoints"] == [0] * 6


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([1, 2, 2], "3 numbers where 3 x 2 belong"),
        ([1, 2, 3, 0, 0, 0], "a visibility that is not 0, 1 or 2"),
        ([1, math.nan, 2, 0, 0, 0], "NaN"),
        ([1, "2", 2, 0, 0, 0], "not a number"),
    ],
)
def test_impossible_keypoints_are_a_fault(points, words):
    with pytest.raises(Fault, match=words):
        row(bbox=[0, 0, 9, 9], keypoints=points, num_keypoints=2)


def test_keypoints_of_a_dataset_without_any_are_a_fault():
    with pytest.raises(Fault, match="the dataset names no keypoints"):
        row(bbox=[0, 0, 9, 9], keypoints=[1, 2, 2])


def test_a_keypoint_outside_is_kept_and_noted():
    notes = []
    made = row(bbox=[0, 0, 9, 9], keypoints=[40, 2, 2, 0, 0, 0], num_keypoints=2, notes=notes)
    assert made["keypoints"][0] == 40
    assert notes == [("keypoint outside", "keypoint 0 lies outside the image; kept")]


@pytest.mark.parametrize("turn", range(1, 9))
def test_box_mask_and_keypoints_turn_with_the_image(turn):
    mask = np.zeros((20, 30), bool)
    mask[3:9, 4:20] = True
    shown = turned_array(mask, turn)
    frame = Frame(*shown.shape, turn)
    made = row(frame, mask=mask, bbox=[4, 3, 20, 9], keypoints=[4.5, 3.5, 2], num_keypoints=1)
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    assert made["bbox"] == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert np.array_equal(mask_of(made, frame), shown)
    x, y, _ = made["keypoints"]
    corner = np.zeros((20, 30), bool)
    corner[3, 4] = True
    assert turned_array(corner, turn)[int(y), int(x)]
    polygon = row(frame, mask=[[4, 3, 20, 3, 20, 9, 4, 9]])
    assert np.array_equal(mask_of(polygon, frame), shown)


def test_a_polygon_of_nan_returns_at_once_in_a_process_of_its_own():
    # were it to hang, the time limit would end this test and not the whole run
    code = (
        "from pipeline.data.annotations import *; from pipeline.data.records import RawObject\n"
        "raw = RawObject(0, mask=[[float('nan')] * 6])\n"
        "try: object_row(raw, Frame(9, 9), num_classes=1, num_keypoints=0, note=print)\n"
        "except Fault as fault: print(fault.what)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("NaN or infinite")
