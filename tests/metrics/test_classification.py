import math

import numpy as np
import pytest
from sklearn import metrics as oracle

from pipeline.metrics import classification

SCORES = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]])
LABELS = np.array([0, 1, 1, 0])


def random_scores(num=400, num_classes=7, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes - 1, num)  # the last class has no images
    logits = rng.normal(size=(num, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    scores = np.exp(logits)
    return (scores / scores.sum(1, keepdims=True)).astype(np.float32), labels


def test_metrics_of_four_images_worked_by_hand():
    result = classification.metrics(scores=SCORES, labels=LABELS, top_k=2)
    # predicted 0, 0, 1, 2 for the truths 0, 1, 1, 0
    assert result["top1"] == 2 / 4
    # the truths come 1st, 2nd, 1st, and 2nd: .3 of class 0 before the .3 of class 1, after .4
    assert result["top2"] == 1.0
    assert result["balanced_accuracy"] == (1 / 2 + 1 / 2) / 2  # class 2 has no images
    # F1: class 0 2*1/(2+2), class 1 2*1/(2+1), class 2 0/(0+1)
    assert result["macro_f1"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert result["log_loss"] == pytest.approx(-math.log(0.7 * 0.3 * 0.6 * 0.3) / 4)
    # one image in each of four bins: |.7-1|, |.5-0|, |.6-1|, |.4-0|
    assert result["ece"] == pytest.approx((0.3 + 0.5 + 0.4 + 0.4) / 4)


def test_a_tie_goes_to_the_lower_class_in_rank_as_in_argmax():
    scores = np.array([[0.4, 0.4, 0.2]] * 2)
    assert classification.rank_of_truth(scores=scores, labels=np.array([0, 1])).tolist() == [0, 1]


def test_every_prediction_is_right_from_k_classes_on():
    scores, labels = random_scores()
    assert classification.metrics(scores=scores, labels=labels, top_k=7)["top7"] == 1.0
    assert classification.metrics(scores=scores, labels=labels, top_k=50)["top50"] == 1.0


def test_scores_that_are_no_probabilities_have_no_log_loss():
    result = classification.metrics(scores=SCORES * 9 - 4, labels=LABELS, probabilities=False)
    assert result["log_loss"] is None
    assert result["ece"] is None
    assert result["top1"] == 0.5


def test_a_truth_of_probability_zero_costs_a_finite_log_loss():
    losses = classification.log_losses(scores=np.array([[1.0, 0.0]]), labels=np.array([1]))
    assert losses[0] == pytest.approx(-math.log(2**-23))


def test_metrics_equal_scikit_learn():
    scores, labels = random_scores()
    result, predicted = classification.metrics(scores=scores, labels=labels), scores.argmax(1)
    classes = np.arange(7)
    assert result["top1"] == pytest.approx(oracle.accuracy_score(labels, predicted), abs=1e-12)
    assert result["top5"] == pytest.approx(oracle.top_k_accuracy_score(labels, scores, k=5, labels=classes), abs=1e-12)
    assert result["macro_f1"] == pytest.approx(oracle.f1_score(labels, predicted, average="macro"), abs=1e-12)
    assert result["log_loss"] == pytest.approx(oracle.log_loss(labels, scores, labels=classes), abs=1e-6)
    recalls = oracle.recall_score(labels, predicted, labels=classes[:6], average="macro")  # of classes with images
    assert result["balanced_accuracy"] == pytest.approx(recalls, abs=1e-12)
    matrix = classification.confusion(scores=scores, labels=labels)
    assert matrix.tolist() == oracle.confusion_matrix(labels, predicted, labels=classes).tolist()


def test_per_class_figures_equal_scikit_learn():
    scores, labels = random_scores()
    rows = classification.per_class(classification.confusion(scores=scores, labels=labels), list("abcdefg"))
    expected = oracle.precision_recall_fscore_support(labels, scores.argmax(1), labels=range(7), zero_division=0)
    for index, row in enumerate(rows[:6]):
        assert [row["precision"], row["recall"], row["f1"], row["num_images"]] == pytest.approx(
            [column[index] for column in expected]
        )
    assert rows[6]["recall"] is None
    assert [row["class"] for row in rows] == list("abcdefg")


def test_calibration_equals_a_slow_reference():
    scores, labels = random_scores()
    result = classification.calibration(scores=scores, labels=labels)
    ece = 0.0
    for index in range(15):
        low, high = index / 15, (index + 1) / 15
        members = [i for i in range(len(labels)) if low < scores[i].max() <= high]
        assert result.counts[index] == len(members)
        if members:
            accuracy = np.mean([scores[i].argmax() == labels[i] for i in members])
            confidence = np.mean([float(scores[i].max()) for i in members])
            assert result.accuracy[index] == pytest.approx(accuracy)
            assert result.confidence[index] == pytest.approx(confidence)
            ece += len(members) / len(labels) * abs(accuracy - confidence)
        else:
            assert math.isnan(result.accuracy[index])
    assert result.ece == pytest.approx(ece)


def test_without_images_everything_is_undefined():
    result = classification.metrics(scores=np.zeros((0, 3)), labels=np.zeros(0, int))
    assert result == dict.fromkeys(classification.METRICS)
    assert classification.calibration(scores=np.zeros((0, 3)), labels=np.zeros(0, int)).ece is None
