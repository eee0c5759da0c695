"""Two sets of images compared in a feature space: distances of distributions, neighbourhoods, copies.

Features are extracted once; everything here is made of them. The per-image table keeps of each image what it adds to
every figure, so that figures can be resampled without features; see `resampled`.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from pipeline.metrics import Metric, bootstrap, neighbours

METRICS = {
    "fid": Metric(False, "Frechet distance of Gaussians fitted to the features of samples and of real images"),
    "kid": Metric(False, "squared maximum mean discrepancy of the features, cubic kernel, unbiased: about 0 at best"),
    "precision": Metric(True, "share of samples within reach of the neighbours of some real image"),
    "recall": Metric(True, "share of real images within reach of the neighbours of some sample"),
    "density": Metric(True, "real neighbourhoods that a sample lies in, by how many a real image is expected to"),
    "coverage": Metric(True, "share of real images with a sample among their nearest neighbours"),
    "memorised": Metric(None, "share of samples nearer to a real image than any other real image is to that one"),
    "fid_noise": Metric(None, "the fid of uniform noise in place of samples, to compare with"),
    "kid_noise": Metric(None, "the kid of uniform noise in place of samples, to compare with"),
    "fid_real": Metric(None, "the fid of other real images in place of samples, the best to hope for"),
    "kid_real": Metric(None, "the kid of other real images in place of samples, the best to hope for"),
    "memorised_real": Metric(None, "memorised of other real images in place of samples, what chance alone gives"),
}
NUM_SUBSETS = 100
MAX_SUBSET_SIZE = 1000
SAMPLE, NOISE, REAL, REFERENCE = "sample", "noise", "real", "reference"
MEANS = {
    "fid": (SAMPLE, "fid"),
    "kid": (SAMPLE, "kid"),
    "precision": (SAMPLE, "precise"),
    "recall": (REFERENCE, "recalled"),
    "density": (SAMPLE, "density"),
    "coverage": (REFERENCE, "covered"),
    "memorised": (SAMPLE, "memorised"),
    "fid_noise": (NOISE, "fid"),
    "kid_noise": (NOISE, "kid"),
    "fid_real": (REAL, "fid"),
    "kid_real": (REAL, "kid"),
    "memorised_real": (REAL, "memorised"),
}
"""The kind of rows and the column of the per-image table whose mean each figure is."""


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
    parts = fid_parts(features=features, reference=reference)
    return None if parts is None else max(0.0, float(parts.mean()))


def fid_parts(*, features: np.ndarray, reference: np.ndarray) -> np.ndarray | None:
    """What each sample adds to the distance, to first order; their mean is the distance itself.

    The distance is a smooth function of the samples' weights. Its derivative is, with deviations a from the mean,
    2 (m1 - m2).a + |a|^2 N / (N - 1) - Tr C1, less that of the trace of the root: with the singular value
    decomposition U S V' of A B' in `fid`, N U^2 S - Tr S. So a mean weighted by how often each was drawn is the
    distance of a resample, linearised (Efron 1982, infinitesimal jackknife). The distance of the resample itself would
    be biased: copies fill a space worse than new samples do.

    Args:
        features: [N, D].
        reference: [M, D], fixed.

    Returns:
        [N] float64; None where either set has fewer than two rows.
    """
    num = len(features)
    if min(num, len(reference)) < 2:
        return None
    features, reference = features.astype(np.float64), reference.astype(np.float64)
    shift = features.mean(0) - reference.mean(0)
    (basis, factor), (_, other) = (_covariance_factor(rows) for rows in (features, reference))
    left, values, _ = np.linalg.svd(factor @ other.T, full_matrices=False)
    root, own_spread = values.sum(), float((factor**2).sum())
    distance = float(shift @ shift + own_spread + (other**2).sum() - 2 * root)
    deviations = features - features.mean(0)
    places = left if basis is None else basis @ left
    moved = 2 * deviations @ shift
    spread = (deviations**2).sum(1) * num / (num - 1) - own_spread
    parts: np.ndarray = distance + moved + spread - (num * places**2 @ values - root)
    return parts


def _covariance_factor(rows: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Q, or None for the identity, and [min(N, D), D] F with F'F the covariance of rows [N, D]; QF are the rows."""
    centred = (rows - rows.mean(0)) / np.sqrt(len(rows) - 1)
    return np.linalg.qr(centred) if len(centred) > centred.shape[1] else (None, centred)


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
    kernel = _kernel_of(features, reference)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(num_subsets):
        chosen, others = (rng.choice(len(rows), size, replace=False) for rows in (features, reference))
        pairs = ((0, chosen, 0, chosen), (1, others, 1, others), (0, chosen, 1, others))
        values.append(unbiased_mmd2(*(kernel(*pair) for pair in pairs)))
    return float(np.mean(values)), float(np.std(values))


def _kernel_of(features: np.ndarray, reference: np.ndarray) -> Callable[[int, np.ndarray, int, np.ndarray], np.ndarray]:
    """The kernel of chosen rows of set 0 or 1 and chosen rows of another, looked up where all of it fits in memory."""
    sets = (features, reference)
    if max(len(features), len(reference)) ** 2 > neighbours.CELLS_AT_ONCE:
        return lambda i, rows, j, others: cubic_kernel(sets[i][rows], sets[j][others])
    kernels = {(i, j): cubic_kernel(sets[i], sets[j]) for i, j in ((0, 0), (1, 1), (0, 1))}
    return lambda i, rows, j, others: kernels[i, j][np.ix_(rows, others)]


def kid_parts(*, features: np.ndarray, reference: np.ndarray) -> np.ndarray | None:
    """What each sample adds to `kid`, to first order, the reference fixed; their mean is kid.

    Twice the mean kernel of a sample with the other samples, less that with the reference, about its mean.

    Args:
        features: [N, D].
        reference: [M, D].

    Returns:
        [N] float64; None below four rows.
    """
    distance, _ = kid(features=features, reference=reference)
    if distance is None:
        return None
    within, between, alone = np.zeros(len(features)), np.zeros(len(features)), np.zeros(len(features))
    for rows in neighbours.chunks(len(features), max(len(features), len(reference))):
        within[rows] = cubic_kernel(features[rows], features).sum(1)
        between[rows] = cubic_kernel(features[rows], reference).mean(1)
        alone[rows] = ((features[rows].astype(np.float64) ** 2).sum(1) / features.shape[1] + 1) ** 3
    pull = (within - alone) / (len(features) - 1) - between
    parts: np.ndarray = distance + 2 * (pull - pull.mean())
    return parts


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


def per_image(*, features: np.ndarray, noise: np.ndarray, real: np.ndarray, reference: np.ndarray) -> pa.Table:
    """What each image adds to the figures; as `metrics` takes it.

    Returns:
        A row for each sample, noise image, other real image and reference image, by `kind`, with the columns of
        `MEANS`: null where an image adds nothing or too few images leave the figure undefined.
    """
    sets = {SAMPLE: features, NOISE: noise, REAL: real}
    near = neighbours.neighbourhoods(features=features, reference=reference)
    rows = []
    for kind, images in sets.items():
        columns = {"fid": fid_parts(features=images, reference=reference)}
        columns["kid"] = kid_parts(features=images, reference=reference)
        if kind != NOISE and len(reference) > 1:
            columns["memorised"] = neighbours.memorised(features=images, reference=reference)
        if kind == SAMPLE and near is not None:
            columns |= {"precise": near.precise, "density": near.density}
        rows.append(_rows(kind, len(images), columns))
    of_reference = {} if near is None else {"recalled": near.recalled, "covered": near.covered}
    return pa.concat_tables([*rows, _rows(REFERENCE, len(reference), of_reference)])


def _rows(kind: str, num: int, columns: Mapping[str, np.ndarray | None]) -> pa.Table:
    """The rows of one kind; columns that are not given are null."""
    kinds = {name: pa.float64() for name in ("fid", "kid", "density")}
    kinds |= {name: pa.bool_() for name in ("precise", "memorised", "recalled", "covered")}
    given = {name: values for name, values in columns.items() if values is not None}
    filled = {name: pa.array(given[name], of) if name in given else pa.nulls(num, of) for name, of in kinds.items()}
    return pa.table({"kind": pa.array([kind] * num, pa.string()), **filled})


def resampled(table: pa.Table, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of `METRICS` for weighted images.

    Each is a weighted mean: of fid and kid to first order, the reference fixed (`fid_parts`); of precision and density
    over samples, of recall and coverage over real images, the reach of every image fixed as it is.

    Args:
        table: rows of `per_image`.
        weights: [R, rows] integers, how often each image counts.

    Returns:
        Name to [R] float64, NaN where undefined.
    """
    kinds = np.array(table.column("kind").to_pylist())
    result = {}
    for name, (kind, column) in MEANS.items():
        chosen = np.flatnonzero(kinds == kind)
        values = table.column(column).take(pa.array(chosen)).cast(pa.float64()).to_numpy()
        of_kind = weights[:, chosen]
        total = of_kind.sum(1, dtype=np.int64)
        sums = bootstrap.sums(of_kind, values[:, None])[0][:, 0]
        result[name] = np.divide(sums, total, out=np.full(len(weights), np.nan), where=total > 0)
    return result


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
    return figures(per_image(features=features, noise=noise, real=real, reference=reference))


def figures(table: pa.Table) -> dict[str, float | None]:
    """The figures of `METRICS` from the rows of `per_image`."""
    # fid is at least 0, but for rounding
    return {
        name: max(0.0, value) if value is not None and name.startswith("fid") else value
        for name, value in bootstrap.once(resampled, table).items()
    }
