import numpy as np
import pytest

from pipeline.metrics.detection_errors import IGNORED, KINDS, RIGHT, error_types
from tests.detections import found, row, truths

NAMES = list(KINDS)


@pytest.mark.parametrize(
    ("kind", "start", "label"),
    [
        ("classification", 0, 1),  # on the truth, another class
        ("localisation", 5, 0),  # IoU 5/15
        ("both", 5, 1),
        ("background", 50, 0),
        ("background", 9, 1),  # IoU 1/19, below .1
        ("duplicate", 101, 0),  # the truth at 100 is taken
    ],
)
def test_a_wrong_detection_is_of_one_kind(kind, start, label):
    target = truths(row(0, 100), [0, 0])
    result = error_types(predictions=[found(row(100, start), [0, label], [0.9, 0.8])], targets=[target], num_classes=2)
    assert [NAMES[k] if k != RIGHT else "right" for k in result.of_detections[0]] == ["right", kind]
    # a class or place that is nearly right shows the truth; else it is missed
    shows = kind in ("classification", "localisation")
    assert result.missed[0].tolist() == [not shows, False]
    assert sum(result.counts.values()) == 1 + (not shows)


def test_gains_worked_by_hand():
    # class 0, two truths: .9 background, .8 right, .7 misplaced on the second truth.
    # AP: at recall 1/2 precision 1/2, beyond nothing: 51 levels (0 to .5) of 101
    target = truths(row(0, 100), [0, 0])
    prediction = found(row(200, 0, 105), [0, 0, 0], [0.9, 0.8, 0.7])
    result = error_types(predictions=[prediction], targets=[target], num_classes=1)
    ap = 0.5 * 51 / 101
    assert result.ap == pytest.approx(ap)
    # misplaced made right: precisions 0, 1/2, 2/3, interpolated 2/3 everywhere
    assert result.gains["localisation"] == pytest.approx(2 / 3 - ap)
    # background gone: precision 1 up to recall 1/2
    assert result.gains["background"] == pytest.approx(51 / 101 - ap)
    assert result.gains["classification"] == result.gains["both"] == result.gains["duplicate"] == 0
    assert result.gains["missed"] == 0  # the second truth is shown, though misplaced
    assert result.gains["false_positives"] == pytest.approx(51 / 101 - ap)
    assert result.gains["false_negatives"] == pytest.approx(0.5 - ap)  # one truth, precision 1/2


def test_a_truth_that_several_errors_show_goes_to_the_best_of_them():
    # both are misplaced on the one truth: mended, the better one is right and the other is gone
    result = error_types(
        predictions=[found(row(5, 4), [0, 0], [0.9, 0.8])], targets=[truths(row(0), [0])], num_classes=1
    )
    assert (result.ap, result.gains["localisation"]) == (0, pytest.approx(1))


def test_a_detection_on_a_crowd_is_no_error():
    target = truths(np.array([[0, 0, 100, 10], [200, 0, 210, 10]], np.float32), [0, 0], crowd=[0])
    result = error_types(predictions=[found(row(20, 200), [0, 0], [0.9, 0.8])], targets=[target], num_classes=1)
    assert result.of_detections[0].tolist() == [IGNORED, RIGHT]
    assert (result.ap, sum(result.counts.values())) == (1, 0)


def test_the_best_of_an_image_count():
    prediction = found(row(50, 0), [0, 0], [0.2, 0.9])
    result = error_types(predictions=[prediction], targets=[truths(row(0), [0])], num_classes=1, max_detections=1)
    assert result.of_detections[0].tolist() == [IGNORED, RIGHT]


def test_without_truth_nothing_is_defined_but_counted():
    result = error_types(predictions=[found(row(0), [0], [0.9])], targets=[truths(row(), [])], num_classes=1)
    assert result.ap is None
    assert set(result.gains.values()) == {None}
    assert result.counts["background"] == 1


def test_a_detector_that_finds_nothing_misses_everything():
    result = error_types(predictions=[found(row(), [], [])], targets=[truths(row(0), [0])], num_classes=1)
    assert (result.ap, result.counts["missed"]) == (0, 1)
    # without its missed truths nothing is left to score
    assert result.gains["missed"] is None
    assert result.gains["background"] == 0


def scene(rng, num_classes, scores):
    """Truths, and detections that are near them, misplaced, of another class, repeated, or anywhere."""
    num = int(rng.integers(0, 6))
    corner, size = rng.uniform(0, 80, (num, 2)), rng.uniform(8, 40, (num, 2))
    boxes = np.concatenate([corner, corner + size], 1)
    labels = rng.integers(0, num_classes, num)
    owner = rng.integers(0, num, int(rng.integers(0, 14))) if num else np.zeros(0, int)
    shift = rng.normal(0, 0.25, (len(owner), 4)) * np.tile(size[owner], 2) * rng.integers(0, 2, (len(owner), 1))
    moved = boxes[owner] + shift
    classes = np.where(rng.random(len(owner)) < 0.25, rng.integers(0, num_classes, len(owner)), labels[owner])
    extra = rng.uniform(0, 90, (int(rng.integers(0, 3)), 2))
    moved = np.concatenate([moved, np.concatenate([extra, extra + 15], 1)])
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 2)
    classes = np.concatenate([classes, rng.integers(0, num_classes, len(extra))])
    own = np.array([scores.pop() for _ in range(len(moved))])
    return found(moved.astype(np.float32), classes, own), truths(boxes.astype(np.float32), labels)


@pytest.mark.parametrize("seed", range(6))
def test_error_types_equal_those_of_the_authors(seed):
    pytest.importorskip("tidecv")
    from tidecv import TIDE, Data

    rng = np.random.default_rng(seed)
    scores = rng.permutation(np.arange(1, 4000) / 4000).tolist()  # all different
    predictions, targets = zip(*(scene(rng, 4, scores) for _ in range(40)), strict=True)
    result = error_types(predictions=predictions, targets=targets, num_classes=4)

    truth, guess = Data("truth"), Data("guess")
    for image, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        truth.add_image(image, str(image))
        guess.add_image(image, str(image))
        for box, label in zip(target.boxes.astype(float), target.labels, strict=True):
            truth.add_ground_truth(image, int(label), [*box[:2], *(box[2:] - box[:2])])
        columns = (prediction.boxes.astype(float), prediction.labels, prediction.scores)
        for box, label, score in zip(*columns, strict=True):
            guess.add_detection(image, int(label), float(score), [*box[:2], *(box[2:] - box[:2])])
    run = TIDE().evaluate(truth, guess)
    assert result.ap * 100 == pytest.approx(run.ap, abs=1e-9)
    order = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
    counts = {error.short_name: count for error, count in run.count_errors().items()}
    assert list(result.counts.values()) == [counts[name] for name in order]
    gains = {error.short_name: gain for error, gain in run.fix_main_errors().items()}
    gains |= {error.short_name: gain for error, gain in run.fix_special_errors().items()}
    expected = [gains[name] / 100 for name in (*order, "FalsePos", "FalseNeg")]
    assert list(result.gains.values()) == pytest.approx(expected, abs=1e-9)
    assert min(result.counts.values()) > 0
