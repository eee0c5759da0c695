"""Linear regression by gradient descent, on one feature or on many.

The mean squared error of y = w x + b is a bowl over (w, b), and a step goes downhill along its slope. How long the bowl
is for its width decides how fast that leads to the bottom: features of zero mean and unit variance make it round.
The bottom has a closed form, the normal equations (Bishop 2006, equation 3.15), which descent must meet.
"""

from typing import Annotated

import numpy as np
from pydantic import Field

from pipeline.errors import ParamsError, PipelineError, did_you_mean

MOST_KEPT = 200
"""Points of the path that a checkpoint keeps, at even steps."""


def fit(
    features: np.ndarray,
    targets: np.ndarray,
    names: list[str],
    seed: int,
    *,
    columns: list[str] = [],  # noqa: B006
    lr: Annotated[float, Field(gt=0)] = 0.1,
    steps: Annotated[int, Field(ge=1, le=10**6)] = 200,
    l2: Annotated[float, Field(ge=0)] = 0.0,
    normalise: bool = True,
) -> dict[str, np.ndarray]:
    """The weights after some steps of gradient descent from 0, each over all samples, and the path there.

    Args:
        features: [N, D'].
        targets: [N].
        names: of the D' features; empty where they have none.
        seed: not used, the path is one.
        columns: the D features that are used, by name; empty: all.
        lr: of mean squared error, without the half that some notes put before it.
        steps: of descent.
        l2: strength of the penalty l2 * sum w^2; the intercept has none.
        normalise: whether features are brought to zero mean and unit variance first.

    Returns:
        `columns` [D] positions, `mean` and `scale` [D], `weight` [D] and `bias` of scaled features; `path` [P, D + 1],
        weights and then bias, at the `steps` [P]; `gram` [D + 1, D + 1], `cross` [D + 1] and `square`, of which the
        mean squared error at any place t is t' gram t - 2 t' cross + square; `l2`.

    Raises:
        ParamsError: no feature of a name.
        PipelineError: descent leads uphill, for the learning rate is too large.
    """
    chosen = _positions(columns, names, features.shape[1])
    values, truth = features[:, chosen].astype(np.float64), targets.astype(np.float64)
    std = values.std(0)
    varies = (np.ptp(values, axis=0) > 0) & (std > 0)  # rounding gives constants a deviation; tiny squares vanish
    mean = values.mean(0) if normalise else np.zeros(len(chosen))
    scale = np.where(varies, std, 1) if normalise else np.ones(len(chosen))
    rows = np.column_stack([(values - mean) / scale, np.ones(len(values))])
    gram, cross, square = rows.T @ rows / len(rows), rows.T @ truth / len(rows), float((truth**2).mean())
    penalty = np.append(np.full(len(chosen), l2), 0)
    place, path = np.zeros(len(chosen) + 1), [np.zeros(len(chosen) + 1)]
    kept = np.unique(np.linspace(0, steps, min(steps + 1, MOST_KEPT)).round().astype(int))
    with np.errstate(over="ignore", invalid="ignore"):
        for step in range(1, steps + 1):
            place = place - lr * 2 * (gram @ place - cross + penalty * place)
            if step in kept:
                path.append(place)
        last = float(place @ gram @ place - 2 * place @ cross + square + penalty @ place**2)
    if not last <= square:  # the error at the start; also where it is not finite
        largest = 1 / float(np.linalg.eigvalsh(gram + np.diag(penalty))[-1])  # 2 by the largest curvature, 2 lambda
        raise PipelineError(
            f"regression/linear: descent at lr {lr:g} leads uphill, from {square:.4g} to {last:.4g}; "
            f"fix: lr below {largest:.3g}" + ("" if normalise else ", or normalise: true")
        )
    return {
        "columns": chosen,
        "mean": mean.astype(np.float32),
        "scale": scale.astype(np.float32),
        "weight": place[:-1].astype(np.float32),
        "bias": np.array(place[-1], np.float32),
        "steps": kept,
        "path": np.array(path),
        "gram": gram,
        "cross": cross,
        "square": np.array(square),
        "l2": np.array(l2),
    }


def values(state: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """[N, D'] -> predicted numbers [N] float32."""
    scaled = (features[:, state["columns"]] - state["mean"]) / state["scale"]
    return (scaled @ state["weight"] + state["bias"]).astype(np.float32)


def history(state: dict[str, np.ndarray], features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Mean squared error [P] on features [N, D'] and targets [N] at each kept point of the path."""
    scaled = (features[:, state["columns"]].astype(np.float64) - state["mean"]) / state["scale"]
    errors = scaled @ state["path"][:, :-1].T + state["path"][:, -1] - targets[:, None]
    return (errors**2).mean(0)


def _positions(columns: list[str], names: list[str], num: int) -> np.ndarray:
    for column in columns:
        if column not in names:
            what = did_you_mean(column, names) if names else "extracted features have no names; fix: columns: []"
            raise ParamsError(f"regression/linear columns: no feature {column!r}; {what}")
    return np.array([names.index(column) for column in columns] if columns else range(num), np.int64)
