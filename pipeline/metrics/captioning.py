"""Captions against those that people wrote: BLEU, ROUGE-L and CIDEr, as COCO's evaluation code defines them.

COCO cuts sentences into words by Stanford's PTB tokenizer, which needs Java. `words` is a simple one in its manner, so
figures are comparable among each other and close to, not equal to, those of COCO's server; the formulas are the same.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.metrics import Metric, bootstrap

METRICS = {
    "cider": Metric(True, "CIDEr-D: agreement with the references in rare runs of 1 to 4 words, 0 to 10"),
    "bleu1": Metric(True, "share of words that are in a reference, less where captions are too short"),
    "bleu2": Metric(True, "geometric mean of the precisions of runs of 1 and 2 words, brevity penalty"),
    "bleu3": Metric(True, "geometric mean of the precisions of runs of 1 to 3 words, brevity penalty"),
    "bleu4": Metric(True, "geometric mean of the precisions of runs of 1 to 4 words, brevity penalty"),
    "rouge_l": Metric(True, "F of the longest common subsequence with the references, mean over the images"),
}
TOKENIZER = "lower case, punctuation dropped, inner hyphens kept, n't and 's 're 've 'll 'm 'd cut off"
MAX_RUN = 4
BETA = 1.2
"""Weight of recall in ROUGE-L."""
SIGMA = 6.0
"""Of the Gaussian penalty for a difference in length, in CIDEr-D."""
SMALL, TINY = 1e-9, 1e-15
"""What COCO's BLEU adds below and above the fraction line."""
Runs = Counter[tuple[str, ...]]


@dataclass
class Result:
    """Everything one evaluation gives.

    Attributes:
        metrics: the figures of `METRICS`, None without images; cider also with one image, which has no rare words.
        per_image: what `resampled` needs, a row per image.
    """

    metrics: dict[str, float | None]
    per_image: pa.Table


def words(sentence: str) -> list[str]:
    """The words of a sentence.

    >>> words("The dog's T-shirt isn't clean, is it?")
    ['the', 'dog', "'s", 't-shirt', 'is', "n't", 'clean', 'is', 'it']
    """
    parted = re.sub(r"(?i)(n't|'(?:s|re|ve|ll|m|d))\b", r" \1", sentence.lower().replace("\u2019", "'"))
    return re.findall(r"n't|'(?:s|re|ve|ll|m|d)\b|\w+(?:-\w+)*", parted)


def runs(sentence: Sequence[str]) -> Runs:
    """How often each run of 1 to 4 words occurs in a sentence."""
    return Counter(
        tuple(sentence[start : start + num])
        for num in range(1, MAX_RUN + 1)
        for start in range(len(sentence) - num + 1)
    )


def evaluate(*, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> Result:
    """Scores one caption per image.

    Args:
        candidates: N sentences.
        references: for each image, in the same order, one sentence or more.

    Raises:
        ValueError: an image has no reference; names it by its number.
    """
    for index, sentences in enumerate(references):
        if not sentences:
            raise ValueError(f"image {index} has no reference")
    pairs = list(zip([words(c) for c in candidates], [[words(s) for s in of] for of in references], strict=True))
    counted = [(runs(candidate), [runs(sentence) for sentence in of]) for candidate, of in pairs]
    correct, guessed = (np.zeros((len(pairs), MAX_RUN), np.int64) for _ in range(2))
    for index, (own, others) in enumerate(counted):
        most: Runs = Counter()
        for other in others:
            most |= other
        for run, count in own.items():
            guessed[index, len(run) - 1] += count
            correct[index, len(run) - 1] += min(count, most[run])
    # of the references' lengths the closest, the shorter of two
    closest = [min((abs(len(s) - len(candidate)), len(s)) for s in of)[1] for candidate, of in pairs]
    ciders = cider_scores([own for own, _ in counted], [others for _, others in counted])
    table = pa.table(
        {
            "num_words": pa.array([len(candidate) for candidate, _ in pairs], pa.int32()),
            "num_reference_words": pa.array(closest, pa.int32()),
            "correct": bootstrap.as_lists(correct),
            "guessed": bootstrap.as_lists(guessed),
            "rouge_l": pa.array([rouge_l(candidate, of) for candidate, of in pairs], pa.float64()),
            "cider": pa.array(ciders if len(pairs) > 1 else [None] * len(pairs), pa.float64()),
        }
    )
    return Result(bootstrap.once(resampled, table), table)


def resampled(table: pa.Table, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The figures of `METRICS` for weighted images.

    Args:
        table: N rows of `Result.per_image`.
        weights: [R, N] integers, how often each image counts.

    Returns:
        Name to [R] float64, NaN without images. BLEU is of the pooled counts; the rarity of words in cider stays that
        of the whole set.
    """
    scores = np.column_stack([table.column(name).cast(pa.float64()).to_numpy() for name in ("cider", "rouge_l")])
    lengths = np.column_stack([table.column(name).to_numpy() for name in ("num_words", "num_reference_words")])
    num = weights.sum(1, dtype=np.int64)[:, None]
    pooled = (bootstrap.as_matrix(table, name) for name in ("correct", "guessed"))
    totals, sizes, correct, guessed = bootstrap.sums(weights, scores, lengths, *pooled)
    means = np.divide(totals, num, out=np.full((len(weights), 2), np.nan), where=num > 0)
    num_words, num_reference_words = sizes.T
    ratio = (num_words + TINY) / (num_reference_words + SMALL)
    penalty = np.exp(np.minimum(0, 1 - 1 / ratio))
    products = np.cumprod((correct + TINY) / (guessed + SMALL), axis=1)
    bleu = products ** (1 / np.arange(1, MAX_RUN + 1)) * penalty[:, None]
    bleu[num[:, 0] == 0] = np.nan
    return {
        "cider": means[:, 0],
        **{f"bleu{num}": bleu[:, num - 1] for num in range(1, MAX_RUN + 1)},
        "rouge_l": means[:, 1],
    }


def rouge_l(candidate: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """F of the longest common subsequence (Lin 2004), with the best precision and the best recall of all references."""
    common = [longest_common(candidate, reference) for reference in references]
    if not max(common):
        return 0.0
    precision = max(common) / len(candidate)
    recall = max(num / len(reference) for num, reference in zip(common, references, strict=True) if reference)
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, by the bits of one number (Hyyro 2004)."""
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    whole = (1 << len(first)) - 1
    row = whole
    for word in second:
        hit = row & places.get(word, 0)
        row = (row + hit | row - hit) & whole
    return len(first) - row.bit_count()


def cider_scores(candidates: Sequence[Runs], references: Sequence[Sequence[Runs]]) -> list[float]:
    """CIDEr-D of each image (Vedantam et al. 2015, with COCO's clipping and penalty of length).

    Args:
        candidates: runs of N captions.
        references: runs of each image's references; a run is the rarer, the fewer images have it in one.
    """
    frequency: Runs = Counter()
    for others in references:
        frequency.update({run for other in others for run in other})
    log_num = np.log(max(len(candidates), 1))
    rarity = {run: log_num - np.log(count) for run, count in frequency.items()}
    scores = []
    for own, others in zip(candidates, references, strict=True):
        vector, norms = _weighted(own, rarity, log_num)
        total = 0.0
        for other in others:
            other_vector, other_norms = _weighted(other, rarity, log_num)
            shared = np.zeros(MAX_RUN)
            for run in vector.keys() & other_vector.keys():
                shared[len(run) - 1] += min(vector[run], other_vector[run]) * other_vector[run]
            products = norms * other_norms
            similarity = np.divide(shared, products, out=np.zeros(MAX_RUN), where=products > 0)
            # COCO's code takes the number of pairs of words for the length
            difference = _num_pairs(own) - _num_pairs(other)
            total += float(similarity.mean()) * np.exp(-(difference**2) / (2 * SIGMA**2))
        scores.append(10 * total / len(others))
    return scores


def _weighted(
    counts: Runs, rarity: dict[tuple[str, ...], float], log_num: float
) -> tuple[dict[tuple[str, ...], float], np.ndarray]:
    """Each run's count times its rarity, and the length of that vector for runs of 1 to 4 words, [4]."""
    vector = {run: count * rarity.get(run, log_num) for run, count in counts.items()}
    squares = np.zeros(MAX_RUN)
    for run, value in vector.items():
        squares[len(run) - 1] += value**2
    return vector, np.sqrt(squares)


def _num_pairs(counts: Runs) -> int:
    return sum(count for run, count in counts.items() if len(run) == 2)
