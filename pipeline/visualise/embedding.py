"""Maps of a feature space in the plane."""

from __future__ import annotations

from typing import Any

import numpy as np


def pca(features: np.ndarray, seed: int) -> np.ndarray:
    """The two principal components of most variance.

    Args:
        features: [N, D].
        seed: not used; the sign of each component is fixed by its largest weight.

    Returns:
        [N, 2].
    """
    from sklearn.decomposition import PCA

    return PCA(2, svd_solver="full").fit_transform(features)


def tsne(features: np.ndarray, seed: int, *, perplexity: float = 30.0, components: int = 50) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton 2008) of the first principal components.

    Args:
        features: [N, D].
        seed: of the optimisation.
        perplexity: number of neighbours that a point looks at, about; less than N.
        components: principal components kept before, to speed up and to drop noise.

    Returns:
        [N, 2].
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    reduced = PCA(min(components, *features.shape), svd_solver="full").fit_transform(features)
    return TSNE(2, perplexity=min(perplexity, len(features) - 1), init="pca", random_state=seed).fit_transform(reduced)


METHODS: dict[str, Any] = {"pca": pca, "tsne": tsne}
