"""Classifiers on stored features; NumPy and scikit-learn only.

A head has `fit(features, labels, num_classes, seed, **model_params) -> dict of arrays`,
`scores(arrays, features) -> [N, K]`, and says in PROBABILITIES whether its scores are probabilities.
"""

from collections.abc import Callable
from typing import Annotated

import numpy as np
from pydantic import Field

Count = Annotated[int, Field(ge=1, le=10**6)]
Rate = Annotated[float, Field(gt=0)]
Strength = Annotated[float, Field(ge=0)]
Power = Annotated[float, Field(gt=0, le=1)]


def scaling(features: np.ndarray, power: float = 1.0) -> dict[str, np.ndarray]:
    """What brings features to zero mean and unit variance after a power of them is taken.

    Args:
        features: [N, D].
        power: of each feature's size, its sign kept; 0.5 tames the few large ones of rectified features
            (Perronnin et al. 2010, section 3).

    Returns:
        `power` (scalar), `mean` and `scale` [D]; a constant feature keeps its scale.
    """
    state = {"power": np.array(power, np.float32), "mean": np.array(0, np.float32), "scale": np.array(1, np.float32)}
    features = features_scaled(state, features)
    std = features.std(0)
    varies = (np.ptp(features, axis=0) > 0) & (std > 0)  # rounding gives constants a deviation; tiny squares vanish
    return {
        **state,
        "mean": features.mean(0).astype(np.float32),
        "scale": np.where(varies, std, 1).astype(np.float32),
    }


def features_scaled(state: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Features [N, D] treated as the training set's were."""
    if state["power"] != 1:
        features = np.sign(features) * np.abs(features) ** state["power"]
    return (features - state["mean"]) / state["scale"]


def as_probabilities(logits: np.ndarray) -> np.ndarray:
    """Rows of [N, K] as probabilities, float32."""
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def descend(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    seed: int,
    gradient: Callable[[np.ndarray, np.ndarray], np.ndarray],
    *,
    lr: float,
    epochs: int,
    batch_size: int,
    l1: float,
    l2: float,
    power: float,
) -> dict[str, np.ndarray]:
    """Linear scores that minimise mean loss + l1 * sum |w| + l2 * sum w^2, by stochastic gradient descent.

    Features are standardised first. The learning rate falls linearly to 0, so that the noise of the batches dies out.
    The L1 part is no gradient step but a shrinking of each weight towards 0 (Duchi and Singer 2009, section 5.1),
    which makes weights exactly 0.

    Args:
        features: [N, D].
        labels: [N] in 0..K-1.
        num_classes: K.
        seed: of the order of the samples.
        gradient: of the mean loss of a batch by its scores: (scores [B, K'], labels [B]) -> [B, K'].
        lr: of the first step.
        epochs: passes over the samples.
        batch_size: samples of a step.
        l1, l2: strength of each penalty on the weights; the bias has none. Both together are the elastic net.
        power: of the features, see `scaling`.

    Returns:
        `weight` [K, D], `bias` [K], float32, beside what `scaling` gives; a class without samples is never chosen.
    """
    state = scaling(features, power)
    classes, places = np.unique(labels, return_inverse=True)
    values = features_scaled(state, features).astype(np.float64)
    weight, bias = np.zeros((len(classes), values.shape[1])), np.zeros(len(classes))
    rng = np.random.default_rng(seed)
    starts = range(0, len(values), batch_size)
    with np.errstate(over="ignore", invalid="ignore"):  # a rate too large: the weights tell, and are refused
        for epoch in range(epochs):
            order = rng.permutation(len(values))
            for step, start in enumerate(starts, epoch * len(starts)):
                batch = values[order[start : start + batch_size]]
                slope = gradient(batch @ weight.T + bias, places[order[start : start + batch_size]])
                rate = lr * (1 - step / (epochs * len(starts)))
                weight -= rate * (slope.T @ batch + 2 * l2 * weight)
                bias -= rate * slope.sum(0)
                if l1:
                    weight = np.sign(weight) * np.maximum(np.abs(weight) - rate * l1, 0)
        result = {
            **state,
            "weight": np.zeros((num_classes, values.shape[1]), np.float32),
            "bias": np.full(num_classes, -1e9, np.float32),
        }
        result["weight"][classes], result["bias"][classes] = weight, bias
    return result
