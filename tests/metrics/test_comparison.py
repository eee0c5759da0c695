"""Differences between two runs: what is called better, what is not, and how often chance is taken for a difference."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom

from pipeline.metrics import Metric, comparison, detection
from pipeline.metrics.comparison import compare, holm
from pipeline.metrics.detection import Detections
from pipeline.structures import Objects

METRICS = {"accuracy": Metric(True, "share right"), "error": Metric(False, "share wrong"), "count": Metric(None, "n")}


def resampled(table: pa.Table, weights: np.ndarray) -> dict[str, np.ndarray]:
    right = table["right"].to_numpy()
    accuracy = weights @ right / weights.sum(1)
    return {"accuracy": accuracy, "error": 1 - accuracy}


def judged(base: np.ndarray, head: np.ndarray, **options: object) -> dict[str, comparison.Difference]:
    tables = [pa.table({"right": values.astype(np.float64)}) for values in (base, head)]
    figures = {"accuracy": (base.mean(), head.mean()), "error": (1 - base.mean(), 1 - head.mean()), "count": (1, 2)}
    found = compare(*tables, figures, METRICS, resampled, **options)  # type: ignore[arg-type]
    return {one.metric: one for one in found}


def test_a_planted_improvement_is_better_and_its_mirror_worse() -> None:
    base = np.random.default_rng(0).random(400) < 0.7
    head = base.copy()
    head[np.flatnonzero(~base)[:20]] = True  # 5% of the images mended
    found = judged(base, head)
    assert found["accuracy"].verdict == found["error"].verdict == comparison.BETTER
    assert found["accuracy"].difference == pytest.approx(0.05)
    # each of 20 mended images keeps or loses its swap: |2 k - 20| >= 20 has probability 2 / 2**20
    assert found["accuracy"].p_value == pytest.approx(1 / 1001)
    # the number of mended images among 400 drawn is binomial: 20 +- 1.96 sqrt(400 0.05 0.95) = 20 +- 8.5
    assert found["accuracy"].low == pytest.approx((20 - 8.5) / 400, abs=0.004)
    assert found["accuracy"].high == pytest.approx((20 + 8.5) / 400, abs=0.004)
    assert judged(head, base)["accuracy"].verdict == comparison.WORSE


def test_the_p_value_is_that_of_the_sign_test() -> None:
    """Five images change, all for the better: by chance all five agree in 2 of 32 ways."""
    base, head = np.zeros(50), np.zeros(50)
    head[:5] = 1
    assert judged(base, head, num_resamples=20_000)["accuracy"].p_value == pytest.approx(2 / 32, abs=0.004)


def test_equal_scores_stay_in_the_order_of_the_images_when_outcomes_are_swapped() -> None:
    """Ranked by scores of which many are equal: the chances are those of 2^6 evaluations with their images in place."""
    rng = np.random.default_rng(4)
    truth = np.array([[0, 0, 10, 10], [20, 0, 30, 10.0]])
    target = Objects(truth, np.zeros(2, int), np.full(2, 100.0), np.zeros(2, bool))
    sides = [
        [Detections(truth + rng.choice([0, 40], (2, 1)), rng.choice([0.5, 0.6], 2), np.zeros(2, int)) for _ in range(6)]
        for _ in range(2)
    ]

    def judge(shown: list[Detections]) -> detection.Result:
        return detection.evaluate_detections(predictions=shown, targets=[target] * 6, num_classes=1)

    base, head = map(judge, sides)
    figures = {"map50": (base.metrics["map50"], head.metrics["map50"])}
    tables = [pa.table(detection.per_image(result)) for result in (base, head)]
    (found,) = compare(*tables, figures, detection.METRICS, detection.resampled, num_resamples=4000)
    chances = []
    for mask in itertools.product([0, 1], repeat=6):
        first, second = ([sides[m ^ side][i] for i, m in enumerate(mask)] for side in (0, 1))
        chances.append(abs(judge(second).metrics["map50"] - judge(first).metrics["map50"]))
    extreme = np.array(chances) >= abs(figures["map50"][1] - figures["map50"][0]) - 1e-6
    assert found.p_value == pytest.approx(extreme.mean(), abs=0.03)


def test_identical_tables_are_identical_and_unknown_metrics_not_tested() -> None:
    same = np.array([0.0, 1, 1])
    base = pa.table({"right": same})
    found = compare(base, base, {"accuracy": (2 / 3, 2 / 3)}, METRICS, resampled)
    assert [one.verdict for one in found] == [comparison.IDENTICAL]
    other = judged(same, 1 - same)["count"]
    assert (other.verdict, other.difference, other.low, other.p_value) == (comparison.NOT_TESTED, 1, None, None)


def alarms_of_equal_quality(num_metrics: int, num_pairs: int, *, paired: bool) -> tuple[int, int]:
    """Pairs of which the first metric alone, without correction, and of which any metric is called different.

    Each metric is the mean of a column of its own, drawn anew for both runs. Of 199 permutations and what happened,
    p-values of equal runs are the ranks 1/200 ... 200/200, each as likely: as the values have no ties, 0.05 is exact.
    """
    names = [f"mean{index}" for index in range(num_metrics)]
    directions = {name: Metric(True, "mean") for name in names}

    def means(table: pa.Table, weights: np.ndarray) -> dict[str, np.ndarray]:
        return {name: weights @ table[name].to_numpy() / weights.sum(1) for name in names}

    rng, uncorrected, whole = np.random.default_rng(7), 0, 0
    for seed in range(num_pairs):
        base, head = rng.random((2, num_metrics, 30))
        tables = [pa.table(dict(zip(names, values, strict=True))) for values in (base, head)]
        figures = {name: (a.mean(), b.mean()) for name, a, b in zip(names, base, head, strict=True)}
        found = compare(*tables, figures, directions, means, paired=paired, num_resamples=199, seed=seed)
        assert found[0].p_value is not None
        uncorrected += found[0].p_value <= 0.05
        whole += any(one.verdict in (comparison.BETTER, comparison.WORSE) for one in found)
    return uncorrected, whole


@pytest.mark.parametrize("paired", [True, False])
def test_equal_quality_gives_false_alarms_as_often_as_said(paired: bool) -> None:
    uncorrected, whole = alarms_of_equal_quality(1, 600, paired=paired)
    assert uncorrected == whole  # nothing to correct
    low, high = binom.interval(0.999, 600, 0.05)  # 14 to 49
    assert low <= uncorrected <= high


def test_of_five_metrics_any_is_a_false_alarm_as_often_as_said() -> None:
    uncorrected, whole = alarms_of_equal_quality(5, 600, paired=True)
    # Holm calls any different when the least p-value is at most 0.05 / 5: 1 - 0.99**5 = 0.049 of the pairs; without a
    # correction it would be 1 - 0.95**5 = 0.23, 136 of them
    for count, chance in ((uncorrected, 0.05), (whole, 1 - 0.99**5)):
        low, high = binom.interval(0.999, 600, chance)
        assert low <= count <= high


def test_rows_that_are_not_paired_are_dealt_out_within_their_kind() -> None:
    """Samples of the head are all right, those of the base all wrong; reference rows are right on both sides."""
    kinds = ["sample"] * 6 + ["reference"] * 30
    tables = [pa.table({"kind": kinds, "right": [value] * 6 + [1.0] * 30}) for value in (0.0, 1.0)]

    def of_samples(table: pa.Table, weights: np.ndarray) -> dict[str, np.ndarray]:
        chosen = np.array(table["kind"].to_pylist()) == "sample"
        assert (weights[:, ~chosen].sum(1) == (~chosen).sum() / (len(table) // 36)).all()
        return {"accuracy": weights[:, chosen] @ table["right"].to_numpy()[chosen] / weights[:, chosen].sum(1)}

    def resampled_samples(table: pa.Table, weights: np.ndarray) -> dict[str, np.ndarray]:
        is_permutation = len(table) == 72
        return of_samples(table, weights) if is_permutation else {"accuracy": np.zeros(len(weights))}

    (found,) = compare(
        *tables, {"accuracy": (0.0, 1.0)}, METRICS, resampled_samples, paired=False, num_resamples=20_000
    )
    # 12 samples are dealt into two halves in 924 ways, and two of them are as extreme
    assert found.p_value == pytest.approx(2 / 924, abs=0.001)


def test_groups_are_swapped_whole() -> None:
    """Two groups: head is right on one and wrong on the other; 40 images are no more than two observations."""
    base, head = np.zeros(40), np.zeros(40)
    head[:20] = 1
    groups = ["a"] * 20 + ["b"] * 20
    assert judged(base, head)["accuracy"].verdict == comparison.BETTER
    assert judged(base, head, groups=groups)["accuracy"].p_value == pytest.approx(1.0)


def test_holm_by_hand() -> None:
    # 0.01 * 3, then max(0.03, 0.02 * 2), then max(0.04, 0.5 * 1)
    assert holm({"a": 0.5, "b": 0.01, "c": 0.02}) == pytest.approx({"a": 0.5, "b": 0.03, "c": 0.04})


def test_tables_of_different_length_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="3 and 2 images"):
        judged(np.zeros(3), np.zeros(2))
