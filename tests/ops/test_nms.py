import numpy as np
import pytest

from pipeline.ops.nms import nms, nms_per_class


def row(*starts, width=10):
    """Boxes of `width` x 10 pixels that begin at the given columns."""
    return np.array([[x, 0, x + width, 10] for x in starts], np.float32)


@pytest.mark.parametrize(
    ("what", "boxes", "scores", "threshold", "expected"),
    [
        ("the higher score stays", row(0, 1), [0.3, 0.9], 0.5, [1]),
        ("a tie keeps the earlier box", row(0, 1), [0.5, 0.5], 0.5, [0]),
        # shifted by 5 of 10: 50 / 150 = 1/3
        ("just above the threshold", row(0, 5), [0.9, 0.8], 0.333, [0]),
        ("just below the threshold", row(0, 5), [0.9, 0.8], 0.334, [0, 1]),
        # 2 x 10 of 4 x 10, inside: overlap is exactly 0.5, which is not above 0.5
        (
            "at the threshold",
            np.array([[0, 0, 4, 10], [0, 0, 2, 10]]),
            [0.9, 0.8],
            0.5,
            [0, 1],
        ),
        # the second is suppressed by the first, so it cannot suppress the third (overlaps 3/7 each, ends 1/9)
        (
            "a suppressed box suppresses nothing",
            row(0, 4, 8),
            [0.9, 0.8, 0.7],
            0.4,
            [0, 2],
        ),
        ("no boxes", row(), [], 0.5, []),
        ("a box without area", np.zeros((2, 4)), [0.1, 0.2], 0.5, [1, 0]),
    ],
)
def test_nms_worked_by_hand(what, boxes, scores, threshold, expected):
    assert nms(boxes, np.array(scores), threshold).tolist() == expected, what


def test_nms_of_classes_leaves_other_classes_alone():
    boxes, scores, labels = row(0, 0, 1), np.array([0.5, 0.9, 0.7]), np.array([3, 0, 3])
    assert nms_per_class(boxes, scores, labels, 0.5).tolist() == [1, 2]


def test_nms_of_classes_orders_ties_by_index():
    boxes, scores, labels = row(0, 40, 80, 120), np.full(4, 0.5), np.array([2, 0, 1, 0])
    assert nms_per_class(boxes, scores, labels, 0.5).tolist() == [0, 1, 2, 3]


def test_nms_of_classes_without_boxes():
    assert nms_per_class(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int), 0.5).tolist() == []


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.6])
def test_nms_equals_torchvision_class_by_class(seed, threshold):
    import torch
    from torchvision.ops import nms as oracle

    rng = np.random.default_rng(seed)
    num = int(rng.integers(0, 200))
    # whole and half pixels, and few different scores, so that overlaps at the threshold and ties do occur
    corner, size = rng.integers(0, 30, (num, 2)) / 2, rng.integers(1, 24, (num, 2)) / 2
    boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
    if seed % 2:
        boxes += rng.uniform(-1, 1, 4).astype(np.float32)
    scores = (rng.integers(0, 20, num) / 20).astype(np.float32)
    labels = rng.integers(0, 4, num)
    expected = []
    for label in range(4):
        members = np.flatnonzero(labels == label)
        kept = oracle(
            torch.from_numpy(boxes[members]),
            torch.from_numpy(scores[members]),
            threshold,
        ).numpy()
        assert nms(boxes[members], scores[members], threshold).tolist() == kept.tolist()
        expected += members[kept].tolist()
    expected.sort(key=lambda index: (-scores[index], index))
    assert nms_per_class(boxes, scores, labels, threshold).tolist() == expected
