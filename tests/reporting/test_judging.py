"""What two reports must share to be held against each other, and what is said where they do not."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pytest

from pipeline.metrics import classification, comparison
from pipeline.reporting import judging

LABELS = np.arange(60) % 4


@dataclass
class Side:
    figures: dict[str, float | None]
    table: pa.Table | None


def side(seed: int, top_k: int, num_classes: int = 6) -> Side:
    scores = np.random.default_rng(seed).dirichlet(np.ones(num_classes), len(LABELS)).astype(np.float32)
    options = {"scores": scores, "labels": LABELS, "top_k": top_k}
    return Side(classification.metrics(**options), classification.per_image(**options))


def test_runs_of_another_top_k_are_judged_by_all_that_they_share() -> None:
    base, head = side(0, 3), side(1, 2)
    found = judging.differences(base, head, "classification", ["top1", "auroc"], num_resamples=50)
    same = judging.differences(side(0, 3), side(1, 3), "classification", ["top1", "auroc"], num_resamples=50)
    assert found == same
    assert all(one.p_value is not None for one in found)


def test_figures_that_their_tables_do_not_give_are_not_subtracted() -> None:
    """The code of a metric was changed between both reports: images and answers are the same, the figure is not."""
    base = side(0, 3)
    head = Side({**base.figures, "top1": base.figures["top1"] + 0.1}, base.table)
    top1, auroc = judging.differences(base, head, "classification", ["top1", "auroc"], num_resamples=50)
    assert (top1.verdict, top1.low, top1.p_value) == (comparison.NOT_COMPARABLE, None, None)
    assert (auroc.verdict, auroc.difference) == (comparison.IDENTICAL, 0)
    rounded = Side({name: float(f"{value:.6g}") for name, value in base.figures.items()}, base.table)
    again = judging.differences(rounded, side(1, 3), "classification", ["top1", "log_loss"], num_resamples=50)
    assert all(one.p_value is not None for one in again)


@pytest.mark.parametrize("fault", ["column", "classes"])
def test_tables_of_other_columns_are_not_tested(fault: str) -> None:
    base, head = side(0, 3), side(1, 3, 6 if fault == "column" else 7)
    if fault == "column":
        base.table = base.table.drop_columns(["predicted"])
    (top1,) = judging.differences(base, head, "classification", ["top1"], num_resamples=50)
    assert (top1.verdict, top1.base, top1.p_value) == (comparison.NOT_COMPARABLE, base.figures["top1"], None)


@pytest.mark.parametrize(
    ("base", "head", "told"),
    [
        (["cat", "dog"], ["cat", "hound"], [("dog", "hound")]),
        (["cat", "dog"], ["cat", "dog", "eel"], [(None, "eel")]),
        (["cat", "dog"], ["dog", "cat"], [("cat, dog", "dog, cat")]),
        (["cat", "dog"], ["cat", "dog"], []),
        ([], ["cat"], []),
    ],
)
def test_classes_of_one_side_alone_are_told(base: list[str], head: list[str], told: list[tuple[str, str]]) -> None:
    found = judging.unequal_classes(*([{"class": name} for name in names] for names in (base, head)))
    assert [(change.base, change.head) for change in found] == told
