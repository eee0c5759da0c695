"""Logistic regression of each class against the rest, by stochastic gradient descent on binary cross-entropy.

Unlike the softmax, whose classes share one distribution, each class answers a question of its own, "is it this one?",
by the sigmoid of its score; the loss is the sum of the K cross-entropies (Bishop 2006, section 4.3.2).
"""

from typing import Any

import numpy as np

from pipeline.models.heads import Count, Power, Rate, Strength, descend, features_scaled

PROBABILITIES = True


def losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N], sum over the classes of ln(1 + e^-s) for the true one and ln(1 + e^s) for the others; scores [N, K]."""
    signs = np.where(np.arange(scores.shape[1]) == labels[:, None], -1, 1)
    return np.logaddexp(0, signs * scores).sum(1)


def gradient(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N, K], of the mean of `losses`: sigmoid less truth, as the softmax has it."""
    errors = _sigmoid(scores)
    errors[np.arange(len(labels)), labels] -= 1
    return errors / len(labels)


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    seed: int,
    *,
    lr: Rate = 0.1,
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
    """[N, D] -> the sigmoids of an image as shares of their sum [N, K]."""
    sigmoids = _sigmoid(features_scaled(state, features).astype(np.float64) @ state["weight"].T + state["bias"])
    total = sigmoids.sum(1, keepdims=True)
    known = state["bias"] > -1e9  # an image that looks like no class is any of those that were seen
    return np.where(total > 0, sigmoids / np.maximum(total, 1e-300), known / known.sum()).astype(np.float32)


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -scores))
