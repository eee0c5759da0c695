import numpy as np
import pytest

from pipeline.ops.boxes import diou, iou
from pipeline.ops.nms import diou_nms, nms, nms_per_class, soft_nms, weighted_box_fusion
from tests.detections import row


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


def crowded(rng, num, spread=4):
    """Boxes in clusters over sizes of two magnitudes, with few different scores."""
    centres, sizes = rng.uniform(0, 500, (num // spread + 1, 2)), np.exp(rng.uniform(1, 6, (num // spread + 1, 2)))
    owner = rng.integers(0, len(centres), num)
    size = sizes[owner] * np.exp(rng.normal(0, 0.2, (num, 2)))
    corner = centres[owner] + sizes[owner] * rng.normal(0, 0.2, (num, 2)) - size / 2
    boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
    if num > 3:
        boxes[1], boxes[2, 2:] = boxes[0], boxes[2, :2]  # a repeated box, one without area
    return boxes, (rng.integers(-2, 300, num) / 300).astype(np.float32)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5, 0.7, 1.0])
def test_compiled_suppression_equals_numpy_and_torchvision(seed, threshold, monkeypatch):
    import torch
    from torchvision.ops import nms as oracle

    rng = np.random.default_rng(seed)
    boxes, scores = crowded(rng, int(rng.integers(30, 1200)))
    if seed == 0:
        boxes = np.round(boxes)  # overlaps at the threshold
    labels = rng.integers(0, 3, len(boxes)) * (seed % 2)
    monkeypatch.setattr("pipeline.ops.nms.PAIRS_WORTH_COMPILING", 10**12)
    by_numpy = nms_per_class(boxes, scores, labels, threshold)
    monkeypatch.setattr("pipeline.ops.nms.PAIRS_WORTH_COMPILING", 0)
    compiled = nms_per_class(boxes, scores, labels, threshold)
    assert compiled.tolist() == by_numpy.tolist()
    assert nms_per_class(boxes, scores.astype(np.float64), labels, threshold).tolist() == by_numpy.tolist()
    for label in range(3):
        members = np.flatnonzero(labels == label)
        kept = oracle(torch.from_numpy(boxes[members]), torch.from_numpy(scores[members]), threshold).numpy()
        assert compiled[labels[compiled] == label].tolist() == members[kept].tolist()


def test_compiled_order_of_scores_is_that_of_a_stable_sort():
    from pipeline.ops import nms_compiled

    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0, 3, 5000), rng.integers(-3, 3, 500), [0.0, -0.0, np.inf, -np.inf, 1e-42]])
    scores = rng.permutation(scores).astype(np.float32)
    order = nms_compiled.falling_order((scores + np.float32(0)).view(np.uint32))
    assert order.tolist() == np.argsort(-scores, kind="stable").tolist()


def test_boxes_that_float32_areas_cannot_hold_are_left_to_numpy(monkeypatch):
    monkeypatch.setattr("pipeline.ops.nms.PAIRS_WORTH_COMPILING", 0)
    boxes = row(0, 1, 2, 3, 100, 101)
    boxes[4] = [30, 30, 20, 20]  # the wrong way round
    # neighbours share 9 of 11: the second and fourth go; 100 and 101 are one left
    assert nms(boxes, np.array([6, 5, 4, 3, 2, 1]) / 6, 0.7).tolist() == [0, 2, 4, 5]


def test_diou_suppression_spares_boxes_whose_centres_are_apart():
    # the second is shifted by 3 of 10 columns: IoU 7/13 = .538, less 9 / (13^2 + 10^2) = .033: DIoU .505
    boxes, scores, labels = row(0, 3), np.array([0.9, 0.8]), np.zeros(2, int)
    assert nms(boxes, scores, 0.52).tolist() == [0]
    assert diou_nms(boxes, scores, labels, 0.52).tolist() == [0, 1]
    assert diou_nms(boxes, scores, labels, 0.50).tolist() == [0]
    assert diou_nms(boxes, scores, np.array([0, 1]), 0.50).tolist() == [0, 1]


def slow_diou_nms(boxes, scores, labels, threshold):
    order, kept = np.argsort(-scores, kind="stable").tolist(), []
    for i in order:
        if all(labels[i] != labels[j] or diou(boxes[[j]], boxes[[i]])[0, 0] <= threshold for j in kept):
            kept.append(i)
    return kept


def slow_soft_nms(boxes, scores, labels, decay, least):
    """The pseudo-code of the paper, box by box."""
    kept, left = [], dict(enumerate(scores.astype(np.float64).tolist()))
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        score = left.pop(best)
        if score < least:
            break
        kept.append((best, score))
        for i in left:
            if labels[i] == labels[best]:
                left[i] *= decay(float(iou(boxes[[best]].astype(float), boxes[[i]].astype(float))[0, 0]))
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_diou_and_soft_suppression_equal_slow_references(seed):
    rng = np.random.default_rng(seed)
    boxes, scores = crowded(rng, 60, spread=8)
    scores, labels = np.abs(scores), rng.integers(0, 2, 60)
    assert diou_nms(boxes, scores, labels, 0.3).tolist() == slow_diou_nms(boxes, scores, labels, 0.3)
    for options, decay in (
        ({"method": "linear", "iou_threshold": 0.4}, lambda o: 1 - o if o >= 0.4 else 1),
        ({"method": "gaussian", "sigma": 0.3}, lambda o: np.exp(-(o**2) / 0.3)),
    ):
        kept, lowered = soft_nms(boxes, scores, labels, score_threshold=0.01, **options)
        expected = slow_soft_nms(boxes, scores, labels, decay, 0.01)
        assert kept.tolist() == [i for i, _ in expected]
        assert lowered == pytest.approx([score for _, score in expected], rel=1e-12)


def test_soft_suppression_returns_lowered_scores():
    # shifted by 5 of 10: IoU 1/3. linear: .8 x 2/3; gaussian: .8 x exp(-(1/9) / .5); the third is elsewhere
    boxes, scores, labels = row(0, 5, 50), np.array([0.9, 0.8, 0.6]), np.zeros(3, int)
    kept, lowered = soft_nms(boxes, scores, labels, method="linear")
    assert (kept.tolist(), lowered.tolist()) == ([0, 2, 1], pytest.approx([0.9, 0.6, 0.8 * 2 / 3]))
    kept, lowered = soft_nms(boxes, scores, labels, method="gaussian")
    assert (kept.tolist(), lowered.tolist()) == ([0, 1, 2], pytest.approx([0.9, 0.8 * np.exp(-2 / 9), 0.6]))
    kept, _ = soft_nms(boxes, scores, labels, method="linear", score_threshold=0.7)
    assert kept.tolist() == [0]


def test_fusion_of_one_model_worked_by_hand():
    # IoU of the first two 8/12; columns (0.9 x 0 + 0.3 x 2) / 1.2 = 0.5 and 10.5; score (.9 + .3) / 2
    boxes, scores, labels = row(0, 2, 50), np.array([0.9, 0.3, 0.5]), np.zeros(3, int)
    fused = weighted_box_fusion(boxes, scores, labels)
    assert fused.boxes.tolist() == [[0.5, 0, 10.5, 10], [50, 0, 60, 10]]
    assert fused.scores.tolist() == pytest.approx([0.6, 0.5])
    assert fused.sources.tolist() == [2, 1]


def test_fusion_of_models_trusts_what_several_found():
    # both models see the first place: mean .7; one of two sees the second: .6 x 1 / 2; another class stays apart
    boxes, scores, labels = row(0, 0, 50, 0), np.array([0.8, 0.6, 0.6, 0.4]), np.array([0, 0, 0, 1])
    models = np.array([0, 1, 1, 1])
    fused = weighted_box_fusion(boxes, scores, labels, models=models, weights=(1, 1))
    assert fused.scores.tolist() == pytest.approx([0.7, 0.3, 0.2])
    assert fused.labels.tolist() == [0, 0, 1]
    # weights 2 and 1: (1.6 + .6) / 2 x 2 / 3; .6 x 1 / 3; .4 x 1 / 3
    fused = weighted_box_fusion(boxes, scores, labels, models=models, weights=(2, 1))
    assert fused.scores.tolist() == pytest.approx([2.2 / 3, 0.2, 0.4 / 3])


def test_variants_without_boxes():
    nothing = np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)
    assert diou_nms(*nothing, 0.5).tolist() == []
    assert [part.tolist() for part in soft_nms(*nothing, method="linear")] == [[], []]
    assert [part.tolist() for part in weighted_box_fusion(*nothing)] == [[], [], [], []]
