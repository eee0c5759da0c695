"""One-against-rest support vector machines on features, fitted by scikit-learn."""

from typing import Any, Literal

import numpy as np

from pipeline.models.heads import Power, Rate, features_scaled, scaling

PROBABILITIES = False


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    seed: int,
    *,
    c: Rate = 1.0,
    kernel: Literal["linear", "rbf"] = "rbf",
    power: Power = 1.0,
) -> dict[str, np.ndarray]:
    """The support vectors and their weights, on standardised features.

    Args:
        features: [N, D].
        labels: [N] in 0..K-1.
        num_classes: K.
        seed: not used, the optimum is unique.
        c: inverse strength of the penalty.
        kernel: linear, or rbf with gamma = 1 / D.
        power: of the features, see `scaling`.

    Returns:
        `support` [S, D], `dual` [K, S], `bias` [K], `gamma` (0 for linear), `power`, `mean` and `scale` [D].
    """
    from sklearn.svm import SVC

    state = scaling(features, power)
    scaled = features_scaled(state, features)
    gamma = 1 / features.shape[1]
    dual = np.zeros((num_classes, len(labels)), np.float64)
    bias = np.full(num_classes, -1e9, np.float64)
    present = np.unique(labels)
    if len(present) == 1:  # nothing to tell it from: score 0, whatever the features
        bias[present] = 0.0
    for label in present if len(present) > 1 else ():
        machine: Any = SVC(C=c, kernel=kernel, gamma=gamma).fit(scaled, labels == label)
        dual[label, machine.support_] = machine.dual_coef_[0]
        bias[label] = machine.intercept_[0]
    used = np.flatnonzero(dual.any(0))
    if not used.size:  # a kernel is with at least one vector
        used = np.array([0])
    return {
        **state,
        "support": scaled[used].astype(np.float32),
        "dual": dual[:, used].astype(np.float32),
        "bias": bias.astype(np.float32),
        "gamma": np.array(gamma if kernel == "rbf" else 0.0, np.float32),
    }


def scores(state: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """[N, D] -> signed distance from each class's boundary, in margins [N, K]."""
    from sklearn.metrics.pairwise import linear_kernel, rbf_kernel

    scaled = features_scaled(state, features)
    gamma = float(state["gamma"])
    kernel = rbf_kernel(scaled, state["support"], gamma) if gamma else linear_kernel(scaled, state["support"])
    return (kernel @ state["dual"].T + state["bias"]).astype(np.float32)
