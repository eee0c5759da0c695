import math

import numpy as np
import pyarrow as pa
import pytest
from sklearn import metrics as oracle

from pipeline.metrics import bootstrap, classification

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
    # (.3^2 + .2^2 + .1^2) + (.5^2 + .7^2 + .2^2) + (.1^2 + .4^2 + .3^2) + (.7^2 + .3^2 + .4^2)
    assert result["brier"] == pytest.approx((0.14 + 0.78 + 0.26 + 0.74) / 4)
    assert result["micro_f1"] == 2 / 4
    # class 0: .7 is its own, .5 is not, .3 is its own, .1 is not: precisions 1 and 2/3 at its images
    # class 1: .6 is its own; at .3 its second and a stranger come together: 2/3
    assert result["average_precision"] == pytest.approx(((1 + 2 / 3) / 2 + (1 + 2 / 3) / 2) / 2)
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
    assert [result[name] for name in ("log_loss", "brier", "ece")] == [None] * 3
    assert result["top1"] == 0.5
    # the ranks are what they were: class 0 scores its images .7 and .3, others .5 and .1 (3 of 4 pairs are right),
    # class 1 its own .3 and .6, others .2 and .3 (one right, one tie against .3; .6 twice)
    assert result["auroc"] == pytest.approx((3 / 4 + 3.5 / 4) / 2)


def test_a_truth_of_probability_zero_costs_a_finite_log_loss():
    assert classification.log_losses(np.array([0.0]))[0] == pytest.approx(-math.log(2**-23))
    # all on a wrong class: (1 - 0)^2 + (0 - 1)^2
    assert classification.brier_scores(scores=np.array([[1.0, 0.0]]), labels=np.array([1]))[0] == 2.0


@pytest.mark.parametrize("digits", [1, 2, 9])  # few digits: many ties
def test_metrics_equal_scikit_learn(digits):
    scores, labels = random_scores()
    scores = np.round(scores.astype(np.float64), digits) + 0.01
    scores /= scores.sum(1, keepdims=True)
    result, predicted = classification.metrics(scores=scores, labels=labels), scores.argmax(1)
    classes, truth = np.arange(7), np.eye(7)[labels]
    recalls = oracle.recall_score(labels, predicted, labels=classes[:6], average="macro")  # of classes with images
    expected = {
        "top1": oracle.accuracy_score(labels, predicted),
        "balanced_accuracy": recalls,
        "macro_f1": oracle.f1_score(
            labels, predicted, labels=np.union1d(labels, predicted), average="macro", zero_division=0
        ),
        "micro_f1": oracle.f1_score(labels, predicted, average="micro"),
        "auroc": np.mean([oracle.roc_auc_score(truth[:, k], scores[:, k]) for k in range(6)]),
        "average_precision": np.mean([oracle.average_precision_score(truth[:, k], scores[:, k]) for k in range(6)]),
        "log_loss": oracle.log_loss(labels, scores, labels=classes),
        "brier": oracle.brier_score_loss(labels, scores, labels=classes, scale_by_half=False),
    }
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-12), name
    if digits == 9:  # scikit-learn breaks ties by the higher class
        top5 = oracle.top_k_accuracy_score(labels, scores, k=5, labels=classes)
        assert result["top5"] == pytest.approx(top5, abs=1e-12)
    matrix = classification.confusion(scores=scores, labels=labels)
    assert matrix.tolist() == oracle.confusion_matrix(labels, predicted, labels=classes).tolist()


def test_calibration_error_equals_torchmetrics():
    torch = pytest.importorskip("torch")
    from torchmetrics.functional.classification import multiclass_calibration_error

    scores, labels = random_scores()
    expected = multiclass_calibration_error(torch.tensor(scores).double(), torch.tensor(labels), 7, n_bins=15)
    result = classification.metrics(scores=scores.astype(np.float64), labels=labels)["ece"]
    assert result == pytest.approx(float(expected), abs=1e-7)  # its bins are float32


@pytest.mark.parametrize("compiled", [False, True])
def test_rankings_equal_the_double_loop_with_weights_and_ties(compiled):
    rng = np.random.default_rng(3)
    scores, labels = rng.integers(0, 4, (30, 3)) / 4, rng.integers(0, 3, 30)
    weights = rng.integers(0, 3, (5, 30))
    auroc, precision = classification.rankings(scores=scores, labels=labels, weights=weights, compiled=compiled)
    for r in range(5):
        for k in range(3):
            own = [i for i in range(30) if labels[i] == k for _ in range(weights[r, i])]
            others = [i for i in range(30) if labels[i] != k for _ in range(weights[r, i])]
            wins = [(scores[i, k] > scores[j, k]) + (scores[i, k] == scores[j, k]) / 2 for i in own for j in others]
            assert auroc[r, k] == pytest.approx(np.mean(wins), abs=1e-12)
            above = [[scores[j, k] >= scores[i, k] for j in own + others] for i in own]
            shares = [sum(of[: len(own)]) / sum(of) for of in above]
            assert precision[r, k] == pytest.approx(np.mean(shares), abs=1e-12)


@pytest.mark.parametrize("num", [40, 3000])  # in one block of resamples and in several
def test_machine_code_ranks_equally_to_the_bit(num):
    scores, labels = random_scores(num=num)
    for rounded in (scores, np.round(scores, 1)):
        options = {"scores": rounded, "labels": labels, "weights": bootstrap.weights(num, num_resamples=100)}
        first, second = (classification.rankings(**options, compiled=compiled) for compiled in (False, True))
        for one, other in zip(first, second, strict=True):
            assert np.array_equal(one, other, equal_nan=True)


def test_a_class_of_all_images_or_none_has_no_auroc():
    scores = np.array([[0.6, 0.4], [0.5, 0.5]])
    auroc, precision = classification.rankings(scores=scores, labels=np.zeros(2, int), weights=np.ones((1, 2), int))
    assert np.isnan(auroc).all()
    assert precision[0, 0] == 1.0
    assert np.isnan(precision[0, 1])


@pytest.mark.parametrize("probabilities", [True, False])
def test_resampled_with_weights_of_one_equals_the_metrics(probabilities):
    scores, labels = random_scores()
    options = {"scores": scores, "labels": labels, "probabilities": probabilities, "top_k": 3}
    result = classification.resampled(classification.per_image(**options), np.ones((4, 400), np.uint16))
    for name, value in classification.metrics(**options).items():
        expected = np.nan if value is None else value
        assert result[name] == pytest.approx([expected] * 4, rel=1e-13, nan_ok=True), name


def test_a_resample_equals_the_evaluation_of_its_duplicated_images():
    scores, labels = random_scores(num=60)
    scores = np.round(scores, 2)
    weights = bootstrap.weights(60, num_resamples=7)
    result = classification.resampled(classification.per_image(scores=scores, labels=labels), weights)
    for index, row in enumerate(weights):
        copies = np.repeat(np.arange(60), row)
        for name, value in classification.metrics(scores=scores[copies], labels=labels[copies]).items():
            assert result[name][index] == pytest.approx(value, rel=1e-12), name


def test_a_table_without_scores_leaves_only_rankings_undefined():
    scores, labels = random_scores()
    table = classification.per_image(scores=scores, labels=labels).drop_columns(["scores"])
    result = classification.resampled(table, np.ones((1, 400), np.uint16))
    assert {name for name, value in result.items() if np.isnan(value[0])} == {"auroc", "average_precision"}


def test_images_can_be_right_by_chance():
    chances = {"correct": [0.25, 0.5, 0.0, 1.0], "correct_top5": [0.5, 0.5, 1.0, 1.0]}
    table = pa.table({"label": [0, 0, 1, 2], "predicted": [0, 0, 0, 2], **chances})
    result = classification.resampled(table, np.array([[1, 1, 1, 1], [2, 0, 1, 1]], np.uint16))
    # right in each class: 0.75 of 2, 0 of 1, 1 of 1; predicted 3, 0 and 1 times
    assert result["top1"] == pytest.approx([1.75 / 4, 1.5 / 4])
    assert result["top5"] == pytest.approx([3 / 4, 3 / 4])
    assert result["balanced_accuracy"] == pytest.approx([(0.375 + 0 + 1) / 3, (0.25 + 0 + 1) / 3])
    assert result["macro_f1"] == pytest.approx([(1.5 / 5 + 0 + 1) / 3, (1.0 / 5 + 0 + 1) / 3])


def test_resamples_without_images_are_undefined():
    table = classification.per_image(scores=SCORES, labels=LABELS, top_k=5)
    result = classification.resampled(table, np.zeros((2, 4), np.uint16))
    assert all(np.isnan(value).all() for value in result.values())


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
    result = classification.calibration(confidence=scores.max(1), correct=scores.argmax(1) == labels)
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
    assert classification.calibration(confidence=np.zeros(0), correct=np.zeros(0, bool)).ece is None


@pytest.mark.parametrize("place", [0, 1])
def test_a_score_that_is_no_number_is_refused_by_its_image(place):
    scores = np.array([[0.2, 0.8], [0.5, 0.5], [0.4, 0.6]], np.float32)
    scores[1:, place] = np.nan
    with pytest.raises(ValueError, match=r"^image 1: a score is NaN"):
        classification.metrics(scores=scores, labels=np.array([1, 0, 1]))


def test_whole_numbers_of_any_width_are_labels_and_scores():
    """Of 8 bits, -1 is 255 and 4 * 100 is 144."""
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 200, (300, 100)), rng.integers(0, 100, 300)
    for kind in (np.uint8, np.int16):
        options = {"scores": scores.astype(kind), "labels": labels.astype(np.uint8)}
        expected = classification.metrics(scores=scores.astype(float), labels=labels, probabilities=False)
        assert classification.metrics(**options, probabilities=False) == expected
        matrix = classification.confusion(scores=scores, labels=labels)
        assert classification.confusion(**options).tolist() == matrix.tolist()
        once = np.ones((1, 300), np.uint16)
        found, same = (
            classification.rankings(scores=of, labels=labels, weights=once) for of in (options["scores"], scores)
        )
        np.testing.assert_array_equal(found, same)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_refused_by_its_image(label):
    """-1 would be taken for the last class."""
    with pytest.raises(ValueError, match=f"^image 1: label {label} of 3 classes"):
        classification.metrics(scores=np.eye(3), labels=np.array([0, label, 2]))


def test_an_infinite_score_is_ranked():
    scores = np.array([[-np.inf, 0.8], [np.inf, 0.5], [-np.inf, -np.inf]], np.float32)
    figures = classification.metrics(scores=scores, labels=np.array([1, 0, 1]), probabilities=False)
    assert figures["top1"] == pytest.approx(2 / 3)
