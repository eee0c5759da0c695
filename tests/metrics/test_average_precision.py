import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics.average_precision import RECALL_LEVELS, RULES, integrate, needed_truths
from pipeline.metrics.detection import Detections, evaluate_detections
from pipeline.structures import Objects

# 24 detections of 15 objects in 7 images, at IoU .3: the set that EVALUATION.md's four figures are of
TRUTH = [
    [(25, 16, 38, 56), (129, 123, 41, 62)],
    [(123, 11, 43, 55), (38, 132, 59, 45)],
    [(16, 14, 35, 48), (123, 30, 49, 44), (99, 139, 47, 47)],
    [(53, 42, 40, 52), (154, 43, 31, 34)],
    [(59, 31, 44, 51), (48, 128, 34, 52)],
    [(36, 89, 52, 76), (62, 58, 44, 67)],
    [(28, 31, 55, 63), (58, 67, 50, 58)],
]
FOUND = [
    [(0.88, 5, 67, 31, 48), (0.70, 119, 111, 40, 67), (0.80, 124, 9, 49, 67)],
    [(0.71, 64, 111, 64, 58), (0.54, 26, 140, 60, 47), (0.74, 19, 18, 43, 35)],
    [
        (0.18, 109, 15, 77, 39),
        (0.67, 86, 63, 46, 45),
        (0.38, 160, 62, 36, 53),
        (0.91, 105, 131, 47, 47),
        (0.44, 18, 148, 40, 44),
    ],
    [(0.35, 83, 28, 28, 26), (0.78, 28, 68, 42, 67), (0.45, 87, 89, 25, 39), (0.14, 10, 155, 60, 26)],
    [(0.62, 50, 38, 28, 46), (0.44, 95, 11, 53, 28), (0.95, 29, 131, 72, 29), (0.23, 29, 163, 72, 29)],
    [(0.45, 43, 48, 74, 38), (0.84, 17, 155, 29, 35), (0.43, 95, 110, 25, 42)],
    [(0.48, 16, 20, 101, 88), (0.95, 33, 116, 37, 49)],
]


def corners(rows):
    boxes = np.array(rows, np.float64)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def the_set():
    targets = [
        Objects(corners(rows), np.zeros(len(rows), int), np.full(len(rows), 2000.0), np.zeros(len(rows), bool))
        for rows in TRUTH
    ]
    predictions = [
        Detections(corners([row[1:] for row in rows]), np.array([row[0] for row in rows]), np.zeros(len(rows), int))
        for rows in FOUND
    ]
    return predictions, targets


@pytest.mark.parametrize(
    ("rule", "value"),
    [("voc_all", 0.2254), ("voc_all_devkit", 0.2457), ("coco", 0.2301), ("trapezoid", 0.2993), ("voc11", 0.2684)],
)
def test_the_dialects_on_one_set_of_boxes(rule, value):
    predictions, targets = the_set()
    result = evaluate_detections(
        predictions=predictions, targets=targets, num_classes=1, rule=rule, iou_thresholds=[0.3]
    )
    assert result.rule == rule
    assert dict(result.protocol)["rule"] == RULES[rule]
    assert next(iter(result.metrics.values())) == pytest.approx(value, abs=5e-5)


def test_every_rule_worked_by_hand():
    # right, wrong, right, of 4: precision 1, 1/2, 2/3 at recall .25, .25, .5; interpolated 1, 2/3, 2/3
    flags = np.array([True, False, True])
    assert integrate(flags, 4, "voc_all") == pytest.approx(0.25 * 1 + 0.25 * 2 / 3)
    # 0 .1 .2 | .3 .4 .5
    assert integrate(flags, 4, "voc11") == pytest.approx((3 + 3 * 2 / 3) / 11)
    # 26 levels to .25, 25 more to .5
    assert integrate(flags, 4, "coco") == pytest.approx((26 + 25 * 2 / 3) / 101)
    # straight lines through (0, 1) (.25, 1) (.25, 2/3) (.5, 2/3) (1, 0): the fall at .25 takes from .25 to .26 among
    # 101 levels, the last slope is a triangle: .25 + .01 * (1 + 2/3) / 2 + .24 * 2/3 + .5 * 2/3 / 2
    assert integrate(flags, 4, "trapezoid") == pytest.approx(0.25 + 0.01 * 5 / 6 + 0.24 * 2 / 3 + 0.5 / 3, abs=0.004)


def test_the_eleven_levels_differ_by_how_they_are_written():
    # 3 of 5: recall .6 reaches 6 / 10 and not numpy.arange's 0.6000000000000001
    flags = np.ones(3, bool)
    assert integrate(flags, 5, "voc11") == pytest.approx(7 / 11)
    assert integrate(flags, 5, "voc11_arange") == pytest.approx(6 / 11)


@pytest.mark.parametrize("rule", RULES)
def test_bounds_of_every_rule(rule):
    assert integrate(np.ones(5, bool), 5, rule) == pytest.approx(1, abs=0.006)
    assert integrate(np.zeros(5, bool), 5, rule) == pytest.approx(0, abs=0.006)


@pytest.mark.parametrize("rule", RULES)
def test_without_detections_it_is_nothing(rule):
    assert integrate(np.zeros(0, bool), 5, rule) == 0


@given(st.integers(1, 5000))
def test_needed_truths_are_those_that_a_search_among_recalls_finds(total):
    recall = np.arange(1, total + 1) / total
    expected = np.searchsorted(recall, RECALL_LEVELS, side="left") + 1
    assert needed_truths(np.array(total), RECALL_LEVELS).tolist() == expected.tolist()


def test_voc_leaves_difficult_objects_out_and_has_no_limit_of_detections():
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10.0]])
    target = Objects(boxes, np.zeros(2, int), np.full(2, 100.0), np.array([False, True]))
    many = np.tile(np.array([[50, 50, 60, 60.0]]), (300, 1))
    shown = Detections(np.concatenate([boxes[1:], many, boxes[:1]]), np.linspace(1, 0, 302), np.zeros(302, int))
    result = evaluate_detections(predictions=[shown], targets=[target], num_classes=2, rule="voc_all")
    assert result.metrics == {"map50": pytest.approx(1 / 301)}
    assert np.isnan(result.ap[0, 1])
    limited = evaluate_detections(
        predictions=[shown], targets=[target], num_classes=2, rule="voc_all", max_detections=[100]
    )
    assert limited.metrics == {"map50": 0.0}


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_voc_overlaps_difficult_objects_as_all_others(kind):
    # truths of 10 x 10 and, difficult, of 60 x 60 pixels around it: IoU of the first detection is 90/100 and 90/3600
    # (all of it lies inside), that of the second 100/3600, which is too little to be ignored
    corner = [[0, 0, 10, 10], [0, 0, 60, 60.0]]
    target = Objects(np.array(corner), np.zeros(2, int), np.array([100.0, 3600.0]), np.array([False, True]))
    shown = Detections(np.array([[0, 0, 10, 9], [30, 30, 40, 40.0]]), np.array([0.8, 0.9]), np.zeros(2, int))
    for of in (target, shown):
        of.masks = np.zeros((2, 60, 60), bool)
        for mask, (x1, y1, x2, y2) in zip(of.masks, of.boxes.astype(int), strict=True):
            mask[y1:y2, x1:x2] = True
    result = evaluate_detections(predictions=[shown], targets=[target], num_classes=1, rule="voc_all", kind=kind)
    assert result.metrics == {"map50": pytest.approx(1 / 2)}  # wrong, then right


def test_several_thresholds_have_a_mean():
    predictions, targets = the_set()
    result = evaluate_detections(
        predictions=predictions, targets=targets, num_classes=1, rule="voc_all", iou_thresholds=[0.3, 0.5]
    )
    assert result.metrics["map"] == pytest.approx((result.metrics["map30"] + result.metrics["map50"]) / 2)


def test_an_unknown_rule_is_named():
    with pytest.raises(ValueError, match="no rule 'voc'; there are coco, voc11"):
        evaluate_detections(predictions=[], targets=[], num_classes=1, rule="voc")
