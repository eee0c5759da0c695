import contextlib
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.metrics import detection, detection_confusion, detection_errors
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


def test_figures_by_class_are_named_by_the_thresholds_and_limits_that_they_are_of():
    # 8 x 10 of 10 x 10: IoU .8, so wrong from .85 on
    call = {"predictions": [found([[0, 0, 8, 10]], [0.5])], "targets": [objects([[0, 0, 10, 10]])], "num_classes": 1}
    few = detection.evaluate_detections(**call, iou_thresholds=[0.3, 0.75, 0.85], max_detections=[1, 7])
    (row,) = detection.per_class(few, ["a"])
    assert row == {
        "class": "a",
        "num_truths": 1,
        "ap": pytest.approx(2 / 3),
        "ap75": pytest.approx(1),
        "ar7": pytest.approx(2 / 3),
    }
    assert detection.precision_recall(few, 0.75)[0] == pytest.approx(np.ones(101))
    assert detection.precision_recall(few, 0.85).tolist() == [[0] * 101]
    with pytest.raises(ValueError, match=r"no IoU threshold 0\.5 among 0\.3, 0\.75, 0\.85"):
        detection.precision_recall(few)


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
    assert result.near.tolist() == pytest.approx([1.0, 0.4, 0])


def test_outcome_is_that_of_the_matches_where_overlaps_are_equal_and_boxes_empty():
    target = objects([[0, 0, 10, 10], [4, 0, 14, 10], [50, 50, 90, 90]], iscrowd=[False, False, True])
    # in the middle of both, so that the later one is taken; on the first one; a point far from the crowd
    shown = found([[2, 0, 12, 10], [0, 0, 10, 10], [20, 20, 20, 20]], [0.9, 0.8, 0.7])
    matches = detection.evaluate_detections(predictions=[shown], targets=[target], num_classes=1).matches
    result = detection.outcome(prediction=shown, target=target)
    assert result.right.tolist() == (matches.matched & ~matches.ignored & 1).tolist() == [1, 1, 0]
    assert result.wrong.tolist() == (~(matches.matched | matches.ignored) & 1).tolist() == [0, 0, 1]
    assert result.missed.tolist() == [False] * 3


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


def test_a_swapped_box_and_a_class_that_is_none_are_refused():
    for prediction, message in (
        (found([[5, 0, 0, 5]], [0.5]), "box has its corners swapped"),
        (found([[0, 0, 5, 5]], [0.5], [7]), "label is no class"),
    ):
        with pytest.raises(ValueError, match=f"image 0: prediction 0: {message}"):
            detection.evaluate_detections(predictions=[prediction], targets=[objects()], num_classes=1)


@pytest.mark.parametrize("rule", ["coco", "voc_all", "trapezoid"])
@pytest.mark.parametrize("name", ["iou_thresholds", "max_detections"])
@pytest.mark.parametrize("values", [[0.75, 0.5], [0.5, 0.5], []])
def test_thresholds_and_limits_that_do_not_ascend_are_refused(rule, name, values):
    numbers = values if name == "iou_thresholds" else [int(100 * value) for value in values]
    call = {"predictions": [found()], "targets": [objects([[0, 0, 5, 5]])], "num_classes": 1, "rule": rule}
    with pytest.raises(ValueError, match=rf"^{name} \[.*\] do not ascend"):
        detection.evaluate_detections(**call, **{name: numbers})
    detection.evaluate_detections(**call, **{name: np.unique([1, *numbers])})


@pytest.mark.parametrize(
    ("name", "values"), [("iou_thresholds", [2]), ("iou_thresholds", [0, 0.5]), ("max_detections", [0, 10])]
)
def test_thresholds_and_limits_that_cannot_be_are_refused(name, values):
    call = {"predictions": [found()], "targets": [objects([[0, 0, 5, 5]])], "num_classes": 1}
    with pytest.raises(ValueError, match=rf"^{name} \[.*\] must be "):
        detection.evaluate_detections(**call, **{name: values})
    with pytest.raises(ValueError, match=r"^iou_thresholds \[nan\]"):
        detection.evaluate_detections(**call, iou_thresholds=[np.nan])


BOXES = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]


def test_detections_may_be_lists_and_whole_numbers():
    plain = detection.evaluate_detections(
        predictions=[found(BOXES, [0.9, 0.8, 0.75])], targets=[objects(BOXES[1:])], num_classes=1
    )
    for scores in ([0.9, 0.8, 0.75], np.array([90, 80, 75], np.uint8), np.array([3, 2, 1])):
        shown = [Detections(BOXES, scores, [0, 0, 0]), Detections([], [], [])]
        targets = [objects(BOXES[1:]), objects()]
        result = detection.evaluate_detections(predictions=shown, targets=targets, num_classes=1)
        assert result.metrics == plain.metrics
        assert detection_errors.error_types(predictions=shown, targets=targets, num_classes=1).ap == pytest.approx(
            2 / 3
        )
        matrix = detection_confusion.confusion(predictions=shown, targets=targets, num_classes=1)
        assert matrix.tolist() == [[2, 0], [1, 0]]
    with pytest.raises(ValueError, match=r"boxes must be \[N, 4\], got \(4, 3\)"):
        Detections(np.zeros((4, 3)), np.zeros(4), np.zeros(4))


@pytest.mark.parametrize("label", [0.9, np.nan])
def test_labels_that_are_no_whole_numbers_are_refused(label):
    """.9 would be taken for class 0."""
    labels = np.array([0, label])
    with pytest.raises(ValueError, match=r"a label or image is no whole number \((0.9|nan)\)"):
        Detections(np.zeros((2, 4)), np.zeros(2), labels)
    with pytest.raises(ValueError, match=r"a label or image is no whole number \((0.9|nan)\)"):
        detection.DetectionColumns(np.zeros(2), labels, np.zeros(2), np.zeros((2, 4)))


@pytest.mark.parametrize("iscrowd", [[0, 0, 1], np.array([0, 0, 1], np.uint8)])
def test_a_crowd_may_be_told_by_0_and_1_as_in_cocos_files(iscrowd):
    """As indices they would make crowds of the first two."""
    target, told = objects(BOXES, iscrowd=[False, False, True]), objects(BOXES)
    told.iscrowd = np.array(iscrowd)
    shown = [found(BOXES, [0.9, 0.8, 0.7])]
    for judge in (detection.evaluate_detections, detection_errors.error_types, detection_confusion.confusion):
        first, second = (judge(predictions=shown, targets=[one], num_classes=1) for one in (target, told))
        assert str(first) == str(second)
    for one in (target, told):
        assert detection.outcome(prediction=shown[0], target=one).missed.tolist() == [False] * 3


def test_columns_are_brought_to_their_types():
    """Of float32 scores the bits would be read in pairs, and 16-bit images times classes overflow."""
    num, num_classes = 400, 90
    boxes = np.tile([[5, 5, 10, 10]], (num, 1))
    labels = np.arange(num) % num_classes
    scores = np.linspace(1, 0.1, num)

    def result(kind, real, crowd):
        images = np.arange(num).astype(kind)
        shown = detection.DetectionColumns(images, labels.astype(kind), scores.astype(real), boxes.astype(real))
        areas = np.full(num, 100, real)
        truth = detection.ObjectColumns(images, labels.astype(kind), boxes.astype(real), areas, crowd)
        return detection.evaluate_detections(
            predictions=shown, targets=truth, num_classes=num_classes, num_images=num
        ).metrics

    expected = result(np.int64, np.float64, labels == 3)
    assert expected["map"] == pytest.approx(1)
    assert result(np.int16, np.float32, (labels == 3).astype(int)) == expected
    assert result(np.uint16, np.float64, (labels == 3).tolist()) == expected


@pytest.mark.parametrize("kind", ["masks", "keypoints"])
def test_detections_without_what_is_judged_are_refused(kind):
    """pycocotools scores boxes where masks are missing."""
    with pytest.raises(ValueError, match=f"image 0: 0 {kind} for 1 detections"):
        detection.evaluate_detections(
            predictions=[found([[0, 0, 5, 5]], [0.5])], targets=[objects([[0, 0, 5, 5]])], num_classes=1, kind=kind
        )


def test_sigmas_must_be_as_many_as_keypoints():
    points = np.ones((1, 3, 3))
    target = Objects(np.array([[0, 0, 5, 5.0]]), np.zeros(1, int), np.ones(1), np.zeros(1, bool), keypoints=points)
    shown = Detections(np.array([[0, 0, 5, 5.0]]), np.ones(1), np.zeros(1, int), keypoints=points)
    call = {"predictions": [shown], "targets": [target], "num_classes": 1, "kind": "keypoints"}
    with pytest.raises(ValueError, match="17 sigmas for 3 keypoints; fix: give one for each"):
        detection.evaluate_detections(**call)
    assert detection.evaluate_detections(**call, sigmas=[0.1, 0.1, 0.1]).metrics["map"] == pytest.approx(1)


def test_columns_in_any_order_give_the_same(detection_set):
    shown, truth, num_images, num_classes = detection_set(5, "masks")
    order = np.random.default_rng(0).permutation(len(shown.images))
    shown.scores = order / len(order)  # no ties
    sizes = {"num_images": num_images, "num_classes": num_classes, "kind": "masks"}
    mixed = detection.DetectionColumns(
        shown.images[order], shown.labels[order], shown.scores[order], shown.boxes_xywh[order], shown.masks.take(order)
    )
    one = detection.evaluate_detections(predictions=shown, targets=truth, **sizes)
    other = detection.evaluate_detections(predictions=mixed, targets=truth, **sizes)
    assert one.metrics == other.metrics
    assert one.metrics["map"] > 0
    assert order[other.matches.indices].tolist() == one.matches.indices.tolist()


def test_over_confidence_worked_by_hand():
    truth = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    shown = found([truth[0], [60, 0, 70, 10], truth[1]], [0.875, 0.75, 0.5])
    result = detection.evaluate_detections(predictions=[shown], targets=[objects(truth)], num_classes=2)
    curve = detection.over_confidence(result, np.array([0.0, 0.5, 0.625, 0.875, 0.95]))
    assert curve.precision[0].tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 2, 1, np.nan], nan_ok=True)
    assert curve.recall[0].tolist() == pytest.approx([2 / 3, 2 / 3, 1 / 3, 1 / 3, 0])
    assert curve.f1[0].tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 5, 1 / 2, 0])  # 2 TP / (shown + 3)
    assert curve.f1[2].tolist() == curve.f1[0].tolist()  # all classes together
    assert curve.best() == [(0.0, pytest.approx(2 / 3)), None, (0.0, pytest.approx(2 / 3))]


def test_federated_classes_are_judged_only_where_they_were_looked_for():
    target = objects([[0, 0, 10, 10]], [0])
    boxes = [[0, 0, 10, 10], [50, 0, 60, 10], [70, 0, 80, 10], [90, 0, 99, 10]]
    shown = found(boxes, [0.5, 0.9, 0.8, 0.7], [0, 0, 1, 2])

    def judged(**options):
        federated = detection.Federated(**{"negatives": [[]], "not_exhaustive": [[]]} | options)
        return detection.evaluate_detections(predictions=[shown], targets=[target], num_classes=3, federated=federated)

    # class 0 has a truth: its false box counts, precision 1/2; classes 1 and 2 were not looked for
    assert judged().metrics["map"] == pytest.approx(0.5)
    assert judged().matches.labels.tolist() == [0, 0]
    # not every object of class 0 is annotated: its false box is ignored
    assert judged(not_exhaustive=[[0]]).metrics["map"] == pytest.approx(1)
    # class 1 is known to be absent: it is judged, and without truth left out of the mean
    assert judged(negatives=[[1]]).matches.labels.tolist() == [0, 0, 1]
    assert judged(negatives=[[1]]).metrics["map"] == pytest.approx(0.5)
    # of an image the best few of all classes: the true box comes fourth
    assert judged(max_per_image=3).metrics["map"] == 0
    by_frequency = judged(frequency=["r", "c", "f"]).metrics
    assert by_frequency["map_rare"] == pytest.approx(0.5)
    assert by_frequency["map_common"] is None
    assert "mar300" in by_frequency


def test_federated_figures_equal_another_implementation_of_lvis(tmp_path):
    import json

    from hotcoco import COCO, LVISeval

    predictions, targets = random_set(num_images=30)
    rng = np.random.default_rng(1)
    negatives, partly, annotations, results = [], [], [], []
    for image, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        target.iscrowd[:] = False
        present = set(target.labels.tolist())
        negatives.append([k for k in range(4) if k not in present and rng.random() < 0.5])
        partly.append([k for k in sorted(present) if rng.random() < 0.3])
        for box, label, area in zip(target.boxes.tolist(), target.labels.tolist(), target.area.tolist(), strict=True):
            x1, y1, x2, y2 = box
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image + 1, "category_id": label + 1, "iscrowd": 0}
                | {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": area}
            )
        rows = zip(prediction.boxes.tolist(), prediction.labels.tolist(), prediction.scores.tolist(), strict=True)
        for (x1, y1, x2, y2), label, score in rows:
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": image + 1, "category_id": label + 1, "bbox": box, "score": score})
    frequency = ["r", "c", "f", "f"]
    truth = {
        "images": [
            {
                "id": i + 1,
                "height": 300,
                "width": 300,
                "neg_category_ids": [k + 1 for k in negatives[i]],
                "not_exhaustive_category_ids": [k + 1 for k in partly[i]],
            }
            for i in range(30)
        ],
        "categories": [{"id": k + 1, "name": str(k), "frequency": frequency[k]} for k in range(4)],
        "annotations": annotations,
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    coco = COCO(str(tmp_path / "truth.json"))
    oracle = LVISeval(coco, coco.load_res(str(tmp_path / "results.json")), "bbox")
    oracle.run()
    expected = oracle.get_results()
    federated = detection.Federated(negatives, partly, frequency)
    ours = detection.evaluate_detections(
        predictions=predictions, targets=targets, num_classes=4, federated=federated
    ).metrics
    names = {"AP": "map", "AP50": "map50", "AP75": "map75", "APs": "map_small", "APm": "map_medium", "APl": "map_large"}
    names |= {"APr": "map_rare", "APc": "map_common", "APf": "map_frequent", "AR@300": "mar300"}
    names |= {"ARs@300": "mar_small", "ARm@300": "mar_medium", "ARl@300": "mar_large"}
    assert set(names.values()) == set(ours)
    for theirs, name in names.items():
        assert ours[name] == pytest.approx(expected[theirs], abs=1e-12), name


def test_a_prediction_table_is_read_as_its_rows_are():
    predictions, targets = random_set()
    boxes = pa.list_(pa.list_(pa.float32(), 4))
    table = pa.table(
        {
            "boxes": pa.array([p.boxes.tolist() for p in predictions], boxes),
            "scores": pa.array([p.scores.tolist() for p in predictions], pa.list_(pa.float32())),
            "labels": pa.array([p.labels.tolist() for p in predictions], pa.list_(pa.int32())),
        }
    )
    whole = pa.concat_tables([table.slice(0, 5), table.slice(5)])  # in two pieces, the second with an offset
    shown = detection.columns_of_table(whole)
    for name, values in vars(detection.columns_of(predictions)).items():
        np.testing.assert_array_equal(getattr(shown, name), values)
    truth = detection.object_columns_of(targets)
    sizes = {"num_classes": 4, "num_images": len(targets)}
    result = detection.evaluate_detections(predictions=shown, targets=truth, **sizes)
    plain = detection.evaluate_detections(predictions=predictions, targets=targets, num_classes=4)
    assert result.metrics == plain.metrics
    fewer = table.set_column(1, "scores", pa.array([[]] * len(targets), pa.list_(pa.float32())))
    with pytest.raises(ValueError, match="image 1: boxes, scores and labels differ in number"):
        detection.columns_of_table(fewer)


def test_columns_need_the_number_of_images():
    shown = detection.columns_of([found()])
    with pytest.raises(ValueError, match="fix: give num_images"):
        detection.evaluate_detections(predictions=shown, targets=[objects()], num_classes=1)


def test_the_per_image_table_of_a_run_stays_small(tmp_path):
    """reports/ are kept in git: 160 images of 50 detections must take tens of kB, most of it the scores."""
    rng = np.random.default_rng(0)
    predictions, targets = random_set(num_images=160)
    for prediction in predictions:
        num = 50 - len(prediction.scores)
        corner = rng.uniform(0, 100, (num, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(8, 60, (num, 2))], 1)
        prediction.boxes = np.concatenate([prediction.boxes, boxes])
        prediction.scores = rng.random(50).astype(np.float32)
        prediction.labels = np.concatenate([prediction.labels, rng.integers(0, 4, num)])
    result = detection.evaluate_detections(predictions=predictions, targets=targets, num_classes=4)
    table = pa.table(detection.per_image(result))
    pq.write_table(table, tmp_path / "table.parquet", compression="zstd")
    assert (tmp_path / "table.parquet").stat().st_size < 60_000
    again = detection.resampled(pq.read_table(tmp_path / "table.parquet"), np.ones((1, 160), int))
    for name, value in result.metrics.items():
        assert again[name][0] == pytest.approx(np.nan if value is None else value, abs=1e-12, nan_ok=True), name
