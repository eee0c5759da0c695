"""Run-length codes and polygons of any kind: the mask that they say, or a fault; never memory that is another's."""

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from pipeline.data.annotations import Fault, Frame, object_row
from pipeline.data.records import RawObject
from pipeline.ops import masks as mask_ops
from tests.fuzz.cases import HOSTILE_TEXT, SIZES, VALUES, fuzz

HEIGHT, WIDTH = 5, 7


def row_of(mask: Any) -> dict[str, Any] | None:
    """The row of an object that is only a mask; None where it is refused."""
    raw = RawObject(label=0, bbox=None, mask=mask, index=1)
    try:
        return object_row(raw, Frame(HEIGHT, WIDTH), num_classes=1, num_keypoints=0, note=lambda *_: None)
    except Fault:
        return None


def by_hand(runs: list[int]) -> np.ndarray | None:
    """The mask of run lengths, column by column; None where they are none of this image."""
    if any(run < 0 for run in runs) or sum(runs) != HEIGHT * WIDTH:
        return None
    values = [index % 2 == 1 for index, run in enumerate(runs) for _ in range(run)]
    return np.array(values).reshape(WIDTH, HEIGHT).T


def check_runs(runs: list[int]) -> None:
    expected, row = by_hand(runs), row_of({"size": [HEIGHT, WIDTH], "counts": runs})
    if expected is None or not expected.any():
        assert row is None
        return
    assert row is not None
    assert np.array_equal(mask_ops.decode(row["mask"], HEIGHT, WIDTH), expected)
    assert row["area"] == expected.sum()


RUNS = st.lists(st.integers(0, 12), max_size=12)


@pytest.mark.parametrize("cases", SIZES)
def test_run_lengths_are_the_mask_that_they_say(cases: int) -> None:
    whole = RUNS.map(lambda runs: [*runs, max(0, HEIGHT * WIDTH - sum(runs))])
    fuzz(check_runs, whole | RUNS | st.lists(st.integers(-(2**40), 2**40), max_size=5), cases)


@pytest.mark.parametrize("cases", SIZES)
def test_compressed_codes_of_any_kind(cases: int) -> None:
    def one(counts: str | bytes) -> None:
        row = row_of({"size": [HEIGHT, WIDTH], "counts": counts})
        if row is not None:
            data = counts.encode() if isinstance(counts, str) else counts
            expected = by_hand(mask_ops.runs_of(data) or [])
            assert expected is not None
            assert np.array_equal(mask_ops.decode(row["mask"], HEIGHT, WIDTH), expected)

    real = st.lists(st.booleans(), min_size=HEIGHT * WIDTH, max_size=HEIGHT * WIDTH).map(
        lambda bits: mask_ops.encode(np.array(bits).reshape(HEIGHT, WIDTH))["counts"]
    )
    changed = st.tuples(real, st.integers(0, 40), st.binary(max_size=3)).map(
        lambda p: p[0][: p[1]] + p[2] + p[0][p[1] :]
    )
    fuzz(one, real | changed | st.binary(max_size=12) | st.text("0123456789:;<=>?@ABCo~\\", max_size=12), cases)


@pytest.mark.parametrize("cases", SIZES)
def test_masks_of_any_form(cases: int) -> None:
    def one(mask: Any) -> None:
        row = row_of(mask)
        if row is not None:
            decoded = mask_ops.decode(row["mask"], HEIGHT, WIDTH)
            assert decoded.any()
            assert row["area"] == decoded.sum()
            x1, y1, x2, y2 = row["bbox"]
            assert 0 <= x1 < x2 <= WIDTH
            assert 0 <= y1 < y2 <= HEIGHT

    numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-20, 20) | st.integers(-(2**70), 2**70)
    polygons = st.lists(st.lists(numbers | VALUES, max_size=9), max_size=3)
    runs = st.fixed_dictionaries({"size": VALUES | st.just([HEIGHT, WIDTH]), "counts": VALUES | HOSTILE_TEXT})
    fuzz(one, polygons | runs | VALUES, cases)
