import numpy as np
import pyarrow as pa
import pytest

from pipeline.metrics import bootstrap
from pipeline.reporting.verdicts import Verdict


def a_verdict(values):
    table = pa.table({"value": pa.array(values, pa.float64())})
    return Verdict({"mean": float(np.mean(values))}, [], [("rule", "mean")], table, lambda folder: None)


def resampled(table, weights):
    values = table.column("value").to_numpy()
    return {"mean": weights @ values / weights.sum(1), "undefined": np.full(len(weights), np.nan)}


def test_intervals_are_percentiles_of_the_resampled_figures():
    verdict = a_verdict(np.arange(50.0))
    verdict.add_intervals(resampled, groups=None)
    drawn = bootstrap.weights(50) @ np.arange(50.0) / 50
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert verdict.intervals == [("mean", pytest.approx(low), pytest.approx(high))]
    # a standard error of 14.4 / 50 ** .5 = 2.04 on either side of 24.5, 1.96 times
    assert (low, high) == (pytest.approx(24.5 - 4, abs=0.4), pytest.approx(24.5 + 4, abs=0.4))
    assert verdict.protocol[-1] == ("intervals", "95%, percentiles of 1000 resamples of images, with replacement")


def test_groups_are_drawn_whole():
    values = np.repeat([0.0, 1.0, 2.0, 3.0], 10)
    alone, grouped = a_verdict(values), a_verdict(values)
    alone.add_intervals(resampled, groups=[None] * 40)
    grouped.add_intervals(resampled, groups=[f"video_{int(value)}" for value in values])
    widths = [verdict.intervals[0][2] - verdict.intervals[0][1] for verdict in (alone, grouped)]
    assert widths[1] > 2 * widths[0]  # four independent values, not forty
    assert "whole groups of images" in grouped.protocol[-1][1]
    assert "whole groups" not in alone.protocol[-1][1]


@pytest.mark.parametrize(("values", "groups"), [([0.5], None), ([], None), ([0.1, 0.9], ["a", "a"])])
def test_one_image_or_one_group_says_nothing_of_others(values, groups):
    verdict = a_verdict(values) if values else Verdict({}, [], [], pa.table({"value": []}), lambda folder: None)
    verdict.add_intervals(resampled, groups)
    assert verdict.intervals == []


def test_intervals_are_written_as_rows_to_six_digits():
    verdict = a_verdict([0.0, 1.0])
    verdict.intervals = [("mean", 0.123456789, 0.987654321)]
    content = verdict.to_json()
    assert content["intervals"] == [["mean", 0.123457, 0.987654]]
    assert content["mean"] == 0.5
