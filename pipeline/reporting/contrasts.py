"""Each idea beside its foil: the values of both, their difference, and whether the test images show what is claimed.

A contrast names one metric, so nothing is corrected for having looked at many; of twenty contrasts that are nothing
but chance, one is expected to come out as shown or as not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import PipelineError
from pipeline.metrics import bootstrap, classification, comparison, regression
from pipeline.metrics.comparison import Difference
from pipeline.params import TRIVIAL_FOILS
from pipeline.reporting import curves, judging
from pipeline.reporting.scores import Score, score, signed

if TYPE_CHECKING:
    from pipeline.params import Params
    from pipeline.reporting.contents import Contents, Trained

NOTE = (
    "Each claim is judged on {images} by itself: the difference of idea and foil with its "
    f"{bootstrap.LEVEL:.0%} interval (paired bootstrap over the images), and by a paired permutation test at "
    f"{1 - bootstrap.LEVEL:.2g}: it shows, it does not show (the foil is better), or there is no evidence either way. "
    "One training of each stands behind it: what another seed would change is not in the interval."
)
SHOWS, DOES_NOT_SHOW = "shows", "does not show"
VERDICTS = {
    comparison.BETTER: SHOWS,
    comparison.WORSE: DOES_NOT_SHOW,
    comparison.IDENTICAL: comparison.NO_EVIDENCE,
}
"""What the comparison's verdict on idea (head) against foil (base) says of the claim; others stay as they are."""


@dataclass(frozen=True)
class Contrast:
    """One entry of `contrasts`, judged.

    Attributes:
        task: of both.
        split: whose images both are judged on.
        idea: name of the run or generator.
        foil: likewise, or one of TRIVIAL_FOILS.
        difference: idea (head) less foil (base).
        verdict: shows, does not show, no evidence, not tested or not comparable.
        chart: both training curves as SVG, or an empty string where there are none.
    """

    name: str
    claim: str
    task: str
    split: str
    idea: str
    foil: str
    difference: Difference
    verdict: str
    chart: str

    @property
    def score(self) -> Score:
        """What it is judged by."""
        return score(self.task, self.difference.metric)

    @property
    def judged_by(self) -> str:
        """Its metric, and the split where that is not the test split."""
        told = "" if self.split == "test" else f"on {self.split}"
        return f"{self.score.label} {self.score.arrow} {told}".strip()

    @property
    def is_of_runs(self) -> bool:
        """Whether the foil has a report of its own."""
        return self.foil not in TRIVIAL_FOILS

    @property
    def interval(self) -> str:
        """Of the difference, or nothing where it is not known."""
        low, high = self.difference.low, self.difference.high
        return "" if low is None or high is None else f"{signed(low)} to {signed(high)}"

    @property
    def change(self) -> str:
        """The difference with its sign."""
        return "n/a" if self.difference.difference is None else signed(self.difference.difference)

    def content(self) -> dict[str, Any]:
        """As JSON."""
        numbers = ("metric", "difference", "low", "high", "p_value")
        return {
            "claim": self.claim,
            "idea": self.idea,
            "foil": self.foil,
            "idea_value": self.difference.head,
            "foil_value": self.difference.base,
            "verdict": self.verdict,
            **{name: getattr(self.difference, name) for name in numbers},
        }


@dataclass(frozen=True)
class _Side:
    """What is known of an idea or a foil."""

    figures: Mapping[str, float | None]
    table: pa.Table | None
    protocol: Mapping[str, Any] = field(default_factory=dict)


def read_contrasts(
    params: Params, contents: Contents, *, num_resamples: int = bootstrap.NUM_RESAMPLES
) -> list[Contrast]:
    """Judges all contrasts, in the order of params.yaml.

    Args:
        params: of the project.
        contents: of reports/.
        num_resamples: of the bootstrap and of the permutation test.

    Raises:
        PipelineError: a per-image table is not readable, or the statistics of a dataset lack what a foil needs.
    """
    trained = {one.name: one for members in contents.kinds.values() for one in members}
    statistics = {one.name: one.statistics for one in contents.datasets}
    found = []
    for name, entry in params.contrasts.items():
        idea, foil = trained[entry.idea], trained.get(entry.foil)
        head = _side(idea)
        base = _side(foil) if foil else _trivial(entry.foil, head, idea, statistics[idea.dataset])
        task = idea.kind.task
        others = {*base.figures, *head.figures} - {entry.metric}  # rules that they bear do not matter here
        if foil and judging.unequal_rules(base.protocol, head.protocol, others):
            values = base.figures.get(entry.metric), head.figures.get(entry.metric)
            difference = Difference(entry.metric, *values, None, None, None, None, verdict=comparison.NOT_COMPARABLE)
        else:
            (difference,) = judging.differences(base, head, task, [entry.metric], num_resamples=num_resamples)
        verdict = VERDICTS.get(difference.verdict, difference.verdict)
        chart = _chart(entry.metric, {"idea": idea, "foil": foil} if foil else {"idea": idea})
        found.append(
            Contrast(name, entry.claim, task, idea.entry.judged_on, entry.idea, entry.foil, difference, verdict, chart)
        )
    return found


def note(contrasts: Sequence[Contrast]) -> str:
    """What stands above the table of these."""
    of_test = all(one.split == "test" for one in contrasts)
    return NOTE.format(images="the test images" if of_test else "the test images, or those named with its score,")


def _side(one: Trained) -> _Side:
    place = one.folder / "per_image.parquet"
    try:
        table = pq.read_table(place) if place.is_file() else None
    except (OSError, pa.ArrowInvalid) as error:
        what = str(error).splitlines()[0]
        raise PipelineError(f"{place}: not readable ({what}); fix: dvc repro evaluate@{one.name}") from None
    return _Side(one.scores, table, dict(one.protocol))


def _trivial(foil: str, idea: _Side, of: Trained, statistics: Mapping[str, Any]) -> _Side:
    """What an answer without learning would score on the images that the idea was judged on.

    `chance` counts in expectation: each image is right by 1/K. Its permutation test swaps that share with what the
    idea scored, which holds its level for as many images as the normal approximation takes. `mean` is that of the true
    numbers of the judged images, the hardest constant to beat.
    """
    if idea.table is None:
        return _Side({}, None)
    if foil == "mean":
        targets = idea.table.column("target").to_numpy()
        values = np.full(len(targets), targets.mean() if len(targets) else 0.0)
        table = regression.per_image(values=values, targets=targets)
        return _Side(regression.metrics(values=values, targets=targets), table)
    labels = idea.table.column("label").to_numpy().astype(np.int64)
    classes = [str(row["class"]) for row in of.per_class]
    if foil == "majority":
        counts = statistics.get("images_per_class")
        if not isinstance(counts, dict) or set(counts) != set(classes):
            raise PipelineError(
                f"reports/data/{of.dataset}/statistics.json images_per_class: not the classes of {of.name}; "
                f"fix: dvc repro download@{of.dataset}"
            )
        most = max(range(len(classes)), key=lambda index: counts[classes[index]].get("train", 0))
        right = labels == most
        predicted = np.full(len(labels), most)
    else:
        right, predicted = np.full(len(labels), 1 / len(classes)), np.zeros(len(labels), np.int64)
    names = [name for name in idea.table.column_names if name.startswith("correct_top")]
    table = pa.table(
        {
            "label": pa.array(labels, pa.int32()),
            "predicted": pa.array(predicted, pa.int32()),
            "correct": right.astype(np.float64),
            **{name: right.astype(np.float64) for name in names},
        }
    )
    once = np.ones((1, len(labels)), np.uint16)
    figures = {name: float(values[0]) for name, values in classification.resampled(table, once).items()}
    return _Side({name: value if np.isfinite(value) else None for name, value in figures.items()}, table)


def _chart(metric: str, sides: Mapping[str, Trained]) -> str:
    """The training curves of the metric where all sides have them, else of the loss."""
    columns = {label: one.training for label, one in sides.items()}
    quantity = metric if all(f"val_{metric}" in known for known in columns.values()) else "loss"
    names = " and ".join(one.name for one in sides.values())
    unit = curves.shared_unit((one.model, one.training) for one in sides.values())
    heading = quantity.replace("_", " ")
    return curves.overlay(f"{quantity} of {names} by {unit}", quantity, columns, heading, unit)
