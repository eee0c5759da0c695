"""k nearest neighbours on features, by scikit-learn; its state is the training set itself."""

import numpy as np

from pipeline.models.heads import Count, Power, features_scaled, scaling

PROBABILITIES = True


def fit(
    features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int, *, neighbours: Count = 5, power: Power = 1.0
) -> dict[str, np.ndarray]:
    """Keeps the standardised features.

    Args:
        features: [N, D].
        labels: [N] in 0..K-1.
        num_classes: K.
        seed: not used.
        neighbours: k; at most N are asked.
        power: of the features, see `scaling`.

    Returns:
        `features` [N, D], `labels` [N], `neighbours` and `num_classes` (scalars), `power`, `mean` and `scale` [D].
    """
    state = scaling(features, power)
    return {
        **state,
        "features": features_scaled(state, features).astype(np.float32),
        "labels": labels.astype(np.int64),
        "neighbours": np.array(min(neighbours, len(labels))),
        "num_classes": np.array(num_classes),
    }


def scores(state: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """[N, D] -> share of each class among the k neighbours, the nearer weighing more [N, K]."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(int(state["neighbours"]), weights="distance").fit(state["features"], state["labels"])
    result = np.zeros((len(features), int(state["num_classes"])), np.float32)
    result[:, model.classes_] = model.predict_proba(features_scaled(state, features))
    return result
