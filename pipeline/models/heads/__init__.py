"""Classifiers on stored features; NumPy and scikit-learn only.

A head has `fit(features, labels, num_classes, seed, **model_params) -> dict of arrays`,
`scores(arrays, features) -> [N, K]`, and says in PROBABILITIES whether its scores are probabilities.
"""

import numpy as np


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
    return {
        **state,
        "mean": features.mean(0).astype(np.float32),
        "scale": np.where(std > 0, std, 1).astype(np.float32),
    }


def features_scaled(state: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Features [N, D] treated as the training set's were."""
    if state["power"] != 1:
        features = np.sign(features) * np.abs(features) ** state["power"]
    return (features - state["mean"]) / state["scale"]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of [N, K] as probabilities, float32."""
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)
