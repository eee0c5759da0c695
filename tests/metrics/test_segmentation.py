import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from pipeline.metrics import segmentation
from pipeline.structures import IGNORE

TARGET = np.array([[0, 0, 1], [0, 1, IGNORE]], np.uint8)
LABEL_MAP = np.array([[0, 1, 1], [0, 0, 2]], np.uint8)


def test_metrics_of_six_pixels_worked_by_hand():
    matrix = segmentation.confusion(label_map=LABEL_MAP, target=TARGET, num_classes=3)
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]  # the pixel predicted as 2 is not scored
    result = segmentation.metrics(matrix)
    # class 0: 2 / (3 + 3 - 2), class 1: 1 / (2 + 2 - 1); class 2 occurs nowhere
    assert result["miou"] == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert result["pixel_accuracy"] == 3 / 5
    assert result["dice"] == pytest.approx((4 / 6 + 2 / 4) / 2)
    # 0 everywhere: class 0 3 / 5, class 1 0 / 2
    assert result["miou_background_only"] == pytest.approx((3 / 5 + 0) / 2)


def test_a_class_predicted_without_truth_counts_as_zero():
    matrix = segmentation.confusion(
        label_map=np.array([[0, 2]], np.uint8), target=np.array([[0, 0]], np.uint8), num_classes=3
    )
    assert segmentation.metrics(matrix)["miou"] == pytest.approx((1 / 2 + 0) / 2)


def test_a_pixel_predicted_as_ignored_is_wrong():
    target = np.array([[0, 0, 0, 0]], np.uint8)
    matrix = segmentation.confusion(label_map=np.array([[0, 0, 0, IGNORE]], np.uint8), target=target, num_classes=2)
    assert matrix.tolist() == [[3, 0, 1], [0, 0, 0]]
    result = segmentation.metrics(matrix)
    assert result["pixel_accuracy"] == 3 / 4
    assert result["miou"] == 3 / 4


def test_metrics_equal_scikit_learn():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 5, (40, 30)).astype(np.uint8)
    label_map = np.where(rng.random((40, 30)) < 0.6, target, rng.integers(0, 5, (40, 30))).astype(np.uint8)
    target[rng.random((40, 30)) < 0.1] = IGNORE
    matrix = segmentation.confusion(label_map=label_map, target=target, num_classes=5)
    truth, predicted = target[target != IGNORE], label_map[target != IGNORE]
    assert matrix[:, :5].tolist() == confusion_matrix(truth, predicted).tolist()
    result = segmentation.metrics(matrix)
    assert result["miou"] == pytest.approx(jaccard_score(truth, predicted, average="macro"), abs=1e-12)
    assert result["dice"] == pytest.approx(f1_score(truth, predicted, average="macro"), abs=1e-12)
    ious = [row["iou"] for row in segmentation.per_class(matrix, list("abcde"))]
    assert ious == pytest.approx(jaccard_score(truth, predicted, average=None).tolist(), abs=1e-12)


def test_images_are_pooled_not_averaged():
    # one pixel right in one image, three wrong in the other: 1 / 4 pooled, 1 / 2 as a mean of images
    first = segmentation.confusion(label_map=np.zeros((1, 1), int), target=np.zeros((1, 1), int), num_classes=2)
    second = segmentation.confusion(label_map=np.ones((1, 3), int), target=np.zeros((1, 3), int), num_classes=2)
    assert segmentation.metrics(first + second)["pixel_accuracy"] == 1 / 4


def test_where_nothing_is_scored_everything_is_undefined():
    target = np.full((2, 2), IGNORE, np.uint8)
    matrix = segmentation.confusion(label_map=np.zeros((2, 2), np.uint8), target=target, num_classes=3)
    assert segmentation.metrics(matrix) == dict.fromkeys(segmentation.METRICS)
    assert segmentation.mean_iou(matrix) is None
    assert {row["iou"] for row in segmentation.per_class(matrix, list("abc"))} == {None}
