"""Distances of two sets of images in a feature space: FID, KID, nearest neighbours."""

import numpy as np

from pipeline.metrics import Metric

METRICS = {
    "fid": Metric(False, "Frechet distance of Gaussians fitted to the features of samples and of real images"),
    "kid": Metric(False, "squared maximum mean discrepancy of the features, cubic kernel, unbiased: about 0 at best"),
    "kid_std": Metric(None, "standard deviation of kid over its random subsets"),
    "fid_noise": Metric(None, "the fid of uniform noise in place of samples, to compare with"),
    "kid_noise": Metric(None, "the kid of uniform noise in place of samples, to compare with"),
    "fid_real": Metric(None, "the fid of other real images in place of samples, the best to hope for"),
    "kid_real": Metric(None, "the kid of other real images in place of samples, the best to hope for"),
}
NUM_SUBSETS = 100
MAX_SUBSET_SIZE = 1000


def fid(*, features: np.ndarray, reference: np.ndarray) -> float | None:
    """Frechet inception distance (Heusel et al. 2017, equation 6), exact for any N and D.

    |m1 - m2|^2 + Tr C1 + Tr C2 - 2 Tr (C1 C2)^(1/2). With centred rows A and B, C1 = A'A / (N - 1) and
    C2 = B'B / (M - 1), the last trace is the sum of singular values of A B' over ((N - 1)(M - 1))^(1/2): no square
    root of a D x D matrix, which is singular and inexact where N <= D.

    Args:
        features: [N, D], of samples.
        reference: [M, D], of real images.

    Returns:
        The distance, 0 or more; None where either has fewer than two rows. It is biased upwards by small N.
    """
    if min(len(features), len(reference)) < 2:
        return None
    features, reference = features.astype(np.float64), reference.astype(np.float64)
    shift = features.mean(0) - reference.mean(0)
    factors = [_covariance_factor(rows) for rows in (features, reference)]
    spread = sum(float((factor**2).sum()) for factor in factors)
    shared = np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum()
    return max(0.0, float(shift @ shift + spread - 2 * shared))


def _covariance_factor(rows: np.ndarray) -> np.ndarray:
    """[min(N, D), D], F with F'F the covariance of rows [N, D]."""
    centred = (rows - rows.mean(0)) / np.sqrt(len(rows) - 1)
    return np.asarray(np.linalg.qr(centred, mode="r")) if len(centred) > centred.shape[1] else centred


def kid(
    *, features: np.ndarray, reference: np.ndarray, num_subsets: int = NUM_SUBSETS, seed: int = 0
) -> tuple[float | None, float | None]:
    """Kernel inception distance (Binkowski et al. 2018, section 4): unbiased MMD^2 with kernel (x.y / D + 1)^3.

    Args:
        features: [N, D], of samples.
        reference: [M, D], of real images.
        num_subsets: how many random subsets (of `kid_subset_size`) the mean and the deviation are over.
        seed: of the subsets.

    Returns:
        Mean and standard deviation (of the population) over the subsets; (None, None) below four rows.
    """
    size = kid_subset_size(len(features), len(reference))
    if size < 2:
        return None, None
    kernels = [cubic_kernel(a, b) for a, b in ((features,) * 2, (reference,) * 2, (features, reference))]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(num_subsets):
        chosen, others = (rng.choice(len(rows), size, replace=False) for rows in (features, reference))
        pairs = ((chosen, chosen), (others, others), (chosen, others))
        values.append(unbiased_mmd2(*(k[np.ix_(i, j)] for k, (i, j) in zip(kernels, pairs, strict=True))))
    return float(np.mean(values)), float(np.std(values))


def kid_subset_size(num_features: int, num_reference: int) -> int:
    """Rows of one subset of `kid`: half of the smaller set, at most 1000, so that subsets do differ."""
    return min(MAX_SUBSET_SIZE, num_features // 2, num_reference // 2)


def cubic_kernel(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N, M], (x.y / D + 1)^3 of rows [N, D] and others [M, D], in float64."""
    return (rows.astype(np.float64) @ others.T.astype(np.float64) / rows.shape[1] + 1) ** 3


def unbiased_mmd2(within: np.ndarray, within_others: np.ndarray, between: np.ndarray) -> float:
    """Squared maximum mean discrepancy from kernels [N, N], [M, M], [N, M], without the diagonals of the first two."""
    means = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (within, within_others)]
    return float(sum(means) - 2 * between.mean())


def nearest(*, features: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest real image of each sample: a copy of a training image is at distance 0.

    Args:
        features: [N, D].
        reference: [M, D], M at least 1.

    Returns:
        [N] int64 indices into `reference` and [N] float64 Euclidean distances.
    """
    features, reference = features.astype(np.float64), reference.astype(np.float64)
    squares = (reference**2).sum(1) - 2 * features @ reference.T  # less |x|^2, which no choice depends on
    indices = squares.argmin(1)
    return indices, np.linalg.norm(features - reference[indices], axis=1)


def metrics(
    *, features: np.ndarray, noise: np.ndarray, real: np.ndarray, reference: np.ndarray
) -> dict[str, float | None]:
    """The figures of `METRICS`.

    Args:
        features: [N, D], of samples.
        noise: [*, D], of noise images.
        real: [*, D], of real images that are not in the reference.
        reference: [M, D], of the real images that all are compared with.
    """
    kids = {
        name: kid(features=rows, reference=reference)
        for name, rows in (("kid", features), ("kid_noise", noise), ("kid_real", real))
    }
    return {
        "fid": fid(features=features, reference=reference),
        "kid": kids["kid"][0],
        "kid_std": kids["kid"][1],
        "fid_noise": fid(features=noise, reference=reference),
        "kid_noise": kids["kid_noise"][0],
        "fid_real": fid(features=real, reference=reference),
        "kid_real": kids["kid_real"][0],
    }
