"""Our engine against pycocotools: no value of any array may differ."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics import detection, reference
from pipeline.metrics.detection import Detections, evaluate_detections
from pipeline.structures import Objects

ARRAYS = ("final", "precision", "recall", "scores")


def in_order(columns):
    """pycocotools numbers detections as they come, so that its columns are given by image."""
    return detection.by_image(columns)[0]


def differences(found, truth, num_images, num_classes, kind):
    """Values of the three arrays and of the figures that differ, and the figures."""
    result = evaluate_detections(
        predictions=found, targets=truth, num_classes=num_classes, num_images=num_images, kind=kind
    )
    theirs, stats = reference.curves(
        predictions=in_order(found),
        targets=in_order(truth),
        num_images=num_images,
        num_classes=num_classes,
        kind=kind,
    )
    arrays = [(getattr(result.curves, name), getattr(theirs, name)) for name in ARRAYS]
    arrays.append((np.array([-1.0 if v is None else v for v in result.metrics.values()]), stats))
    assert all(ours.shape == other.shape for ours, other in arrays)
    return sum(int((~((a == b) | (np.isnan(a) & np.isnan(b)))).sum()) for a, b in arrays), result.metrics


@pytest.mark.parametrize("kind", detection.KINDS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_value_differs_from_pycocotools(detection_set, kind, seed):
    assert differences(*detection_set(seed, kind), kind)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", detection.KINDS)
def test_no_value_differs_from_pycocotools_on_a_thousand_sets(detection_set, kind):
    figures = []
    for seed in range(1000):
        number, metrics = differences(*detection_set(seed, kind), kind)
        assert number == 0, seed
        figures.append(metrics["map"])
    defined = [value for value in figures if value is not None]
    assert len(defined) > 800
    assert 0.1 < np.mean(defined) < 0.6  # the sets are neither hopeless nor trivial


@pytest.mark.parametrize("kind", detection.KINDS)
def test_the_engine_pycocotools_gives_the_same_result(kind):
    rng = np.random.default_rng(0)
    predictions, targets = [], []
    for _ in range(6):
        num = int(rng.integers(0, 4))
        corner = rng.integers(0, 30, (num, 2))
        boxes = np.concatenate([corner, corner + rng.integers(8, 20, (num, 2))], 1).astype(np.float32)
        masks = np.zeros((num, 64, 64), bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int), strict=True):
            mask[y1:y2, x1:x2] = True
        points = np.concatenate([rng.uniform(0, 60, (num, 17, 2)), np.full((num, 17, 1), 2)], 2)
        labels = rng.integers(0, 2, num)
        area = masks.sum((1, 2)).astype(np.float32)
        targets.append(Objects(boxes, labels, area, np.zeros(num, bool), masks, points.astype(np.float32)))
        shifted = np.roll(masks, 2, axis=2)
        predictions.append(Detections(boxes + 1, rng.random(num), labels, list(shifted), points + 1))
    ours = evaluate_detections(predictions=predictions, targets=targets, num_classes=2, kind=kind)
    theirs = reference.evaluate_detections(predictions=predictions, targets=targets, num_classes=2, kind=kind)
    assert ours.metrics == theirs.metrics
    assert 0.1 < ours.metrics["map"] < 1
    np.testing.assert_array_equal(ours.ap, theirs.ap)
    assert list(detection.KEYPOINT_METRICS if kind == "keypoints" else detection.METRICS) == list(ours.metrics)


def test_annotation_id_0_and_a_nan_box_are_where_pycocotools_is_wrong():
    """What its own loader would be given; ours has no ids, and refuses the NaN."""
    import contextlib
    import io

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def judged(box, first_id):
        truth, shown = COCO(), COCO()
        images, categories = [{"id": 0}], [{"id": 0}]
        row = {"image_id": 0, "category_id": 0, "iscrowd": 0, "area": 100.0}
        truth.dataset = {
            "images": images,
            "categories": categories,
            "annotations": [row | {"id": first_id, "bbox": [0, 0, 10, 10]}],
        }
        shown.dataset = {
            "images": images,
            "categories": categories,
            "annotations": [row | {"id": 1, "bbox": box, "score": 1.0}],
        }
        with contextlib.redirect_stdout(io.StringIO()):
            truth.createIndex()
            shown.createIndex()
            evaluation = COCOeval(truth, shown, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return evaluation.stats[0]

    target = Objects(np.array([[0, 0, 10, 10.0]]), np.zeros(1, int), np.array([100.0]), np.zeros(1, bool))
    right = Detections(np.array([[0, 0, 10, 10.0]]), np.ones(1), np.zeros(1, int))
    assert judged([0, 0, 10, 10], 0) == 0.0
    assert judged([np.nan, 0, 10, 10], 1) == pytest.approx(1)
    ours = evaluate_detections(predictions=[right], targets=[target], num_classes=1)
    assert ours.metrics["map"] == pytest.approx(1)
    nan = Detections(np.array([[np.nan, 0, 10, 10.0]]), np.ones(1), np.zeros(1, int))
    with pytest.raises(ValueError, match="image 0: prediction 0: box or score is not finite"):
        evaluate_detections(predictions=[nan], targets=[target], num_classes=1)
