import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from pipeline.metrics import overlaps
from pipeline.metrics.overlaps import decode_runs, masks_of


def some_masks(seed, num, shape=(20, 30)):
    rng = np.random.default_rng(seed)
    masks = rng.random((num, *shape)) < rng.choice([0.02, 0.5, 0.98], (num, 1, 1))
    masks[rng.random(num) < 0.2] = False
    return masks


@pytest.mark.parametrize("compiled", [False, True])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_compiled_masks_are_the_same(compiled, seed):
    masks = some_masks(seed, 5)
    plain = masks_of(list(masks))
    ends = np.concatenate([np.cumsum(plain.runs(index)) for index in range(5)])
    nums = np.array([len(plain.runs(index)) for index in range(5)])
    other = overlaps.Masks.of_ends(ends, nums, plain.sizes, compiled=compiled)
    for name in ("begins", "stops", "offsets", "areas", "boxes"):
        np.testing.assert_array_equal(getattr(other, name), getattr(plain, name))
    index, others = (values.ravel() for values in np.mgrid[:5, :5])
    crowd = np.zeros(5, bool)
    shared = overlaps.of_masks(other, other, crowd)(index, others, 0.0).reshape(5, 5)
    expected = coco_mask.iou([encoded(m) for m in masks], [encoded(m) for m in masks], [0] * 5)
    np.testing.assert_array_equal(shared, expected)


def encoded(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num=st.integers(0, 6))
def test_masks_are_the_same_from_pixels_strings_and_runs(seed, num):
    masks = some_masks(seed, num)
    strings = [encoded(mask) for mask in masks]
    plain = masks_of(list(masks))
    for other in (
        masks_of(strings),
        masks_of([{"size": s["size"], "counts": plain.runs(i)} for i, s in enumerate(strings)]),
    ):
        np.testing.assert_array_equal(other.begins, plain.begins)
        np.testing.assert_array_equal(other.stops, plain.stops)
        np.testing.assert_array_equal(other.offsets, plain.offsets)
    assert plain.areas.tolist() == masks.sum((1, 2)).tolist()
    for mask, box in zip(masks, plain.boxes, strict=True):
        rows, columns = np.nonzero(mask)
        tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0] * 4
        assert box.tolist() == tight
    order = np.random.default_rng(seed).permutation(num)
    np.testing.assert_array_equal(plain.take(order).areas, plain.areas[order])
    np.testing.assert_array_equal(plain.take(order).boxes, plain.boxes[order])


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), num=st.integers(1, 5), other=st.integers(1, 5), least=st.sampled_from([0.0, 0.5])
)
def test_overlaps_of_masks_are_pycocotools(seed, num, other, least):
    masks, truth = some_masks(seed, num), some_masks(seed + 1, other)
    crowd = np.random.default_rng(seed).random(other) < 0.5
    expected = coco_mask.iou([encoded(m) for m in masks], [encoded(m) for m in truth], crowd.astype(np.uint8).tolist())
    index, others = (values.ravel() for values in np.mgrid[:num, :other])
    overlap = overlaps.of_masks(masks_of(list(masks)), masks_of(list(truth)), crowd)
    found = overlap(index, others, least).reshape(num, other)
    enough = expected >= max(least, 1e-9)
    np.testing.assert_array_equal(found[enough], expected[enough])
    assert (found[~enough] <= max(least, 0)).all()


def test_masks_of_images_of_different_size_do_not_overlap():
    overlap = overlaps.of_masks(masks_of([np.ones((4, 6), bool)]), masks_of([np.ones((6, 4), bool)]), np.zeros(1, bool))
    assert overlap(np.array([0]), np.array([0]), 0.5).tolist() == [0]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"size": [4, 4], "counts": [0, 8]}, "mask 1: its runs add up to 8 pixels of 4 x 4"),
        ({"size": [4, 4], "counts": [0, 32]}, "mask 1: its runs add up to 32 pixels of 4 x 4"),
        ({"size": [4, 4], "counts": [20, -8, 4]}, "mask 1: a run is negative"),
        ({"size": [4, 4], "counts": [0.5, 15.5]}, "mask 1: its runs"),
        ({"size": [4, 4], "counts": "\\u0000"}, "mask 1"),
        ({"size": [4, 4], "counts": b"`"}, "ends within a number"),
        ({"size": [4, 4], "counts": b"\x01"}, "no run-length string"),
    ],
)
def test_run_lengths_that_pycocotools_would_read_past_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        masks_of([np.ones((4, 4), bool), mask])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num=st.integers(0, 6))
def test_masks_of_compiled_strings_are_the_same(seed, num):
    from pipeline.metrics.compiled_json import masks_of_strings

    masks = some_masks(seed, num)
    plain = masks_of(list(masks))
    read = overlaps.Masks(*masks_of_strings([encoded(mask)["counts"] for mask in masks], plain.sizes))
    for name in ("begins", "stops", "offsets", "areas", "boxes"):
        np.testing.assert_array_equal(getattr(read, name), getattr(plain, name))


@pytest.mark.parametrize(
    ("string", "size"),
    [
        (b'6"', (2, 3)),  # a quote is no character of a run length
        (b"8", (2, 3)),  # 8 pixels of 6
        (b"`", (2, 3)),  # ends within a number
        (b"2O4", (2, 3)),  # a run of -1
    ],
)
def test_what_is_no_mask_is_left_to_numpy(string, size):
    from pipeline.metrics.compiled_json import masks_of_strings

    assert masks_of_strings([string], np.array([size])) is None


@pytest.mark.parametrize("num_points", [1, 7, 8, 17, 128])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), least=st.sampled_from([0.0, 0.5]))
def test_compiled_keypoints_are_the_same_to_the_bit(num_points, seed, least):
    rng = np.random.default_rng(seed)
    truth = np.concatenate([rng.uniform(0, 50, (6, num_points, 2)), rng.integers(0, 3, (6, num_points, 1))], axis=2)
    truth[0, :, 2] = 0
    shown = truth[rng.integers(0, 6, 9)] + rng.normal(0, 3, (9, num_points, 3)) * rng.integers(1, 20, (9, 1, 1))
    boxes, areas = rng.uniform(1, 30, (6, 4)), rng.uniform(1, 900, 6)
    index, others = (values.ravel() for values in np.mgrid[:9, :6])
    plain, compiled = (
        overlaps.of_keypoints(shown, truth, boxes, areas, np.full(num_points, 0.05), compiled=how)
        for how in (False, True)
    )
    np.testing.assert_array_equal(compiled(index, others, least), plain(index, others, least))
    np.testing.assert_array_equal(overlaps.extent(shown, compiled=True), overlaps.extent(shown))


def test_no_strings_have_no_runs():
    runs, nums = decode_runs([])
    assert runs.tolist() == nums.tolist() == []


def test_object_keypoint_similarity_worked_by_hand():
    # two keypoints of three are labelled; the first is hit, the second is 10 pixels off, the third does not count.
    # d^2 / (2 area (2 sigma)^2) = 100 / (2 * 1000 * .04) = 1.25
    truth = np.array([[[10, 10, 2], [30, 10, 1], [0, 0, 0]]], np.float64)
    shown = np.array([[[10, 10, 1], [30, 20, 1], [99, 99, 1]]], np.float64)
    overlap = overlaps.of_keypoints(shown, truth, np.array([[0, 0, 40, 25.0]]), np.array([1000.0]), np.full(3, 0.1))
    assert overlap(np.array([0]), np.array([0]), 0.5)[0] == pytest.approx((1 + np.exp(-1.25)) / 2, rel=1e-12)


def test_a_truth_without_labelled_keypoints_is_near_where_its_grown_box_is():
    # its box of 10 x 10 at (20, 20) grows to 10..40: the point at 45 is 5 off in x alone
    truth = np.zeros((1, 1, 3))
    shown = np.array([[[45, 15, 1]]], np.float64)
    overlap = overlaps.of_keypoints(shown, truth, np.array([[20, 20, 10, 10.0]]), np.array([100.0]), np.array([0.25]))
    assert overlap(np.array([0]), np.array([0]), 0.5)[0] == pytest.approx(np.exp(-25 / (2 * 100 * 0.25)), rel=1e-12)
