"""The verdict on predicted numbers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.data.store import Split
from pipeline.metrics import regression as metrics
from pipeline.params import RegressionEvaluation
from pipeline.reporting import plots
from pipeline.reporting.gallery import Item, Mark
from pipeline.reporting.verdicts import Predictions, Verdict, of_gallery, some_and_worst
from pipeline.visualise import draw

COLUMNS, CELL = 8, 112


def judge(predictions: Predictions, split: Split, evaluation: RegressionEvaluation) -> Verdict:
    """Judges numbers against the targets of a split.

    Raises:
        PipelineError: a number is missing or not finite.
    """
    targets = np.array(split.column("target"), np.float64)
    values = _values(predictions)
    table = metrics.per_image(values=values, targets=targets)

    def draw_pictures(folder: Path) -> None:
        plots.agreement(folder / "agreement.png", values, targets)
        plots.residuals(folder / "residuals.png", values, targets)
        _draw_predictions(folder / "predictions.png", split, values, targets)

    return Verdict(
        metrics=metrics.metrics(values=values, targets=targets),
        per_class=[],
        protocol=[
            ("units", "of the target"),
            ("r2", "1 - S_res / S_tot about the mean of the images judged, as scikit-learn's; negative without limit"),
            ("rmse_mean", "of the mean of the images judged, which nobody knows before: a hard foil"),
        ],
        per_image=pa.table(
            {"image_id": predictions.image_ids, **{name: table.column(name) for name in table.column_names}}
        ),
        draw=draw_pictures,
        show=lambda: (items(predictions, split, evaluation, of_gallery(np.abs(values - targets))), {}),
    )


def items(
    predictions: Predictions, split: Split, evaluation: RegressionEvaluation, indices: Sequence[int]
) -> list[Item]:
    """Some images with their number and the answer, for a gallery."""
    shown = []
    for index, value in zip(indices, predictions.of(indices).column("value"), strict=True):
        sample = split.read(index)
        assert sample.target is not None
        error = Mark(f"{value:.4g}, off by {value - sample.target:+.3g}", "answer")
        shown.append(Item(sample.image_id, sample.image, [Mark(f"{sample.target:.4g}", "truth")], [error]))
    return shown


def _values(predictions: Predictions) -> np.ndarray:
    """[N] float64, checked image by image."""
    found = predictions.column("value")
    for image_id, value in zip(predictions.image_ids, found, strict=True):
        if value is None or not np.isfinite(value):
            raise predictions.fault(image_id, "value", f"not a finite number ({value})")
    return np.array(found, np.float64)


def _draw_predictions(path: Path, split: Split, values: np.ndarray, targets: np.ndarray) -> None:
    """Images drawn at random, then those whose number is missed by most."""
    drawn, worst = some_and_worst(np.abs(values - targets), COLUMNS, COLUMNS)
    chosen = drawn + worst
    captions = [f"{values[index]:.4g}\nis {targets[index]:.4g}" for index in chosen]
    draw.save(path, draw.grid([split.read(i).image for i in chosen], columns=COLUMNS, captions=captions, cell=CELL))
