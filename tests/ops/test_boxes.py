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
