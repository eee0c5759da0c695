"""Softmax regression on features, fitted by scikit-learn's L-BFGS: the linear probe of transfer learning."""

from typing import Any

import numpy as np

from pipeline.models.heads import Count, Power, Rate, as_probabilities, features_scaled, scaling

PROBABILITIES = True


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    seed: int,
    *,
    c: Rate = 1.0,
    max_iter: Count = 500,
    power: Power = 1.0,
) -> dict[str, np.ndarray]:
    """The weights of a linear classifier on standardised features.

    Args:
        features: [N, D].
        labels: [N] in 0..K-1.
        num_classes: K.
        seed: not used, the optimum is unique.
        c: inverse strength of the L2 penalty on the weights.
        max_iter: steps of L-BFGS.
        power: of the features, see `scaling`.

    Returns:
        `weight` [K, D], `bias` [K], `power`, `mean` and `scale` [D]; a class without samples is never likely.
    """
    from sklearn.linear_model import LogisticRegression

    state = scaling(features, power)
    weight = np.zeros((num_classes, features.shape[1]), np.float32)
    bias = np.full(num_classes, -np.inf, np.float32)
    if (labels == labels[0]).all():  # of which scikit-learn makes no regression
        bias[labels[0]] = 0.0
        return {**state, "weight": weight, "bias": np.maximum(bias, -1e9)}
    model: Any = LogisticRegression(C=c, max_iter=max_iter).fit(features_scaled(state, features), labels)
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        weight[model.classes_[1]], bias[model.classes_] = model.coef_[0], [0.0, model.intercept_[0]]
    else:
        weight[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return {**state, "weight": weight, "bias": np.maximum(bias, -1e9)}


def scores(state: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """[N, D] -> class probabilities [N, K]."""
    return as_probabilities(features_scaled(state, features) @ state["weight"].T + state["bias"])
