import contextlib
import io

import numpy as np
import pytest

from pipeline.metrics import detection
from pipeline.metrics.detection import Detections
from pipeline.structures import Objects


def objects(boxes=(), labels=None, area=None, iscrowd=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    num = len(boxes)
    return Objects(
        boxes=boxes,
        labels=np.zeros(num, np.int64) if labels is None else np.array(labels),
        area=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) if area is None else np.array(area, np.float32),
        iscrowd=np.zeros(num, bool) if iscrowd is None else np.array(iscrowd),
    )


def found(boxes=(), scores=(), labels=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.array(labels)
    return Detections(boxes=boxes, scores=np.array(scores, np.float32), labels=labels)


def random_set(num_images=12, num_classes=4, seed=0):
    """Truth and detections scattered around it; the last class has no truth, one image has neither."""
    rng = np.random.default_rng(seed)
    predictions, targets = [found()], [objects()]
    for _ in range(num_images - 1):
        corner, size = rng.uniform(0, 100, (5, 2)), rng.uniform(8, 120, (5, 2))
        boxes, labels = np.concatenate([corner, corner + size], 1), rng.integers(0, num_classes - 1, 5)
        crowd = rng.random(5) < 0.15
        targets.append(objects(boxes, labels, size.prod(1) * rng.uniform(0.4, 1, 5), crowd))
        shown = np.tile(boxes, (3, 1)) + rng.normal(0, 6, (15, 4))
        shown[:, 2:] = np.maximum(shown[:, 2:], shown[:, :2] + 1)
        guessed = np.where(rng.random(15) < 0.8, np.tile(labels, 3), rng.integers(0, num_classes, 15))
        predictions.append(found(shown, rng.integers(1, 30, 15) / 30, guessed))
    return predictions, targets


def test_two_of_three_truths_found_worked_by_hand():
    truth = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    # right, wrong, right: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3
    shown = found([truth[0], [60, 0, 70, 10], truth[1]], [0.9, 0.8, 0.7])
    result = detection.evaluate_detections(predictions=[shown], targets=[objects(truth)], num_classes=1)
    # interpolated precision is 1 at the 34 levels to .33, 2/3 at the 33 levels .34 to .66, then 0
    assert result.metrics["map50"] == pytest.approx((34 + 33 * 2 / 3) / 101)
    assert result.metrics["map"] == result.metrics["map50"]  # the boxes fit exactly
    assert result.metrics["mar1"] == pytest.approx(1 / 3)
    assert result.metrics["mar100"] == pytest.approx(2 / 3)
    assert result.metrics["map_large"] is None
    assert result.metrics["map_small"] == result.metrics["map"]
    curve = detection.precision_recall(result)[0]
    assert curve[[0, 33, 34, 66, 67]].tolist() == pytest.approx([1, 1, 2 / 3, 2 / 3, 0])


def test_a_box_that_is_a_bit_off_counts_up_to_its_overlap():
    # 8 x 10 of 10 x 10: IoU .8, matched at .5 ... .8, which are 7 of 10 thresholds
    result = detection.evaluate_detections(
        predictions=[found([[0, 0, 8, 10]], [0.5])], targets=[objects([[0, 0, 10, 10]])], num_classes=1
    )
    assert result.metrics["map"] == pytest.approx(0.7)
    assert (result.matches.matched & 1023).tolist() == [0b1111111]


def test_size_is_the_area_of_the_annotation_not_of_the_box():
    box = [[0.0, 0.0, 40.0, 40.0]]  # 1600 pixels, medium; its mask has 900, small
    result = detection.evaluate_detections(
        predictions=[found(box, [0.9])], targets=[objects(box, area=[900.0])], num_classes=1
    )
    assert result.metrics["map_small"] == pytest.approx(1)
    assert result.metrics["map_medium"] is None


def test_all_twelve_figures_equal_pycocotools_from_its_own_json(tmp_path):
    import json

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    predictions, targets = random_set(num_images=30)
    annotations, results = [], []
    for image, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        for box, label, area, crowd in zip(target.boxes, target.labels, target.area, target.iscrowd, strict=True):
            x1, y1, x2, y2 = box.tolist()
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image, "category_id": int(label), "iscrowd": int(crowd)}
                | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": float(area)}
            )
        for box, label, score in zip(prediction.boxes, prediction.labels, prediction.scores, strict=True):
            x1, y1, x2, y2 = box.tolist()
            results.append(
                {
                    "image_id": image,
                    "category_id": int(label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(score),
                }
            )
    content = {"images": [{"id": i} for i in range(30)], "annotations": annotations}
    (tmp_path / "truth.json").write_text(json.dumps(content | {"categories": [{"id": k} for k in range(4)]}))
    (tmp_path / "results.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(tmp_path / "truth.json")
        oracle = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "bbox")
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    result = detection.evaluate_detections(predictions=predictions, targets=targets, num_classes=4)
    assert 0.1 < result.metrics["map"] < 0.9
    assert list(result.metrics.values()) == pytest.approx(oracle.stats.tolist(), abs=1e-12)


def test_the_matches_of_images_alone_give_map_again():
    predictions, targets = random_set()
    result = detection.evaluate_detections(predictions=predictions, targets=targets, num_classes=4)
    matches = result.matches
    scores, labels, matched, ignored = matches.scores, matches.labels, matches.matched, matches.ignored
    truth_labels = matches.truth_labels[matches.truth_ranges & 1 == 1]
    order = np.argsort(-scores, kind="stable")
    values = []
    for label in np.unique(truth_labels):
        for bit in range(10):
            counted = [i for i in order if labels[i] == label and not ignored[i] >> bit & 1]
            right = np.cumsum([matched[i] >> bit & 1 for i in counted])
            recall, precision = right / (truth_labels == label).sum(), right / np.arange(1, len(counted) + 1)
            best = [max((precision[recall >= level]), default=0) for level in np.linspace(0, 1, 101)]
            values.append(np.mean(best))
    assert result.metrics["map"] == pytest.approx(np.mean(values), abs=1e-9)


def test_per_class_figures_average_to_the_whole():
    predictions, targets = random_set()
    result = detection.evaluate_detections(predictions=predictions, targets=targets, num_classes=4)
    rows = detection.per_class(result, list("abcd"))
    assert rows[3]["ap"] is None
    assert rows[3]["num_truths"] == 0
    assert np.mean([row["ap"] for row in rows[:3]]) == pytest.approx(result.metrics["map"])
    assert np.mean([row["ap50"] for row in rows[:3]]) == pytest.approx(result.metrics["map50"])
    assert np.mean([row["ar100"] for row in rows[:3]]) == pytest.approx(result.metrics["mar100"])
    assert sum(row["num_truths"] for row in rows) == sum((~target.iscrowd).sum() for target in targets)
    assert np.isnan(detection.precision_recall(result)[3]).all()


def test_nothing_detected_scores_zero():
    result = detection.evaluate_detections(predictions=[found()], targets=[objects([[0, 0, 10, 10]])], num_classes=2)
    assert result.metrics["map"] == result.metrics["mar100"] == 0.0


@pytest.mark.parametrize("prediction", [found(), found([[0, 0, 5, 5]], [0.5])])
def test_without_truth_everything_is_undefined(prediction):
    result = detection.evaluate_detections(predictions=[prediction], targets=[objects()], num_classes=2)
    assert result.metrics == dict.fromkeys(detection.METRICS)


def test_without_images_everything_is_undefined():
    result = detection.evaluate_detections(predictions=[], targets=[], num_classes=2)
    assert result.metrics == dict.fromkeys(detection.METRICS)


def test_nothing_is_printed(capsys):
    detection.evaluate_detections(predictions=[found()], targets=[objects([[0, 0, 1, 1]])], num_classes=1)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "prediction",
    [
        found([[0, 0, np.nan, 5]], [0.5]),
        found([[0, 0, 5, 5]], [np.inf]),
        Detections(boxes=np.zeros((2, 4)), scores=np.zeros(1), labels=np.zeros(2, int)),
    ],
)
def test_what_cannot_be_scored_is_refused(prediction):
    with pytest.raises(ValueError, match="image 0"):
        detection.evaluate_detections(predictions=[prediction], targets=[objects()], num_classes=1)


def test_outcome_worked_by_hand():
    target = objects([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 80, 40]], labels=[0, 0, 1], iscrowd=[False, False, True])
    shown = found(
        [[0, 0, 10, 8], [0, 0, 10, 10], [20, 0, 30, 4], [45, 5, 55, 15], [45, 5, 55, 15]],
        [0.9, 0.8, 0.7, 0.6, 0.5],
        [0, 0, 0, 1, 0],
    )
    result = detection.outcome(prediction=shown, target=target)
    # the better score takes the first truth though it fits worse; .4 of the second is too little; the crowd hides
    # the box of its class and not that of another
    assert result.right.tolist() == [True, False, False, False, False]
    assert result.wrong.tolist() == [False, True, True, False, True]
    assert result.missed.tolist() == [False, True, False]
    assert result.near.tolist() == pytest.approx([1.0, 0.4, 100 / 1600])


def test_outcome_agrees_with_the_matches_at_half_overlap():
    predictions, targets = random_set()
    result = detection.evaluate_detections(predictions=predictions, targets=targets, num_classes=4)
    matches = result.matches
    for image, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        here = slice(matches.offsets[image], matches.offsets[image + 1])
        mine = detection.outcome(prediction=prediction, target=target)
        matched, ignored = matches.matched[here] & 1, matches.ignored[here] & 1
        assert mine.right.sum() == (matched & ~ignored).sum()
        assert mine.wrong.sum() == ((matched | ignored) == 0).sum()
        assert mine.missed.sum() == (~target.iscrowd).sum() - mine.right.sum()
