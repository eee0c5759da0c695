"""Softmax regression by stochastic gradient descent on its cross-entropy: the linear classifier of the notes.

The scores w x + b of the classes become probabilities by the softmax, and the loss is -ln of the one given to the true
class. Its gradient by the scores is the error itself, probabilities less truth (Bishop 2006, equation 4.109).
"""

from typing import Any

import numpy as np

from pipeline.models.heads import Count, Power, Rate, Strength, as_probabilities, descend, features_scaled

PROBABILITIES = True


def losses(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N], cross-entropy in nats of scores [N, K]."""
    shifted = scores - scores.max(1, keepdims=True)
    return np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(labels)), labels]


def gradient(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[N, K], of the mean of `losses`."""
    powers = np.exp(scores - scores.max(1, keepdims=True))
    errors = powers / powers.sum(1, keepdims=True)
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
    """[N, D] -> class probabilities [N, K]."""
    return as_probabilities(features_scaled(state, features) @ state["weight"].T + state["bias"])
