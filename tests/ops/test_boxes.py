import numpy as np
import pytest

from pipeline.ops import boxes


@pytest.mark.parametrize(
    ("box", "other", "expected"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0),
        ((0, 0, 2, 2), (2, 0, 4, 2), 0.0),  # they share an edge, no area
        ((0, 0, 4, 4), (1, 1, 3, 3), 0.25),  # inside: 4 / 16
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7),  # diagonal: 1 / (4 + 4 - 1)
        ((0, 0, 2, 2), (5, 5, 6, 6), 0.0),
        ((1, 1, 1, 1), (1, 1, 1, 1), 0.0),  # no area at all: 0 / 0 counts as 0
    ],
)
def test_iou_of_two_boxes_worked_by_hand(box, other, expected):
    result = boxes.iou(np.array([box], np.float32), np.array([other], np.float32))
    assert result.dtype == np.float32
    assert result.tolist() == [[pytest.approx(expected, abs=1e-7)]]


def test_area_is_width_times_height():
    assert boxes.area(np.array([[1, 2, 4, 7], [0, 0, 0, 9]])).tolist() == [15, 0]


def test_iou_equals_torchvision_bit_for_bit():
    import torch
    from torchvision.ops import box_iou

    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (90, 2, 2)).astype(np.float32)
    given = np.concatenate([corners.min(1), corners.max(1)], 1)
    expected = box_iou(torch.from_numpy(given[:40]), torch.from_numpy(given[40:])).numpy()
    assert np.array_equal(boxes.iou(given[:40], given[40:]), expected)


def test_iou_of_no_boxes_is_an_empty_matrix():
    none, two = np.zeros((0, 4), np.float32), np.ones((2, 4), np.float32)
    assert boxes.iou(none, two).shape == (0, 2)
    assert boxes.iou(two, none).shape == (2, 0)


UNIT, DOUBLE = (0, 0, 1, 1), (-1, -1, 1, 1)


@pytest.mark.parametrize(
    ("name", "box", "other", "loss"),
    [
        # torchvision's own figures, as 1 - overlap
        ("giou", DOUBLE, UNIT, 0.75),  # inside at a quarter of the area: the hull is the outer box, 1 - 1/4
        ("giou", UNIT, (0, 1, 1, 2), 1.0),  # they touch: the hull is their union
        ("giou", UNIT, (1, 1, 2, 2), 1.5),  # diagonal: half of the hull of 4 is covered by neither
        ("diou", DOUBLE, UNIT, 0.8125),  # centres 1/2, 1/2 apart, diagonal^2 8: 3/4 + 0.5 / 8
        ("diou", UNIT, (0, 1, 2, 3), 1 + 2.5 / 13),  # 1.1923; centres 1/2, 3/2 apart, hull 2 x 3
        ("diou", UNIT, (1, 1, 2, 2), 1.25),  # 1 + 2 / 8
        ("ciou", DOUBLE, UNIT, 0.8125),  # squares: nothing to add
        ("ciou", UNIT, (0, 1, 2, 3), 1 + 2.5 / 13),
        ("ciou", UNIT, (1, 1, 2, 2), 1.25),
        # beside each other, 1 x 1 and 1 wide x 0 high: angles 45 and 90 degrees, v = 4 / pi^2 (pi / 4)^2 = 1/4,
        # v^2 / (1 - 0 + v) = 1/20; centres 1, 1/2 apart, hull 2 x 1: 1.25 / 5
        ("ciou", UNIT, (1, 0, 2, 0), 1 + 0.25 + 0.05),
        # nothing at all, twice: no overlap, no hull
        ("giou", (1, 1, 1, 1), (1, 1, 1, 1), 1.0),
        ("ciou", (1, 1, 1, 1), (1, 1, 1, 1), 1.0),
    ],
)
def test_overlaps_worked_by_hand(name, box, other, loss):
    result = getattr(boxes, name)(np.array([box], np.float64), np.array([other], np.float64))
    assert 1 - result[0, 0] == pytest.approx(loss, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [("giou", "generalized_box_iou"), ("diou", "distance_box_iou"), ("ciou", "complete_box_iou")],
)
def test_overlaps_equal_torchvision(name, oracle):
    import torch
    import torchvision.ops

    rng = np.random.default_rng(1)
    corners = rng.uniform(0, 60, (90, 2, 2))
    given = np.concatenate([corners.min(1), corners.max(1)], 1)
    expected = getattr(torchvision.ops, oracle)(torch.from_numpy(given[:40]), torch.from_numpy(given[40:])).numpy()
    # torchvision adds 1e-7 to its divisors
    assert np.abs(getattr(boxes, name)(given[:40], given[40:]) - expected).max() < 1e-7


@pytest.mark.parametrize("name", ["iou", "giou", "diou", "ciou"])
def test_paired_overlaps_are_the_diagonal_of_all_and_do_not_depend_on_the_side(name):
    rng = np.random.default_rng(2)
    corners = rng.integers(0, 9, (2, 30, 2, 2)).astype(np.float32)
    ours, others = np.concatenate([corners.min(2), corners.max(2)], -1)
    overlap = getattr(boxes, name)
    matrix = overlap(ours, others)
    assert matrix.dtype == np.float32
    assert np.array_equal(overlap(ours, others, paired=True), np.diagonal(matrix))
    assert np.allclose(matrix, overlap(others, ours).T, atol=1e-6)
    assert (matrix <= boxes.iou(ours, others)).all() or name == "iou"
