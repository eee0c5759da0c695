"""Classifiers on stored features; NumPy and scikit-learn only.

A head has `fit(features, labels, num_classes, seed, **model_params) -> dict of arrays`,
`scores(arrays, features) -> [N, K]`, and says in PROBABILITIES whether its scores are probabilities.
"""

import numpy as np


def scaling(features: np.ndarray) -> dict[str, np.ndarray]:
    """`mean` and `scale` [D] that bring features [N, D] to zero mean and unit variance; constant ones stay."""
    std = features.std(0)
    return {
        "mean": features.mean(0).astype(np.float32),
        "scale": np.where(std > 0, std, 1).astype(np.float32),
    }


def features_scaled(state: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Features [N, D] standardised as the training set's were."""
    return (features - state["mean"]) / state["scale"]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of [N, K] as probabilities, float32."""
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)
