"""Metrics: pure functions of predictions and truth, and one table of names per task.

Each task's module has `METRICS`, from the name in metrics.json to a `Metric`; the first one is its headline.
"""

import importlib
import re
from typing import NamedTuple

TASKS = ("classification", "detection", "segmentation", "regression", "panoptic", "captioning", "generative")


class Metric(NamedTuple):
    """What a number of metrics.json means.

    Attributes:
        higher_is_better: None for a number that says what to compare with and is itself neither good nor bad.
        description: one line, for a person.
    """

    higher_is_better: bool | None
    description: str


def ratio(part: float, whole: float) -> float | None:
    """Part / whole; None where there is no whole."""
    return float(part / whole) if whole else None


def table(task: str) -> dict[str, Metric]:
    """The metrics of a task, the headline first."""
    return importlib.import_module(f"pipeline.metrics.{task}").METRICS


def lookup(task: str, name: str) -> Metric | None:
    """The metric of a name in metrics.json; None for a name that no metric bears.

    A run may choose the k of its top-k accuracy: `top3` is found under `top5`.
    """
    if task == "classification" and re.fullmatch(r"top([2-9]|\d\d+)", name):
        return Metric(True, f"share of images whose class is among the {name[3:]} with the highest scores")
    return table(task).get(name)
