import numpy as np
import pytest

from pipeline.metrics.detection_confusion import calibration, confusion, pair
from tests.detections import found, row, truths


def test_confusion_worked_by_hand():
    target = truths(row(0, 100, 200, 300), [0, 0, 1, 1])
    # right; right place, other class; a second one on the first truth; nothing there; the rest is missed
    prediction = found(row(0, 101, 1, 400), [0, 1, 0, 1], [0.9, 0.8, 0.7, 0.6])
    matrix = confusion(predictions=[prediction], targets=[target], num_classes=2)
    assert matrix.tolist() == [[1, 1, 0], [0, 0, 2], [1, 1, 0]]


def test_a_truth_goes_to_its_own_class_before_a_better_placed_other():
    # 0..10 of another class with a higher score, 2..12 (IoU 8/12) of the class itself
    matrix = confusion(predictions=[found(row(0, 2), [1, 0], [0.9, 0.5])], targets=[truths(row(0), [0])], num_classes=2)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_a_detection_on_a_crowd_is_not_counted_and_a_crowd_is_not_missed():
    target = truths(np.array([[0, 0, 100, 10]], np.float32), [0], crowd=[0])
    # inside; half inside is enough; a third is not; another class is not
    prediction = found(row(20, 95, 97, 40), [0, 0, 0, 1], [0.9, 0.8, 0.7, 0.6])
    assert pair(prediction, target, 0.5).ignored.tolist() == [True, True, False, False]
    matrix = confusion(predictions=[prediction], targets=[target], num_classes=2)
    assert matrix.tolist() == [[0, 0, 0], [0, 0, 0], [1, 1, 0]]


@pytest.mark.parametrize("seed", range(10))
def test_every_truth_and_every_detection_is_in_one_cell(seed):
    rng = np.random.default_rng(seed)
    sets = []
    for _ in range(4):
        num, num_found = rng.integers(0, 6, 2)
        sets.append(
            (
                found(row(*rng.integers(0, 60, num_found)), rng.integers(0, 3, num_found), rng.random(num_found)),
                truths(row(*rng.integers(0, 60, num)), rng.integers(0, 3, num)),
            )
        )
    predictions, targets = zip(*sets, strict=True)
    matrix = confusion(predictions=predictions, targets=targets, num_classes=3)
    true_classes = np.bincount(np.concatenate([t.labels for t in targets]), minlength=3)
    found_classes = np.bincount(np.concatenate([p.labels for p in predictions]), minlength=3)
    assert matrix[:3].sum(1).tolist() == true_classes.tolist()
    assert matrix[:, :3].sum(0).tolist() == found_classes.tolist()
    assert matrix[3, 3] == 0
    perfect = [found(t.boxes, t.labels, np.ones(len(t))) for t in targets]
    diagonal = confusion(predictions=perfect, targets=targets, num_classes=3)
    assert diagonal.tolist() == np.diag([*true_classes, 0]).tolist()


def test_calibration_of_detections_worked_by_hand():
    # .99 right and .95 wrong share the last bin: mean .97, half right; .5 right alone; ECE (2 x .47 + .5) / 3
    prediction = found(row(0, 200, 100), [0, 0, 0], [0.99, 0.95, 0.5])
    result = calibration(predictions=[prediction], targets=[truths(row(0, 100), [0, 0])])
    assert (result.counts[-1], result.accuracy[-1]) == (2, 0.5)
    assert result.ece == pytest.approx((2 * 0.47 + 0.5) / 3, abs=1e-6)


def test_without_anything():
    nothing = found(row(), [], []), truths(row(), [])
    assert confusion(predictions=[nothing[0]], targets=[nothing[1]], num_classes=1).tolist() == [[0, 0], [0, 0]]
    assert calibration(predictions=[nothing[0]], targets=[nothing[1]]).ece is None
    assert confusion(predictions=[], targets=[], num_classes=1).sum() == 0
