"""A perceptron with one hidden layer of ReLUs on features, fitted by scikit-learn's Adam."""

from typing import Any

import numpy as np

from pipeline.models.heads import Count, Power, Rate, Strength, as_probabilities, features_scaled, scaling

PROBABILITIES = True


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    seed: int,
    *,
    hidden: Count = 128,
    epochs: Count = 60,
    lr: Rate = 0.001,
    alpha: Strength = 0.0001,
    power: Power = 1.0,
) -> dict[str, np.ndarray]:
    """The weights of both layers, on standardised features.

    Args:
        features: [N, D].
        labels: [N] in 0..K-1.
        num_classes: K.
        seed: of initial weights and order.
        hidden: width.
        epochs: passes over the features.
        lr: of Adam.
        alpha: strength of the L2 penalty.
        power: of the features, see `scaling`.

    Returns:
        `weight0` [D, hidden], `bias0`, `weight1` [hidden, K], `bias1`, `power`, `mean` and `scale` [D].
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    state = scaling(features, power)
    model: Any = MLPClassifier((hidden,), alpha=alpha, learning_rate_init=lr, max_iter=epochs, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is the caller's choice
        model.fit(features_scaled(state, features), labels)
    weight = np.zeros((hidden, num_classes), np.float32)
    bias = np.full(num_classes, -1e9, np.float32)
    if len(model.classes_) == 2:  # scikit-learn keeps one output for two classes
        weight[:, model.classes_[1]] = model.coefs_[1][:, 0]
        bias[model.classes_] = [0.0, model.intercepts_[1][0]]
    else:
        weight[:, model.classes_], bias[model.classes_] = model.coefs_[1], model.intercepts_[1]
    return {
        **state,
        "weight0": model.coefs_[0].astype(np.float32),
        "bias0": model.intercepts_[0].astype(np.float32),
        "weight1": weight,
        "bias1": bias,
    }


def scores(state: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """[N, D] -> class probabilities [N, K]."""
    hidden = np.maximum(features_scaled(state, features) @ state["weight0"] + state["bias0"], 0)
    return as_probabilities(hidden @ state["weight1"] + state["bias1"])
