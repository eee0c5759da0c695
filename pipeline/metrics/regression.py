"""How far predicted numbers lie from the true ones.

All figures are made from the columns of `per_image` and a weight per image: one evaluation is the weight 1
everywhere, a bootstrap resample how often each image was drawn.
"""

import numpy as np
import pyarrow as pa

from pipeline.metrics import Metric, bootstrap

METRICS = {
    "rmse": Metric(False, "root of the mean squared error, in units of the target"),
    "mae": Metric(False, "mean absolute error, in units of the target"),
    "r2": Metric(True, "share of the variance of the target that is explained, at most 1"),
    "rmse_mean": Metric(None, "RMSE of who answers the mean of the true numbers every time"),
}
SMALLEST_VARIANCE = 1e-12
"""Share of the mean squared deviation of all images below which those of a resample are taken to be equal."""


def per_image(*, values: np.ndarray, targets: np.ndarray) -> pa.Table:
    """What `resampled` needs of each image.

    Args:
        values: [N], predicted.
        targets: [N], true.

    Returns:
        target, predicted and error (predicted - target), float64.
    """
    values, targets = np.asarray(values, np.float64), np.asarray(targets, np.float64)
    return pa.table({"target": targets, "predicted": values, "error": values - targets})


def resampled(table: pa.Table, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of `METRICS` for weighted images.

    The coefficient of determination is 1 - S_res / S_tot with S_tot about the mean of the same images, as scikit-learn
    has it: 0 is the answer of `rmse_mean`, and what is worse is negative without limit.

    Args:
        table: N rows of `per_image`.
        weights: [R, N] integers, how often each image counts.

    Returns:
        Name to [R] float64, NaN without images; r2 also where all targets are equal.
    """
    if not table.num_rows:
        return {name: np.full(len(weights), np.nan) for name in METRICS}
    targets, errors = (table.column(name).to_numpy() for name in ("target", "error"))
    centred = targets - targets.mean()  # so that little is lost when squares are subtracted
    columns = np.column_stack([errors**2, np.abs(errors), centred, centred**2])
    (sums,) = bootstrap.sums(weights, columns)
    num = weights.sum(1, dtype=np.int64).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample without images, or of equal ones
        squares, distances, mean, square = (sums / num[:, None]).T
        variance = np.maximum(square - mean**2, 0)
        variance[variance <= SMALLEST_VARIANCE * (centred**2).mean()] = 0
        r2 = np.where(variance > 0, 1 - squares / variance, np.nan)
    return {"rmse": np.sqrt(squares), "mae": distances, "r2": r2, "rmse_mean": np.sqrt(variance)}


def metrics(*, values: np.ndarray, targets: np.ndarray) -> dict[str, float | None]:
    """The figures of `METRICS` for one set of images; None where undefined, which all are without images.

    >>> metrics(values=np.array([1.0, 2, 6]), targets=np.array([1.0, 3, 5]))["mae"]  # (0 + 1 + 1) / 3
    0.6666666666666666

    Args:
        values: [N], predicted.
        targets: [N], true.
    """
    return bootstrap.once(resampled, per_image(values=values, targets=targets))
