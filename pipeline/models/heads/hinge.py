"""Multiclass support vector machine by stochastic gradient descent on the hinge loss.

The true class is to lead every other by a margin of 1, and each that comes nearer costs as much as it does (Weston and
Watkins 1999). Once the margins hold the loss is 0 and nothing moves, where the softmax is never content.
"""

from typing import Any

import numpy as np

from pipeline.models.heads import Count, Power, Rate, Strength, descend, features_scaled

PROBABILITIES = False


def losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N], sum over the other classes j of max(0, s_j - s_true + 1); scores [N, K]."""
    return np.maximum(_violations(scores, labels), 0).sum(1)


def gradient(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N, K], of the mean of `losses`; at the kink it is 0."""
    slope = (_violations(scores, labels) > 0).astype(np.float64)
    slope[np.arange(len(labels)), labels] = -slope.sum(1)
    return slope / len(labels)


def _violations(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N, K], by how much each margin is missed; 0 for the true class."""
    rows = np.arange(len(labels))
    missed = scores - scores[rows, labels][:, None] + 1
    missed[rows, labels] = 0
    return missed


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    seed: int,
    *,
    lr: Rate = 0.01,
    epochs: Count = 100,
    batch_size: Count = 64,
    l1: Strength = 0.0,
    l2: Strength = 0.0,
    power: Power = 1.0,
) -> dict[str, np.ndarray]:
    """The weights and biases of a linear classifier; for what each option is see `descend`."""
    options: Any = {"lr": lr, "epochs": epochs, "batch_size": batch_size, "l1": l1, "l2": l2, "power": power}
    return descend(features, labels, num_classes, seed, gradient, **options)


def scores(state: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """[N, D] -> the score of each class [N, K]; only differences between them mean something."""
    return (features_scaled(state, features) @ state["weight"].T + state["bias"]).astype(np.float32)
