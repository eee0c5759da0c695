"""Random forest on features (Breiman 2001), grown by scikit-learn: many trees, each on its own draw of the samples.

A tree asks of one feature at a time whether it is above a threshold, so that it needs no scale and finds no slanted
border; what one tree learns by heart the others do not share, and their average stays.
"""

from typing import Any

import numpy as np

from pipeline.models.heads import Count

PROBABILITIES = True


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    seed: int,
    *,
    trees: Count = 100,
    max_depth: Count | None = None,
    min_leaf: Count = 1,
) -> dict[str, np.ndarray]:
    """All trees as one table of nodes.

    Args:
        features: [N, D].
        labels: [N] in 0..K-1.
        num_classes: K.
        seed: of the draws of samples and features.
        trees: T.
        max_depth: questions on the way to an answer; None: until a leaf is of one class.
        min_leaf: samples that each leaf has at least.

    Returns:
        `roots` [T]; of each of M nodes `feature`, `threshold`, the nodes `below` and `above` it (itself for a leaf),
        and `shares` [M, K] of the classes among its samples.
    """
    from sklearn.ensemble import RandomForestClassifier

    forest: Any = RandomForestClassifier(trees, max_depth=max_depth, min_samples_leaf=min_leaf, random_state=seed)
    forest.fit(features, labels)
    roots = np.cumsum([0, *(tree.tree_.node_count for tree in forest.estimators_)])
    nodes: dict[str, list[np.ndarray]] = {"feature": [], "threshold": [], "below": [], "above": [], "shares": []}
    for root, tree in zip(roots, (tree.tree_ for tree in forest.estimators_), strict=False):
        own = np.arange(tree.node_count)
        is_leaf = tree.children_left < 0
        shares = np.zeros((tree.node_count, num_classes), np.float32)
        shares[:, forest.classes_] = tree.value[:, 0] / tree.value[:, 0].sum(1, keepdims=True)
        nodes["feature"].append(np.where(is_leaf, 0, tree.feature).astype(np.int32))
        nodes["threshold"].append(tree.threshold)
        nodes["below"].append((root + np.where(is_leaf, own, tree.children_left)).astype(np.int32))
        nodes["above"].append((root + np.where(is_leaf, own, tree.children_right)).astype(np.int32))
        nodes["shares"].append(shares)
    return {"roots": roots[:-1].astype(np.int32), **{name: np.concatenate(parts) for name, parts in nodes.items()}}


def scores(state: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """[N, D] -> mean over the trees of the shares of the classes where an image ends [N, K]."""
    images = np.arange(len(features))
    values = features.astype(np.float32)
    total = np.zeros((len(features), state["shares"].shape[1]))
    for root in state["roots"]:
        nodes = np.full(len(features), root)
        while True:
            below = values[images, state["feature"][nodes]] <= state["threshold"][nodes]
            following = np.where(below, state["below"][nodes], state["above"][nodes])
            if (following == nodes).all():
                break
            nodes = following
        total += state["shares"][nodes]
    return (total / len(state["roots"])).astype(np.float32)
